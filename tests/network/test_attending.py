"""Our own attention on a CPU against softmax in float64: as near as torch's, row by row the same whatever is beside, torch's elsewhere."""

from __future__ import annotations

import json
import math
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from infuse.errors import InfuseWarning
from infuse.network import attending
from infuse.network.attending import FLOAT, KERNEL, PAIRS, PATHS, TILES, TORCH, attend

IMITATED = "-DTILES_IMITATED"
"""Tiles in plain loops: their path is run wherever AVX-512 is."""
COMPILER = shlex.split(os.environ.get("CXX", "")) or [c for c in ("c++", "g++", "clang++") if shutil.which(c)]
needs = pytest.mark.skipif(
    not (COMPILER and attending.usable()), reason="the kernel needs Linux, AVX-512 and a C++ compiler"
)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all of this file's tests."""
    return attending.built(tmp_path_factory.mktemp("kernel"), [IMITATED])


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As a process begins: no kernel, nothing decided, an empty cache folder."""
    for name, value in {"run": None, "paths": 0, "book": None, "chosen": {}, "tried": False}.items():
        monkeypatch.setattr(KERNEL, name, value)
    for name in ("INFUSE_KERNELS", "TORCH_EXTENSIONS_DIR", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def kernel(forgotten: Path, library: Path) -> Iterator[None]:
    """Loaded, without gradients."""
    attending.adopt(library)
    KERNEL.book = None
    with torch.no_grad():
        yield


def asked(path: int, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.infuse.attention(q, k, v, bias, path)


def exact(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    scores = q.double() @ k.double().transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if bias is None else scores + bias.double()).softmax(-1) @ v.double()


@dataclass(frozen=True)
class Case:
    b: int
    n: int
    queries: int
    keys: int
    d: int
    bias: str
    fused: bool
    loud: float

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q, k, v as projections make them, or as one fused projection would; and a bias."""
        b, n, d = self.b, self.n, self.d

        def seen(x: Tensor) -> Tensor:
            return x.unflatten(-1, (n, d)).transpose(1, 2)

        if self.fused:  # then there are as many queries as keys
            q, k, v = (seen(x) for x in torch.randn(b, self.queries, 3 * n * d).to(dtype).chunk(3, -1))
        else:
            q = seen(torch.randn(b, self.queries, n * d).to(dtype))
            k, v = (seen(torch.randn(b, self.keys, n * d).to(dtype)) for _ in range(2))
        bias = None
        if self.bias == "padding":
            bias = torch.zeros(b, 1, 1, self.keys)
            for row in bias:
                row[..., torch.randint(1, self.keys + 1, ()) :] = -math.inf
        elif self.bias == "keys":
            bias = torch.randn(b, 1, 1, self.keys)
        elif self.bias == "places":
            bias = torch.randn(1, 1, self.queries, self.keys)
            bias[:, :, :, 1::3] = -math.inf
        elif self.bias == "heads":
            bias = torch.randn(b, n, self.queries, self.keys)
        return q * self.loud, k, v, bias if bias is None else bias.to(dtype)


def cases(count: int) -> list[Case]:
    """The shapes of Stable Diffusion cut down, odd ones, and some by chance."""
    rng, found = random.Random(18), []
    for _ in range(count):
        queries = rng.choice([1, 2, 15, 16, 17, 31, 33, 49, 63, 64, 65, 100, 127, 130, 257])
        fused = rng.random() < 0.3
        found.append(
            Case(
                b=rng.randint(1, 4),
                n=rng.randint(1, 3),
                queries=queries,
                keys=queries if fused else rng.choice([1, 2, 4, 7, 16, 31, 64, 77, 81, 127, 128, 129, 154, 256, 300]),
                d=2 * rng.randint(4, 80) if rng.random() < 0.5 else rng.choice([8, 40, 64, 80, 128, 160]),
                bias=rng.choice(["", "", "padding", "keys", "places", "heads"]),
                fused=fused,
                loud=rng.choice([0.3, 1.0, 1.0, 4.0, 12.0]),
            )
        )
    return found


def off(found: Tensor, right: Tensor) -> float:
    return float((found.double() - right).norm() / right.norm())


@needs
@pytest.mark.slow
@pytest.mark.parametrize("path", [FLOAT, PAIRS, TILES])
def test_it_is_as_near_to_the_truth_as_torch(path: int, kernel: None) -> None:
    if not path & KERNEL.paths:
        pytest.skip("this processor has no such path")
    dtype = torch.float32 if path == FLOAT else torch.bfloat16
    for case in cases(60):
        q, k, v, bias = case.tensors(dtype)
        right, torchs = exact(q, k, v, bias), F.scaled_dot_product_attention(q, k, v, bias)
        found = asked(path, q, k, v, bias)
        assert found.shape == torchs.shape and found.dtype == dtype, case
        assert found.transpose(1, 2).is_contiguous(), case
        limit = 4e-7 * (1 + case.loud * case.d**0.5) if path == FLOAT else 1.2 * off(torchs, right) + 2e-5
        assert off(found, right) <= limit, (case, off(found, right), off(torchs, right))


@needs
@pytest.mark.slow
def test_a_bias_lies_as_it_likes(kernel: None) -> None:
    """Strided, broadcast along any dimension, with fewer of them, in another format."""
    q, k = torch.randn(2, 3, 20, 16), torch.randn(2, 3, 33, 16)
    for bias in (
        torch.randn(2, 1, 33, 20).mT,
        torch.randn(2, 3, 20, 1),
        torch.randn(20, 33),
        torch.randn(33),
        torch.randn(2, 1, 1, 66)[..., ::2],
        torch.randn(1, 3, 1, 1),
        torch.randn(2, 1, 20, 33).bfloat16(),
    ):
        assert off(asked(FLOAT, q, k, k, bias), exact(q, k, k, bias)) < 2e-6, bias.shape


@needs
@pytest.mark.slow
def test_float32_of_odd_widths(kernel: None) -> None:
    q, k, v = (torch.randn(2, 3, n, 37) for n in (50, 41, 41))
    assert off(asked(FLOAT, q, k, v), exact(q, k, v, None)) < 2e-6


@needs
@pytest.mark.slow
@pytest.mark.parametrize("path", [FLOAT, PAIRS, TILES])
def test_bits_depend_on_the_row_alone(path: int, kernel: None) -> None:
    """Neither on rows beside it, nor on threads, nor on where tensors lie."""
    if not path & KERNEL.paths:
        pytest.skip("this processor has no such path")
    q, k, v, bias = Case(4, 3, 130, 177, 40, "padding", False, 1.0).tensors(
        torch.float32 if path == FLOAT else torch.bfloat16
    )
    together, threads = asked(path, q, k, v, bias), torch.get_num_threads()
    assert bias is not None
    for i in range(4):
        alone = asked(path, *(t[i : i + 1].contiguous() for t in (q, k, v, bias)))
        assert torch.equal(alone[0], together[i])
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            assert torch.equal(asked(path, q, k, v, bias), together)
    finally:
        torch.set_num_threads(threads)


@needs
@pytest.mark.slow
@pytest.mark.parametrize("path", [FLOAT, PAIRS, TILES])
def test_extremes_are_torchs(path: int, kernel: None) -> None:
    """Whoever hears nobody answers 0; nan and infinity are not swallowed; loud scores overflow nothing."""
    if not path & KERNEL.paths:
        pytest.skip("this processor has no such path")
    dtype = torch.float32 if path == FLOAT else torch.bfloat16
    q, k, v = (torch.randn(2, 2, n, 16).to(dtype) for n in (9, 150, 150))
    bias = torch.zeros(2, 1, 1, 150).to(dtype)
    bias[0] = -math.inf
    bias[1, ..., :140] = -math.inf  # a whole block of keys that nobody hears, then some
    right = F.scaled_dot_product_attention(q, k, v, bias)
    assert not right[0].any() and torch.equal(asked(path, q, k, v, bias)[0], right[0])
    assert off(asked(path, q, k, v, bias)[1], right[1].double()) < 1e-2
    loud = asked(path, q * 1e4, k, v)
    assert off(loud, exact(q * 1e4, k, v, None)) < 1e-2
    broken = v.clone()
    broken[1, 1, 77, 3] = math.nan
    assert torch.equal(asked(path, q, k, broken).isnan(), F.scaled_dot_product_attention(q, k, broken).isnan())
    broken = q.clone()
    broken[0, 1, 5, 2] = math.nan
    assert torch.equal(asked(path, broken, k, v).isnan(), broken.isnan().any(-1, True).expand_as(q))


@needs
@pytest.mark.slow
@pytest.mark.parametrize("path", [FLOAT, PAIRS, TILES])
def test_nothing_is_read_beyond_the_end(path: int, kernel: None, library: Path) -> None:
    """Pages that may not be read lie right before and behind each tensor."""
    if not path & KERNEL.paths:
        pytest.skip("this processor has no such path")
    code = f"""
import ctypes, mmap, pathlib, torch
from infuse.network import attending
attending.adopt(pathlib.Path({str(library)!r}))
libc = ctypes.CDLL(None, use_errno=True)
def fenced(shape, dtype, last):
    count = torch.Size(shape).numel() * dtype.itemsize
    pages = -(-count // mmap.PAGESIZE)
    area = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for page in (0, pages + 1):
        assert not libc.mprotect(ctypes.c_void_p(start + page * mmap.PAGESIZE), mmap.PAGESIZE, 0)
    offset = mmap.PAGESIZE + (pages * mmap.PAGESIZE - count if last else 0)
    kept.append(area)
    return torch.frombuffer(area, dtype=dtype, count=torch.Size(shape).numel(), offset=offset).view(shape).normal_()
kept, dtype = [], torch.{"float32" if path == FLOAT else "bfloat16"}
for last in (True, False):
    for b, n, queries, keys, d in ((1, 1, 1, 1, 8), (2, 2, 65, 77, 40), (1, 1, 17, 129, 10), (1, 3, 64, 5, 160), (1, 1, 33, 31, 18)):
        q, k, v = (fenced((b, m, n, d), dtype, last).transpose(1, 2) for m in (queries, keys, keys))
        bias = fenced((b, 1, 1, keys), torch.float32, last)
        for said in (None, bias, fenced((b, 1, queries, keys), torch.float32, last)):
            assert torch.ops.infuse.attention(q, k, v, said, {path}).isfinite().all()
print("whole")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "whole", (done.returncode, done.stderr)


@needs
@pytest.mark.slow
def test_compiled_graphs_go_through_it(kernel: None) -> None:
    KERNEL.chosen.update({(torch.float32, 16, False): FLOAT})
    KERNEL.asked.add((torch.float32, 16, False))
    q, k = torch.randn(2, 3, 40, 16), torch.randn(2, 3, 30, 16)
    torch.library.opcheck(
        torch.ops.infuse.attention.default,
        (q, k, k, None, FLOAT),
        test_utils=["test_schema", "test_faketensor"],
    )
    graphs: list[torch.fx.GraphModule] = []

    def noted(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    def layer(q: Tensor, k: Tensor) -> Tensor:
        return attend(q, k, k).transpose(1, 2).flatten(2) + 1

    found = torch.compile(layer, backend=noted, fullgraph=True)(q, k)
    assert torch.equal(found, layer(q, k))
    assert len(graphs) == 1 and "infuse.attention" in graphs[0].code


def test_torch_attends_until_it_is_prepared(forgotten: Path) -> None:
    q, k, bias = torch.randn(2, 3, 40, 16), torch.randn(2, 3, 30, 16), torch.randn(2, 1, 1, 30)
    with torch.no_grad():
        assert torch.equal(attend(q, k, k, bias), F.scaled_dot_product_attention(q, k, k, bias))
    assert not attending.ready() and not list(forgotten.iterdir())


def test_gradients_take_plain_products() -> None:
    q, k = torch.randn(1, 2, 5, 8, requires_grad=True), torch.randn(1, 2, 7, 8)
    attend(q, k, k, torch.randn(1, 1, 1, 7)).sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()


def test_off_is_off(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFUSE_KERNELS", "off")
    assert not attending.prepare(torch.bfloat16, [40]) and not list(forgotten.iterdir())


@needs
@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_a_build_that_fails_is_one_warning(compiler: str, forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(InfuseWarning, match="could not be built, torch's is used") as said:
        assert not attending.prepare() and not attending.prepare()
    assert len(said) == 1
    q = torch.randn(1, 1, 4, 8)
    with torch.no_grad():
        assert torch.equal(attend(q, q, q), F.scaled_dot_product_attention(q, q, q))
    assert not [p for p in forgotten.rglob("*") if p.is_file()], "nothing half-made stays"


@needs
@pytest.mark.slow
def test_it_is_built_once_and_remembers(forgotten: Path) -> None:
    """The second process loads what the first one made, and measures nothing again."""
    code = (
        "import torch; from infuse.network import attending as a; "
        "print(a.prepare(torch.bfloat16, [40]), a.prepare(torch.float32, [40]), sorted(map(str, a.KERNEL.chosen.items())))"
    )
    said, taken = [], []
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]  # at once
    assert all(p.communicate()[0].startswith("True True") for p in both)
    files = sorted(p.name.split("-")[0] for p in forgotten.rglob("*") if p.is_file())
    assert files == ["attention.so", "chosen"]
    for _ in range(2):
        begin = time.perf_counter()
        said.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        taken.append(time.perf_counter() - begin)
    assert said[0] == said[1]
    [book] = forgotten.rglob("*.json")
    assert set(json.loads(book.read_text())) >= {
        f"{d} 40 {s}" for d in ("bfloat16", "float32") for s in ("long", "short")
    }


@needs
@pytest.mark.slow
def test_choices_are_measured_and_kept(kernel: None, forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KERNEL.book = forgotten / "chosen.json"
    KERNEL.paths &= ~TILES  # imitated ones are slow, and would not be chosen anyway
    path = attending.choose(torch.float32, 40, 77)
    assert path in (TORCH, *PATHS[torch.float32])
    assert attending.recalled(KERNEL.book) == {(torch.float32, 40, False): path}
    monkeypatch.setattr(attending, "measured", lambda *_: pytest.fail("measured again"))
    assert attending.choose(torch.float32, 40, 4) == path
    KERNEL.book.write_text("{broken")
    assert attending.recalled(KERNEL.book) == {}


@needs
@pytest.mark.slow
@pytest.mark.parametrize("change", ["odd width", "float64", "half", "no keys", "heads differ", "boolean bias"])
def test_what_it_does_not_know_is_torchs(change: str, kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "choose", lambda *_: pytest.fail("asked the kernel"))
    dtype = {"float64": torch.float64, "half": torch.float16}.get(change, torch.bfloat16)
    d, keys = 7 if change == "odd width" else 8, 0 if change == "no keys" else 5
    q, k = torch.randn(1, 2, 4, d).to(dtype), torch.randn(1, 1 if change == "heads differ" else 2, keys, d).to(dtype)
    bias = torch.ones(1, 1, 1, keys, dtype=torch.bool) if change == "boolean bias" else None
    assert not attending.suits(q, k, k, bias)


@needs
@pytest.mark.slow
def test_who_casts_asks_torch(kernel: None) -> None:
    KERNEL.chosen.update({(torch.float32, 8, False): FLOAT})
    q = torch.randn(1, 2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(q, q, q).dtype == torch.bfloat16
    assert attend(q, q, q).dtype == torch.float32


def test_without_a_home_it_is_kept_for_this_process(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(forgotten / "file" / "below"))
    (forgotten / "file").write_text("")
    found = attending.folder()
    assert found.is_dir() and forgotten not in found.parents
    found.rmdir()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(forgotten / "here"))
    assert attending.folder().parent == forgotten / "here"
