"""What the models of edits and maps learn from: pairs of views with the words between them, depths, kinds of solids.

Two are bases that learn by low-rank differences to the first, two stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infuse.encoders.annotators.relative_depth import relative
from infuse.encoders.kit import Base
from infuse.encoders.t2i import T2IAdapter
from infuse.encoders.t2i_kinds import anatomy, fits
from infuse.network.attention import install
from infuse.ports import Channel, Features, Ports, Residual, Sides
from infuse.tabletop.dataset import CHUNK, TRAIN, Dataset, array, drawn
from infuse.tabletop.edits import change_at, darkened, edit
from infuse.tabletop.making.models import HINT, UNET, caption, latents_of
from infuse.tabletop.maps import kinds, painted
from infuse.tabletop.render import render
from infuse.training.low_rank import learn_difference, widened
from infuse.training.objectives_diffusion import Captions, Denoise, Drop, freeze

EDIT_RANK, WORDS_RANK, DEPTH_RANK = 48, 16, 24
SIZE = (128, 128)
SEGMENTS = {"in_channels": 3, "channels": list(UNET["block_out_channels"]), "num_res_blocks": 2, "downscale_factor": 8}
"""The T2I-Adapter, as diffusers' class is told."""
STRETCHED = 0.4
"""Of the depth maps that a ControlNet is shown: between their own least and largest, as other people's maps are."""


def edit_objective(base: Base, first: Path, second: Path, batch_size: int = 32) -> Denoise:
    """Eight channels, and the words that lead from one view to the other. UNet and text encoder learn by their differences.

    `first` and `second`: latents of scenes, and of what each became. Every pair is told in both directions.
    """
    wide = _wide(base, "tabletop-edit", 8, EDIT_RANK)
    text = wide.texts.models[0]
    learn_difference(text, WORDS_RANK)
    views = [latents_of(path, 1.0) for path in (first, second)]
    count = min(n for _, n in views)
    scale = wide.vae.config.scaling_factor

    def seen(picks: np.ndarray, after: bool) -> Tensor:
        """Latents of the views before or after: even picks lead forth, odd ones back."""
        later = (picks % 2 == 0) == after
        both = [picked(picks // 2) for picked, _ in views]
        return torch.where(torch.from_numpy(later)[:, None, None, None], both[1], both[0])

    def before(picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        return [Sides(Ports(channels=(Channel("image", z),))) for z in seen(picks, False)]  # unscaled, as released ones

    def said(pick: int, rng: np.random.Generator) -> str:
        one, other = change_at(TRAIN, pick // 2)
        return (edit(other, one, rng) if pick % 2 else edit(one, other, rng)).text

    # each falls silent by itself and, in one example of a hundred, with the other (Brooks et al. 2023, sec. 3.2.1)
    conditions = [Drop(Captions(wide, said, learn=True), 0.1), Drop(before, 0.1)]
    learn = {"unet": wide.network.unet, "text_encoder": text}
    return Denoise(
        wide, lambda p: seen(p, True) * scale, 2 * count, conditions, learn, batch_size=batch_size, early=1.3
    )


def depth_objective(base: Base, data: Dataset, latents: Path, batch_size: int = 32) -> Denoise:
    """A fifth channel, stretched between -1 and 1 as the condition says it."""
    wide = _wide(base, "tabletop-depth", 5, DEPTH_RANK)
    grid = SIZE[1] // wide.spec.vae_factor, SIZE[0] // wide.spec.vae_factor

    def depths(picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        raw = [torch.from_numpy(np.array(data.inverse_depth[i]))[None] / 255 for i in picks]
        return [Sides(Ports(channels=(Channel("depth", relative(r, grid)[0]),))) for r in raw]

    return _pictures(wide, data, latents, depths, {"unet": wide.network.unet}, batch_size, words=0.15, silent=0.08)


def depths_objective(base: Base, data: Dataset, latents: Path, batch_size: int = 32) -> Denoise:
    """A ControlNet for depth maps beside the frozen base."""
    from diffusers import ControlNetModel

    freeze(base)
    branch = ControlNetModel.from_unet(base.network.unet, conditioning_embedding_out_channels=HINT)  # type: ignore[arg-type]
    install(branch)

    def depths(picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        out = []
        for i in picks:
            grey = np.array(data.inverse_depth[i], np.float32) / 255
            if rng.random() < STRETCHED:
                grey = (grey - grey.min()) / (grey.max() - grey.min())
            out.append(Sides.both(Ports(residuals=(Residual(branch, torch.from_numpy(grey).expand(3, -1, -1)),))))
        return out

    return _pictures(base, data, latents, depths, {"controlnet": branch}, batch_size, words=0.3)


def segments_objective(base: Base, data: Dataset, latents: Path, batch_size: int = 32) -> Denoise:
    """A T2I-Adapter for maps of the kinds of solids beside the frozen base."""
    import diffusers

    freeze(base)
    fresh: Any = diffusers.T2IAdapter(**SEGMENTS)
    adapter = T2IAdapter.load(fresh.state_dict()).train()
    _, levels = fits(
        anatomy({k: tuple(t.shape) for k, t in fresh.state_dict().items()}, "segments"), base.spec, "segments"
    )

    def maps(picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        shown = np.stack([painted(kinds(data.scene(int(i)), np.asarray(data.segments[i]))) for i in picks])
        hints = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
        answers = zip(*adapter(hints, levels, base.spec.vae_factor), strict=True)
        return [Sides.both(Ports(residuals=(Features(tuple(each)),))) for each in answers]

    return _pictures(base, data, latents, maps, {"adapter": adapter}, batch_size, words=0.3, early=2.0)


def _wide(base: Base, name: str, channels: int, rank: int) -> Base:
    wide = widened(base, name, channels)
    freeze(wide)
    learn_difference(wide.network.unet, rank, ("conv_in.weight", "conv_out.weight"))
    return wide


def _pictures(
    base: Base, data: Dataset, latents: Path, source: Any, learn: Any, batch_size: int, words: float, silent: float = 0.0,
    early: float = 1.5,
) -> Denoise:  # fmt: skip
    """Captioned pictures and one more condition; `words`: how often the caption falls silent."""
    picked, count = latents_of(latents, base.vae.config.scaling_factor)
    conditions = [Drop(Captions(base, caption), words), Drop(source, silent)]
    return Denoise(base, picked, min(count, len(data)), conditions, learn, batch_size=batch_size, early=early)


def changed_views(count: int, root: Path, workers: int = 0) -> np.ndarray:
    """(count h w 3) uint8: what each of the first training scenes became (`edits.change_at`). Goes on where it was cut off."""
    folder = root / "tabletop" / f"changed-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    rgb = array(folder, "rgb", (count, *SIZE[::-1], 3))
    done = array(folder, "done", (-(-count // CHUNK),))
    draw: Callable[..., int] = _draw_chunk
    for chunk in drawn([(folder, TRAIN, int(c)) for c in np.flatnonzero(done == 0)], workers, draw):
        done[chunk] = 1
    return rgb


def _draw_chunk(job: tuple[Path, int, int]) -> int:
    folder, seed, chunk = job
    rgb = np.lib.format.open_memmap(folder / "rgb.npy", mode="r+")
    for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(rgb))):
        view = change_at(seed, index)[1]
        picture = render(view.scene, SIZE).rgb
        rgb[index] = darkened(picture) if view.dark else picture
    rgb.flush()
    return chunk
