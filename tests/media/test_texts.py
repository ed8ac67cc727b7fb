"""Text in strangers' pictures is read by our own rules: no limit of anybody else's is moved, nothing is unpacked beyond ours,
whatever is broken is a letter."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from watched import pillow, watched

from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.media.films import Film
from infuse.media.metadata import read_record
from infuse.media.pictures import Picture
from infuse.media.plain_data import json_data, read_data, yaml_data
from infuse.media.png_text import SIGNATURE, wordless
from infuse.media.reading import OWN, STRICT
from infuse.media.texts import block, texts, user_comment

TEN = replace(STRICT, most_text=10_000)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(*chunks: bytes, path: str = "a.png") -> Path:
    """A picture of 8 x 8 px with these chunks before its pixels."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    whole = out.getvalue()
    Path(path).write_bytes(whole[:33] + b"".join(chunks) + whole[33:])
    return Path(path)


def itxt(key: str, text: str, packed: bool = True) -> bytes:
    body = zlib.compress(text.encode()) if packed else text.encode()
    return chunk(b"iTXt", key.encode() + b"\0" + bytes([packed]) + b"\0\0\0" + body)


def test_every_kind_of_text_is_read() -> None:
    path = png(
        itxt("a", "é漢"), itxt("b", "plain", False), chunk(b"tEXt", b"c\0caf\xe9"),
        chunk(b"zTXt", b"d\0\0" + zlib.compress(b"packed")), itxt("a", "a second one"),
        chunk(b"eXIf", block({}, "said in EXIF").removeprefix(b"Exif\0\0")),
    )  # fmt: skip
    assert texts(path, STRICT) == {"a": "é漢", "b": "plain", "c": "café", "d": "packed", "UserComment": "said in EXIF"}


@pytest.mark.slow
def test_pillow_s_limits_stay_what_they_are() -> None:
    before = pillow()
    assert before == (89_478_485, 1 << 20, 64 << 20, False)
    path = png(
        itxt("infuse", json.dumps({"version": 1, "recipe": {"prompt": "x" * 3_000_000}, "inputs": {}, "weights": {}}))
    )
    assert len(read_record(path)["recipe"]["prompt"]) == 3_000_000, "what 0.4 wrote is still read"
    assert Picture.of(path).image.size == Film.of(path).take(1).frames[0].size == (8, 8), "and its pixels"
    Path("frames").mkdir()
    path.rename("frames/0.png")
    assert Film.of("frames").take(1).frames[0].size == (8, 8)
    assert before == pillow()


def test_a_png_without_its_words_is_the_same_picture() -> None:
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
    whole, bare = png(itxt("a", "x"), xmp, chunk(b"tEXt", b"c\0x"), path="b.png").read_bytes(), png(xmp).read_bytes()
    assert wordless(whole) == bare == wordless(bare) and wordless(b"no PNG") == b"no PNG"
    for cut in range(len(whole)):
        wordless(whole[:cut])


@pytest.mark.parametrize("kind", ["iTXt", "zTXt", "many"])
def test_a_small_file_of_much_text_is_a_letter_and_costs_no_memory(kind: str) -> None:
    big = zlib.compress(bytes(64 << 20), 1)
    body = {"iTXt": chunk(b"iTXt", b"infuse\0\1\0\0\0" + big), "zTXt": chunk(b"zTXt", b"infuse\0\0" + big)}
    many = b"".join(itxt(f"k{i}", "x" * 9_000) for i in range(3))
    path = png(body.get(kind, many))
    del big
    tracemalloc.start()
    with pytest.raises(CapacityError, match="of text, the limit"):
        texts(path, TEN if kind == "many" else STRICT)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


BROKEN = {
    "checksum": (lambda: itxt("infuse", "{}")[:-1] + b"x", "checksum"),
    "length": (lambda: struct.pack(">I4s", 1 << 31, b"iTXt"), "cut short"),
    "stream": (lambda: chunk(b"zTXt", b"infuse\0\0" + zlib.compress(b"x" * 99)[:-8]), "cut short"),
    "not zlib": (lambda: chunk(b"zTXt", b"infuse\0\0" + b"x" * 50), "cannot be unpacked"),
    "method": (lambda: chunk(b"iTXt", b"infuse\0\1\7\0\0x"), "nobody knows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_png_is_a_letter(case: str) -> None:
    made, words = BROKEN[case]
    with pytest.raises(RecipeError, match=rf"a\.png is not a picture that can be read \(.*{words}"):
        read_record(png(made()))


@pytest.mark.parametrize("head", [SIGNATURE, b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0", b"RIFF\xff\xff\xff\xffWEBPEXIF", b"GIF89a", b"\0\0\0\x20ftypisom",
                                  b"\0\0\0\x20ftypavif", b"II*\0", b"nothing", b""])  # fmt: skip
@settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_whatever_is_in_a_file_is_text_or_a_letter(head: bytes, rest: bytes) -> None:
    path = Path("any.png")
    path.write_bytes(head + rest)
    try:
        assert isinstance(texts(path, STRICT), dict)
    except InfuseError as error:
        assert "any.png" in str(error)


def test_user_comments_of_both_orders_of_bytes() -> None:
    for order in ("be", "le"):
        assert user_comment(b"UNICODE\0" + "a red cübe 漢".encode(f"utf-16-{order}")) == "a red cübe 漢"
    assert user_comment(b"ASCII\0\0\0abc\0") == "abc" and user_comment("Größe".encode()) == "Größe"


# YAML and JSON ------------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(8)
)
YAML = {
    "a billion laughs": (LAUGHS, "aliases are written out"),
    "a long text often": (f"a: &a {'x' * 9000}\nb: [{', '.join(['*a'] * 5)}]", "aliases are written out"),
    "deep lists": ("[" * 60 + "]" * 60, "more than 40 deep"),
    "very deep lists": ("[" * 5_000, "40 deep|maximum nesting depth"),
    "deep mappings": ("".join(f"{' ' * i}a:\n" for i in range(80)), "more than 40 deep"),
    "deep by aliases": ("".join(f"a{i}: &a{i} [[[[[[[{f'*a{i - 1}' if i else ''}]]]]]]]\n" for i in range(9)), "more than 40 deep"),
    "itself": ("a: &a [*a]", "contains itself"),
    "nowhere": ("a: *b", "not YAML or JSON|contains itself"),
    "too long": ("prompt: " + "x" * 10_000, "limit of a recipe's text"),
    "no such day": ("prompt: 2001-99-99", "not YAML or JSON"),
    "a long number": ("seed: " + "9" * 5_000, "not YAML or JSON"),
    "a mapping as a key": ("? {a: 1}\n: 2", "not YAML or JSON"),
    "code": ("!!python/object/apply:os.getcwd []", "not YAML or JSON"),
    "bytes": ("prompt: \x00", "not YAML or JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", YAML)
def test_yaml_of_a_stranger_is_a_letter(case: str) -> None:
    text, words = YAML[case]
    Path("a.yaml").write_text(text)
    with pytest.raises(InfuseError, match=words) as caught:
        read_data(Path("a.yaml"), TEN)
    assert len(str(caught.value)) < 3_000


def test_anchors_stay_allowed() -> None:
    text = "x: &x {kind: text, prompt: a}\nconditions: [*x, *x]\nmore: {<<: *x, prompt: b}"
    assert yaml_data(text, Path("a.yaml"), STRICT)["more"] == {"kind": "text", "prompt": "b"}


@pytest.mark.parametrize(("text", "words"), [("[" * 60 + "]" * 60, "40 deep"), ("[" * 200_000, "40 deep|limit"), ('{"a": NaN}', "no number"),
                                             ('{"a": 1, "a": 2}', "twice"), ('{"a": ' + "9" * 5000 + "}", "not YAML or JSON")])  # fmt: skip
def test_json_of_a_stranger_is_a_letter(text: str, words: str) -> None:
    with pytest.raises(InfuseError, match=words):
        json_data(text, Path("a.json"), STRICT)


def test_brackets_in_words_are_no_depth() -> None:
    words = "[[[[" * 50 + '\\"'
    assert json_data(f'{{"prompt": "{words}"}}', Path("a.json"), OWN)["prompt"] == "[[[[" * 50 + '"'


@pytest.mark.slow
def test_ten_thousand_broken_pictures_are_recipes_or_letters() -> None:
    """Bytes changed, left out and put in, in every format; seeds kept. None takes a second, or memory."""
    import random
    import warnings

    from infuse import Img2Img, Recipe
    from infuse.engine.result import Result

    chance, whole = random.Random(5), []
    made = Result(
        (Image.new("RGB", (16, 16)),), Recipe(prompt="x", conditions=[Img2Img(image=Image.new("RGB", (8, 8)))]), None
    )
    for suffix in ("png", "png", "jpg", "webp", "avif"):
        whole.append((suffix, made.save(f"a.{suffix}")[0].read_bytes()))
    read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about EXIF
        for n in range(10_000):
            suffix, raw = whole[n % len(whole)]
            content = bytearray(raw)
            for _ in range(chance.choice((1, 1, 2, 5, 20))):
                at, what = chance.randrange(len(content)), chance.random()
                if what < 0.6:
                    content[at] = chance.randrange(256)
                elif what < 0.8:
                    del content[at : at + chance.randrange(1, 40)]
                else:
                    content[at:at] = chance.randbytes(chance.randrange(1, 9))
                content = content or bytearray(b"x")
            path = Path(f"broken.{suffix}")
            path.write_bytes(content)
            with watched(f"a broken {suffix}, input {n}"), suppress(InfuseError):
                Recipe.load(path)
                read += 1
    assert 0 < read < 10_000
