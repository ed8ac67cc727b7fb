"""Whatever is wrong with LoRAs, words, regions and what they name is a letter, or a reading that is said: before anything is loaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import bent
import pytest
import strangers
import torch
from bent import Case, base
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from some import some
from typer.testing import CliRunner

from infuse import Recipe
from infuse.cli.app import app
from infuse.engine.engine import Engine
from infuse.errors import CapacityError, InfuseError, RecipeError, WeightsError

NAN, INF = float("nan"), float("inf")
DOWN = "lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn2_to_k"
MIDDLE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def low(module: str, out: int, read: int, rank: int = 4) -> dict[str, tuple[int, ...]]:
    return {f"{module}.lora_down.weight": (rank, read), f"{module}.lora_up.weight": (out, rank), f"{module}.alpha": ()}


@pytest.fixture(scope="session")
def shelf(strange: Path) -> Path:
    """More files of strangers, and a folder of models with a LoRA, styles, wildcards and an embedding of another width."""
    style = low(DOWN.format(0), 320, 768)
    for name, shapes in {
        "style": style, "style-xl": low(DOWN.format(1), 640, 2048), "rank0": low(DOWN.format(0), 320, 768, 0),
        "te2": style | low("lora_te2_text_model_encoder_layers_0_mlp_fc1", 5120, 1280), "half": low(MIDDLE, 1280, 1280) | low("lora_unet_layer_0", 64, 64),
        "vae16": {"decoder.conv_in.weight": (512, 16, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3), "encoder.conv_out.weight": (32, 512, 3, 3),
                  "decoder.mid.attn_1.q.weight": (512, 512, 1, 1), "encoder.mid.attn_1.q.weight": (512, 512, 1, 1)},
    }.items():  # fmt: skip
        strangers.sparse(strange / f"{name}.safetensors", shapes)
    for name, state in {
        "gold": {"emb_params": torch.ones(3, 768)}, "wide": {"emb_params": torch.ones(3, 1024)}, "learned_embeds": {"emb_params": torch.ones(3, 768)},
        "gold-xl": {"clip_l": torch.ones(3, 768), "clip_g": torch.ones(3, 1280)}, "trained/learned_embeds": {"<toy>": torch.ones(1, 768)},
    }.items():  # fmt: skip
        (strange / name).parent.mkdir(exist_ok=True)
        save_file(state, strange / f"{name}.safetensors")
    models = strange / "models"
    for folder in ("Lora", "embeddings", "wildcards"):
        (models / folder).mkdir(parents=True)
    strangers.sparse(models / "Lora" / "wooden-toys.safetensors", style)
    save_file({"emb_params": torch.ones(3, 1024)}, models / "embeddings" / "golden.safetensors")
    (models / "wildcards" / "colour.txt").write_text("red\n")
    (models / "styles.csv").write_text("name,prompt,negative_prompt\nWood,{prompt} of wood,\n")
    return models


@pytest.fixture(autouse=True)
def _among_them(shelf: Path, nothing_is_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFUSE_MODELS", str(shelf))


def lora(**fields: Any) -> dict[str, Any]:
    return base(conditions=[{"kind": "lora", "model": "style.safetensors", **fields}])


def regions(*said: Any, **fields: Any) -> dict[str, Any]:
    return base(conditions=[{"kind": "regions", "regions": list(said), **fields}])


def says(prompt: str, **fields: Any) -> dict[str, Any]:
    return base(prompt=prompt, **fields)


def at(**fields: Any) -> dict[str, Any]:
    return {"prompt": "a cat", "box": "0:0:0.5:1", **fields}


C = "conditions.0."
LORAS: list[Case] = [
    ("of SDXL", lora(model="style-xl.safetensors"), RecipeError, f"{C}model", ("SDXL (context width 2048)", "SD 1.x (context width 768)")),
    ("with a second text encoder", lora(model="te2.safetensors"), RecipeError, f"{C}model", ("second text encoder", "has one text encoder")),
    ("of rank 0", lora(model="rank0.safetensors"), WeightsError, f"{C}model", ("has rank 0", "Download it again")),
    ("half another's", lora(model="half.safetensors"), RecipeError, f"{C}model", ("2 modules, of which", "lora_unet_layer_0")),
    ("missing", lora(model="wooden-toy"), WeightsError, f"{C}model", ("not found", "wooden-toys")),
    ("a ControlNet", lora(model="canny15.safetensors"), WeightsError, f"{C}model", ("ControlNet", "needs a LoRA")),
    ("a pickle that runs code", lora(model="burglar.ckpt"), WeightsError, f"{C}model", ("run code",)),
    ("no name", lora(model=""), RecipeError, f"{C}model", ("at least 1 character",)),
    ("weight nan", lora(weight=NAN), RecipeError, f"{C}weight", ("finite",)),
    ("text_weight inf", lora(text_weight=INF), RecipeError, f"{C}text_weight", ("finite",)),
    ("blocks of no name", lora(blocks="MIDDLE"), RecipeError, f"{C}blocks", ('"MIDDLE" is no preset', "MIDD")),
    ("five blocks", lora(blocks=[1, 2, 3, 4, 5]), RecipeError, f"{C}blocks", ("5 numbers", "12 (SDXL)")),
    ("blocks that are no numbers", lora(blocks=[NAN] * 17), RecipeError, f"{C}blocks", ("nan", "no number")),
    ("random blocks", lora(blocks="R," * 16 + "1"), RecipeError, f"{C}blocks", ("nobody could repeat",)),
    ("blocks in a mapping", lora(blocks={"IN00": 1}), RecipeError, f"{C}blocks", ("no blocks", "MIDD")),
    ("merged with a curve", lora(merge=True, weight={0: 1, 1: 0}), RecipeError, f"{C}weight", ("merged", "Remove merge")),
    ("merged in a window", lora(merge=True, end=0.5), RecipeError, f"{C}end", ("merged",)),
    ("merged in a region", lora(merge=True, mask="mask.png"), RecipeError, f"{C}mask", ("merged",)),
]  # fmt: skip

TAGS: list[Case] = [
    ("missing, nearly", says("<lora:wooden-toy:1>"), WeightsError, "prompt <lora:wooden-toy>.model", ("not found", "wooden-toys")),
    ("missing", says("<lora:missing:1>"), WeightsError, "prompt <lora:missing>.model", ("not found",)),
    ("without a name", says("<lora::1>"), RecipeError, "prompt", ("names no network",)),
    ("with a word for a number", says("<lora:wooden-toys:abc>"), RecipeError, "prompt", ("'abc'", "such as 0.8")),
    ("with nan", says("<lora:wooden-toys:nan>"), RecipeError, "prompt", ("'nan'",)),
    ("two blocks", says("<lora:wooden-toys:1:lbw=1,2>"), RecipeError, "prompt", ("<lora:wooden-toys>: blocks: 2 numbers",)),
    ("an x without a number", says("<lora:wooden-toys:1:lbw=MIDD:x=q>"), RecipeError, "prompt", ("x=q",)),
    ("a start in words", says("<lora:wooden-toys:1:start=soon>"), RecipeError, "prompt", ("'soon'", "number of a step")),
    ("a start of a power", says("<lora:wooden-toys:1:start=²>"), RecipeError, "prompt", ("number of a step",)),
    ("a stop before its start", says("<lora:wooden-toys:1:start=9:stop=3>"), RecipeError, "prompt", ("<lora:wooden-toys>", "must come before")),
    ("an option of nobody", says("<lora:wooden-toys:1:mood=good>"), RecipeError, "prompt", ("mood", "Known are")),
    ("a name of 5,000 signs", says(f"<lora:{'a' * 5000}:1>"), WeightsError, f"prompt <lora:{'a' * 27} ... {'a' * 27}>.model", ("not found",)),
    ("in compel", says("a withLora(wooden-toy, 1)", syntax="compel"), WeightsError, "prompt wooden-toy.model", ("not found", "wooden-toys")),
    ("of 2,000 parts", says("a AND " * 2000), CapacityError, "prompt", ("2001 parts", "32")),
    ("a blend of other lengths", says('("a", "b").blend(1)', syntax="compel"), RecipeError, "prompt", ("2 weights",)),
    ("5,000 choices", says("{" * 5000 + "a|b" + "}" * 5000), CapacityError, "prompt", ("chunks of 75 tokens", "32")),
    ("40 breaks", says("a BREAK " * 40), CapacityError, "prompt", ("40 chunks of 75 tokens", "32")),
    ("1,000 breaks", says("BREAK " * 1000), CapacityError, "prompt", ("1000 chunks", "the limit is 32")),
    ("10,000 words", says("word " * 10_000), CapacityError, "prompt", ("10000 words", "2400")),
    ("10,000 words of the second prompt", base(model="sdxl.safetensors", prompt_2="word " * 10_000), CapacityError, "prompt_2", ("10000 words",)),
    ("40,000 commas", says("," * 40_000), CapacityError, "prompt", ("chunks", "the limit is 32")),
    ("a second prompt on SD 1.x", base(prompt_2="a"), RecipeError, "prompt_2", ("one text encoder",)),
    ("a second negative prompt on SD 1.x", base(negative_prompt_2="a"), RecipeError, "negative_prompt_2", ("one text encoder",)),
    ("layer -1", base(clip_skip=-1), RecipeError, "clip_skip", ("greater than or equal to 1",)),
    ("layer 13 of 12", base(clip_skip=13), RecipeError, "clip_skip", ("13", "has 12", "1 (the last) to 12")),
    ("layer 13 of 12 on SDXL", base(model="sdxl.safetensors", clip_skip=13), RecipeError, "clip_skip", ("has 12",)),
    ("layer 25", base(clip_skip=25), RecipeError, "clip_skip", ("less than or equal to 24",)),
    ("a style of no name", base(styles=["Woood"]), RecipeError, "styles", ("'Woood'",)),
    ("a syntax of no name", base(syntax="comfy"), RecipeError, "syntax", ("'webui'",)),
    ("an emphasis of no name", base(emphasis="strong"), RecipeError, "emphasis", ("'no_norm'",)),
]  # fmt: skip

NAMED: list[Case] = [
    ("of another width", base(embeddings=["wide.safetensors"]), RecipeError, "embeddings.0", ("SD 2.x (context width 1024)", "SD 1.x (context width 768)")),
    ("of SDXL", base(embeddings=["gold.safetensors", "gold-xl.safetensors"], prompt="gold"), RecipeError, "embeddings.1", ("SDXL (context width 2048)",)),
    ("of SD 1.x on SDXL", base(model="sdxl.safetensors", embeddings=["gold.safetensors"]), RecipeError, "embeddings.0", ("SD 1.x (context width 768)", "SDXL")),
    ("of no name", base(embeddings=["learned_embeds.safetensors"]), WeightsError, "embeddings.0", ("has no name", "Rename the file")),
    ("missing", base(embeddings=["goldn"]), WeightsError, "embeddings.0", ("not found", "golden")),
    ("a LoRA", base(embeddings=["style.safetensors"]), WeightsError, "embeddings.0", ("is a LoRA", "needs a textual inversion")),
    ("empty", base(embeddings=[""]), WeightsError, "embeddings.0", ("no model is named",)),
    ("not a list", base(embeddings={"gold": 1}), RecipeError, "embeddings", ("tuple",)),
    ("a VAE of 16 channels", base(vae="vae16.safetensors"), WeightsError, "vae", ("the VAE of SD3", "infuse runs SD 1.x")),
    ("a LoRA for a VAE", base(vae="style.safetensors"), WeightsError, "vae", ("is a LoRA", "needs a VAE")),
    ("a VAE for a text encoder", base(text_encoder="vae.safetensors"), WeightsError, "text_encoder", ("is a VAE", "needs a text encoder")),
]  # fmt: skip

REGIONS: list[Case] = [
    ("none", regions(), RecipeError, f"{C}regions", ("at least 1",)),
    ("17", regions(*[at()] * 17), RecipeError, f"{C}regions", ("at most 16", "17")),
    ("without words", regions({"box": "0:0:1:1"}), RecipeError, f"{C}regions.0.prompt", ("required",)),
    ("with empty words", regions(at(), at(prompt="")), RecipeError, f"{C}regions.1.prompt", ("at least 1 character",)),
    ("without a place", regions({"prompt": "a"}), RecipeError, f"{C}regions.0", ("either a mask or a box",)),
    ("with two places", regions(at(mask="mask.png")), RecipeError, f"{C}regions.0", ("either a mask or a box",)),
    ("outside", regions(at(box="0.5:0:1:1")), RecipeError, f"{C}regions.0.box", ("does not lie in the picture",)),
    ("before it", regions(at(box="-1:0:1:1")), RecipeError, f"{C}regions.0.box", ("does not lie in the picture",)),
    ("nan", regions(at(box="nan:0:1:1")), RecipeError, f"{C}regions.0.box.0", ("finite",)),
    ("a box in words", regions(at(box="left")), RecipeError, f"{C}regions.0.box", ("'left' is no box", "0:0:0.5:1")),
    ("a box of nothing", regions(at(box="0:0:0.0001:1")), RecipeError, f"{C}regions.0.box", ("covers no pixel", "512 x 512")),
    ("a black mask", regions({"prompt": "a", "mask": "black.png"}), RecipeError, f"{C}regions.0.mask", ("black everywhere",)),
    ("a mask that is none", regions({"prompt": "a", "mask": "words.png"}), RecipeError, f"{C}regions.0.mask", ("not a picture",)),
    ("of weight 0", regions(at(weight=0)), RecipeError, f"{C}regions", ("none is heard",)),
    ("of weight 9", regions(at(weight=9)), RecipeError, f"{C}regions.0.weight", ("less than or equal to 5",)),
    ("of 10,000 words", regions(at(prompt="word " * 10_000)), CapacityError, f"{C}regions.0.prompt", ("10000 words",)),
    ("more than all of the prompt", regions(at(), base=2), RecipeError, f"{C}base", ("less than or equal to 1",)),
    ("a third way", regions(at(), way="both"), RecipeError, f"{C}way", ("'attention' or 'latent'",)),
    ("terms with a window", regions(at(), way="latent", end=0.5), RecipeError, f"{C}end", ("Remove it",)),
    ("terms twice", base(conditions=[regions(at(), way="latent")["conditions"][0]] * 2), RecipeError, "conditions.1", ("Put all regions into one",)),
]  # fmt: skip

CASES = {f"{group}: {name}": rest for group, cases in (
    ("LoRA", LORAS), ("words", TAGS), ("named", NAMED), ("regions", REGIONS)) for name, *rest in cases}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_letter(case: str) -> None:
    bent.complains(*CASES[case])


@pytest.mark.parametrize("branch", [True, False])
def test_parts_beside_who_says_the_prompt_in_its_own_words_are_one_letter_in_either_order(branch: bool) -> None:
    paint = bent.one("powerpaint")["conditions"][0]
    paint = paint if branch else {k: v for k, v in paint.items() if k != "model"}
    terms = regions(at(), at(box="0.5:0:0.5:1"), way="latent")["conditions"]
    own = "in its own words"
    for i, both in enumerate(([*terms, paint], [paint, *terms])):
        asked = base(conditions=both)
        bent.complains(asked, RecipeError, f"conditions.{i}", ("terms of guidance", own, "Use way: attention"))
    bent.complains(says("a AND b", conditions=[paint]), RecipeError, "prompt", ("(AND)", own, "Write one prompt"))


def said_of(recipe: dict[str, Any]) -> list[str]:
    """What a check says of it, which is no letter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(Engine(device="cpu").check(Recipe.load(recipe)).warnings)


READ: dict[str, tuple[dict[str, Any], str]] = {
    "in order": (lora(), ""),
    "unbalanced": (says("((a (b]"), ""),
    "5,000 nested": (says("(" * 5000 + "a" + ")" * 5000), "read as 1000"),
    "5,000 square": (says("[" * 5000 + "a" + "]" * 5000), ""),
    "5,000 schedules": (says("[" * 5000 + "a" + ":b:0.5]" * 5000), ""),
    "500 choices": (says("{" * 500 + "a|b" + "}" * 500), "Braces lie more than 30 deep"),
    "5,000 nested in compel": (says("(" * 5000 + "a" + ")" * 5000, syntax="compel"), "syntax compel does not know it"),
    "a weight of words": (says("(a:b)"), ""),
    "an exponent": (says("(a:1e9)"), ""),
    "a huge weight": (says("(a:1000000000)"), "read as 1000"),
    "too many colons": (says("[a:b:c:d]"), ""),
    "nothing but colons": (says("[:::] (::) <::>"), ""),
    "a kind of nobody": (says("<odd:x:1>"), "'odd', which nobody knows"),
    "a hypernetwork": (says("<hypernet:x:1>"), "hypernetwork"),
    "a LoRA in the negative prompt": (base(negative_prompt="<lora:wooden-toys:1>"), "<lora:wooden-toys:1> is painted as it stands"),
    "a LoRA in a region": (regions(at(prompt="<lora:wooden-toys:1>")), "<lora:wooden-toys:1> is painted as it stands"),
    "a choice in a region": (regions(at(prompt="{red|blue} ball")), "regions.0.prompt: a choice ({a|b} or __file__) is painted"),
    "parts in another text": (base(conditions=[{"kind": "text", "prompt": "a AND b"}]), "conditions.0.prompt: AND is painted"),
    "a choice that is absent": (says("__nothing__ x"), "none of this name"),
    "a choice elsewhere": (says("__../x__"), "leads out of the folder"),
    "a choice that is open": (says("{a|b"), "not closed"),
    "an embedding that nobody says": (base(embeddings=["gold.safetensors"]), "no prompt says 'gold'"),
    "a shelf's embedding of another width": (says("a golden cup"), "'golden' is a word in embeddings"),
    "blocks of another family": (lora(blocks=[1] * 12), "doesn't name"),
}  # fmt: skip


HEAVY = [c for c in READ if c.startswith("5,000 ") and c != "5,000 square"]


@pytest.mark.parametrize("case", some(READ, quick=[c for c in READ if c not in HEAVY][::2]))
def test_or_it_is_read_and_said(case: str) -> None:
    recipe, words = READ[case]
    found = said_of(recipe)
    assert words in "\n".join(found), found
    assert words or not found, "nothing is wrong with it"


def test_a_word_that_the_file_says_is_heard() -> None:
    """As diffusers' trainers write them: under a name of any file."""
    named = base(prompt="a <toy>", embeddings=["trained/learned_embeds.safetensors"])
    assert not said_of(named)


SIGNS = st.sampled_from(["(", ")", "[", "]", "{", "}", ":", "|", "<", ">", "\\", ",", ".", "+", "-", "$$", "::", "__", "_", "~", "#", "\n", " ", "1.2", "0.5", "1e9", "nan", "a", "b", "cat",
                         " AND ", " BREAK ", "<lora:", "lbw=", "embedding:", ".blend(", ".and(", "withLora(", "\x00", "é", "😀", "\u202e"])  # fmt: skip


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SIGNS, max_size=30).map("".join) | st.text(max_size=40), st.sampled_from(["webui", "compel", "plain"]))
def test_any_words_are_read_or_refused_in_a_letter(text: str, syntax: str) -> None:
    fields = regions(at(prompt=text or "x")) | {"prompt": text, "negative_prompt": text, "syntax": syntax}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Engine(device="cpu").check(Recipe.load(fields))
        except InfuseError as error:
            assert len(error.message) > 10


def test_a_power_is_no_number(strange: Path) -> None:
    """Signs that Python calls digits, and reads no number from: in a table of layers, a frame's name, a key of weights."""
    from infuse.media.film_readers import numbered

    powered = {
        f"input_blocks.²{key[14:]}": shape
        for key, shape in {"input_blocks.1.0.in_layers.2.weight": (320, 320, 3, 3)}.items()
    }
    strangers.sparse(strange / "powered.safetensors", {**low(DOWN.format(0), 320, 768), **powered})
    for recipe in (bent.one("ip_adapter", layers={"²": 1.0}), bent.one("controlnet", model="powered.safetensors")):
        with pytest.raises(InfuseError):
            Engine(device="cpu").check(Recipe.load(recipe))
    assert sorted(["2²1", "10²1"], key=numbered) == ["2²1", "10²1"]


LINES = {
    "words: layer 13 of 12": ["x", "--set", "clip_skip=13"],
    "words: without a name": ["<lora::1>"],
    "words: missing, nearly": ["<lora:wooden-toy:1>"],
    "named: of no name": ["x", "--set", "embeddings=[learned_embeds.safetensors]"],
    "LoRA: of SDXL": ["x", "--set", "conditions.0={kind: lora, model: style-xl.safetensors}"],
    "regions: outside": ["x", "--set", "conditions.0={kind: regions, regions: [{prompt: a cat, box: '0.5:0:1:1'}]}"],
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_run_and_check_send_the_same_letter(case: str) -> None:
    _, _, field, words = CASES[case]
    said = []
    for command in ("run", "check"):
        done = CliRunner().invoke(app, [command, *LINES[case], "--model", "sd15.safetensors"])
        assert done.exit_code == 2 and "Traceback" not in done.output and not done.stdout
        said.append(done.stderr)
    assert said[0] == said[1] and field in said[0].replace("\n", "") and words[0].split()[0] in said[0]
