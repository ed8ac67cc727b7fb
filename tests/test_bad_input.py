"""Whatever is wrong with a recipe or its files is said before any network is loaded: the field, the fact, and what to do."""

from __future__ import annotations

from collections.abc import Callable

import bent
import pytest
from bent import Case, base, both, one
from typer.testing import CliRunner

from infuse import Recipe
from infuse.cli.app import app
from infuse.engine.engine import Engine
from infuse.errors import CapacityError, RecipeError, WeightsError

NAN, INF = float("nan"), float("inf")

pytestmark = pytest.mark.usefixtures("nothing_is_loaded")


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
    ("negative seed", base(seed=-2), RecipeError, "seed", ("greater than or equal to 0", "-2", "random")),
    ("seed too large", base(seed=2**63), RecipeError, "seed", ("less than 9223372036854775808",)),
    ("width 0", base(width=0), RecipeError, "width", ("greater than or equal to 8",)),
    ("width 7", base(width=7), RecipeError, "width", ("greater than or equal to 8",)),
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
    ("two mistakes", base(steps=0, seed=-2), RecipeError, "steps", ("1 more field",)),
    ("empty region", one("controlnet", mask="black.png"), RecipeError, "conditions.0.mask", ("heard nowhere", "White is")),
    ("sites of the wrong length", one("controlnet", sites=[1.0] * 12), RecipeError, "conditions.0.sites", ("12 factors", "13 sites")),
    ("layers of the wrong length", one("ip_adapter", layers=[1.0] * 70), RecipeError, "conditions.0.layers", ("70 factors", "16 cross")),
    ("no reference", one("ip_adapter", image=[]), RecipeError, "conditions.0.image", ("at least 1",)),
    ("negative text weight", one("text", weight=-1), RecipeError, "conditions.0.weight", ("less than not at all", "0 or more")),
    ("text of 5,000 words", one("text", prompt="w " * 5000), CapacityError, "conditions.0.prompt", ("5000 words", "regions")),
    # what would be dropped in silence, or mean nothing (S3)
    ("negative words on the prompt's side", one("text", negative_prompt="y", applies_to="prompt"), RecipeError, "conditions.0.negative_prompt",
     ("prompt side alone", "applies_to")),
    ("negative words on their own side", one("text", negative_prompt="y", applies_to="negative"), RecipeError, "conditions.0.negative_prompt",
     ("negative side alone",)),
    ("a hole of less than nothing", one("inpaint", weight=-1), RecipeError, "conditions.0.weight", ("0 (not at all) to 1", "-1")),
    ("a hole of more than all", one("inpaint", weight={0: 1, 1: 1e6}), RecipeError, "conditions.0.weight", ("reaches 1e+06",)),
    ("overlap of what is not outpainted", one("powerpaint", overlap=20), RecipeError, "conditions.0.overlap", ("only outpainting", "task: outpaint")),
    ("half a size", one("size", weight=0.5), RecipeError, "conditions.0.weight", ("said or not",)),
    ("less than a size", one("size", weight=-1), RecipeError, "conditions.0.weight", ("said or not",)),
    ("two sizes", both("size", "size"), RecipeError, "conditions.1", ("says a size", "conditions.0")),
    ("img2img with weight", one("img2img", weight=0.5), RecipeError, "conditions.0.weight", ("img2img", "Remove it")),
    ("img2img with a window", one("img2img", end=0.5), RecipeError, "conditions.0.end", ("img2img", "Remove it")),
    ("img2img on one side", one("img2img", applies_to="prompt"), RecipeError, "conditions.0.applies_to", ("Remove it",)),
    ("strength 0", one("img2img", strength=0), RecipeError, "conditions.0.strength", ("greater than 0",)),
    ("strength 1.1", one("img2img", strength=1.1), RecipeError, "conditions.0.strength", ("less than or equal to 1",)),
    ("strength too small for the steps", {**one("img2img", strength=0.04), "steps": 20}, RecipeError, "conditions.0.strength",
     ("0.04 of 20 steps", "at least 0.05")),
    ("nothing to repaint", one("inpaint", mask="black.png"), RecipeError, "conditions.0.mask", ("no white pixel", "White is repainted")),
    ("inpaint without a mask", base(conditions=[{"kind": "inpaint", "image": "a.png"}]), RecipeError, "conditions.0.mask", ("inpaint needs one", "white")),
    ("inpaint on one side", one("inpaint", applies_to="negative"), RecipeError, "conditions.0.applies_to", ("Remove it",)),
    ("size on SD 1", one("size"), RecipeError, "conditions.0", ("no size embedding", "SDXL base")),
    ("two starts", both("img2img", "img2img"), RecipeError, "conditions.1", ("conditions.0", "Keep one")),
    ("two inpaints on a 9-channel base", both("inpaint", "inpaint", model="sd15-inpaint.safetensors"), RecipeError, "conditions.1",
     ("conditions.0", "join their masks")),
    ("depth on a base of four channels", one("depth"), RecipeError, "conditions.0", ("no input channel for depth", "depth ControlNet")),
    ("depth on a base with other channels", {**one("depth"), "model": "pix2pix.safetensors"}, RecipeError, "conditions.0",
     ("no input channel for depth", "depth2img base")),
    ("edit on a base of four channels", one("edit"), RecipeError, "conditions.0", ("no input channels", "InstructPix2Pix base")),
    ("edit scale 0.9", {**one("edit", image_guidance_scale=0.9), "model": "pix2pix.safetensors"}, RecipeError,
     "conditions.0.image_guidance_scale", ("0.9", "1 or more")),
    ("edit scale inf", one("edit", image_guidance_scale=INF), RecipeError, "conditions.0.image_guidance_scale", ("finite",)),
    ("two edits", both("edit", "edit", model="pix2pix.safetensors"), RecipeError, "conditions.1", ("and so does conditions.0",)),
    ("upscale on a base of four channels", one("upscale"), RecipeError, "conditions.0", ("small picture", "x4 upscaler")),
    ("unclip on a base that hears none", one("unclip"), RecipeError, "conditions.0", ("no embedding of pictures", "IP-Adapter")),
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
    ("a picture without a recipe", "a.png", RecipeError, "", ("carries no recipe", "ComfyUI", "stripped")),
    ("a picture of another program", "foreign.png", RecipeError, "", ("carries no recipe",)),
    ("a damaged recipe", "damaged.png", RecipeError, "", ("damaged",)),
    ("a recipe with unknown fields", "newer.png", RecipeError, "flavour", ("no such field",)),
    ("no picture", "words.png", RecipeError, "", ("not a picture",)),
]

CASES = {f"{group}: {name}": rest for group, cases in (
    ("field", FIELDS), ("condition", CONDITIONS), ("picture", PICTURES), ("file", FILES)) for name, *rest in cases}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_letter(case: str) -> None:
    bent.complains(*CASES[case])


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60


def test_the_sound_ones_pass() -> None:
    """What the table's recipes are bent from is in order; else each would be refused for the wrong reason."""
    for kind in ("text", "img2img", "inpaint", "controlnet", "ip_adapter", "brushnet", "powerpaint"):
        report = Engine(device="cpu").check(Recipe.load(one(kind)))
        assert report.size == (512, 512) and report.memory > 1e9


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
    result = CliRunner().invoke(app, SAMPLE[case]())
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ") and "Traceback" not in result.output and not result.stdout
