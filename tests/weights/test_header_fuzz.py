"""Headers of strangers: whatever a .safetensors file says of itself, the answer is a table or a letter, soon and small."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from some import some

from infuse.errors import InfuseError, WeightsError
from infuse.weights.formats import read_header
from infuse.weights.outline import outline
from infuse.weights.source import Source

from . import ldm
from .test_base import checkpoint

SOUND: dict[str, Any] = {
    "a": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]},
}


def rules(examples: int) -> settings:
    """Derandomized, so that every run tries the same inputs; those that once failed stand as examples below."""
    return settings(max_examples=examples, deadline=timedelta(seconds=5), derandomize=True, database=None,
                    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip


def written(path: Path, table: bytes, data: int = 9, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", (len(table) if length is None else length) % 2**64) + table + bytes(data))
    return path


def answered(path: Path) -> None:
    """A header, or the one kind of letter."""
    try:
        found = read_header(path, "model")
    except WeightsError as letter:
        assert letter.field == "model" and 20 < len(letter.message) < 1000
    else:
        assert all(n >= 0 for e in found.values() for n in e.shape) and len(found)


numbers = st.one_of(st.integers(-3, 20), st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
entries = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.one_of(
                st.sampled_from(["F16", "F32", "U8", "XX", "f16", ""]), numbers, st.lists(numbers, max_size=2)
            ),
            "shape": st.one_of(st.lists(numbers, max_size=4), numbers, st.just([2**40] * 70)),
            "data_offsets": st.one_of(
                st.lists(numbers, max_size=3), st.tuples(st.integers(0, 9), st.integers(0, 9)).map(list), numbers
            ),
            "more": numbers,
        },
    ),
    numbers,
    st.lists(numbers, max_size=2),
)
tables = st.one_of(
    st.dictionaries(st.one_of(st.text(max_size=6), st.sampled_from(["a", "b", "__metadata__"])), entries, max_size=4),
    st.lists(entries, max_size=3),
    numbers,
)


@pytest.mark.slow
def test_tables_that_say_anything(tmp_path: Path) -> None:
    tried(tables.map(lambda t: json.dumps(t).encode()), tmp_path, 150)


@pytest.mark.slow
def test_thousands_of_tables(tmp_path: Path) -> None:
    tried(tables.map(lambda t: json.dumps(t).encode()), tmp_path, 6000)


def tried(tables: st.SearchStrategy[bytes], tmp_path: Path, examples: int) -> None:
    @rules(examples)
    @given(tables, st.integers(0, 40), st.one_of(st.none(), st.integers(0, 2**64)))
    @example(b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4,4]}}', 4, None)  # ValueError behind the parsing
    @example(b'{"a":{"dtype":[],"shape":[2],"data_offsets":[0,4]}}', 4, None)  # unhashable
    @example(b'{"a":{"dtype":"F16","shape":[-1,-2],"data_offsets":[0,4]}}', 4, None)  # two negatives make a size
    @example(b'{"a":{"dtype":"F16","shape":[2.7],"data_offsets":[0,4]}}', 4, None)
    @example(b'{"a":{"dtype":"XX","shape":[1],"data_offsets":[0,Infinity]}}', 4, None)
    @example(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', 1, None)
    def tell(table: bytes, data: int, length: int | None) -> None:
        answered(written(tmp_path / "m.safetensors", table, data, length))

    tell()


@pytest.mark.slow
@pytest.mark.parametrize("examples", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_sound_files_with_some_bytes_changed(examples: int, tmp_path: Path) -> None:
    whole = written(tmp_path / "sound.safetensors", json.dumps(SOUND).encode()).read_bytes()
    assert len(read_header(tmp_path / "sound.safetensors")) == 2

    @rules(examples)
    @given(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4),
        st.integers(0, len(whole)),
        st.booleans(),
    )
    def tell(changes: list[tuple[int, int]], cut: int, is_cut: bool) -> None:
        raw = bytearray(whole)
        for at, byte in changes:
            raw[at] = byte
        (tmp_path / "m.safetensors").write_bytes(raw[:cut] if is_cut else raw)
        answered(tmp_path / "m.safetensors")

    tell()


TWICE = b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}'
MIB = 2**20
NASTY: dict[str, tuple[bytes, str]] = {
    "a name twice": (TWICE, "not the JSON table"),
    "deep lists": (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not the JSON table"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not the JSON table"),
    "deep metadata": (b'{"__metadata__":{"a":' + b"[" * 900 + b"]" * 900 + b"}}", "holds no tensor|not the JSON table"),
    "no UTF-8": (b'{"\xff\xfe":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', "not the JSON table"),
    "UTF-16": (json.dumps(SOUND).encode("utf-16-le"), "not the JSON table"),
    "half a surrogate": (b'{"\\ud800":{"dtype":"U8","shape":[8],"data_offsets":[0,9]}}', "does not lie"),
    "a number of many digits": (b'{"a":{"dtype":"U8","shape":[' + b"9" * 9000 + b'],"data_offsets":[0,9]}}', "not the JSON table"),
    "overlapping": (b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"b":{"dtype":"U8","shape":[5],"data_offsets":[4,9]}}', "does not lie"),
    "beyond the file": (b'{"a":{"dtype":"U8","shape":[99],"data_offsets":[0,99]}}', "cut short"),
    "a name as long as a book": (b'{"' + b"n" * MIB + b'":{"dtype":"U8","shape":[8],"data_offsets":[0,9]}}', "does not lie"),
    "a million lists": (b'{"a":[' + b"[]," * 3_000_000 + b"0]}", "values, where those"),
    "17 MiB of metadata": (b'{"__metadata__":{"a":"' + b"x" * (17 * MIB) + b'"}}', "17 MiB, where those"),
    "15 MiB of names": (b'{"__metadata__":{"a":"' + "é".encode() * (7 * MIB) + b'"}}', "holds no tensor"),
    "900,000 values": (b'{"a":[' + b"12345," * 900_000 + b"0]}", "not the JSON table"),
}  # fmt: skip


@pytest.mark.parametrize("case", some(NASTY, quick=[c for c in NASTY if c != "900,000 values"]))
def test_nasty_headers_cost_little(case: str, tmp_path: Path) -> None:
    table, says = NASTY[case]
    path = written(tmp_path / "m.safetensors", table)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(WeightsError, match=says) as caught:
            read_header(path)
        took, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < 5 and peak < 200 * MIB, (took, peak / MIB)
    assert len(caught.value.message) < 500


def test_huge_lengths_are_not_read(tmp_path: Path) -> None:
    for length in (2**64 - 1, 2**63, 101 * MIB, 50 * MIB):
        path = written(tmp_path / "m.safetensors", b"{" + b" " * 40, length=length)
        with pytest.raises(WeightsError):
            read_header(path)
    with path.open("r+b") as f:  # sparse: 60 MiB of zeros that are no table
        f.truncate(60 * MIB)
    with pytest.raises(WeightsError, match="50 MiB, where those"):
        read_header(path)


# ── the names of a known model, with shapes of nothing ──────────────────────────────────────────────────────────────


@cache
def known(kin: str) -> dict[str, tuple[int, ...]]:
    state = dict(checkpoint(kin)[0])
    if kin == "sd1":
        state |= ldm.prefixed("ip_adapter.", {"1.to_k_ip.weight": state["model.diffusion_model.out.2.weight"]})
    return {k: tuple(t.shape) for k, t in state.items()}


shapes = st.lists(st.integers(0, 9), max_size=5).map(tuple)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kin", "examples"), [("sd1", 25), *(pytest.param(k, 200, marks=pytest.mark.slow) for k in ("sd1", "sd2", "sdxl"))]
)
def test_known_names_with_other_shapes_are_a_letter(kin: str, examples: int, tmp_path: Path) -> None:
    from strangers import sparse

    names = sorted(known(kin))

    @rules(examples)
    @given(
        st.dictionaries(st.sampled_from(names), shapes, max_size=6),
        st.sets(st.sampled_from(names), max_size=20),
        st.booleans(),
    )
    def tell(bent: dict[str, tuple[int, ...]], lost: set[str], base: bool) -> None:
        table = {
            k: s for k, s in {**known(kin), **bent}.items() if k not in lost and (not base or not k.startswith("ip_"))
        }
        try:
            source = Source("m", sparse(tmp_path / "m.safetensors", table))
            outline(source)
        except InfuseError:
            pass

    tell()
