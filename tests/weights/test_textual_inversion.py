"""A textual inversion is the same in every file it comes in; what it is not is a letter before anything is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from torch import Tensor, nn

from infuse.errors import InfuseError, InfuseWarning, WeightsError
from infuse.weights.layouts.textual_inversion import outline, read
from infuse.weights.source import Source

ROWS = torch.randn(3, 768, generator=torch.Generator().manual_seed(0))
PAIR = {"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}


def webui(rows: Any, key: str = "*") -> dict[str, Any]:
    table = rows if isinstance(rows, nn.ParameterDict) else {key: rows}
    return {"string_to_token": {key: 265}, "string_to_param": table, "name": "trained-as", "step": 500, "sd_checkpoint": None,
            "sd_checkpoint_name": None}  # fmt: skip


def saved(path: Path, what: Any) -> Source:
    path.parent.mkdir(exist_ok=True, parents=True)
    save_file(what, path) if path.suffix == ".safetensors" else torch.save(what, path)
    return Source(path.name, path, field="embeddings.0")


@pytest.mark.parametrize(("name", "what", "names"), [
    ("my-look.pt", webui(ROWS), ("my-look",)),
    ("my-look.pt", webui(nn.Parameter(ROWS)), ("my-look",)),
    ("my-look.pt", webui(nn.ParameterDict({"*": nn.Parameter(ROWS)})), ("my-look",)),
    ("my-look.pt", webui(ROWS, "<look>"), ("<look>", "my-look")),
    ("my-look.bin", {"<look>": ROWS}, ("<look>", "my-look")),
    ("learned_embeds.bin", {"<look>": ROWS}, ("<look>",)),
    ("learned_embeds-steps-500.safetensors", {"<look>": ROWS}, ("<look>",)),
    ("my-look.safetensors", {"emb_params": ROWS}, ("my-look",)),
    ("my-look.safetensors", {"clip_l": ROWS}, ("my-look",)),
    ("my-look.safetensors", {"my-look": ROWS.half()}, ("my-look",)),
])  # fmt: skip
def test_every_layout_holds_the_same_vectors(name: str, what: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    source = saved(tmp_path / name, what)
    said, found = outline(source), read(source)
    assert (said.names, said.widths, said.places) == (names, (768,), (3,)) and found.name == names[0]
    (vectors,) = found.vectors
    assert (source.identity.kind, source.identity.family, source.identity.tokens) == ("textual_inversion", "sd1", 3)
    assert torch.allclose(vectors.float(), ROWS, atol=1e-3) and not vectors.requires_grad


def test_one_vector_may_come_without_a_table(tmp_path: Path) -> None:
    assert torch.equal(read(saved(tmp_path / "a.bin", {"<a>": ROWS[0]})).vectors[0], ROWS[:1])


def test_a_folder_of_diffusers_has_the_name_of_its_word_or_its_own(tmp_path: Path) -> None:
    saved(tmp_path / "cat-toy" / "learned_embeds.safetensors", {"<cat-toy>": ROWS})
    source = Source("cat-toy", tmp_path / "cat-toy")
    assert outline(source).names == ("<cat-toy>", "cat-toy") and torch.equal(read(source).vectors[0], ROWS)


def test_sdxl_has_vectors_for_each_of_its_encoders(tmp_path: Path) -> None:
    found = read(saved(tmp_path / "xl.safetensors", PAIR))
    assert found.widths == (768, 1280) and found.places == 2
    assert torch.equal(found.vectors[0], PAIR["clip_l"]) and torch.equal(found.vectors[1], PAIR["clip_g"])


def test_vectors_for_the_output_are_told_and_left(tmp_path: Path) -> None:
    source = saved(tmp_path / "xl.safetensors", PAIR | {"clip_l_out": ROWS, "clip_g_out": ROWS.clone()})
    with pytest.warns(InfuseWarning, match="clip_l_out"):
        assert read(source).widths == (768, 1280)
    alone = saved(tmp_path / "sd1.safetensors", {"clip_l": ROWS, "clip_l_out": ROWS.clone()})
    with pytest.warns(InfuseWarning, match="clip_l_out"):
        assert read(alone).widths == (768,) and alone.identity.family == "sd1"


def test_unequal_counts_are_told(tmp_path: Path) -> None:
    source = saved(tmp_path / "xl.safetensors", {"clip_l": ROWS, "clip_g": torch.zeros(1, 1280)})
    with pytest.warns(InfuseWarning, match="3 vectors for SDXL's first text encoder and 1 for its second"):
        assert read(source).places == 1


@pytest.mark.parametrize(("name", "what", "says"), [
    ("learned_embeds.bin", {"emb_params": ROWS}, "no name that a prompt could say"),
    ("learned_embeds.bin", {"*": ROWS}, "Rename the file"),
    ("a.safetensors", {"emb_params": ROWS * torch.tensor(float("nan"))}, "no numbers"),
    ("a.safetensors", PAIR | {"clip_g": torch.full((2, 1280), float("inf"))}, "no numbers"),
    ("a.safetensors", {"emb_params": torch.zeros(76, 768)}, "has 76 vectors; a chunk of a prompt has room for 75"),
    ("a.safetensors", {"emb_params": torch.zeros(0, 768)}, "no vectors of words"),
    ("a.safetensors", {"emb_params": torch.zeros(2, 768, dtype=torch.int32)}, "no vectors of words"),
    ("a.pt", webui(torch.tensor(1.0)), "a single number"),
    ("a.bin", {"<a>": ROWS, "<b>": ROWS}, "holds 2 words ('<a>', '<b>')"),
    ("a.safetensors", PAIR | {"t5xxl": torch.zeros(2, 4096)}, "SD 3"),
    ("a.safetensors", {"conv_in.weight": torch.zeros(4, 4, 3, 3)}, "this field needs a textual inversion"),
    ("a.safetensors", {"lora_unet_x.lora_down.weight": ROWS, "lora_unet_x.lora_up.weight": ROWS.clone()}, "is a LoRA"),
])  # fmt: skip
def test_what_it_is_not_is_a_letter(name: str, what: dict[str, Tensor], says: str, tmp_path: Path) -> None:
    source = saved(tmp_path / name, what)
    with pytest.raises(WeightsError) as letter:
        read(source)
    assert says in letter.value.message and letter.value.field == "embeddings.0", letter.value.message
    if "no numbers" not in says:  # the header alone says it
        with pytest.raises(WeightsError):
            outline(source)


@pytest.mark.parametrize("suffix", ["png", "webp"])
@pytest.mark.parametrize("card", [True, False])
def test_a_card_is_a_picture_and_told_as_one(suffix: str, card: bool, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("sd-ti-embedding" if card else "Comment", "e30=")
    path = tmp_path / f"look.{suffix}"
    Image.new("RGB", (8, 8)).save(path, **({"pnginfo": info} if suffix == "png" else {}))
    with pytest.raises(
        WeightsError, match="the card of a textual" if card and suffix == "png" else "is a picture"
    ) as letter:
        outline(Source("look", path, field="embeddings.0"))
    assert ".safetensors, .pt and .bin" in letter.value.message


def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("ran",))

    with pytest.raises(InfuseError, match="would run code"):
        read(saved(tmp_path / "a.pt", webui(Evil())))


def test_a_damaged_table_of_parameters_is_a_letter(tmp_path: Path) -> None:
    table = nn.ParameterDict({"*": nn.Parameter(ROWS)})
    del table._parameters
    with pytest.raises(InfuseError):
        read(saved(tmp_path / "a.pt", webui(table)))


def test_an_outline_needs_no_torch(tmp_path: Path) -> None:
    from subprocess import run

    saved(tmp_path / "look.safetensors", {"emb_params": ROWS})
    code = (
        "import sys, json; from pathlib import Path; from infuse.weights.source import Source; "
        "from infuse.weights.layouts.textual_inversion import outline; "
        f"o = outline(Source('look', Path({str(tmp_path / 'look.safetensors')!r}))); "
        "print(json.dumps([o.names, o.widths, 'torch' in sys.modules]))"
    )
    found = run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == [["look"], [768], False]
