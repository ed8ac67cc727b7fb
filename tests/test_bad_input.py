"""Whatever is wrong with a recipe or a file is said before any network is loaded: the field, the fact, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import strangers
from typer.testing import CliRunner

from infuse import Recipe, cli
from infuse.conditions.ip_adapter import Adapter
from infuse.engine.check import check
from infuse.engine.shelf import Shelf
from infuse.errors import CapacityError, InfuseError, RecipeError, WeightsError

NAN, INF = float("nan"), float("inf")
Case = tuple[str, dict[str, Any] | str, type[InfuseError], str, tuple[str, ...]]


def base(**fields: Any) -> dict[str, Any]:
    return {"model": "sd15.safetensors", "prompt": "x", **fields}


def one(kind: str, **fields: Any) -> dict[str, Any]:
    """A recipe with one condition that is otherwise sound."""
    sound = {"text": {"prompt": "x"}, "img2img": {"image": "a.png"}, "inpaint": {"image": "a.png", "mask": "mask.png"},
             "brushnet": {"model": "brush15.safetensors", "image": "a.png", "mask": "mask.png"},
             "powerpaint": {"model": "./powerpaint2", "image": "a.png", "mask": "mask.png"},
             "controlnet": {"model": "canny15.safetensors", "image": "a.png"},
             "ip_adapter": {"model": "ip15.safetensors", "image": "a.png", "image_encoder": "./vit-h"}}.get(kind, {})  # fmt: skip
    return base(conditions=[{"kind": kind, **sound, **fields}])


def both(*kinds: str, **fields: Any) -> dict[str, Any]:
    return base(conditions=[one(kind)["conditions"][0] for kind in kinds], **fields)


FIELDS: list[Case] = [
    ("unknown field", base(promt="x"), RecipeError, "promt", ("no such field", "Did you mean prompt?")),
    (
        "unknown field of a condition",
        one("controlnet", wieght=1),
        RecipeError,
        "conditions.0.wieght",
        ("Did you mean weight?",),
    ),
    ("steps in words", base(steps="many"), RecipeError, "steps", ("integer", "'many'")),
    ("steps 0", base(steps=0), RecipeError, "steps", ("greater than or equal to 1", "0")),
    ("steps 1001", base(steps=1001), RecipeError, "steps", ("less than or equal to 1000", "1001")),
    ("steps 1.5", base(steps=1.5), RecipeError, "steps", ("integer", "1.5")),
    ("negative seed", base(seed=-1), RecipeError, "seed", ("greater than or equal to 0", "-1")),
    ("seed too large", base(seed=2**63), RecipeError, "seed", ("less than 9223372036854775808",)),
    ("width 0", base(width=0), RecipeError, "width", ("greater than or equal to 16",)),
    ("width 13", base(width=13), RecipeError, "width", ("greater than or equal to 16", "13")),
    ("width 513", base(width=513), RecipeError, "width", ("not a multiple of 8", "512 and 520")),
    ("width 100,000", base(width=100_000), CapacityError, "width", ("limit of 8192", "smaller")),
    ("height 100,000", base(height=100_000), CapacityError, "height", ("limit of 8192", "smaller")),
    ("count 0", base(count=0), RecipeError, "count", ("greater than or equal to 1",)),
    ("count 5,000", base(count=5000), RecipeError, "count", ("less than or equal to 1024",)),
    ("guidance inf", base(guidance=INF), RecipeError, "guidance", ("finite", "inf")),
    ("guidance nan in a curve", base(guidance={0: 5, 1: NAN}), RecipeError, "guidance", ("finite",)),
    ("guidance beyond its end", base(guidance={0: 5, 2: 1}), RecipeError, "guidance", ("less than or equal to 1",)),
    ("empty guidance", base(guidance={}), RecipeError, "guidance", ("empty curve", "give a number")),
    ("rescale 2", base(guidance_rescale=2), RecipeError, "guidance_rescale", ("less than or equal to 1",)),
    ("no model", base(model=""), RecipeError, "model", ("at least 1 character",)),
    ("model of spaces", base(model="  "), WeightsError, "model", ("no model is named", "tabletop")),
    ("prompt is a number", base(prompt=5), RecipeError, "prompt", ("string", "5")),
    ("prompt of 5,000 words", base(prompt="word " * 5000), CapacityError, "prompt", ("5000 words", "2400", "shorter")),
    (
        "negative prompt of 5,000 words",
        base(negative_prompt="word " * 5000),
        CapacityError,
        "negative_prompt",
        ("5000 words",),
    ),
    ("unknown scheduler", base(scheduler="Euller a"), RecipeError, "scheduler", ("Euller a", "Did you mean Euler a")),
    ("scheduler of nothing alike", base(scheduler="zzz"), RecipeError, "scheduler", ("Known: DDIM", "zzz")),
    (
        "Karras where it cannot be",
        base(scheduler="DDIM Karras"),
        RecipeError,
        "scheduler",
        ("DDIMScheduler has no", "Use 'DDIM' alone"),
    ),
    ("conditions is a mapping", base(conditions={"kind": "text"}), RecipeError, "conditions", ("tuple",)),
    ("unknown kind", one("controlnett"), RecipeError, "conditions.0", ("controlnett", "'controlnet'")),
    ("no kind", base(conditions=[{"image": "a.png"}]), RecipeError, "conditions.0", ("needs a kind",)),
    (
        "condition is a word",
        base(conditions=["controlnet"]),
        RecipeError,
        "conditions.0",
        ("'controlnet' is no condition", "kind"),
    ),
    ("frames on a picture base", base(frames=16), RecipeError, "frames", ("not videos", "video base")),
]

CONDITIONS: list[Case] = [
    ("weight nan", one("controlnet", weight=NAN), RecipeError, "conditions.0.weight", ("finite", "nan")),
    ("weight in words", one("controlnet", weight="strong"), RecipeError, "conditions.0.weight", ("number", "'strong'")),
    ("empty curve", one("controlnet", weight={}), RecipeError, "conditions.0.weight", ("empty curve", "0.5: 0.0")),
    ("curve outside", one("controlnet", weight={-1: 1.0}), RecipeError, "conditions.0.weight", ("greater than or equal to 0",)),
    ("start after end", one("controlnet", start=0.8, end=0.2), RecipeError, "conditions.0", ("start 0.8 must come before end 0.2",)),
    ("start equals end", one("controlnet", start=0.5, end=0.5), RecipeError, "conditions.0", ("never speak",)),
    ("window outside", one("controlnet", end=1.5), RecipeError, "conditions.0.end", ("less than or equal to 1", "1.5")),
    ("window before", one("controlnet", start=-0.1), RecipeError, "conditions.0.start", ("greater than or equal to 0",)),
    ("applies to nobody", one("controlnet", applies_to="all"), RecipeError, "conditions.0.applies_to", ("'both'", "'all'")),
    ("unknown mode", one("controlnet", mode="loud"), RecipeError, "conditions.0.mode", ("'balanced'", "'loud'")),
    ("unknown annotator", one("controlnet", annotator="pose"), RecipeError, "conditions.0.annotator", ("'canny'", "'pose'")),
    ("controlnet without a model", base(conditions=[{"kind": "controlnet", "image": "a.png"}]), RecipeError, "conditions.0.model", ("required",)),
    ("controlnet without a hint", base(conditions=[{"kind": "controlnet", "model": "x"}]), RecipeError, "conditions.0.image", ("required",)),
    ("two mistakes", base(steps=0, seed=-1), RecipeError, "steps", ("1 more field",)),
    ("region of another size", one("controlnet", mask="mask256.png"), RecipeError, "conditions.0.mask", ("256 x 256", "512 x 512")),
    ("empty region", one("controlnet", mask="black.png"), RecipeError, "conditions.0.mask", ("heard nowhere", "White is")),
    ("sites of the wrong length", one("controlnet", sites=[1.0] * 12), RecipeError, "conditions.0.sites", ("12 factors", "13 sites")),
    ("layers of the wrong length", one("ip_adapter", layers=[1.0] * 70), RecipeError, "conditions.0.layers", ("70 factors", "16 cross")),
    ("no reference", one("ip_adapter", image=[]), RecipeError, "conditions.0.image", ("at least 1",)),
    ("negative text weight", one("text", weight=-1), RecipeError, "conditions.0.weight", ("less than not at all", "0 or more")),
    ("text of 5,000 words", one("text", prompt="w " * 5000), CapacityError, "conditions.0.prompt", ("5000 words", "regions")),
    ("img2img with weight", one("img2img", weight=0.5), RecipeError, "conditions.0.weight", ("img2img", "Remove it")),
    ("img2img with a window", one("img2img", end=0.5), RecipeError, "conditions.0.end", ("img2img", "Remove it")),
    ("img2img on one side", one("img2img", applies_to="prompt"), RecipeError, "conditions.0.applies_to", ("Remove it",)),
    ("strength 0", one("img2img", strength=0), RecipeError, "conditions.0.strength", ("greater than 0",)),
    ("strength 1.1", one("img2img", strength=1.1), RecipeError, "conditions.0.strength", ("less than or equal to 1",)),
    ("strength too small for the steps", {**one("img2img", strength=0.04), "steps": 20}, RecipeError, "conditions.0.strength",
     ("0.04 of 20 steps", "at least 0.05")),
    ("mask of another size", one("inpaint", mask="mask256.png"), RecipeError, "conditions.0.mask", ("256 x 256", "512 x 512", "same size")),
    ("nothing to repaint", one("inpaint", mask="black.png"), RecipeError, "conditions.0.mask", ("no white pixel", "White is repainted")),
    ("inpaint without a mask", base(conditions=[{"kind": "inpaint", "image": "a.png"}]), RecipeError, "conditions.0.mask", ("required",)),
    ("inpaint on one side", one("inpaint", applies_to="negative"), RecipeError, "conditions.0.applies_to", ("Remove it",)),
    ("size on SD 1", one("size"), RecipeError, "conditions.0", ("no size embedding", "SDXL base")),
    ("two starts", both("img2img", "img2img"), RecipeError, "conditions.1", ("conditions.0", "Keep one")),
    ("two inpaints on a 9-channel base", both("inpaint", "inpaint", model="sd15-inpaint.safetensors"), RecipeError, "conditions.1",
     ("conditions.0", "join their masks")),
    ("inpaint on a base with other channels", {**one("inpaint"), "model": "pix2pix.safetensors"}, RecipeError, "conditions.0",
     ("extra channels image", "inpainting base")),
]  # fmt: skip

PICTURES: list[Case] = [
    (
        "missing",
        one("img2img", image="nowhere.png"),
        RecipeError,
        "conditions.0.image",
        ("nowhere.png", "No such file", "Check the path"),
    ),
    (
        "a folder",
        one("img2img", image="folder"),
        RecipeError,
        "conditions.0.image",
        ("folder", "directory", "Check the path"),
    ),
    (
        "no picture",
        one("img2img", image="words.png"),
        RecipeError,
        "conditions.0.image",
        ("no known format", "PNG, JPEG or WebP"),
    ),
    ("empty", one("img2img", image="empty.png"), RecipeError, "conditions.0.image", ("not a picture",)),
    (
        "cut short",
        one("img2img", image="cut.png"),
        RecipeError,
        "conditions.0.image",
        ("cut.png", "truncated", "opens in a viewer"),
    ),
    ("one pixel", one("controlnet", image="dot.png"), RecipeError, "conditions.0.image", ("1 x 1 px", "at least 8")),
    (
        "20,000 px",
        one("controlnet", image="wide.png"),
        CapacityError,
        "conditions.0.image",
        ("20000 x 8", "16384", "Scale it down"),
    ),
    ("256 megapixels", one("controlnet", image="vast.png"), CapacityError, "conditions.0.image", ("Scale it down",)),
    ("no name", one("img2img", image=" "), RecipeError, "conditions.0.image", ("empty path", "give a path")),
    ("a number", one("img2img", image=5), RecipeError, "conditions.0.image", ("5 is not a picture", "give a path")),
    (
        "bad base64",
        one("img2img", image="data:image/png;base64,@@@"),
        RecipeError,
        "conditions.0.image",
        ("not valid base64", "Encode"),
    ),
    (
        "data that is no picture",
        one("img2img", image="data:image/png;base64,aGVsbG8="),
        RecipeError,
        "conditions.0.image",
        ("not a picture",),
    ),
    (
        "the second reference",
        one("ip_adapter", image=["a.png", "words.png"]),
        RecipeError,
        "conditions.0.image.1",
        ("not a picture",),
    ),
    ("the region", one("text", mask="words.png"), RecipeError, "conditions.0.mask", ("not a picture",)),
]

MODELS: list[Case] = [
    ("not found", base(model="./nowhere"), WeightsError, "model", ("./nowhere", "Looked at", "Hub id")),
    ("a near name", base(model="sd51.safetensors"), WeightsError, "model", ("not found", "INFUSE_MODELS")),
    ("a Hub id, offline", base(model="someone/something"), WeightsError, "model", ("offline", "hf download someone/something")),
    ("a folder of nothing", base(model="./folder"), WeightsError, "model", ("neither model_index.json nor config.json",)),
    ("empty file", base(model="empty.safetensors"), WeightsError, "model", ("empty (0 bytes)", "Download it again")),
    ("web page", base(model="html.safetensors"), WeightsError, "model", ("a web page", "Download it again")),
    ("LFS pointer", base(model="lfs.safetensors"), WeightsError, "model", ("Git LFS pointer", "git lfs pull")),
    ("cut short", base(model="cut.safetensors"), WeightsError, "model", ("cut short", "Download it again")),
    ("a renamed pickle", base(model="renamed.safetensors"), WeightsError, "model", ("pickle", "suffix .pt")),
    ("GGUF", base(model="gguf.safetensors"), WeightsError, "model", ("GGUF", "fp16")),
    ("a picture", base(model="a.png"), WeightsError, "model", ("a picture", "weights beside it")),
    ("a pickle with code", base(model="burglar.ckpt"), WeightsError, "model", ("would run code", ".safetensors")),
    ("a ControlNet as base", base(model="canny15.safetensors"), WeightsError, "model", ("a ControlNet", "condition of kind controlnet")),
    ("an IP-Adapter as base", base(model="ip15.safetensors"), WeightsError, "model", ("an IP-Adapter", "condition of kind ip_adapter")),
    ("a LoRA as base", base(model="lora.safetensors"), WeightsError, "model", ("a LoRA", "a base model", "merge it")),
    ("a VAE as base", base(model="vae.safetensors"), WeightsError, "model", ("a VAE", "a base model")),
    ("the refiner as base", base(model="refiner.safetensors"), WeightsError, "model", ("refiner",)),
    ("another family", base(model="flux.safetensors"), WeightsError, "model", ("another family", "SD 1.x, SD 2.x and SDXL")),
    ("nothing known", base(model="odd.safetensors"), WeightsError, "model", ("no kind that infuse knows", "Choose another file")),
    ("SD 1.5 ControlNet on SDXL", {**one("controlnet"), "model": "sdxl.safetensors"}, RecipeError, "conditions.0.model",
     ("SD 1.x (context width 768)", "SDXL (context width 2048)", "Choose a ControlNet")),
    ("SDXL ControlNet on SD 1.5", one("controlnet", model="canny-xl.safetensors"), RecipeError, "conditions.0.model", ("SDXL", "768")),
    ("SDXL IP-Adapter on SD 1.5", one("ip_adapter", model="ip-xl.safetensors"), RecipeError, "conditions.0.model",
     ("SDXL (context width 2048)", "768", "Choose an IP-Adapter")),
    ("wrong image encoder", one("ip_adapter", image_encoder="./bigg"), WeightsError, "conditions.0.image_encoder",
     ("1024 (ViT-H)", "1280 (bigG)", "Name the right")),
    ("no image encoder", one("ip_adapter", image_encoder=None), WeightsError, "conditions.0.image_encoder", ("brings no image encoder", "1024")),
    ("an image encoder that is none", one("ip_adapter", image_encoder="./no-eye"), WeightsError, "conditions.0.image_encoder", ("no CLIP vision",)),
    ("an image encoder that is not there", one("ip_adapter", image_encoder="./eye"), WeightsError, "conditions.0.image_encoder", ("not found",)),
    ("a LoRA as ControlNet", one("controlnet", model="lora.safetensors"), WeightsError, "conditions.0.model", ("a LoRA", "needs a ControlNet")),
    ("a base as ControlNet", one("controlnet", model="sd15.safetensors"), WeightsError, "conditions.0.model", ("a base model", "needs a ControlNet")),
    ("an IP-Adapter as ControlNet", one("controlnet", model="ip15.safetensors"), WeightsError, "conditions.0.model",
     ("an IP-Adapter", "needs a ControlNet")),
    ("a ControlNet as IP-Adapter", one("ip_adapter", model="canny15.safetensors"), WeightsError, "conditions.0.model",
     ("a ControlNet", "needs an IP-Adapter")),
    ("an IP-Adapter of too few layers", one("ip_adapter", model="ip-short.safetensors"), WeightsError, "conditions.0.model",
     ("4 pairs", "16 cross-attentions")),
    ("a FaceID adapter", one("ip_adapter", model="faceid.safetensors"), WeightsError, "conditions.0.model", ("face vectors", "plain, plus or full")),
    ("a missing ControlNet", one("controlnet", model="./gone"), WeightsError, "conditions.0.model", ("not found",)),
    ("a broken ControlNet", one("controlnet", model="html.safetensors"), WeightsError, "conditions.0.model", ("a web page",)),
    ("a BrushNet as base", base(model="brush15.safetensors"), WeightsError, "model", ("a BrushNet (plain)", "condition of kind brushnet")),
    ("a PowerPaint 2 as base", base(model="./powerpaint2"), WeightsError, "model", ("a BrushNet (powerpaint)", "kind powerpaint")),
    ("a base as BrushNet", one("brushnet", model="sd15.safetensors"), WeightsError, "conditions.0.model", ("a base model", "needs a BrushNet")),
    ("a base as PowerPaint", one("powerpaint", model="sd15.safetensors"), WeightsError, "conditions.0.model", ("a base model", "recipe's `model`")),
    ("an IP-Adapter as BrushNet", one("brushnet", model="ip15.safetensors"), WeightsError, "conditions.0.model",
     ("an IP-Adapter", "needs a BrushNet", "kind ip_adapter")),
    ("a broken BrushNet", one("brushnet", model="cut.safetensors"), WeightsError, "conditions.0.model", ("cut short",)),
    ("a BrushNet without task tokens", one("powerpaint", model="brush15.safetensors"), RecipeError, "conditions.0.model",
     ("without task tokens", "kind brushnet")),
    ("task tokens of nine vectors", one("powerpaint", model="./powerpaint-nine"), WeightsError, "conditions.0.model",
     ("P_ctxt, P_shape, P_obj", "not ten", "Download it again")),
    ("PowerPaint 1 where there is none", one("powerpaint", model=None), RecipeError, "conditions.0.model", ("no task tokens", "`inpaint`")),
    ("SD 1.5 BrushNet on SDXL", {**one("brushnet"), "model": "sdxl.safetensors"}, RecipeError, "conditions.0.model",
     ("SD 1.x (context width 768)", "SDXL (context width 2048)", "Choose a BrushNet")),
    ("SD 1.5 PowerPaint on SDXL", {**one("powerpaint"), "model": "sdxl.safetensors"}, RecipeError, "conditions.0.model",
     ("SD 1.x (context width 768)", "SDXL (context width 2048)", "another base")),
    ("a ControlNet with code", one("controlnet", model="burglar.ckpt"), WeightsError, "conditions.0.model", ("would run code",)),
]  # fmt: skip

FILES: list[Case] = [
    ("missing", "nowhere.yaml", RecipeError, "", ("no recipe file", "Check the path")),
    ("a list", "list.yaml", RecipeError, "", ("fields and values", "prompt: a red cube")),
    ("broken", "broken.yaml", RecipeError, "", ("not YAML or JSON", "line 1")),
    ("binary", "binary.yaml", RecipeError, "", ("not YAML or JSON",)),
    ("empty", "empty.yaml", RecipeError, "", ("fields and values",)),
    ("numbers for names", "number.yaml", RecipeError, "", ("fields and values",)),
    ("a typo", "typo.yaml", RecipeError, "promt", ("Did you mean prompt?",)),
    ("a field twice", "twice.json", RecipeError, "", ("prompt", "twice")),
    ("a field of a condition twice", "twice.yaml", RecipeError, "", ("weight", "twice", "Keep one")),
    ("broken JSON", "broken.json", RecipeError, "", ("not YAML or JSON",)),
    ("a picture without a recipe", "a.png", RecipeError, "", ("carries no recipe", "PNGs written by infuse")),
    ("a picture of another program", "foreign.png", RecipeError, "", ("carries no recipe",)),
    ("a damaged recipe", "damaged.png", RecipeError, "", ("damaged",)),
    ("a recipe with unknown fields", "newer.png", RecipeError, "flavour", ("no such field",)),
    ("no picture", "words.png", RecipeError, "", ("not a picture",)),
]

CASES = {f"{group}: {name}": rest for group, cases in (
    ("field", FIELDS), ("condition", CONDITIONS), ("picture", PICTURES), ("model", MODELS), ("file", FILES)) for name, *rest in cases}  # fmt: skip


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strangers.everything(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(autouse=True)
def _nothing_is_loaded(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.chdir(world)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (
        "infuse.weights.base.load_base",
        "infuse.weights.base.load_vision",
        "infuse.weights.controlnet.load_controlnet",
        "infuse.weights.powerpaint.load_brushnet",
        "infuse.weights.powerpaint.load_tasks",
    ):
        monkeypatch.setattr(name, loaded)
    monkeypatch.setattr(Adapter, "load", loaded)
    yield
    assert not (world / "burgled").exists(), "a pickle ran its code"


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_letter(case: str) -> None:
    recipe, kind, field, words = CASES[case]
    with pytest.raises(InfuseError) as caught:
        check(Recipe.load(recipe), Shelf(device="cpu"))
    error = caught.value
    assert (type(error), error.field) == (kind, field), str(error)
    assert all(w in error.message for w in words), str(error)
    assert len(error.message) < 1200 and str(error).count("\n") <= 2, "a letter, not a dump"


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60


def test_the_sound_ones_pass() -> None:
    """What the table's recipes are bent from is in order; else each would be refused for the wrong reason."""
    for kind in ("text", "img2img", "inpaint", "controlnet", "ip_adapter", "brushnet", "powerpaint"):
        report = check(Recipe.load(one(kind)), Shelf(device="cpu"))
        assert report.size == (512, 512) and report.memory > 1e9


def test_the_readme_quotes_a_real_letter() -> None:
    recipe = both("text", "controlnet")
    recipe["conditions"][1]["model"] = "canny-xl.safetensors"
    with pytest.raises(RecipeError) as caught:
        check(Recipe.load(recipe), Shelf(device="cpu"))
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    assert str(caught.value) in " ".join(readme.split())


SAMPLE: dict[str, Callable[[], list[str]]] = {
    "a field": lambda: ["check", "x", "--model", "sd15.safetensors", "--set", "steps=0"],
    "an unknown field": lambda: ["run", "x", "--set", "flavour=sweet"],
    "a model": lambda: ["run", "x", "--model", "html.safetensors"],
    "a pickle": lambda: ["check", "x", "--model", "burglar.ckpt"],
    "a family": lambda: ["check", "x", "--model", "sdxl.safetensors", "--set", "conditions.0={kind: controlnet, model: canny15.safetensors, image: a.png}"],
    "a list": lambda: ["run", "list.yaml"],
    "a picture": lambda: ["run", "x", "--model", "sd15.safetensors", "--init", "cut.png"],
    "a stranger's picture": lambda: ["run", "foreign.png"],
}  # fmt: skip


@pytest.mark.parametrize("case", SAMPLE)
def test_the_command_line_sends_the_letter_too(case: str) -> None:
    result = CliRunner().invoke(cli.app, SAMPLE[case]())
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ") and "Traceback" not in result.output and not result.stdout
