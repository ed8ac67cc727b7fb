"""Half a file is told from a whole one by its names, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from some import some

from infuse.errors import WeightsError
from infuse.weights.identify import identify
from infuse.weights.whole import must_be_whole

from . import full, zoo

KINDS = [name for name, case in zoo.CASES.items() if case.want.get("kind") in ("controlnet", "controlnet_union", "controlnet_xs", "control_lora", "ip_adapter")]  # fmt: skip
QUICK = ["ControlNet for SD 1.5, ldm", "Union ProMax", "Control-LoRA SD 1.5", "XS SD 1.5", "IP-Adapter: FaceID SD 1.5"]
SHORT = "Union, first layout"
"""A table of the zoo that names only what it is told by."""
HALVES: dict[str, Callable[[list[str]], list[str]]] = {
    "first half": lambda k: k[: len(k) // 2],
    "second half": lambda k: k[len(k) // 2 :],
    "every other": lambda k: k[::2],
    "the others": lambda k: k[1::2],
}


def said(shapes: zoo.Shapes) -> str:
    """What is missing, of a file of these tensors, in a letter; "" if nothing is."""
    found = identify(full.header(shapes))
    try:
        must_be_whole(found.kind, found.prefix, shapes, "x", "conditions.0.model")
    except WeightsError as letter:
        assert letter.field == "conditions.0.model" and "Download it again" in letter.message
        return letter.message
    return ""


@pytest.mark.parametrize("name", some([k for k in KINDS if k != SHORT], quick=QUICK))
def test_released_files_are_whole_and_halves_of_them_are_not(name: str) -> None:
    shapes = zoo.CASES[name].make()
    kind = identify(full.header(shapes)).kind
    assert said(shapes) == ""
    if "inside of its UNet" in name or kind == "ip_adapter":
        return
    for how, half in HALVES.items():
        kept = {k: shapes[k] for k in half(list(shapes))}
        if identify(full.header(kept)).kind == kind and "the whole model around it" not in name:
            assert "is incomplete: it lacks" in said(kept), how


@pytest.mark.slow
def test_one_tensor_less_is_named() -> None:
    shapes = zoo.CASES["ControlNet for SD 1.5, diffusers"].make()
    lost = "down_blocks.1.resnets.0.conv2.weight"
    assert f"it lacks a tensor (first: {lost})" in said({k: s for k, s in shapes.items() if k != lost})


def test_a_faces_changes_are_of_all_attentions_or_of_none() -> None:
    shapes = zoo.CASES["IP-Adapter: FaceID SD 1.5"].make()
    lost = next(k for k in shapes if "to_out_lora.up" in k)
    assert lost in said({k: s for k, s in shapes.items() if k != lost})
    assert said({k: s for k, s in shapes.items() if "_lora" not in k}) == "", (
        "without any it is one of those that lack it"
    )
    assert "to_v_ip" in said({k: s for k, s in shapes.items() if k != "ip_adapter.1.to_v_ip.weight"})


@pytest.mark.parametrize("kind", ["t2i_style", "coadapter_fuser"])
def test_half_of_what_reads_tokens_is_told_too(kind: str) -> None:
    from infuse.encoders.coadapter import Fuser
    from infuse.encoders.t2i_kinds import Fusing
    from infuse.encoders.t2i_style import StyleAdapter
    from infuse.weights.whole import lacking

    nets = {
        "t2i_style": lambda: StyleAdapter(64, 64, 8, 3),
        "coadapter_fuser": lambda: Fuser(Fusing(64, 16, (8, 16), 3)),
    }
    keys = list(nets[kind]().state_dict())
    assert not list(lacking(kind, "", keys))
    assert all(list(lacking(kind, "", half(keys))) for half in HALVES.values())
