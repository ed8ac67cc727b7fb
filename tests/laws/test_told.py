"""What is told beside the latent adds to everything else: any order, any weight, alone or among others; or it is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import told
from some import some

import mix
import tiny
from infuse import ControlNet, Depth, Edit, Img2Img, Inpaint, IPAdapter, Recipe, Text, UnCLIP, Upscale
from infuse.conditions import Condition
from infuse.engine.engine import Engine
from infuse.errors import InfuseError, RecipeError

RAMP = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))
SAID: Mapping[str, Callable[..., Condition]] = {
    "depth": lambda **f: Depth(image=RAMP, **f),
    "edit": lambda **f: Edit(image=mix.picture(1), image_guidance_scale=1.8, **f),
    "upscale": lambda **f: Upscale(image=mix.picture(2, 8), noise_level=50, **f),
    "unclip": lambda **f: UnCLIP(image=(mix.picture(3), mix.picture(4)), weights=(3, 1), noise_level=100, **f),
}
BASES = [("depth", "sd1"), ("depth", "sdxl"), ("edit", "sd2"), ("edit", "sdxl"), ("upscale", "sd1"), ("upscale", "sd2"), ("unclip", "sd2")]  # fmt: skip


def engine(kind: str, family: str = "sd1", dtype: torch.dtype = torch.float64, **options: Any) -> Engine:
    return tiny.engine(told.base(kind, family, dtype), told.modules(kind, family), **options)


def asked(*conditions: Condition, **fields: Any) -> Recipe:
    return told.asked(*conditions, **{"width": 32, "height": 32, "steps": 2, "scheduler": "DDIM", **fields})


def others() -> tuple[Condition, ...]:
    """A branch with a window and a curve, a picture as a prompt with a region, words with a region."""
    return (
        ControlNet(model="control0", image=mix.picture(5), weight={0: 1.0, 1: 0.3}, end=0.75),
        IPAdapter(model="plain", image=mix.picture(6), weight=0.6, mask=mix.half()),
        Text(prompt="a sphere", mask=mix.half(), weight=0.7),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), some(BASES, quick=[("upscale", "sd1")]))
def test_it_adds_to_everything_else_in_any_order(kind: str, family: str) -> None:
    own, made = SAID[kind](), engine(kind, family)
    first = made.run(asked(own, *others())).latents
    last = made.run(asked(*reversed(others()), own)).latents
    torch.testing.assert_close(first, last, rtol=0, atol=1e-10)
    if kind != "upscale":
        with pytest.warns(match="nobody gives it"):
            assert not torch.allclose(made.run(asked(*others())).latents, first, atol=1e-3), "it is heard"


def nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), [b for b in BASES if b[0] != "upscale"])
@pytest.mark.filterwarnings("ignore::infuse.errors.InfuseWarning")
def test_a_weight_of_nothing_is_nothing(kind: str, family: str) -> None:
    made, beside = engine(kind, family, torch.float32), others()
    silent = made.run(asked(SAID[kind](weight=0.0), *beside)).latents
    assert torch.equal(silent, made.run(asked(*beside)).latents)
    late = made.run(asked(SAID[kind](start=0.5), *beside)).latents
    assert not torch.equal(late, silent) and not torch.equal(late, made.run(asked(SAID[kind](), *beside)).latents)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "family"), some(BASES, quick=[("upscale", "sd1")]))
def test_alone_equals_together(kind: str, family: str) -> None:
    """Two that say other things at other times, and where it need not be said one that says nothing, in the same calls."""
    made = engine(kind, family)
    recipes = [asked(SAID[kind](), *others()), asked(SAID[kind](weight=0.5, start=0.5), seed=3, guidance=2.0)]
    recipes += (
        [asked(seed=4)] if kind != "upscale" else [asked(Upscale(image=mix.picture(7, 8), noise_level=3), seed=4)]
    )
    with pytest.warns() if kind != "upscale" else nothing():
        alone = [made.run(r).latents for r in recipes]
    tickets = [made.submit(r) for r in recipes]
    for ticket, latents in zip(tickets, alone, strict=True):
        torch.testing.assert_close(ticket.result().latents, latents, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["depth", "edit"])
def test_a_region_of_it_is_heard_there(kind: str) -> None:
    """Half of it beside the other half's ground: neither all of it nor nothing, and what the two halves say is not the same."""
    made = engine(kind)
    left, right = (SAID[kind](mask=m) for m in (255 - mix.half(), mix.half()))
    both = [made.run(asked(c)).latents for c in (SAID[kind](), left, right)]
    assert all(not torch.allclose(both[i], both[j], atol=1e-3) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.slow
def test_depth_beside_a_hole_and_a_start_keeps_what_lies_in_no_hole() -> None:
    made = engine("depth")
    own = Depth(image=RAMP), Inpaint(image=mix.picture(1), mask=mix.half(), strength=0.8)
    a, b = (made.run(asked(*own, seed=seed)) for seed in (1, 2))
    kept, free = (slice(None), slice(0, 12)), (slice(None), slice(20, 32))
    assert np.array_equal(np.asarray(a.images[0])[kept], np.asarray(b.images[0])[kept])
    assert not np.array_equal(np.asarray(a.images[0])[free], np.asarray(b.images[0])[free])
    assert made.run(asked(Depth(image=RAMP), Img2Img(image=mix.picture(1)))).latents.isfinite().all()


@pytest.mark.slow
def test_guidance_has_a_term_for_the_picture_while_it_is_heard() -> None:
    edit = engine("edit", dtype=torch.float32)
    table = edit.check(asked(SAID["edit"](end=0.5), guidance=5.0, steps=4)).timetable
    assert table.rows == (3, 3, 2, 2)
    assert [t.weight for t in table[0].guidance.terms] == pytest.approx([1 - 1.8, 1.8 - 5, 5])
    plain = edit.check(asked(Edit(image=mix.picture(1), image_guidance_scale=1), guidance=5.0)).timetable
    assert plain.rows == (2, 2), "a scale of 1 asks for no term of its own"


@pytest.mark.slow
def test_the_noise_of_an_upscaler_is_told_in_whole_numbers_in_half_precision() -> None:
    made = engine("upscale", dtype=torch.bfloat16)
    with torch.no_grad():
        job: list[int] = []
        embedding = made.store.base("tiny").network.unet.class_embedding
        handle = embedding.register_forward_hook(lambda _, args, out: job.extend(args[0].tolist()))
        made.run(asked(Upscale(image=mix.picture(2, 8), noise_level=259, weight={0: 1, 1: 0.5}), steps=2))
        handle.remove()
    assert set(job) == {259}


@pytest.mark.slow
def test_a_blend_of_pictures_is_told_once_and_two_conditions_are_summed() -> None:
    made = engine("unclip", "sd2")
    one, two = (UnCLIP(image=mix.picture(i)) for i in (3, 4))
    base = made.store.base("tiny")
    from infuse.encoders.kit import Kit

    kit = Kit(base, (32, 32), made.store)
    a, b = (kit.look(c.image[0], None, False) for c in (one, two))
    blend = UnCLIP(image=(*one.image, *two.image), weights=(1, 3)).encode(kit).on.embedding[0].value
    want = kit.noised((a + 3 * b) / 4, 0)
    torch.testing.assert_close(blend.mean, want.mean)  # type: ignore[union-attr]
    torch.testing.assert_close(blend.draw(None)[24:], want.draw(None)[24:])  # type: ignore[union-attr]
    assert made.run(asked(one, two)).latents.isfinite().all()


@pytest.mark.slow
def test_a_picture_s_own_size_decides_where_none_is_named() -> None:
    open_ = {"width": None, "height": None}
    assert engine("upscale").check(asked(Upscale(image=mix.picture(2, 12)), **open_)).size == (48, 48)
    assert engine("edit").check(asked(Edit(image=np.zeros((24, 40, 3), np.uint8)), **open_)).size == (40, 24)
    assert engine("depth").check(
        asked(Depth(image=RAMP), Img2Img(image=np.zeros((24, 40, 3), np.uint8)), **open_)
    ).size == (40, 24)


LETTERS: dict[str, tuple[str, Callable[[], Any], str, tuple[str, ...]]] = {
    "depth on a base of four": ("unclip", lambda: SAID["depth"](), "conditions.0", ("no input channel for depth", "Use a depth ControlNet")),
    "edit on a base of four": ("unclip", lambda: SAID["edit"](), "conditions.0", ("no input channels for a picture", "InstructPix2Pix base")),
    "upscale on a base of five": ("depth", lambda: SAID["upscale"](), "conditions.0", ("no input channels for a small picture", "x4 upscaler")),
    "unclip on a base of five": ("depth", lambda: SAID["unclip"](), "conditions.0", ("no embedding of pictures", "Use an IP-Adapter")),
    "two depths": ("depth", lambda: (SAID["depth"](), SAID["depth"]()), "conditions.1", ("and so does conditions.0", "Keep one")),
    "a depth of one grey": ("depth", lambda: Depth(image=np.full((32, 32), 7, np.uint8)), "conditions.0.image", ("same grey", "depth map")),
    "a depth of weight 2": ("depth", lambda: SAID["depth"](weight=2.0), "conditions.0.weight", ("0 (not at all) to 1",)),
    "a photo and no MiDaS": ("depth", lambda: Depth(image=mix.picture(1), annotator="auto"), "conditions.0.annotator_model", ("midas_v3_dpt_large.pth", "INFUSE_MODELS")),
    "a model and no annotator": ("depth", lambda: Depth(image=RAMP, annotator_model="x.pth"), "conditions.0.annotator_model", ("annotator: midas",)),
    "an edit scale below 1": ("edit", lambda: Edit(image=mix.picture(1), image_guidance_scale=0.9), "conditions.0.image_guidance_scale", ("0.9", "1 or more")),
    "an edit on one side": ("edit", lambda: SAID["edit"](applies_to="prompt"), "conditions.0.applies_to", ("edit has no applies_to",)),
    "a level of 351": ("upscale", lambda: Upscale(image=mix.picture(2, 8), noise_level=351), "conditions.0.noise_level", ("0 and 350",)),
    "a level below 0": ("unclip", lambda: UnCLIP(image=mix.picture(2), noise_level=-1), "conditions.0.noise_level", ("between 0", "999")),
    "an upscaler and no picture": ("upscale", lambda: (), "conditions", ("an upscaler", "kind: upscale")),
    "an upscaler, silent": ("upscale", lambda: SAID["upscale"](weight=0.0), "conditions", ("an upscaler", "kind: upscale")),
    "one weight for two pictures": ("unclip", lambda: UnCLIP(image=(mix.picture(2), mix.picture(3)), weights=(1,)), "conditions.0.weights", ("1 weights for 2",)),
    "weights of nothing": ("unclip", lambda: UnCLIP(image=mix.picture(2), weights=(0,)), "conditions.0.weights", ("above 0",)),
    "a region of a vector": ("unclip", lambda: SAID["unclip"](mask=mix.half()), "conditions.0.mask", ("unclip has no mask",)),
}  # fmt: skip


@pytest.mark.parametrize("case", some(LETTERS, quick=list(LETTERS)[::3]))
def test_what_makes_no_sense_is_a_letter(case: str) -> None:
    kind, conditions, field, words = LETTERS[case]
    said = conditions()
    with pytest.raises(InfuseError) as caught:
        engine(kind, dtype=torch.float32).check(asked(*(said if isinstance(said, tuple) else (said,))))
    assert caught.value.field == field and all(w in caught.value.message for w in words), caught.value


@pytest.mark.slow
def test_what_is_hardly_meant_is_said() -> None:
    def warned(kind: str, *conditions: Condition, **fields: Any) -> str:
        return " ".join(engine(kind, dtype=torch.float32).check(asked(*conditions, **fields)).warnings)

    assert "a depth2img model" in warned("depth") and "{kind: depth" in warned("depth")
    assert "so it makes a new picture" in warned("edit") and "hears the prompt alone" in warned(
        "unclip", SAID["unclip"](weight=0)
    )
    assert "it has colours" in warned("depth", Depth(image=mix.picture(1)))
    dark_below = np.tile(np.linspace(255, 0, 32, dtype=np.uint8)[:, None], (1, 32))
    assert "invert: true" in warned("depth", Depth(image=dark_below)) and "invert" not in warned(
        "depth", Depth(image=dark_below, invert=True)
    )
    assert "conditions.0.image_guidance_scale: it changes nothing" in warned("edit", SAID["edit"](), guidance=1.0)
    assert "the small picture" in warned("upscale", Upscale(image=mix.picture(2, 24)[:12]))


@pytest.mark.slow
def test_a_flat_depth_is_the_middle_and_noted() -> None:
    """A single other pixel is lost on the latent's grid: what is left of it must not become depth."""
    image = np.full((512, 512), 120, np.uint8)
    image[0, 511] = 121
    with pytest.warns(match="the same everywhere on the latent's grid"):
        made = engine("depth").run(asked(Depth(image=image)))
    plain = engine("depth")
    with pytest.warns(match="nobody gives it a depth map"):
        assert torch.equal(made.latents, plain.run(asked()).latents)


def test_a_photo_is_measured_by_midas(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 384 pixels of its shorter side, in the network's own steps; the answer is stretched to -1..1."""
    from infuse.encoders.annotators.relative_depth import measured, relative

    class Net(torch.nn.Module):
        step = 32

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.seen = torch.nn.Parameter(torch.ones(1)), ()

        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            self.seen = tuple(rgb.shape)
            return 30 * rgb.mean(1, keepdim=True)

    net = Net()
    rgb = torch.linspace(0, 1, 96).expand(3, 64, 96)
    depth, flat = relative(measured(rgb, net), (8, 12))
    assert net.seen == (1, 3, 384, 576) and depth.shape == (1, 8, 12) and not flat
    assert float(depth.min()) == -1 and float(depth.max()) == 1 and bool((depth.diff(dim=-1) > 0).all())


@pytest.mark.slow
def test_a_photo_goes_through_midas_s_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infuse.encoders.annotators import files, midas

    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path))
    eye = midas.DPT(midas.Sizes(grid=3, patch=96, dim=32, layers=4, heads=16, necks=(8, 8, 8, 8), fusion=8))
    for p in eye.parameters():
        torch.nn.init.normal_(p, mean=0.02, std=0.1)
    torch.save(eye.state_dict(), tmp_path / files.MIDAS)
    made, photo = engine("depth"), Depth(image=mix.picture(1), annotator="auto")
    assert made.check(asked(photo)).routes[-1][2].memory == 4 * sum(p.numel() for p in eye.parameters())
    result = made.run(asked(photo))
    assert files.MIDAS in result.weights and result.latents.isfinite().all()
    assert made.check(asked(Depth(image=RAMP, annotator="auto"))).routes[-1][2].memory == 0, "a map is not measured"
    with pytest.raises(RecipeError, match="the right way round already"):
        made.check(asked(Depth(image=mix.picture(1), annotator="midas", invert=True)))


def test_the_same_recipe_by_other_names() -> None:
    recipe = Recipe(
        prompt="x",
        conditions=[
            {"kind": "pix2pix", "input_image": "a.png", "image_cfg_scale": 1.2},
            {"kind": "depth2img", "depth_map": "d.png"},
        ],
    )
    edit, depth = recipe.conditions
    assert isinstance(edit, Edit) and edit.image_guidance_scale == 1.2 and isinstance(depth, Depth)
    with pytest.raises(RecipeError):
        Recipe(prompt="x", conditions=[{"kind": "edit"}])
