"""What kind of map a ControlNet was trained with: its card says so, or the name under which it was released, or nobody.

Only edges are drawn here. Of any other kind the picture must be a map already; one that does not look like it gets a
sentence of warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES: Mapping[str, str] = {
    "canny": r"canny|edges?",
    "lineart": r"line_?art(_?anime)?|anime_?line",
    "softedge": r"soft_?edge|hed|pidi(net)?|teed",
    "scribble": r"scribble|fake_?scribble|sketch",
    "mlsd": r"m_?lsd|straight_?lines?",
    "depth": r"depth|midas|zoe(_?depth)?|leres",
    "normal": r"normal(_?bae|_?map|s)?",
    "openpose": r"open_?pose|dw_?pose|pose|densepose",
    "seg": r"seg(mentation)?|ade20k|ofade20k|oneformer",
    "tile": r"tile|blur|upscale|lowres|gray|grey|recolor",
    "inpaint": r"inpaint(ing)?",
    "shuffle": r"shuffle",
    "color": r"colou?r(_?grid)?|palette",
    "ip2p": r"ip2p|pix2pix",
    "qrcode": r"qr_?(code|pattern)?(_?monster)?|brightness|illumination",
}
"""Kind -> how it is spelled in names of released files: control_v11p_sd15_canny, t2i-depth, diffusers_xl_lineart_full."""
LINES = ("canny", "lineart", "softedge", "scribble", "mlsd")
PHOTOS = ("tile", "inpaint", "shuffle", "ip2p", "qrcode")
"""These are shown the picture as it is."""
DRAWN = ("canny",)
"""What `auto` can draw."""


GENERIC = re.compile(r"(diffusion_)?(pytorch_)?(model|controlnet|weights)[._-]?(fp16|bf16)?|main|\d*")
"""Names that tell nothing: the folder's counts instead."""
SURE = ("canny", "lineart", "softedge", "scribble", "mlsd", "depth", "openpose", "normalbae")
"""Words that mean one thing even inside of another: mycanny."""


def named_kind(name: str) -> str | None:
    """The kind that a file's, folder's or Hub repository's name tells; None if it tells none, or several."""
    parts = [p for p in re.split(r"[\\/]+", name) if p not in ("", ".", "..")]
    stems = [re.sub(r"\.(safetensors|ckpt|pth|pt|bin)$", "", p, flags=re.I) for p in parts]
    while len(stems) > 1 and GENERIC.fullmatch(stems[-1].lower()):
        stems.pop()
    if not stems:
        return None
    word = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stems[-1]).lower())
    found = [k for k, pattern in NAMES.items() if re.search(rf"(?:^|_|\d)(?:{pattern})(?:_|\d|$)", word)]
    found = found or [k for k in NAMES for sure in SURE if sure in word and re.fullmatch(NAMES[k], sure)]
    return found[0] if len(found) == 1 else None


def kind_of(name: str, card: Mapping[str, Any]) -> str | None:
    """The kind of a ControlNet's maps; "none" if its card says that pictures go in as they are."""
    said = str(card.get("annotator") or "").lower()
    return (named_kind(said) or said) if said else named_kind(name)


def auto(name: str, card: Mapping[str, Any], image: Any) -> tuple[str, str]:
    """(annotator, warning or "") for a ControlNet of this name and card that is shown a PIL image with `annotator: auto`."""
    kind = kind_of(name, card)
    if kind == "none" or kind in PHOTOS or is_map(image):
        return "none", ""
    if kind in DRAWN:
        return kind, ""
    if kind is None:
        if is_flat(image):
            return "none", ""
        return "none", (
            f"nothing says what maps {name!r} was trained with, so the picture is shown as it is. If it hears edges, set "
            "annotator: canny; if this is its map already, annotator: none. A card.json beside the weights, "
            '{"annotator": "canny"}, says it for good.'
        )
    if looks_like(kind, image):
        return "none", ""
    return "none", (
        f"{name!r} hears {kind} maps, which infuse cannot draw yet, and this picture does not look like one; it is shown as it "
        f"is. Give it a {kind} map, or set annotator: none if this is one."
    )


def inverted(kind: str | None, image: Any) -> str:
    """What a ControlNet of this kind hears, if a PIL image seems to be the negative of it; else "".

    Lines are light on a dark ground. Depths are light where things are near, which in nearly all scenes is at the bottom.
    """
    pixels = _pixels(image)
    if kind in LINES or kind is None:
        is_one = is_lines(image) if kind else is_map(image)
        return "light lines on a dark ground" if is_one and pixels.mean() > 127 else ""
    if kind == "depth" and is_flat(image):
        quarter = max(len(pixels) // 4, 1)
        far_below = pixels[:quarter].mean() - pixels[-quarter:].mean() > 48
        return "depths in which near things are light" if far_below else ""
    return ""


def looks_like(kind: str, image: Any) -> bool:
    """Could a PIL image be a map of this kind already?"""
    if kind in LINES or kind == "depth":
        return is_flat(image) if kind == "depth" else is_lines(image)
    pixels = _pixels(image)
    if kind == "openpose":  # bones on black
        return bool((pixels.max(-1) < 40).mean() > 0.6)
    if kind == "normal":  # most surfaces face us: blue
        return bool(pixels[..., 2].mean() > 150 and abs(pixels[..., :2].mean() - 128) < 40)
    if kind == "seg":  # few colours, each on a surface
        colours = np.unique((pixels // 8).reshape(-1, 3), axis=0, return_counts=True)[1]
        return bool(np.sort(colours)[::-1][:40].sum() > 0.9 * colours.sum())
    return True


def is_flat(image: Any) -> bool:
    """Is it grey? Depths and lines are, photographs hardly ever."""
    return bool((np.ptp(_pixels(image), axis=-1) < 12).mean() > 0.99)


def is_map(image: Any) -> bool:
    """Does it already look like an edge map: grey, and nearly all of it black or white?"""
    pixels = _pixels(image)
    grey = (np.ptp(pixels, axis=-1) < 12).mean() > 0.99
    return bool(grey and ((pixels < 32) | (pixels > 223)).mean() > 0.9)


def is_lines(image: Any) -> bool:
    """Grey, with most of it near one end: soft lines on a ground."""
    pixels = _pixels(image)
    dark, light = (pixels < 48).mean(), (pixels > 207).mean()
    return is_flat(image) and bool(max(dark, light) > 0.5)


def _pixels(image: Any) -> np.ndarray:
    """RGB, at most 256 pixels a side: enough to tell a map by."""
    small = image.convert("RGB")
    if max(small.size) > 256:
        step = -(-max(small.size) // 256)
        return np.asarray(small, dtype=np.int16)[::step, ::step]
    return np.asarray(small, dtype=np.int16)
