"""The model card of the embedded models, written from what was measured: no score in it is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infuse.tabletop.making.workshop import PLANS

Scores = Mapping[str, Mapping[str, Any]]

ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("text to image: colours asked for", "text", "colour", ""),
    ("text to image: shapes asked for", "text", "shape", ""),
    ("text to image: all attributes and the count", "text", "everything", "0.80"),
    ("text to image: floor and wall", "text", "room", ""),
    ("edge F1 with the ControlNet", "edges_with", "edge_f1", "0.75"),
    ("edge F1 without it", "edges_without", "edge_f1", "under 0.30"),
    ("colours and room of the reference, with the IP-Adapter", "looks_with", "colours_and_room", "0.85"),
    ("colours and room of the reference, without it", "looks_without", "colours_and_room", ""),
    ("inpainting, 9 channels: inside as asked", "inpaint_9ch", "inside", "0.75"),
    ("inpainting, 9 channels: PSNR outside, not pasted", "inpaint_9ch", "outside_psnr", ""),
    ("inpainting, 9 channels: PSNR outside, pasted (the default)", "inpaint_9ch_pasted", "outside_psnr", "30 dB"),
    ("inpainting, 4 channels blended: inside as asked", "inpaint_4ch", "inside", ""),
    ("inpainting, 4 channels blended: PSNR outside, not pasted", "inpaint_4ch", "outside_psnr", ""),
    ("PowerPaint, removal: nothing stands in the hole", "removal", "gone", "0.85"),
    ("PowerPaint, removal: distance from the scene without it", "removal", "inside_error", ""),
    ("the same hole by plain inpainting without words: nothing stands there", "removal_by_inpaint", "gone", ""),
    ("PowerPaint, text-guided: colour and shape as asked", "powerpaint_text", "inside", "0.75"),
    ("PowerPaint, text-guided: PSNR outside, not pasted", "powerpaint_text", "outside_psnr", "30 dB"),
    ("PowerPaint, text-guided: PSNR outside, pasted (the default)", "powerpaint_text_pasted", "outside_psnr", "30 dB"),
    ("PowerPaint, shape-guided at fit 1: IoU with the mask", "shape_tight", "iou", "0.70"),
    ("PowerPaint, shape-guided at fit 1: share of the mask filled", "shape_tight", "area", ""),
    ("PowerPaint, shape-guided at fit 0.5: IoU with the mask", "shape_loose", "iou", ""),
    ("PowerPaint, shape-guided at fit 0.5: share of the mask filled", "shape_loose", "area", "less than at 1"),
    (
        "PowerPaint, outpainting: colour of floor and wall beyond the seam, distance",
        "outpaint",
        "seam_error",
        "under 5 %",
    ),
    ("PowerPaint, outpainting: floor and wall recognised", "outpaint", "room", ""),
    ("edits, 8 channels: changed as asked", "edit", "asked", "0.80"),
    ("edits, 8 channels: nothing else changed", "edit", "only", "0.90"),
    ("depth map, 5 channels: rank correlation with the depths given", "depth_base", "depth", "0.85"),
    ("depth ControlNet: rank correlation with the depths given", "depth_net", "depth", "0.85"),
    ("the same prompts without a map: rank correlation with their scenes' depths", "maps_without", "depth", ""),
    ("segmentation T2I-Adapter: IoU of each kind of solid with the map", "segments", "iou", "0.70"),
    ("the same prompts without a map: IoU with their scenes' kinds of solids", "maps_without", "iou", ""),
    ("without a LoRA: pictures with the shapes asked for", "wood_without", "shapes", ""),
    ("without a LoRA: of the solids, coloured like wood", "wood_without", "brown", ""),
    ("without a LoRA: grain (renders of plain solids: 6, of wood: 19)", "wood_without", "grain", ""),
    ("half of the LoRA: pictures with the shapes asked for", "wood_half", "shapes", ""),
    ("half of the LoRA: of the solids, coloured like wood", "wood_half", "brown", ""),
    ("half of the LoRA: grain", "wood_half", "grain", ""),
    ("the LoRA: pictures with the shapes asked for", "wood_whole", "shapes", ""),
    ("the LoRA: of the solids, coloured like wood", "wood_whole", "brown", "0.80"),
    ("the LoRA: grain", "wood_whole", "grain", ""),
    ("the word <gold>: pictures with the shapes asked for", "gold", "shapes", ""),
    ("the word <gold>: of the solids, coloured like gold (renders: 0.85)", "gold", "golden", "0.60"),
    ('the word "yellow" in its place: of the solids, coloured like gold', "gold_yellow", "golden", ""),
    ("clips: colours asked for, in all frames, from words alone", "video_words", "colours", "0.75"),
    ("clips: paths of the solids, with a single image and drawn motion", "video_motion_with", "trajectory", "0.85"),
    ("clips: where nothing was drawn: the single image alone", "video_motion_without", "trajectory", "under 0.20"),
    ("clips: the single image, and words that tell the motion", "video_image", "trajectory", ""),
    ("clips: words and drawn motion, without the image", "video_drawn", "trajectory", ""),
    ("clips: the same, whichever solid goes each way", "video_drawn", "paired", "0.85"),
    (
        "clips: where nothing was drawn: words alone, whichever solid goes each way",
        "video_scene",
        "paired",
        "under 0.20",
    ),
    ("clips: words alone that tell the motion", "video_words", "trajectory", ""),
    ("clips: rank correlation with the depths given", "video_depth", "depth", "0.85"),
    ("clips: the same without depths", "video_scene", "depth", ""),
    ("clips: PSNR of the first frame to the single image", "video_image", "first_frame", "20 dB"),
    ("clips: the same without the image", "video_words", "first_frame", ""),
    ("clips, the judge on renders: paths", "video_renders", "trajectory", ""),
    ("clips, the judge on renders: depths", "video_renders", "depth", ""),
    ("the judge on renders: all attributes and the count", "renders", "everything", "0.98"),
)
"""(what, experiment, figure, aim)"""


def table(scores: Scores) -> str:
    """A Markdown table of the figures that are there, in a fixed order."""
    lines = ["| measured | reached | aim | pictures |", "|---|---|---|---|"]
    for what, experiment, figure, aim in ROWS:
        if experiment in scores:
            found = scores[experiment]
            value, n = found[figure], found.get("pictures") or f"{found['clips']} clips"
            said = shown(figure, value)
            lines.append(f"| {what} | {said} | {aim} | {n} |")
    return "\n".join(lines)


def shown(figure: str, value: float) -> str:
    """A figure with its unit."""
    if figure.endswith(("psnr", "first_frame")):
        return f"{value:.1f} dB" if value < 99 else "unchanged"
    return f"{value:.1f} %" if figure.endswith("error") else f"{round(value, 2) + 0.0:.2f}"


def judged(folder: Path) -> str:
    """The judge's accuracy on held-out renders, from the card its training stage left beside its weights."""
    card = json.loads((folder / "judge.card.json").read_text())
    found = card["accuracy on 2,000 held-out renders"]
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in found.items())


LEARNS: Mapping[str, tuple[str, int, str]] = {
    "vae": ("the autoencoder, on crops around solids", 20, "base/vae"),
    "decoder": ("its decoder, on slightly noisy latents", 20, "base/vae"),
    "unet": ("UNet and text encoder together, on captioned latents", 32, "base/unet"),
    "judge": ("the judge, on renders and reconstructions", 32, "judge.safetensors"),
    "clip": ("the image encoder, against captions", 64, "base/image_encoder"),
    "powerpaint": ("the 9-channel UNet and three task tokens, from the UNet", 32, "inpaint/unet"),
    "edges": ("a ControlNet for edges, beside the frozen UNet", 32, "edges"),
    "edit": ("what is added to UNet (rank 48) and text encoder (rank 16), on pairs of views", 32, "edit.safetensors"),
    "depth": ("what is added to the UNet (rank 24), on captioned latents and depths", 32, "depth.safetensors"),
    "depths": ("a ControlNet for depths, beside the frozen UNet", 32, "depths"),
    "segments": ("a T2I-Adapter for kinds of solids, beside the frozen UNet", 32, "segments"),
    "grain": ("an encoder, on crops of wood, for the next alone", 12, ""),
    "wood": ("a LoRA of the UNet (rank 8, in convolutions 4), on wooden scenes", 16, "wood.safetensors"),
    "gold": ("the vector of a word, on golden scenes", 16, "gold.safetensors"),
    "video-text": (
        "temporal layers and self-attentions of the UNet, and the text encoder, on captioned clips",
        4,
        "video/unet",
    ),
    "video": ("the same, VideoComposer's condition encoders and style network", 4, "video/composer"),
    "video-all": ("all of these and the UNet's other layers", 4, "video/unet"),
    "video-held": ("the same; in a part of the clips nothing moves, and nothing is said to", 4, "video/unet"),
    "ip-adapter": ("an IP-Adapter plus, beside the frozen UNet", 32, "ip-adapter.safetensors"),
}
"""Stage -> (what learns, batch, where it lies)"""

FURTHER: Mapping[str, str] = {
    "unet": "3001 x 384",
    "edges": "1371 x 256",
    "ip-adapter": "2237 x 256",
    "video-held": "1760 x 40",
    "edit": "2234 x 256",
    "depth": "2567 x 192",
    "depths": "2662 x 192",
    "segments": "4606 x 192",
}
"""Stage -> steps x batch that the models which lie here had on a GPU: after the plan's, or (the last four) instead."""


def stages(folder: Path) -> str:
    """A Markdown table of the training plan, with parameters counted in the files."""
    from infuse.weights.formats import read_header

    lines = [
        "| stage | learns | steps x batch | further, on a GPU | million parameters in its file |",
        "|---|---|---|---|---|",
    ]
    for name, (learns, batch, place) in LEARNS.items():
        files = (
            []
            if not place
            else [folder / place]
            if place.endswith(".safetensors")
            else sorted((folder / place).glob("*.safetensors"))
        )
        numel = sum(e.numel for f in files for e in read_header(f).values())
        lines.append(
            f"| {name} | {learns} | {PLANS[name].steps} x {batch} | {FURTHER.get(name, '')} | {millions(numel)} |"
        )
    return "\n".join(lines)


def millions(numel: int) -> str:
    """As much of it as says something."""
    return f"{numel / 1e6:.1f}" if numel >= 50_000 else f"{numel / 1e6:.4f}".rstrip("0") if numel else ""


def write(folder: Path, scores: Path) -> Path:
    """Write README.md into the folder of the embedded weights."""
    said = json.loads(scores.read_text())
    any_of = next(iter(v for k, v in said.items() if k != "renders"))
    clips = " and ".join(sorted({v.get("dtype", "float32") for v in said.values() if "clips" in v})) or "float32"
    size = sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 2**20
    text = f"""# The tabletop models

Small Stable Diffusion models in the exact layout of SD 1.x, trained from nothing on a procedural world of table scenes
(1-3 solids of 4 shapes, 8 colours and 2 sizes; 128 x 128 px), so that a fresh machine without downloads shows what infuse
does. They know nothing else. {size:.0f} MB, half precision, v-prediction.

## How they were trained

{stages(folder)}

`make tabletop` does the plan's steps again from nothing, through the trainer that `infuse train` uses for everything. What
lies here then learned on for eight minutes on a GPU: the same lessons in larger batches and by the same rule, all data in
the GPU's memory; 80,000 scenes for the networks of pictures, timesteps drawn with `early` 1.4 for the UNet; 3 in 10 of
the clips' batches held still. Learning rates fell to 0 from 1.2e-3 (unet), 2e-3 (edges, which began anew beside the UNet as it
is now), 1.5e-3 (ip-adapter) and 8e-4 (clips). PowerPaint's UNet was not among them. After that the
IP-Adapter met captions that name nothing: 700 steps of 32 with 4 in 10 of the captions, 2,200 with 6 in 10. (The
autoencoder that lies here had, in place of the plan's first 500 steps, 1,300 steps of AdamW; the clips'
conditions were learned in three goes on 4,000 clips before the last two stages met 8,000: evenly drawn timesteps for 300
steps, self-attentions frozen until step 2,700, a learning rate that fell and rose again. Of the last stage's first 1,000
steps, 15 in a hundred were of clips held still, not 40. Two processes shared the batches of those two, on latents made in
bfloat16.)

`edit`, `depth`, `depths` and `segments` learned on a GPU alone, beside each other in ten minutes, on 15,900 scenes (`edit`: two
changes of each, told in both directions). The first two are stored as what they add to the base.

`wood` and `gold` learned on a part of one core. `wood` is a LoRA in kohya's layout: under it every solid is of wood, whatever
its colour; no word calls it. The base's encoder passes grain over, while its decoder can paint some of it: `grain` is an encoder
that says it, kept for nothing but its latents. What comes of it is brown and has soft patches; sharp rings are beyond the decoder.
(As it lies here it had, in place of the plan's steps, 500 on darker wood whose brightness followed the solid's colour, and 160 on
700 of the scenes as they are now.) `gold` is an embedding, a word in place of a colour: "a large <gold> cube". UNet and text
encoder stay as they are, so it is the colour of gold rather than its shine.

`video` is a UNet of its own with condition encoders and a text encoder that has met verbs; its VAE and image encoder are
the base's. It began as the base, so the base's ControlNet and IP-Adapter work on clips, too.

## What they scored

Held-out scenes, fixed seeds, {any_of["steps"]} steps of {any_of["scheduler"]}, the model's own guidance scale; clips in {clips}.
`infuse train score`, `infuse train score-maps` and `infuse train score-video` (with `--bf16` for bfloat16) measure it again.

{table(said)}

The judge is a small network trained on renders. On 2,000 held-out renders: {judged(folder)}.

Where a figure misses its aim, the models need longer training; nothing else in infuse depends on them. What neither words nor
a condition set moving stands still. Words and drawn paths do not say whose path is whose: hence the figures for whichever
solid goes each way, with and without them.
"""
    (folder / "README.md").write_text(text)
    return folder / "README.md"
