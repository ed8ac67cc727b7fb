"""infuse equals the public implementations on stored numbers: every output of every golden, at its own tolerance."""

from __future__ import annotations

import math

import pytest
import torch
from some import some

from . import (
    through,
    through_beside,
    through_concatenated,
    through_gligen,
    through_ip_adapter,
    through_powerpaint,
    through_reference,
    through_t2i,
    through_words,
)
from .golden import HERE, Golden
from .through_ip_faces import FACE_WAYS
from .through_video import VIDEO_WAYS
from .weights import make

WAYS = {
    **through.WAYS,
    **through_beside.WAYS,
    **through_concatenated.WAYS,
    **through_gligen.WAYS,
    **through_ip_adapter.WAYS,
    **through_t2i.WAYS,
    **through_words.WAYS,
    "reference_only": through_reference.reference_only,
    "powerpaint_prompts": through_powerpaint.prompts,
    "powerpaint_brushnet": through_powerpaint.brushnet,
}
LONGER = ("controlnet_sd15", "controlnet_sd21", "controlnet_sdxl", "control_modes", "ip_adapter_full", "ip_adapter_multi", "t2i_adapter_full", "powerpaint_brushnet")  # fmt: skip
"""What the quick suite leaves to others of the same mechanism, or to its own test below."""


@pytest.mark.parametrize("name", some(WAYS, quick=[name for name in WAYS if name not in LONGER]))
def test_every_output(name: str) -> None:
    golden = Golden(name)
    with torch.no_grad():
        found = golden.differences(WAYS[name](golden))
    print(f"{max(found.values()):.1e}")  # pytest -rP shows it
    tolerance = golden.record["tolerance"]
    assert {k: d for k, d in found.items() if d > tolerance} == {}


def test_sdxl_sizes_are_compared_on_any_processor() -> None:
    """Their sinusoids magnify the last bit of `exp`: with those of the golden's machine nothing of it is left."""
    golden = Golden("controlnet_sdxl")
    with torch.no_grad():
        found = golden.differences(WAYS["controlnet_sdxl"](golden))
    assert found["y"] < 1e-6 and max(found.values()) < golden.record["tolerance"] / 2, found


@pytest.mark.parametrize("towards", some([-math.inf, math.inf], quick=[math.inf]))
def test_sdxl_sizes_do_not_hear_the_last_bit_of_this_processor(towards: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """W13: `exp` of some frequencies one bit off, as other processors have it, is 1.7 of the tolerance where nobody minds."""
    exp = torch.exp

    def rounded_otherwise(x: torch.Tensor) -> torch.Tensor:
        answer = exp(x)
        if answer.dtype == torch.float32 and answer.shape == (128,):
            answer[1:4] = torch.nextafter(answer[1:4], torch.tensor(towards))
        return answer

    monkeypatch.setattr(torch, "exp", rounded_otherwise)
    golden = Golden("controlnet_sdxl")
    with torch.no_grad():
        found = golden.differences(WAYS["controlnet_sdxl"](golden))
    assert found["y"] < 1e-6 and max(found.values()) < golden.record["tolerance"] / 2, found


def test_every_golden_here_has_its_way() -> None:
    assert {p.stem for p in HERE.glob("*.safetensors")} == {*WAYS, *VIDEO_WAYS, *FACE_WAYS}


def test_the_rule_for_weights() -> None:
    row = make({"a.weight": (2, 3)}, "golden/example", 1.5)["a.weight"][0]
    torch.testing.assert_close(row, torch.tensor([-1.1666, -0.6040, -0.9090]), atol=1e-4, rtol=0)


def test_a_wrong_network_is_noticed() -> None:
    golden = Golden("latent_img2img")
    wrong = {k: b + 1e-4 * b.std() if b.is_floating_point() else b + 1 for k, b in golden.outputs.items()}
    assert all(d > golden.record["tolerance"] for d in golden.differences(wrong).values())
