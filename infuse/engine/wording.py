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
from infuse.errors import CapacityError, InfuseError, RecipeError, cut, under
from infuse.network.spec import NetworkSpec, described
from infuse.notices import note
from infuse.recipe import Recipe
from infuse.timetable import PROMPT, Timetable
from infuse.words import compel, sums, tags
from infuse.words.comments import without_comments
from infuse.words.wording import WordEdit, Wording

LORAS = ("lora", "lyco", "lycoris")
WORDS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
MOST_PARTS = 32
"""Of a prompt (AND): each is a row of the network at every step."""
LONGEST_NAME = 60
"""Characters of a network's name in a letter's field."""
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


def spoken_by(recipe: Recipe) -> tuple[dict[str, Condition], dict[str, Condition]]:
    """(the prompt and its other parts, LoRAs that it names): conditions by the field that they come from. Notes what is left out."""
    recipe = uncommented(recipe)
    prompt, named = _named(recipe)
    parts = sums.parts(prompt) if recipe.syntax == "webui" else ((prompt, 1.0),)
    if len(parts) > MOST_PARTS:
        raise CapacityError(PROMPT, f"{len(parts)} parts (AND) are as many rows of the network at every step, and {MOST_PARTS} are the most. Write "
                                    "and for the word, or set syntax: plain.")  # fmt: skip
    if len(parts) == 1 and parts[0][1] != 1:
        note(f"prompt: its last number, {parts[0][1]:g}, weighs all of it, as in the webui (AND). If it belongs to the words, "
                     "set syntax: plain.")  # fmt: skip
    said: dict[str, Condition] = {
        PROMPT: Prompt(kind="text", prompt=parts[0][0], negative_prompt=recipe.negative_prompt, prompt_2=recipe.prompt_2,
                       negative_prompt_2=recipe.negative_prompt_2, share=parts[0][1])
    }  # fmt: skip
    for i, (text, share) in enumerate(parts[1:], 1):
        said[f"{PROMPT}.{i}"] = Part(kind="text", prompt=text, share=share)
    return said, named


def uncommented(recipe: Recipe) -> Recipe:
    """The webui's prompts without their comments."""
    if recipe.syntax != "webui":
        return recipe
    said = {f: without_comments(text) for f in WORDS if (text := getattr(recipe, f)) and "#" in text}
    for field in said:
        note(
            f"{field}: what follows a # on its line is a comment, as in the webui. If it belongs to the words, set syntax: plain."
        )
    return recipe.model_copy(update=said) if said else recipe


def _named(recipe: Recipe) -> tuple[str, dict[str, Condition]]:
    """A prompt without the networks that it names, and these."""
    named: dict[str, Condition] = {}
    if recipe.syntax == "compel":
        with under(PROMPT):
            found = compel.read(recipe.prompt).loras
        for name, weight in found:
            named[_where(name, named)] = Lora(model=name, weight=weight)
        return recipe.prompt, named
    if recipe.syntax == "plain":
        return recipe.prompt, named
    with under(PROMPT):
        prompt, found = tags.networks(recipe.prompt)
    for tag in found:
        if tag.kind not in LORAS:
            what = (
                "a hypernetwork, and infuse runs none"
                if tag.kind.startswith("hyper")
                else "no network that infuse knows"
            )
            note(f"prompt: <{tag.kind}:{tag.name}> is {what}. It is left out.")
            continue
        with under(PROMPT):
            named[_where(f"<{tag.kind}:{cut(tag.name, LONGEST_NAME)}>", named)] = _lora(tag, recipe.steps)
    return prompt, named


def _where(name: str, named: Mapping[str, Condition]) -> str:
    """Where a network of a prompt stands: as it is written there, with a number where it is not the first of its name."""
    where = f"{PROMPT} {cut(name, LONGEST_NAME + 20)}"
    return where if where not in named else f"{where} ({len(named) + 1})"


def _lora(tag: tags.Tag, steps: int) -> Lora:
    """A LoRA as the webui and sd-webui-lora-block-weight write it. start, stop and step count steps. Letters name the tag."""
    try:
        return _read(tag, steps)
    except RecipeError as error:
        what = f"{error.field}: {error.message}" if error.field else error.message
        raise RecipeError("", f"<{tag.kind}:{cut(tag.name, LONGEST_NAME)}>: {what}") from None


def _read(tag: tags.Tag, steps: int) -> Lora:
    from infuse.network.blocks import blocks

    said: dict[str, Any] = {"model": tag.name, "weight": tag.unet}
    if tag.text != tag.unet:
        said["text_weight"] = tag.text
    options = dict(tag.options)
    x = options.pop("x", None)
    if (given := options.pop("lbw", None)) is not None:
        # as it is written, so that what is said of it speaks of that
        said["blocks"] = given if x is None else tuple(blocks(given, x=_number(x)))
    begin, end = options.pop("start", None), options.pop("stop", None)
    if (both := options.pop("step", None)) is not None:
        begin, _, end = both.partition("-")
    for field, value in (("start", begin), ("end", end)):
        if value:
            if not value.strip().isdecimal():
                raise RecipeError("", f"{value[:40]!r} is no number of a step.")
            said[field] = min(int(value) / steps, 1.0)
    if options:
        raise RecipeError(
            "",
            f"{cut(', '.join(options), 80)} is nothing that infuse knows of a LoRA. Known are te, unet, lbw, x, start, stop and step.",
        )
    return Lora(**said)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecipeError("", f"x={text[:40]} is no number.") from None


def must_hear(recipe: Recipe, spec: NetworkSpec, view: View) -> None:
    """Raises RecipeError for words that nobody reads, and for a layer of text encoders that there is not."""
    for field in ("prompt_2", "negative_prompt_2"):
        if getattr(recipe, field) is not None and "text_embeds" not in spec.embedding_slots:
            raise RecipeError(field, f"{spec.name} has one text encoder, which reads the prompt. Put the words there.")
    if recipe.clip_skip is not None and 0 < view.text_layers < recipe.clip_skip:
        raise RecipeError("clip_skip", f"{recipe.clip_skip}, counted from the last layer, and a text encoder of {spec.name} has {view.text_layers}. Choose 1 "
                                       f"(the last) to {view.text_layers}.")  # fmt: skip


def together(speakers: Mapping[str, Condition]) -> None:
    """Raises RecipeError if a prompt's parts stand beside a condition that says the prompt in its own words: asked when all have
    joined, so that their order is no matter."""
    parts = [who for who, c in speakers.items() if isinstance(c, Part)]
    if not parts or isinstance(speakers.get(PROMPT), Prompt):
        return
    where = parts[0].rpartition(".")[0]
    what, instead = (
        ("its parts (AND)", "Write one prompt")
        if where == PROMPT
        else ("regions that are terms of guidance", "Use way: attention")
    )
    raise RecipeError(
        where, f"{what} would be summed beside a condition that says the prompt in its own words. {instead}."
    )


def wording(recipe: Recipe, speakers: Mapping[str, Condition], table: Timetable, view: View) -> Wording:
    """How words are read, once it is known who speaks when."""
    edits = []
    for who, c in speakers.items():
        if isinstance(c, Lora):
            found = view.lora(c.model)
            heard = tuple(who in e.weights for e in table)
            if found.words or any(part != "unet" for part in found.parts):
                edits.append(WordEdit(c.model, c.text_strength, () if all(heard) else heard))
    for where, c in speakers.items() if recipe.syntax == "webui" else ():
        for field, text in _words_of(c):
            if found := painted(text, whole=where == PROMPT):
                at = field if where == PROMPT else f"{where}.{field}"
                note(
                    f"{at}: {found} is painted as it stands, since it is read in the recipe's own prompt alone. Write it there."
                )
    texts = [str(getattr(c, f, None) or "") for c in speakers.values() for f in WORDS]
    texts += [a.prompt for c in speakers.values() for a in getattr(c, "regions", ()) if getattr(a, "prompt", None)]
    said = vectors(recipe, "\n".join(texts), view)
    return Wording(recipe.syntax, recipe.emphasis, recipe.clip_skip, len(table), said, tuple(edits))


def _words_of(c: Condition) -> list[tuple[str, str]]:
    """(field, text) of a condition: its prompts, and those of its regions."""
    said = [(f, str(getattr(c, f, None) or "")) for f in WORDS]
    return said + [
        (f"regions.{i}.prompt", str(getattr(a, "prompt", ""))) for i, a in enumerate(getattr(c, "regions", ()))
    ]


def painted(text: str, whole: bool = False) -> str:
    """What of a text is read in the recipe's prompt alone: a network's name, and in other words than the recipe's own (`whole`) a
    choice or parts, too. "" if there is none."""
    tag = next((m for m in tags.BEGIN.finditer(text) if m[1] in tags.KINDS and ">" in text[m.end() :]), None)
    if tag is not None:
        return cut(text[tag.start() : text.index(">", tag.end()) + 1], LONGEST_NAME)
    if whole:
        return ""
    from infuse.words import wildcards

    if any(sign in text for sign in ("{", "__", "${")) and wildcards.has_choice(text):
        return "a choice ({a|b} or __file__)"
    return "AND" if len(sums.parts(text)) > 1 else ""


def vectors(recipe: Recipe, text: str, view: View) -> tuple[tuple[str, str], ...]:
    """(word, model) of the textual inversions that these words name: those of the recipe, of a shelf of embeddings, and what comes with
    infuse. Of a shelf, what is of another family is left out, and noted.

    Raises RecipeError or WeightsError for one of the recipe that is of another kind or family.
    """
    library, said = view.store.library, text.lower()
    found: dict[str, str] = {}
    for i, name in enumerate(recipe.embeddings):
        with under(f"embeddings.{i}"):
            words = called(name, Path(name).stem, view)
        found |= dict.fromkeys(words, name)
        if not any(w.lower() in said for w in words):
            note(f"embeddings.{i}: no prompt says {words[0]!r}, so it is not heard. Write it where it is meant.")
    for entry in library.stock if said else ():
        if entry.shelf.name.lower() == SHELF and entry.path.stem.lower() in said:
            try:
                found = dict.fromkeys(called(entry.name, entry.path.stem, view), str(entry.name)) | found
            except InfuseError as error:
                note(
                    f"{entry.path.stem!r} is a word in {entry.shelf.name}, and is painted as a plain one: {error.message}"
                )
    for name, source in library.embedded.items():
        if f"<{name}>" in said and source.identity.kind == "textual_inversion" and fits(source, view.spec):
            found = {f"<{name}>": name} | found
    return tuple((word, model) for word, model in sorted(found.items()) if word.lower() in said)


def called(model: str, stem: str, view: View) -> tuple[str, ...]:
    """The words that stand for a textual inversion: its file's name, as the webui, ComfyUI and diffusers' callers write it, and its own.

    Raises RecipeError or WeightsError if it is of another kind or family.
    """
    from infuse.weights.layouts.textual_inversion import outline

    view.identity(model, "", "textual_inversion")
    source = view.store.library.find(model, "")
    if not fits(source, view.spec):
        own = sum(outline(source).widths)
        raise RecipeError("", f"{model!r} was trained for {described(own)}, this recipe's base is {view.spec.described}. Choose an embedding of "
                              "the base's family, or another base.")  # fmt: skip
    return tuple(dict.fromkeys((stem, f"<{stem.strip('<>')}>", f"embedding:{stem}", *outline(source).names)))


def fits(source: Any, net: NetworkSpec) -> bool:
    """Are its vectors as wide as the words that this base reads? SDXL's are those of two encoders; its refiner has the second."""
    from infuse.weights.layouts.textual_inversion import outline

    own = outline(source).widths
    return net.context_width in (sum(own), sum(own[1:]))


def named_in(speakers: Mapping[str, Condition], words: Wording) -> list[tuple[str, str]]:
    """(model, kind) of what words name, beside the recipe's own fields."""
    return [(c.model, c.kind) for c in speakers.values() if isinstance(c, Lora)] + [
        (m, "embedding") for _, m in words.embeddings
    ]
