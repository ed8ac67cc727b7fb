"""A recipe from wherever it comes: who may name what, what counts for its digest, and what is kept beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from infuse import Recipe
from infuse.conditions import ControlNet, DepthVideo, Img2Img, Size
from infuse.engine.result import Result
from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.foreign import shown_record
from infuse.media.metadata import read_record
from infuse.media.reading import OWN, STRICT, Reading
from infuse.recipe import digest


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stranger(said: dict[str, Any], path: str = "strange.png", **more: Any) -> Path:
    """A picture whose record somebody else wrote."""
    info = PngInfo()
    info.add_itxt("infuse", json.dumps({"version": 2, "recipe": said, "inputs": {}, "weights": {}} | more), zip=True)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return Path(path)


def plain(path: str = "a.png") -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return path


# Strangers ----------------------------------------------------------------------------------------------------------

opened: list[str] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if (
        event
        in ("open", "os.open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo", "subprocess.Popen")
        and watching
    ):
        opened.append(f"{event} {args[0]}")


watching: list[bool] = []
sys.addaudithook(_hook)

SECRETS = ["/etc/hostname", "../private.png", "private.png", "~/private.png", "file:///etc/hostname", "https://example.org/a.png", "\\\\host\\share\\a.png",
           "C:\\private.png", "./sub/../private.png"]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("field", ["image", "film", "mask"])
def test_a_stranger_s_picture_names_nothing_of_this_machine(secret: str, field: str, tmp_path: Path) -> None:
    plain("private.png")
    kind = {"image": {"kind": "img2img", "image": secret}, "film": {"kind": "depth_video", "film": {"source": secret}},
            "mask": {"kind": "text", "prompt": "x", "mask": secret}}[field]  # fmt: skip
    path = stranger({"prompt": "x", "conditions": [kind]})
    told = []
    for there in (True, False):
        if not there:
            Path("private.png").unlink()
        opened.clear()
        watching.append(True)
        try:
            with pytest.raises(RecipeError, match="not carried along.*--trust") as caught:
                Recipe.load(path)
        finally:
            watching.clear()
        told.append(str(caught.value))
        assert [o for o in opened if "strange.png" not in o] == [], "nothing else was opened, listed or asked for"
    assert told[0] == told[1], "the letter does not tell whether it exists"


def test_whoever_is_trusted_may() -> None:
    plain()
    path = stranger({"conditions": [{"kind": "img2img", "image": "a.png"}]})
    assert Recipe.load(path, trust=True).digest == Recipe(conditions=[Img2Img(image="a.png")]).digest
    with pytest.raises(RecipeError, match="not carried along"):
        Recipe.load({"conditions": [{"kind": "img2img", "image": "a.png"}]}, trust=False)
    with pytest.raises(RecipeError, match="not carried along"):
        Recipe.load({"conditions": [{"kind": "img2img", "image": "a.png"}]}, reading=STRICT)
    assert Recipe.load({"conditions": [{"kind": "img2img", "image": "a.png"}]}).conditions


def test_the_policy_stays_with_the_recipe() -> None:
    plain()
    Path("sub").mkdir()
    Path("sub/r.yaml").write_text("prompt: x\nmodel: mine\n")
    own, strange = Recipe.load("sub/r.yaml"), Recipe.load(stranger({"prompt": "x", "model": "mine"}))
    assert own._reading == OWN.at(Path("sub")) and own._reading.trusting
    assert not strange._reading.trusting
    assert own == strange and hash(own) == hash(strange) != hash(Recipe(prompt="y")) and own.digest == strange.digest
    assert (
        strange.model_copy(update={"seed": 4})._reading
        == strange._reading
        == strange.with_pictures(lambda p: p)._reading
    )
    assert Recipe(prompt="x")._reading == OWN and own != {"prompt": "x"}
    ours = Reading(most_text=100)
    with pytest.raises(CapacityError):
        Recipe.load(stranger({"prompt": "x" * 200}), reading=ours)


@pytest.mark.parametrize(("said", "words"), [
    ({"seed": 2**63}, "seed"), ({"seed": -5}, "seed"), ({"seed": 1e300}, "seed"), ({"steps": 10**6}, "steps"), ({"guidance": "nan"}, "guidance"),
    ({"width": 10**9}, ""), ({"prompt": ["x"] * 1000}, "prompt"), ({"conditions": {"a": 1}}, "conditions"), ({"conditions": [[]] * 3}, "conditions"),
    ({"nonsense": 1}, "nonsense"), ({"count": 2, "seed": 2**63 - 1}, "seed")])  # fmt: skip
def test_records_that_cannot_be_meant_are_letters(said: dict[str, Any], words: str) -> None:
    try:
        Recipe.load(stranger(said))
    except InfuseError as error:
        assert words in error.field
    else:
        assert not words  # what a check refuses


def test_an_old_record_is_read() -> None:
    plain()
    uri = Img2Img(image="a.png").image.embedded().source
    path = stranger(
        {"prompt": "x", "conditions": [{"kind": "img2img", "image": uri}]},
        version=1,
        inputs={"conditions.0.image": "ab"},
    )
    assert Recipe.load(path).digest == Recipe(prompt="x", conditions=[Img2Img(image="a.png")]).digest


def test_deep_dictionaries_are_letters() -> None:
    deep: Any = {}
    for _ in range(60):
        deep = {"a": deep}
    with pytest.raises(InfuseError):
        Recipe.load({"prompt": deep})


# Digests ------------------------------------------------------------------------------------------------------------


def test_a_new_field_at_its_default_changes_no_digest() -> None:
    class Sized(Size):
        """A later version: one field more."""

        brand_new: tuple[int, ...] = (1, 2)
        VOICE: ClassVar = Size.VOICE

    class Later(Recipe):
        another: float = 0.5

    assert digest(Sized(original=(8, 8))) == digest(Size(original=(8, 8)))
    assert digest(Sized(original=(8, 8)), voiced=False) == digest(Size(original=(8, 8)), voiced=False)
    assert digest(Sized(original=(8, 8), brand_new=(1,))) != digest(Size(original=(8, 8)))
    assert Later(prompt="x").digest == Recipe(prompt="x").digest != Later(prompt="x", another=1).digest


def test_what_is_said_counts_and_how_it_is_spelled_does_not() -> None:
    plain()
    said = [
        Recipe(prompt="x", steps=30),
        Recipe(prompt="x"),
        Recipe(**{"prompt": "x", "conditions": []}),
        Recipe(prompt="x", guidance_rescale=0),
    ]
    assert len({r.digest for r in said}) == 1
    others = [Recipe(prompt="x", seed=1), Recipe(prompt="x", conditions=[Size()]), Recipe(prompt="x", conditions=[Size(weight=0.5)]),
              Recipe(prompt="x", conditions=[Img2Img(image="a.png")]), Recipe(prompt="x", conditions=[ControlNet(model="m", image="a.png")]),
              Recipe(prompt="x", conditions=[DepthVideo(film="a.png")]), Recipe(prompt="x", conditions=[DepthVideo(film={"source": "a.png", "fps": 3})])]  # fmt: skip
    assert len({r.digest for r in [*said, *others]}) == 1 + len(others)


# Showing ------------------------------------------------------------------------------------------------------------


def test_a_record_is_shown_as_yaml() -> None:
    plain()
    made = Result((Image.new("RGB", (16, 16)),), Recipe(prompt="a red cübe", seed=3, conditions=[Img2Img(image="a.png")]), None,
                  resolved={"scheduler": "DDIMScheduler", "steps": 30})  # fmt: skip
    made.save("out.png")
    text = shown_record("out.png")
    said = yaml.safe_load(text)
    assert (
        said["recipe"]["prompt"] == "a red cübe"
        and said["resolved"]["scheduler"] == "DDIMScheduler"
        and said["resolved"]["seed"] == 3
    )
    assert (
        said["recipe"]["conditions"][0]["image"].startswith("data:image/png: ")
        and "KiB inside" in text
        and len(text) < 2_000
    )
    assert (
        list(said)[:3] == ["recipe", "resolved", "inputs"]
        and said["digest"] == made.record().digest == read_record(Path("out.png"))["digest"]
    )
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, Seed: 3, Model: mine")
    Image.new("RGB", (8, 8)).save("web.png", pnginfo=info)
    said = yaml.safe_load(shown_record("web.png"))
    assert said["recipe"]["prompt"] == "a cat" and "mine" in said["left out"][0]
    for path, words in ((plain(), "carries no recipe"), ("nowhere.png", "there is no file")):
        with pytest.raises(RecipeError, match=words):
            shown_record(path)


def test_a_written_recipe_names_its_models_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S8: as its pictures; names stay names."""
    monkeypatch.chdir(tmp_path)
    for place in ("proj/models/edges2", "other"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "proj/sd.safetensors").write_bytes(b"")
    (tmp_path / "proj/r.yaml").write_text(
        "model: sd.safetensors\nconditions:\n- {kind: controlnet, model: models/edges2, image: a.png}\n"
        "- {kind: controlnet, model: edges, image: a.png}\n- {kind: ip_adapter, model: owner/name, image: a.png}\n"
    )
    Recipe.load("proj/r.yaml").dump("other/moved.yaml")
    said = yaml.safe_load(Path("other/moved.yaml").read_text())
    assert said["model"] == "../proj/sd.safetensors"
    assert [c["model"] for c in said["conditions"]] == ["../proj/models/edges2", "edges", "owner/name"]
    Recipe.load("proj/r.yaml").dump("proj/again.yaml")
    assert yaml.safe_load(Path("proj/again.yaml").read_text())["model"] == "sd.safetensors"
    Recipe.load("proj/r.yaml").dump("up.yaml")
    assert yaml.safe_load(Path("up.yaml").read_text())["conditions"][0]["model"] == "proj/models/edges2"
