"""Inpainting as people know it: laws of its edges, greys, fillings, crops and continuations, on every kind of base."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from openings import FAMILIES, IMAGE, SIDE, asked, box, engine, hole, run, spoken, warned
from some import some

import tiny
from infuse import BrushNet, ControlNet, Img2Img, Inpaint, PowerPaint, RecipeError, Text
from infuse.engine.finish import together
from infuse.engine.holes import Hold, released
from infuse.ports import Latent
from infuse.solvers import parse, plan, solve
from infuse.timetable import timetable


def latents(*conditions: Any, family: str = "four", **fields: Any) -> torch.Tensor:
    return engine(family).run(asked(*conditions, **fields)).latents[0]


def letter(*conditions: Any, family: str = "four", **fields: Any) -> str:
    with pytest.raises(RecipeError) as error:
        engine(family).check(asked(*conditions, **fields))
    return str(error.value)


KINDS: dict[str, Any] = {
    "invert": lambda: hole(box(4, 28), invert=True),
    "blur": lambda: hole(box(10, 22), mask_blur=2),
    "soft": lambda: hole(box(10, 22), mask_blur=2, soft=True),
    "fill": lambda: hole(box(10, 22), content="fill", strength=0.5),
    "noise": lambda: hole(box(10, 22), content="noise", strength=0.5),
    "nothing": lambda: hole(box(10, 22), content="nothing", strength=0.5),
    "original colours": lambda: hole(box(10, 22), match_colors="original"),
    "border colours": lambda: hole(box(10, 22), match_colors=True),
    "brushnet": lambda: BrushNet(model="brush", image=IMAGE, mask=box(10, 22), mask_blur=2),
    "powerpaint": lambda: PowerPaint(model="ppt", image=IMAGE, mask=box(10, 22), mask_blur=2),
}


def free(kind: str) -> np.ndarray:
    """Where pixels may change."""
    drawn = box(4, 28) if kind == "invert" else box(10, 22)
    drawn = 255 - drawn if kind == "invert" else drawn
    if kind in ("blur", "soft", "brushnet", "powerpaint"):
        grown = np.zeros_like(drawn)
        grown[3:29, 5:27] = 255  # 2.5 sigma
        return grown > 0
    return drawn > 0


@pytest.mark.parametrize(
    ("kind", "family"),
    some(
        [(k, f) for k in KINDS for f in FAMILIES if f == "four" or k not in ("brushnet", "powerpaint")],
        quick=[(k, "four") for k in ("soft", "noise")],
    ),
)
def test_what_is_to_stay_stays_to_the_bit(kind: str, family: str) -> None:
    made, open_ = run(KINDS[kind](), family=family), free(kind)
    assert (made[~open_] == IMAGE[~open_]).all()
    core = np.zeros_like(open_)
    core[:2] = kind == "invert"
    core[13:19, 13:19] = kind != "invert"
    assert (made[core] != IMAGE[core]).mean() > 0.5, "and the hole is repainted"


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(KINDS, quick=["soft"]))
def test_weight_0_is_absence(kind: str) -> None:
    silent = KINDS[kind]().model_copy(update={"weight": 0.0})
    if kind == "powerpaint":
        silent = silent.model_copy(update={"model": "ppt"})
    size = {"width": SIDE, "height": SIDE}
    assert (run(silent, **size) == run(**size)).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_order_changes_nothing(kind: str) -> None:
    others = (Text(prompt="a sphere", weight=0.5), ControlNet(model="canny", image=IMAGE), hole(box(2, 6)))
    there, back = (run(*c) for c in ((KINDS[kind](), *others), (*others[::-1], KINDS[kind]())))
    assert (there == back).all()


def test_defaults_change_nothing() -> None:
    """Fields at their defaults, said or not: one digest, one result."""
    plain = hole(A := box(10, 22))
    said = hole(
        A, invert=False, mask_blur=0, area="whole", content="original", soft=False, mask_weight=1, match_colors=False
    )
    assert asked(plain).digest == asked(said).digest
    assert engine().check(asked(plain)).after is None


@pytest.mark.slow
def test_an_inverted_mask_is_the_other_mask() -> None:
    mask = box(10, 22)
    assert (run(hole(mask, invert=True)) == run(hole(255 - mask))).all()


# ── edges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_blurred_edge_is_twice_the_blurred_hole() -> None:
    from PIL import Image

    from infuse.media.soften import softened

    mask = box(12, 32, 0, 32)
    (said,) = spoken(hole(mask, mask_blur=2))
    edge = said.on.latent[0].opening[0].numpy() * 255
    want = np.minimum(2 * np.asarray(softened(Image.fromarray(mask), 2), dtype=int), 255)
    assert np.abs(edge - want).max() < 1e-4
    assert edge[16, 12] == 255 and edge[16, 6] == 0 and 0 < edge[16, 10] < 255
    (sharp,) = spoken(hole(mask))
    assert torch.equal(said.on.latent[0].hole, sharp.on.latent[0].hole), "what the network repaints is what was drawn"


def test_edges_of_several_holes() -> None:
    sharp, other, soft = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.25)
    sharp[..., :4], other[..., 4:6] = 1, 1
    alpha = together([sharp, soft, other])
    assert alpha[0, 4].tolist() == [1, 1, 1, 1, 1, 1, 0.25, 0.25]
    assert torch.equal(together([sharp, other]), torch.maximum(sharp, other))


# ── greys that say when ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grey_place_is_free_for_its_share_of_the_run() -> None:
    grey = torch.tensor([0, 0.25, 0.5, 1])
    said = [released(grey, i / 4).tolist() for i in range(5)]
    assert said == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize("strength", [None, 0.6])
def test_greys_are_differential_diffusion(strength: float | None) -> None:
    """Against the loop as it was published: before call i, what has M > i / T is the noised original; all is free in the end."""
    g = torch.Generator().manual_seed(0)
    z, n = (torch.randn(4, 6, 6, generator=g, dtype=torch.float64) for _ in range(2))
    grey = torch.randint(1, 256, (1, 6, 6), generator=g) / 255
    said = plan(parse("DDIM", "DDIM"), tiny.SCHEDULE, 10, strength)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * (0.5 + t / 2000)

    run, times = said.fresh(), said.timesteps
    entry = Latent(keep=tiny_posterior(z), hole=grey.double())
    table = timetable({"hole": hole(box(2, 6)), "prompt": Text(prompt="")}, len(times), 1.0, {}, 0.0, False)
    hold = Hold(run.scheduler, [("hole", entry)], z, n, table)
    solver = solve(run, run.scheduler.add_noise(z[None], n[None], times[:1])[0], g, hold)
    query = next(solver)
    for i in range(len(times)):
        hold.i = i
        try:
            query = solver.send(network(*query))
        except StopIteration as done:
            made = done.value

    ddim: Any = said.fresh().scheduler
    assert isinstance(ddim, DDIMScheduler)
    x = torch.zeros_like(z)
    for i, t in enumerate(times):
        keep = ((1 - grey) > i / len(times)).double()
        noised = ddim.add_noise(z[None], n[None], t[None])[0]
        x = noised if i == 0 else keep * noised + (1 - keep) * x
        x = ddim.step(network(x, t), t, x).prev_sample
    assert torch.allclose(made, x, atol=1e-12)


def tiny_posterior(z: torch.Tensor) -> Any:
    from infuse.ports import Posterior

    return Posterior(z, torch.zeros_like(z))


@pytest.mark.slow
def test_a_darker_grey_changes_less() -> None:
    def far(grey: int) -> float:
        mask = np.where(box(8, 24) > 0, grey, 0).astype(np.uint8)
        made = latents(hole(mask, soft=True, paste=False), steps=4)
        return float((made - known).abs()[:, 4:12, 4:12].mean())

    known = latents(hole(box(0, 1, 0, 1), soft=True, paste=False), steps=4)
    a, b, c, d = (far(grey) for grey in (20, 90, 180, 255))
    assert 0 < a < 0.1 * b and b < 0.7 * c and c < 0.7 * d, f"free for 1, 2, 3 and 4 of 4 steps: {a, b, c, d}"


@pytest.mark.slow
def test_a_network_of_nine_channels_is_shown_the_greys() -> None:
    mask = np.where(box(8, 24) > 0, 128, 0).astype(np.uint8)
    (said,) = spoken(hole(mask, soft=True), family="nine")
    shown = next(c.value for c in said.on.channels if c.slot == "mask")
    assert float(shown.max()) == pytest.approx(128 / 255) and said.on.latent[0].keep is not None


def test_a_soft_mask_without_greys_is_said() -> None:
    assert "soft: the mask is black and white only" in warned(hole(box(2, 9), soft=True))
    assert "soft" not in warned(hole(box(2, 9), soft=True, mask_blur=3))
    assert "black everywhere" in letter(hole(np.zeros((SIDE, SIDE), np.uint8), soft=True))


# ── what a hole starts from ─────────────────────────────────────────────────────────────────────────────────────────


def started(content: str, seed: int = 0) -> torch.Tensor:
    (said,) = spoken(hole(box(8, 24), content=content, strength=0.5))
    return said.on.latent[0].start.draw(torch.Generator().manual_seed(seed))


def test_contents_differ_in_the_hole_and_nowhere_else() -> None:
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:12, 4:12] = True
    fill, noise, nothing, original = (started(c) for c in ("fill", "noise", "nothing", "original"))
    assert torch.equal(nothing[:, inside], torch.zeros_like(nothing[:, inside]))
    assert torch.equal(nothing[:, ~inside], fill[:, ~inside]) and torch.equal(noise[:, ~inside], fill[:, ~inside])
    assert 0.8 < float(noise[:, inside].std()) < 1.2
    assert not torch.equal(noise, started("noise", 1)) and torch.equal(noise, started("noise"))
    assert float((fill - original)[:, inside].abs().mean()) > float((fill - original)[:, ~inside].abs().mean())


def test_a_content_that_nobody_sees_is_said() -> None:
    assert "content: strength 1 starts the hole from pure noise" in warned(hole(box(2, 9), content="fill"))
    for fields in ({"strength": 0.5}, {"soft": True, "mask_blur": 2}):
        assert "content" not in warned(hole(box(2, 9), content="fill", **fields))


@pytest.mark.parametrize("family", some(("nine", "sdxl nine"), quick=["nine"]))
def test_a_mask_s_weight_shows_what_was_there(family: str) -> None:
    def shown(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        (said,) = spoken(hole(box(8, 24), mask_weight=weight), family=family)
        by_slot = {c.slot: c.value for c in said.on.channels}
        return by_slot["mask"], by_slot["masked_image"].mean

    (mask, none), (same, half), (_, all_) = shown(1.0), shown(0.5), shown(0.0)
    assert torch.equal(mask, same)
    kit = spoken(hole(box(8, 24), strength=0.5), family=family)[0].on.latent[0].start.mean
    assert torch.equal(all_, kit), "all of it: the picture itself"
    assert float((half - none).abs().max()) > 1e-3 and float((half - all_).abs().max()) > 1e-3
    assert "mask_weight: only a network of nine channels" in letter(hole(box(2, 9), mask_weight=0.5))


def test_letters() -> None:
    grown = {"image": IMAGE}
    assert "mask: inpaint needs one" in letter(hole(**grown))
    assert "overlap: only a picture that is continued" in letter(hole(box(2, 9), overlap=3))
    assert "horizontal: it comes with pixels per side" in letter(hole(horizontal=2, left=3, **grown))
    assert "overlap: 40 px from each side leave nothing" in letter(hole(left=3, right=3, overlap=40, **grown))
    assert "continues the picture otherwise" in letter(hole(left=3, **grown), hole(right=3, **grown))
    assert "makes the picture larger" in letter(hole(left=3, **grown), BrushNet(model="brush", mask=box(2, 9), **grown))
    assert "a picture that is continued is made as a whole" in letter(
        PowerPaint(model="ppt", task="outpaint", left=8, area="masked", **grown)
    )
    assert "no white pixel" in letter(hole(np.zeros((SIDE, SIDE), np.uint8), area="masked"))
    assert "starts from a picture" in letter(hole(box(2, 9), soft=True, mask_blur=2), Img2Img(**grown))
    for field, value in (("mask_blur", -1), ("padding", -1), ("mask_weight", 2), ("content", "gray"), ("area", "hole")):
        with pytest.raises(RecipeError, match=f"^{field}: "):
            hole(box(2, 9), **{field: value})


def test_a_scaled_mask_is_said_beside_all_of_these() -> None:
    small = np.full((16, 16), 255, np.uint8)
    for fields in ({"invert": True, "mask": 255 - small}, {"left": 4}, {"area": "masked"}):
        c = Inpaint(**({"image": IMAGE, "mask": small} | fields))
        text = [w for w in engine().check(asked(c)).warnings if "16 x 16 px is scaled to its image of 32 x 32 px" in w]
        assert len(text) == 1, fields


def test_the_webui_s_words() -> None:
    theirs = Inpaint(
        image=IMAGE, mask=box(2, 9), inpainting_fill=2, inpainting_mask_invert=1, inpaint_full_res=True,
        inpaint_full_res_padding=16, denoising_strength=0.6, inpainting_mask_weight=0.5, mask_blur=4,
    )  # fmt: skip  # pyright: ignore[reportCallIssue]
    ours = hole(
        box(2, 9), content="noise", invert=True, area="masked", padding=16, strength=0.6, mask_weight=0.5, mask_blur=4
    )
    assert theirs == ours
    words = Inpaint(
        image=IMAGE,
        mask=box(2, 9),
        masked_content="latent nothing",
        inpaint_area="Only masked",
        mask_mode="Inpaint not masked",
    )  # pyright: ignore[reportCallIssue]
    assert (words.content, words.area, words.invert) == ("nothing", "masked", True)
