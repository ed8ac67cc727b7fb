"""What the words of a recipe ask for, besides being painted: styles and choices, LoRAs by name, parts that are summed, words that
are vectors. Asked once, when a recipe is resolved, from names and headers; imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infuse.conditions.base import Condition
from infuse.conditions.lora import Lora
from infuse.conditions.text import Part, Prompt
from infuse.engine.view import View
from infuse.errors import RecipeError, WeightsError, under
from infuse.network.spec import NetworkSpec
from infuse.recipe import Recipe
from infuse.timetable import PROMPT, Timetable
from infuse.words import compel, sums, tags
from infuse.words.wording import WordEdit, Wording

LORAS = ("lora", "lyco", "lycoris")
WORDS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
SHELF = "embeddings"
"""The folder in which the webui and ComfyUI keep words that are vectors."""


def has_choice(recipe: Recipe) -> bool:
    """Do its words leave anything to chance? Then each of its pictures has words of its own."""
    texts = [t for f in WORDS if (t := getattr(recipe, f)) and any(sign in t for sign in ("{", "__", "${"))]
    if recipe.syntax != "webui" or not texts:
        return False
    from infuse.words import wildcards

    return any(map(wildcards.has_choice, texts))


def chosen(recipe: Recipe, roots: Sequence[Path]) -> Recipe:
    """The recipe of one picture with its styles in its words, and every choice made, by its seed.

    roots: folders of models, where styles.csv and wildcards/ are looked for. Raises RecipeError for an unknown style.
    """
    if recipe.styles:
        from infuse.words import styles

        known = styles.Styles.read(*(p for r in roots for p in sorted(r.glob("styles*.csv"))))
        prompt, negative = known.applied(recipe.styles, recipe.prompt, recipe.negative_prompt)
        recipe = recipe.model_copy(update={"prompt": prompt, "negative_prompt": negative, "styles": ()})
    if not has_choice(recipe):
        return recipe
    from infuse.words import wildcards

    folders = [f for r in roots for f in (r / "wildcards", r / "extensions/sd-dynamic-prompts/wildcards") if f.is_dir()]
    seed = recipe.seeds[0]
    made = {f: wildcards.chosen(text, seed, folders) for f in WORDS if (text := getattr(recipe, f))}
    return recipe.model_copy(update=made)


def spoken_by(recipe: Recipe) -> tuple[dict[str, Condition], dict[str, Condition], list[str]]:
    """(the prompt and its other parts, LoRAs that it names, what is said of it): conditions by the field that they come from."""
    prompt, named, notes = _named(recipe)
    parts = sums.parts(prompt) if recipe.syntax == "webui" else ((prompt, 1.0),)
    if len(parts) == 1 and parts[0][1] != 1:
        notes.append(f"prompt: its last number, {parts[0][1]:g}, weighs all of it, as in the webui (AND). If it belongs to the words, "
                     "set syntax: plain.")  # fmt: skip
    said: dict[str, Condition] = {
        PROMPT: Prompt(kind="text", prompt=parts[0][0], negative_prompt=recipe.negative_prompt, prompt_2=recipe.prompt_2,
                       negative_prompt_2=recipe.negative_prompt_2, share=parts[0][1])
    }  # fmt: skip
    for i, (text, share) in enumerate(parts[1:], 1):
        said[f"{PROMPT}.{i}"] = Part(kind="text", prompt=text, share=share)
    return said, named, notes


def _named(recipe: Recipe) -> tuple[str, dict[str, Condition], list[str]]:
    """A prompt without the networks that it names, and these."""
    named: dict[str, Condition] = {}
    notes: list[str] = []
    if recipe.syntax == "compel":
        for name, weight in compel.read(recipe.prompt).loras:
            named[f"{PROMPT} {name}"] = Lora(model=name, weight=weight)
        return recipe.prompt, named, notes
    if recipe.syntax == "plain":
        return recipe.prompt, named, notes
    prompt, found = tags.networks(recipe.prompt)
    for i, tag in enumerate(found):
        if tag.kind not in LORAS:
            what = (
                "a hypernetwork, and infuse runs none"
                if tag.kind.startswith("hyper")
                else "no network that infuse knows"
            )
            notes.append(f"prompt: <{tag.kind}:{tag.name}> is {what}. It is left out.")
            continue
        with under(PROMPT):
            named[
                f"{PROMPT} <{tag.kind}:{tag.name}>" + f" ({i + 1})" * (f"{PROMPT} <{tag.kind}:{tag.name}>" in named)
            ] = _lora(tag, recipe.steps)
    return prompt, named, notes


def _lora(tag: tags.Tag, steps: int) -> Lora:
    """A LoRA as the webui and sd-webui-lora-block-weight write it. start, stop and step count steps."""
    from infuse.network.blocks import blocks

    said: dict[str, Any] = {"model": tag.name, "weight": tag.unet}
    if tag.text != tag.unet:
        said["text_weight"] = tag.text
    options = dict(tag.options)
    x = options.pop("x", None)
    if (given := options.pop("lbw", None)) is not None:
        said["blocks"] = tuple(blocks(given, x=None if x is None else _number(x, tag)))
    begin, end = options.pop("start", None), options.pop("stop", None)
    if (both := options.pop("step", None)) is not None:
        begin, _, end = both.partition("-")
    for field, value in (("start", begin), ("end", end)):
        if value:
            if not value.strip().isdigit():
                raise RecipeError("", f"<{tag.kind}:{tag.name}>: {value!r} is no number of a step.")
            said[field] = min(int(value) / steps, 1.0)
    if options:
        raise RecipeError("", f"<{tag.kind}:{tag.name}>: {', '.join(options)} is nothing that infuse knows of a LoRA. Known are te, unet, lbw, "
                              "x, start, stop and step.")  # fmt: skip
    return Lora(**said)


def _number(text: str, tag: tags.Tag) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecipeError("", f"<{tag.kind}:{tag.name}>: x={text[:40]} is no number.") from None


def must_hear(recipe: Recipe, spec: NetworkSpec) -> None:
    """Raises RecipeError for words that nobody reads."""
    for field in ("prompt_2", "negative_prompt_2"):
        if getattr(recipe, field) is not None and "text_embeds" not in spec.embedding_slots:
            raise RecipeError(field, f"{spec.name} has one text encoder, which reads the prompt. Put the words there.")


def together(speakers: Mapping[str, Condition]) -> None:
    """Raises RecipeError if a prompt's parts stand beside a condition that says the prompt in its own words."""
    if PROMPT not in speakers and any(isinstance(c, Part) for c in speakers.values()):
        raise RecipeError("prompt", "its parts (AND) would be summed beside a condition that says the prompt in its own words. Write one "
                                    "prompt.")  # fmt: skip


def wording(recipe: Recipe, speakers: Mapping[str, Condition], table: Timetable, view: View) -> Wording:
    """How words are read, once it is known who speaks when."""
    edits = []
    for who, c in speakers.items():
        if isinstance(c, Lora):
            found = view.lora(c.model)
            heard = tuple(who in e.weights for e in table)
            if found.words or any(part != "unet" for part in found.parts):
                edits.append(WordEdit(c.model, c.text_strength, () if all(heard) else heard))
    texts = [str(getattr(c, f, None) or "") for c in speakers.values() for f in WORDS]
    texts += [a.prompt for c in speakers.values() for a in getattr(c, "regions", ()) if getattr(a, "prompt", None)]
    said = vectors(recipe, "\n".join(texts), view)
    return Wording(recipe.syntax, recipe.emphasis, recipe.clip_skip, len(table), said, tuple(edits))


def vectors(recipe: Recipe, text: str, view: View) -> tuple[tuple[str, str], ...]:
    """(word, model) of the textual inversions that these words name: those of the recipe, of a shelf of embeddings, and what comes with
    infuse."""
    library, said = view.store.library, text.lower()
    found: dict[str, str] = {}
    for name in recipe.embeddings:
        found |= dict.fromkeys(called(name, Path(name).stem, view), name)
    if said:
        near = [
            (e.name, e.path.stem, str(e.path))
            for e in library.stock
            if e.shelf.name.lower() == SHELF and e.path.stem.lower() in said
        ]
        for _, stem, place in near:
            found = dict.fromkeys(called(place, stem, view), place) | found
        for name, source in library.embedded.items():
            if f"<{name}>" in said and source.identity.kind == "textual_inversion":
                found = {f"<{name}>": name} | found
    return tuple((word, model) for word, model in sorted(found.items()) if word.lower() in said)


def called(model: str, stem: str, view: View) -> tuple[str, ...]:
    """The words that stand for a textual inversion: its file's name, as the webui, ComfyUI and diffusers' callers write it.

    Raises RecipeError or WeightsError if it is of another kind or width.
    """
    try:
        view.identity(model, "embeddings", "textual_inversion")
    except WeightsError as e:
        raise e.under("") from None
    return (stem, f"<{stem.strip('<>')}>", f"embedding:{stem}")


def named_in(speakers: Mapping[str, Condition], words: Wording) -> list[tuple[str, str]]:
    """(model, kind) of what words name, beside the recipe's own fields."""
    return [(c.model, c.kind) for c in speakers.values() if isinstance(c, Lora)] + [
        (m, "embedding") for _, m in words.embeddings
    ]
