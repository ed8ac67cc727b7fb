"""Annotators beside the goldens: sizes of the released networks, what letters name, and rules with dice in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from infuse.encoders.annotators import canny, files, frames, masked_video, midas, sketch
from infuse.encoders.annotators.midas import DPT
from infuse.encoders.annotators.pidinet import PiDiNet, kind_of, plain
from infuse.encoders.annotators.sketch_simplification import SketchSimplification
from infuse.errors import WeightsError


@pytest.mark.parametrize(
    ("make", "count"), [(PiDiNet, 720_709), (SketchSimplification, 44_387_249), (DPT, 343_028_417)]
)
def test_the_released_sizes(make: type[torch.nn.Module], count: int) -> None:
    with torch.device("meta"):
        net = make()
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("kind", ["cd", "ad", "rd"])
def test_difference_layers_do_not_hear_brightness(kind: str) -> None:
    """A constant picture has no differences; the kernel sums to nothing."""
    kernel = plain(kind, torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(kernel.sum((2, 3)), torch.zeros(4, 2), atol=1e-5, rtol=0)


def stored_pidinet() -> dict[str, torch.Tensor]:
    """The tensors of the release by name and shape, as parallel training left them; every value zero."""
    with torch.device("meta"):
        shapes = {k: list(t.shape) for k, t in PiDiNet().state_dict().items()}
    return {f"module.{k}": torch.zeros(s[:2] + [3, 3] if s[2:] == [5, 5] else s) for k, s in shapes.items()}


def test_stored_edge_weights_are_smaller() -> None:
    stored = stored_pidinet()
    assert sum(t.numel() for t in stored.values()) == 710_149
    assert float(PiDiNet.load(stored)(torch.rand(1, 3, 16, 20)).unique()) == 0.5
    once = PiDiNet.load(stored_pidinet() | {"module.init_block.weight": torch.ones(60, 3, 3, 3)}).state_dict()
    assert all(torch.equal(t, once[k]) for k, t in PiDiNet.load(once).state_dict().items())
    assert [kind_of(i) for i in (0, 1, 2, 3, 4)] == ["cd", "ad", "rd", "cv", "cd"]


def test_a_wrong_file_is_a_letter() -> None:
    stored = stored_pidinet()
    del stored["module.classifier.bias"]
    with pytest.raises(WeightsError, match=r"1 missing \(classifier.bias\).*table5_pidinet.pth"):
        PiDiNet.load(stored, "conditions.0.image")
    with pytest.raises(WeightsError, match="46 missing.*1 left over.*sketch_simplification_gan.pth"):
        SketchSimplification.load({"weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="missing.*midas_v3_dpt_large.pth"):
        DPT.load({"weight": torch.zeros(1)})


def test_what_is_not_here_is_named() -> None:
    assert "table5_pidinet.pth and sketch_simplification_gan.pth" in files.no_sketch().message
    letter = files.no_depth("conditions.0")
    assert (
        letter.field == "conditions.0"
        and "midas_v3_dpt_large.pth" in letter.message
        and "INFUSE_MODELS" in letter.message
    )


def test_depth_says_which_sizes_it_takes() -> None:
    with torch.device("meta"):
        net = DPT(midas.Sizes(dim=32, layers=4, heads=4))
    with pytest.raises(ValueError, match="multiples of 32"):
        net(torch.zeros(1, 3, 40, 64, device="meta"))


@pytest.mark.parametrize(("patch", "size"), [(8, (48, 32)), (16, (32, 64)), (4, (24, 40))])
def test_depth_steps_are_twice_the_patches_of_the_file(patch: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    made = DPT(midas.Sizes(grid=3, patch=patch, dim=32, layers=4, heads=4, necks=(8, 8, 8, 8), fusion=8))
    for p in made.parameters():
        torch.nn.init.normal_(p, mean=0.02, std=0.1)
    stored = made.state_dict()
    net = DPT.load({f"module.{k}": t for k, t in stored.items()}, heads=4)
    assert net.step == files.step_of({k: tuple(t.shape) for k, t in stored.items()}) == 2 * patch
    picture = torch.rand(1, 3, *size)
    assert net(picture).shape == (1, 1, *size) == midas.depth(picture, net).shape
    with pytest.raises(ValueError, match=f"multiples of {2 * patch}"):
        net(torch.zeros(1, 3, size[0] + patch, size[1]))


def scene() -> np.ndarray:
    picture = np.full((96, 128, 3), 40, np.uint8)
    picture[24:72, 32:96] = 200
    return picture


def test_a_sketch_without_models_draws_the_outline() -> None:
    lines = sketch.sketch_without_models(scene())
    assert lines.shape == (96, 128) and lines.dtype == np.float32 and lines.min() >= 0 and lines.max() == 1
    assert lines[20:28, 60].max() > 0.5 and lines[40:56, 60].max() == 0 and lines[:10].max() == 0
    assert sketch.sketch_without_models(np.zeros((32, 32, 3), np.uint8)).max() == 0


def test_canny_follows_its_dice() -> None:
    video = np.stack([scene()] * 2)
    lines = canny.canny_video(video, np.random.default_rng(0))
    assert lines.shape == (1, 2, 96, 128) and set(np.unique(lines)) == {0, 1}
    assert np.array_equal(lines, canny.canny_video(video, np.random.default_rng(0)))


def test_masked_video_has_its_layout() -> None:
    mask = torch.zeros(2, 1, 4, 4)
    mask[..., :2] = 1
    answer = masked_video.masked_video(torch.ones(2, 3, 4, 4), mask)
    assert answer.shape == (2, 4, 4, 4)
    assert answer[..., :2].abs().max() == 0 and answer[..., 2:].min() == 1


def test_holes_are_of_three_kinds_and_repeatable() -> None:
    holes = [masked_video.random_mask(np.random.default_rng(i), (48, 64)) for i in range(100)]
    assert all(h.shape == (48, 64) and set(np.unique(h)) <= {0, 1} for h in holes)
    assert np.array_equal(holes[3], masked_video.random_mask(np.random.default_rng(3), (48, 64)))
    assert sum(h.any() for h in holes) == 100
    halves = sum(bool((h.mean() == 0.5) and (np.ptp(h, 0).max() == 0 or np.ptp(h, 1).max() == 0)) for h in holes)
    assert 3 <= halves <= 20


def test_frames_come_in_three_sizes() -> None:
    picture = Image.fromarray(np.kron(scene(), np.ones((6, 6, 1), np.uint8)))
    seen = frames.latent_frame(picture)
    assert seen.shape == (3, 256, 256) and seen.min() >= -1 and seen.max() <= 1
    assert frames.spatial_frame(picture, np.random.default_rng(0)).shape == (3, 384, 384)
    assert frames.style_frame(picture).shape == (3, 224, 224)
