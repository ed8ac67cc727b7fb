"""A file that is not what its name says is refused with a sentence that helps."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from infuse.errors import WeightsError
from infuse.weights.formats import digest, read_header, read_tensors
from infuse.weights.tokenizer import clip_tokenizer, vocabulary

STATE = {"a.weight": torch.randn(3, 4), "a.bias": torch.ones(3, dtype=torch.float16), "n": torch.tensor(3)}


def sound(path: Path) -> bytes:
    save_file(STATE, str(path), metadata={"who": "me"})
    return path.read_bytes()


def test_the_table_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    raw = sound(path)
    header = read_header(path)
    assert header.metadata == {"who": "me"} and header.size == len(raw)
    assert {k: (e.dtype, e.shape) for k, e in header.items()} == {
        "a.weight": ("F32", (3, 4)),
        "a.bias": ("F16", (3,)),
        "n": ("I64", ()),
    }
    assert header.shapes("a.") == {"weight": (3, 4), "bias": (3,)}
    assert torch.equal(read_tensors(path, prefix="a.")["weight"], STATE["a.weight"])
    with pytest.raises(WeightsError, match="has no tensor 'b'"):
        read_tensors(path, ["b"])


def cut(raw: bytes) -> dict[str, tuple[bytes, str]]:
    length = struct.unpack("<Q", raw[:8])[0]
    table = json.loads(raw[8 : 8 + length])
    moved = {
        k: v | {"data_offsets": [n + 4 for n in v["data_offsets"]]} if k != "__metadata__" else v
        for k, v in table.items()
    }
    wrong = json.dumps(moved).encode()
    return {
        "empty": (b"", "empty"),
        "cut in the data": (raw[:-5], "cut short"),
        "cut in the header": (raw[:40], "cut short inside its header"),
        "longer than it says": (raw + b"xx", "2 bytes follow"),
        "moved": (struct.pack("<Q", len(wrong)) + wrong + raw[8 + length :], "does not lie where"),
        "broken table": (raw[:8] + b"{" + b"x" * (length - 1) + raw[8 + length :], "not the JSON table"),
        "no tensor": (struct.pack("<Q", 2) + b"{}", "holds no tensor"),
        "web page": (b"<!DOCTYPE html><html>Sign in</html>" * 20, "web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n", "git lfs pull"),
        "words": (b"404: Not Found. The file you asked for is not there.\n", "text file"),
        "json": (b'{"message": "Not Found"}', "JSON"),
        "pickle": (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        "zip": (b"PK\x03\x04" + bytes(40), "zip archive"),
        "picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "picture"),
        "noise": (bytes(range(256)) * 4, "does not begin with a header"),
        "three bytes": (b"\x00\x01\x02", "has 3 bytes"),
    }


@pytest.mark.parametrize("case", cut(b"\x02" + bytes(7) + b"{}").keys())
def test_broken_and_foreign_files(case: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    content, says = cut(sound(path))[case]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=says) as letter:
        read_header(path, "conditions.2.model")
    assert letter.value.field == "conditions.2.model" and "m.safetensors" in letter.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [0, 1, 2])
def test_pickles_are_unwrapped_and_flattened(zipped: bool, wrap: int, tmp_path: Path) -> None:
    tree: dict = {"image_proj": {"norm": STATE["a.weight"]}, "ip_adapter": {"1.to_k_ip.weight": STATE["a.bias"]}}
    for _ in range(wrap):
        tree = {"global_step": 875000, "state_dict": tree}
    path = tmp_path / "m.bin"
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    header = read_header(path)
    assert header.shapes() == {"image_proj.norm": (3, 4), "ip_adapter.1.to_k_ip.weight": (3,)}
    assert header["ip_adapter.1.to_k_ip.weight"].dtype == "F16"
    assert header.metadata.get("global_step") == ("875000" if wrap else None)
    assert torch.equal(read_tensors(path)["image_proj.norm"], STATE["a.weight"])


class Trap:
    def __reduce__(self) -> tuple:
        return exec, ("import pathlib; pathlib.Path('sprung').touch()",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_not_opened(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "evil": Trap()}, tmp_path / "m.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="would run code"):
        read_header(tmp_path / "m.ckpt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_a_trainers_bookkeeping_is_passed_over(tmp_path: Path) -> None:
    """Checkpoints of the first SD models carry a Lightning callback's class; it is read as an inert placeholder."""
    code = (
        "import sys, types, torch\n"
        "names = 'pytorch_lightning', 'pytorch_lightning.callbacks'\n"
        "for n in names: sys.modules[n] = types.ModuleType(n)\n"
        "class ModelCheckpoint: pass\n"
        "ModelCheckpoint.__module__ = names[1]\n"
        "sys.modules[names[1]].ModelCheckpoint = ModelCheckpoint\n"
        "torch.save({'callbacks': {ModelCheckpoint: ModelCheckpoint()}, 'state_dict': {'a': torch.ones(2)}}, sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.ckpt")], check=True)
    assert read_header(tmp_path / "m.ckpt").shapes() == {"a": (2,)}


def test_safetensors_under_an_old_suffix(tmp_path: Path) -> None:
    save_file(STATE, str(tmp_path / "m.ckpt"))
    assert read_header(tmp_path / "m.ckpt").keys() == STATE.keys() == read_tensors(tmp_path / "m.ckpt").keys()


def test_digests_follow_the_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    sound(a)
    sound(b)
    assert digest(a) == digest(b)
    b.write_bytes(b.read_bytes() + b"x")
    assert digest(a) != digest(b)


@pytest.mark.slow
def test_the_tokenizer_is_clips() -> None:
    assert len(vocabulary()[0]) == 49408
    assert clip_tokenizer()("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = [clip_tokenizer(pad)("hi", padding="max_length").input_ids for pad in ("<|endoftext|>", "!")]
    assert [p[3] for p in padded] == [49407, 0] and [len(p) for p in padded] == [77, 77]


def test_identifying_imports_no_torch() -> None:
    """The modules themselves, not what `import infuse` brings along for the user."""
    code = (
        "import sys, types, importlib.util as u\n"
        "bare = types.ModuleType('infuse'); bare.__path__ = list(u.find_spec('infuse').submodule_search_locations)\n"
        "sys.modules['infuse'] = bare\n"
        "import infuse.weights.identify, infuse.weights.library, infuse.weights.estimate, infuse.weights.layouts.ldm_configs\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
