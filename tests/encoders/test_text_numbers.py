"""What the encoders say of words that are more than words: weights, skipped layers, vectors, a second text."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from infuse.encoders.embeddings import Embedding, fitting
from infuse.encoders.emphasis import weighted
from infuse.encoders.reader import padded
from infuse.encoders.states import states
from infuse.encoders.text import Said, TextEncoders
from infuse.errors import InfuseError, RecipeError

LONG = "cat " * 60 + "(red:1.3), " + "dog " * 30


@pytest.fixture(scope="module")
def bases() -> dict[str, TextEncoders]:
    return {family: tiny.base(family).base.texts for family in ("sd1", "sdxl")}


@pytest.fixture(autouse=True)
def no_grad() -> Any:
    with torch.no_grad():
        yield


def webui(prompt: str, **more: Any) -> Said:
    return Said(prompt, syntax="webui", **more)


def vectors(name: str, *counts: int, seed: int = 0, scale: float = 0.5) -> Embedding:
    g = torch.Generator().manual_seed(seed)
    return Embedding(name, tuple(torch.randn(n, 32, generator=g) * scale for n in counts))


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_weight_multiplies_its_tokens_and_the_mean_stays(family: str, bases: dict[str, TextEncoders]) -> None:
    """Restated: a chunk is a call, an encoder a tensor, and only words have weights."""
    texts, weights = bases[family], torch.ones(77)
    weights[2], weights[3] = 1.3, 0.5  # start, a, red, cube
    plain = texts.tokens("a red cube")
    want, only = [], []
    for z in plain.chunk(len(texts.models), -1):
        only.append(z * weights[:, None])
        want.append(only[-1] * (z.mean() / only[-1].mean()))
    assert torch.allclose(texts.tokens(webui("a (red:1.3) (cube:0.5)")), torch.cat(want, -1), atol=1e-6)
    assert torch.allclose(
        texts.tokens(webui("a (red:1.3) (cube:0.5)", emphasis="no_norm")), torch.cat(only, -1), atol=1e-6
    )
    assert torch.equal(texts.tokens(webui("a (red:1.3) (cube:0.5)", emphasis="ignore")), plain)


def test_each_chunk_keeps_its_own_mean(bases: dict[str, TextEncoders]) -> None:
    texts = bases["sd1"]
    both = texts.tokens(webui("a (cat:1.5) BREAK a (dog:0.3)"))
    assert torch.allclose(both[:77], texts.tokens(webui("a (cat:1.5)")), atol=1e-6)
    assert torch.allclose(both[77:], texts.tokens(webui("a (dog:0.3)")), atol=1e-6)


def test_no_weights_change_no_bit(bases: dict[str, TextEncoders]) -> None:
    for prompt in ("", "a cat", "cat, " * 37, "naïve ☃ 日本"):
        assert torch.equal(bases["sdxl"].tokens(webui(prompt)), bases["sdxl"].tokens(prompt)), prompt


def test_plain_syntax_is_words(bases: dict[str, TextEncoders]) -> None:
    texts = bases["sd1"]
    assert torch.equal(texts.tokens("a (red:1.3) cat BREAK"), texts.tokens(Said("a (red:1.3) cat BREAK")))
    assert texts.chunks("a BREAK b") == 1 and texts.chunks(webui("a BREAK b")) == 2


def test_a_mean_of_exactly_0_has_no_factor() -> None:
    z = torch.tensor([[[1.0, 1.0], [3.0, -1.0]]])
    weights = torch.tensor([[-1.0, 1.0]])
    found = weighted(z, weights, keep_mean=True)
    assert (z * weights[..., None]).mean() == 0 and torch.equal(found, z * weights[..., None])


def test_half_precision_keeps_means_as_exactly_as_it_can() -> None:
    z = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(0)) + 0.1
    weights = torch.ones(1, 77)
    weights[0, 3:9] = 1.4
    exact = weighted(z.half().double(), weights, keep_mean=True)
    assert (weighted(z.half(), weights, keep_mean=True).double() - exact).abs().max() < 0.01


# ── layers and vectors of the whole ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("skip", [None, 1, 2, 3])
def test_clip_skip_counts_layers_from_the_last(family: str, skip: int | None, bases: dict[str, TextEncoders]) -> None:
    texts, want = bases[family], []
    for model, tokenizer in zip(texts.models, texts.tokenizers, strict=True):
        ids = tokenizer("a red cube", padding="max_length", max_length=77, return_tensors="pt").input_ids
        hidden = model(ids, output_hidden_states=True).hidden_states
        if family == "sdxl":  # never the last, never normed
            want.append(hidden[-max(skip or 2, 2)][0])
        else:
            want.append(model.final_layer_norm(hidden[-(skip or 1)])[0])
    assert torch.allclose(texts.tokens(Said("a red cube", clip_skip=skip)), torch.cat(want, -1), atol=1e-6)


@pytest.mark.parametrize("skip", [0, -1, 4, 13])
def test_a_layer_that_is_not_there_is_a_letter(skip: int, bases: dict[str, TextEncoders]) -> None:
    with pytest.raises(RecipeError, match="has 3 layers") as letter:
        bases["sd1"].tokens(Said("a", clip_skip=skip))
    assert letter.value.field == "clip_skip"


def test_pooled_is_neither_skipped_nor_weighted(bases: dict[str, TextEncoders]) -> None:
    texts = bases["sdxl"]
    want = texts.pooled("a red cube")
    assert want is not None and torch.equal(texts.pooled(webui("a (red:1.5) [cube]", clip_skip=3)), want)  # type: ignore[arg-type]
    assert torch.equal(texts.pooled(webui("a red cube BREAK a sphere")), want)  # type: ignore[arg-type]
    assert bases["sd1"].pooled(webui("a")) is None


# ── a second text ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_encoder_of_sdxl_hears_its_own_text(bases: dict[str, TextEncoders]) -> None:
    texts, said = bases["sdxl"], webui("a (red:1.3) cat", second="oil painting")
    found = texts.tokens(said)
    assert torch.equal(found[:, :32], texts.tokens(webui("a (red:1.3) cat"))[:, :32])
    assert torch.equal(found[:, 32:], texts.tokens("oil painting")[:, 32:])
    assert torch.equal(texts.pooled(said), texts.pooled("oil painting"))  # type: ignore[arg-type]
    assert torch.equal(bases["sd1"].tokens(said), bases["sd1"].tokens(webui("a (red:1.3) cat")))


@pytest.mark.parametrize(("first", "second"), [("a cat", LONG), (LONG, "a cat"), ("", "a BREAK b")])
def test_the_shorter_text_is_filled_up_with_empty_chunks(
    first: str, second: str, bases: dict[str, TextEncoders]
) -> None:
    texts = bases["sdxl"]
    found, empty = texts.tokens(webui(first, second=second)), texts.tokens("")
    left, right = texts.tokens(webui(first))[:, :32], texts.tokens(webui(second))[:, 32:]
    assert len(found) == 154
    assert torch.allclose(found[:, :32], torch.cat([left, empty[:, :32]])[:154], atol=1e-6)
    assert torch.allclose(found[:, 32:], torch.cat([right, empty[:, 32:]])[:154], atol=1e-6)


def test_as_many_chunks_as_asked(bases: dict[str, TextEncoders]) -> None:
    texts = bases["sd1"]
    found = texts.tokens(webui("a (cat:1.4)", chunks=3))
    assert texts.chunks(webui("a cat", chunks=3)) == 3 and texts.chunks(webui(LONG, chunks=1)) == 2
    assert torch.allclose(found, torch.cat([texts.tokens(webui("a (cat:1.4)")), *[texts.tokens("")] * 2]), atol=1e-6)


# ── vectors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def learned(texts: TextEncoders, *rows: Tensor) -> list[Any]:
    """Copies of the encoders with vectors as new words at the end of their tables: how diffusers does it."""
    made = []
    for model, new in zip(texts.models, rows, strict=True):
        own = copy.deepcopy(model)
        table = torch.cat([own.get_input_embeddings().weight, new])
        own.set_input_embeddings(torch.nn.Embedding.from_pretrained(table))
        made.append(own)
    return made


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("n", [1, 4])
def test_vectors_stand_in_the_place_of_tokens(family: str, n: int, bases: dict[str, TextEncoders]) -> None:
    texts = bases[family]
    one = vectors("<gold>", *[n] * len(texts.models))
    want = []
    for model, tokenizer in zip(learned(texts, *one.vectors), texts.tokenizers, strict=True):
        a, cube = tokenizer("a cube", add_special_tokens=False).input_ids
        out = states(model, padded([[a, *range(49408, 49408 + n), cube]], tokenizer, 1))
        want.append(out.layers[-2][0] if texts.wide else out.last[0])
        pooled = out.pooled
    said = webui("a <gold> cube", embeddings={"<gold>": one})
    assert torch.allclose(texts.tokens(said), torch.cat(want, -1), atol=1e-6)
    if texts.wide:
        assert torch.allclose(texts.pooled(said), pooled[0], atol=1e-6)  # type: ignore[arg-type, index]
    assert torch.equal(texts.tokens(Said("a <GOLD> cube", embeddings={"<gold>": one})), texts.tokens(said))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_visited_modules_say_what_the_model_says_to_the_last_bit(
    family: str, masked: bool, bases: dict[str, TextEncoders]
) -> None:
    texts = bases[family]
    mask = torch.ones(2, 77, dtype=torch.long)
    mask[1, 2:4] = 0
    for model, tokenizer in zip(texts.models, texts.tokenizers, strict=True):
        ids = padded([[320, 736, 1125], [320]], tokenizer, 2)
        own = model.get_input_embeddings().weight[736][None]
        stock = states(model, ids, mask=mask if masked else None)
        ours = states(model, ids, [(0, 1, own)], mask=mask if masked else None)
        assert torch.equal(stock.last, ours.last) and len(stock.layers) == len(ours.layers)
        assert all(torch.equal(a, b) for a, b in zip(stock.layers, ours.layers, strict=True))
        assert (stock.pooled is None) == (ours.pooled is None)
        assert stock.pooled is None or torch.equal(stock.pooled, ours.pooled)  # type: ignore[arg-type]


def test_a_pair_of_unequal_counts_takes_the_places_of_its_second(bases: dict[str, TextEncoders]) -> None:
    """What the first has more stands over the words that follow, and over no end of a chunk, as in the webui."""
    texts = bases["sdxl"]
    for counts, prompt in (((3, 1), "a <x> red cube"), ((1, 3), "a <x> red cube"), ((6, 1), "cat " * 73 + "<x> red")):
        one = vectors("<x>", *counts)
        found = texts.tokens(webui(prompt, embeddings={"<x>": one}))
        at, want = prompt.split().index("<x>") + 1, []
        for model, tokenizer, rows in zip(texts.models, texts.tokenizers, one.vectors, strict=True):
            before, after = (tokenizer(t, add_special_tokens=False).input_ids for t in prompt.split("<x>"))
            table = model.get_input_embeddings()(padded([[*before, *[0] * counts[1], *after]], tokenizer, 1))[0]
            fit = rows[: 76 - at]
            table[at : at + len(fit)] = fit
            own = copy.deepcopy(model)  # whose only words are these places
            own.set_input_embeddings(torch.nn.Embedding.from_pretrained(table))
            want.append(own(torch.arange(77)[None], output_hidden_states=True).hidden_states[-2][0])
        assert torch.allclose(found, torch.cat(want, -1), atol=1e-6), counts


def test_weights_act_on_vectors(bases: dict[str, TextEncoders]) -> None:
    texts, one = bases["sd1"], {"<x>": vectors("<x>", 3)}
    plain = texts.tokens(webui("a <x> cat", embeddings=one))
    louder = texts.tokens(webui("a (<x>:1.5) cat", embeddings=one, emphasis="no_norm"))
    assert torch.allclose(louder[2:5], plain[2:5] * 1.5, atol=1e-6) and torch.equal(louder[5:], plain[5:])


def test_vectors_arrive_where_the_comma_rule_moved_them(bases: dict[str, TextEncoders]) -> None:
    texts, one = bases["sd1"], {"myemb": vectors("myemb", 4)}
    found = texts.tokens(webui("cat " * 65 + ", myemb" + " dog" * 20, embeddings=one))
    assert torch.allclose(found[77:], texts.tokens(webui("myemb" + " dog" * 20, embeddings=one)), atol=1e-6)
    assert torch.allclose(found[:77], texts.tokens("cat " * 65 + ","), atol=1e-6)


def test_compels_words_may_be_vectors(bases: dict[str, TextEncoders]) -> None:
    texts, one = bases["sd1"], {"<x>": vectors("<x>", 3)}
    assert torch.equal(
        texts.tokens(Said("a <x> cat", syntax="compel", embeddings=one)),
        texts.tokens(Said("a <x> cat", embeddings=one)),
    )
    empty, plain = texts.tokens(""), texts.tokens(Said("a <x> cat", embeddings=one))
    louder = texts.tokens(Said("a (<x>)1.5 cat", syntax="compel", embeddings=one))
    assert torch.allclose(louder[2:5], empty[2:5] + 1.5 * (plain[2:5] - empty[2:5]), atol=1e-6)


def test_threads_with_vectors_of_one_name_do_not_hear_each_other(bases: dict[str, TextEncoders]) -> None:
    texts = bases["sdxl"]
    before = [{k: t.clone() for k, t in m.state_dict().items()} for m in texts.models]
    said = [webui(f"a <x> cat {i}", embeddings={"<x>": vectors("<x>", 2, 2, seed=i)}) for i in range(6)]
    alone = [(texts.tokens(s), texts.pooled(s)) for s in said]

    def ask(s: Said) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            return texts.tokens(s), texts.pooled(s)

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, said * 3))
    for i, (tokens, pooled) in enumerate(found):
        assert torch.equal(tokens, alone[i % 6][0]) and torch.equal(pooled, alone[i % 6][1])  # type: ignore[arg-type]
    for model, was in zip(texts.models, before, strict=True):
        assert all(torch.equal(t, was[k]) for k, t in model.state_dict().items())


@pytest.mark.parametrize(("own", "widths", "says"), [
    ((768,), (1024,), "trained for SD 1.x (width 768), this recipe's base is of SD 2.x (width 1024)"),
    ((768,), (768, 1280), "SD 1.x (width 768), this recipe's base is of SDXL"), ((768, 1280), (768,), "SDXL (widths 768 and 1280), this"),
    ((768, 1280), (1024,), "SD 2.x"), ((640,), (768,), "encoders of width 640"),
])  # fmt: skip
def test_vectors_of_another_family_are_a_letter(own: tuple[int, ...], widths: tuple[int, ...], says: str) -> None:
    with pytest.raises(RecipeError) as letter:
        fitting("gold", own, widths)
    assert says in str(letter.value) and '"gold"' in str(letter.value) and letter.value.field == "embeddings"


def test_the_refiner_takes_the_second_of_a_pair() -> None:
    assert fitting("gold", (768, 1280), (1280,)) == (1280,) and fitting("gold", (768, 1280), (768, 1280)) == (768, 1280)


def test_a_name_that_the_prompt_does_not_say_disturbs_nobody(bases: dict[str, TextEncoders]) -> None:
    wrong = {"<y>": Embedding("<y>", (torch.zeros(2, 99),))}
    assert torch.equal(bases["sd1"].tokens(webui("a cat", embeddings=wrong)), bases["sd1"].tokens("a cat"))
    with pytest.raises(InfuseError, match="width 99"):
        bases["sd1"].tokens(webui("a <y>", embeddings=wrong))
