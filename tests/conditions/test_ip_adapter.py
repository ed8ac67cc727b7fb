"""One condition for pictures and faces: every kind of file, where and how it is heard, for whom each picture is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_faces
import torch
from parity.cases import photo
from safetensors.torch import save_file
from some import some
from torch import Tensor, nn

import tiny
from infuse import IPAdapter, Recipe
from infuse.batch import Row, collate
from infuse.encoders import faces
from infuse.encoders.ip_adapter import Adapter, LowRank
from infuse.encoders.ip_combine import combined
from infuse.engine.engine import Engine
from infuse.errors import InfuseWarning, RecipeError, WeightsError
from infuse.media.pictures import Picture
from infuse.network.attention import PortedAttention
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Tokens

A, B, C = photo(20), photo(21), photo(22)


def asked(*conditions: IPAdapter, **fields: Any) -> Recipe:
    return Recipe(
        **{
            "model": "tiny",
            "prompt": "x",
            "width": 32,
            "height": 32,
            "steps": 2,
            "seed": 3,
            "conditions": conditions,
            **fields,
        }
    )


def look(**fields: Any) -> IPAdapter:
    return IPAdapter(**{"model": "plus", "image": A, **fields})


@pytest.fixture(scope="module")
def engines() -> Callable[[str], Engine]:
    """Of a family, with adapters of every kind and "xl", which is another family's."""

    @cache
    def made(family: str) -> Engine:
        nets = {k: tiny_faces.adapter(family, k) for k in tiny_faces.KINDS} | {"xl": tiny_faces.adapter("sdxl", "plus")}
        return tiny.engine(tiny.base(family), nets)

    return made


@pytest.fixture
def engine(engines: Callable[[str], Engine]) -> Engine:
    return engines("sd1")


@pytest.fixture(scope="module")
def exact() -> Engine:
    """In float64, for what must be equal."""
    return tiny.engine(
        tiny.base("sd1", dtype=torch.float64), {k: tiny_faces.adapter("sd1", k) for k in ("plus", "faceid")}
    )


def sides(engine: Engine, condition: IPAdapter, **fields: Any) -> Sides:
    """What a condition says to the engine's base."""
    from infuse.encoders.kit import Kit

    resolved = engine.check(asked(condition, **fields))
    kit = Kit(engine.store.base("tiny"), resolved.size, engine.store, resolved.frames)
    return resolved.speakers["conditions.0"].encode(kit)  # type: ignore[arg-type]


# ── every kind of file ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "family"),
    some(
        [(k, f) for k in tiny_faces.KINDS for f in ("sd1", "sdxl")],
        quick=[(k, "sd1") for k in ("plus", "faceid_plus", "instantid")],
    ),
)
def test_every_kind_is_heard(kind: str, family: str, engines: Callable[[str], Engine]) -> None:
    engine = engines(family)
    said = IPAdapter(model=kind, **tiny_faces.shown(kind, A))
    route = next(r for _, k, r in engine.check(asked(said)).routes if k == "ip_adapter")
    assert route.note.startswith("faceid" if kind == "portrait" else kind)
    with_it, without = engine.run(asked(said)).latents, engine.run(asked()).latents
    assert (with_it - without).abs().max() > 1e-3 and with_it.isfinite().all()
    silent = said.model_copy(update={"weight": 0.0})
    made = engine.run(asked(silent))
    assert torch.equal(made.latents, without) and any("will not be heard" in w for w in made.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_low_rank_part_is_a_change_of_the_network_s_weights(family: str) -> None:
    """W + factor * up @ down for each projection of each attention, self- and cross-, numbered as in the file."""
    base = tiny.base(family, dtype=torch.float64)
    spec = base.base.spec
    adapter = tiny.cast(tiny_faces.adapter(family, "faceid"), torch.float64)
    assert isinstance(adapter, LowRank)
    adapter.placed([path for path, _ in spec.cross_layers])
    assert {2 * i for i in range(len(spec.cross_layers))} < set(adapter.numbers.values())
    bare = Adapter(
        adapter.kind, adapter.project, len(adapter.kv), [w for _, w in spec.cross_layers], spec.context_width
    ).double()
    bare.load_state_dict({k: v for k, v in adapter.state_dict().items() if not k.startswith("changes")})
    engine = tiny.engine(base, {"face": adapter})
    said = IPAdapter(model="face", face=[tiny_faces.face()], lowrank=0.7)
    found = engine.run(asked(said)).latents
    merged = tiny.base(family, dtype=torch.float64)
    for i, (path, _) in enumerate(spec.cross_layers):
        for j in (1, 2):
            attention = merged.base.network.unet.get_submodule(path.removesuffix("attn2") + f"attn{j}")
            for name in ("to_q", "to_k", "to_v", "to_out"):
                down, up = adapter.changes[f"{2 * i + j - 1} {name}"]  # type: ignore[misc]
                linear: Any = getattr(attention, name)
                linear = linear[0] if name == "to_out" else linear
                linear.weight.data += 0.7 * up.weight @ down.weight
    with pytest.warns(InfuseWarning, match="lacks the low-rank part"):
        want = tiny.engine(merged, {"face": bare}).run(asked(said.model_copy(update={"lowrank": 1.0}))).latents
    assert (found - want).abs().max() < 1e-10


@pytest.mark.slow
def test_two_faces_of_one_file_change_the_weights_once(exact: Engine) -> None:
    one, two = (IPAdapter(model="faceid", face=[tiny_faces.face(i)], weight=0.6) for i in (0, 1))
    both = exact.run(asked(one, two)).latents
    again = exact.run(asked(two, one)).latents
    together = IPAdapter(model="faceid", face=[tiny_faces.face(0), tiny_faces.face(1)], combine="apart", weight=0.6)
    assert (both - again).abs().max() < 1e-10
    assert (exact.run(asked(together)).latents - both).abs().max() < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kind"),
    some(
        [(f, k) for f in ("safetensors", "bin") for k in ("faceid", "faceid_plus", "portrait", "instantid")],
        quick=[("safetensors", "faceid_plus"), ("bin", "instantid")],
    ),
)
def test_files_of_faces(kind: str, form: str, engine: Engine, tmp_path: Path) -> None:
    state = {k: t.detach().clone() for k, t in tiny_faces.adapter("sd1", kind).save().items()}
    path = tmp_path / f"x.{form}"
    if form == "bin":
        torch.save(
            {
                p: {k.removeprefix(f"{p}."): t for k, t in state.items() if k.startswith(p)}
                for p in ("image_proj", "ip_adapter")
            },
            path,
        )
    else:
        save_file(state, path)
    fields = tiny_faces.shown(kind, A)
    found = engine.run(asked(IPAdapter(model=str(path), **fields))).latents
    assert torch.equal(found, engine.run(asked(IPAdapter(model=kind, **fields))).latents)


@pytest.mark.slow
def test_a_recipe_keeps_a_face(tmp_path: Path, engine: Engine) -> None:
    torch.save(torch.zeros(1), tmp_path / "x")
    save_file({"face": torch.tensor(tiny_faces.face())}, tmp_path / "face.safetensors")
    recipe = asked(IPAdapter(model="faceid", face=str(tmp_path / "face.safetensors")))  # type: ignore[arg-type]
    recipe.dump(tmp_path / "r.yaml")
    (tmp_path / "face.safetensors").unlink()
    again = Recipe.load(tmp_path / "r.yaml")
    assert again.digest == recipe.digest and again == recipe
    made = engine.run(recipe)
    made.save(tmp_path / "a.png")
    assert torch.equal(engine.run(Recipe.load(tmp_path / "a.png", trust=True)).latents, made.latents)


def test_version_two_by_field_or_by_name(engine: Engine) -> None:
    face, adapter = tiny_faces.face(), tiny_faces.adapter("sd1", "faceid_plus")
    engine.store.add("faceid-plusv2", adapter)

    def said(**fields: Any) -> Tensor:
        return (
            sides(engine, IPAdapter(**{"model": "faceid_plus", "face": [face], "image": A, **fields}))
            .on.decoupled[0]
            .tokens
        )

    one, two, half = said(shortcut=False), said(shortcut=True), said(shortcut=True, shortcut_scale=0.5)
    assert torch.allclose(two - half, 0.5 * one, atol=1e-5) and not torch.allclose(one, two)
    with pytest.warns(
        InfuseWarning, match=r"shortcut: .*'faceid_plus' is taken for version 1, without the shortcut, by its name"
    ):
        assert torch.equal(said(), one)
    with pytest.warns(InfuseWarning, match="version 2, with"):
        assert torch.allclose(said(model="faceid-plusv2"), two)


def test_silence_of_faces_is_a_face_of_zeros(engine: Engine) -> None:
    adapter = tiny_faces.adapter("sd1", "faceid_plus")
    said = (
        sides(engine, IPAdapter(model="faceid_plus", face=[tiny_faces.face()], image=A, shortcut=True))
        .off.decoupled[0]
        .tokens
    )
    kit = engine.store.base("tiny")
    states = kit.image_encoder(torch.zeros(1, 3, 32, 32), output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(said, adapter.tokens(states, torch.zeros(1, 512), 1.0), atol=1e-6)
    alone = sides(engine, IPAdapter(model="instantid", face=[tiny_faces.face(length=20)])).off.decoupled[0].tokens
    assert torch.allclose(alone, tiny_faces.adapter("sd1", "instantid").tokens(None, torch.zeros(1, 512)), atol=1e-6)


def test_a_length_is_brought_to_one(engine: Engine) -> None:
    one, raw = (sides(engine, IPAdapter(model="portrait", face=[tiny_faces.face(length=n)])) for n in (1.0, 1.0))
    with pytest.warns(InfuseWarning, match=r"conditions\.0\.face\.0: .*length of 22.*brought to 1"):
        raw = sides(engine, IPAdapter(model="portrait", face=[tiny_faces.face(length=22.0)]))
    assert torch.allclose(one.on.decoupled[0].tokens, raw.on.decoupled[0].tokens, atol=1e-5)


# ── several pictures ────────────────────────────────────────────────────────────────────────────────────────────────

E = torch.tensor([[[1.0, -2.0]], [[3.0, 4.0]], [[0.0, 1.0]]])


@pytest.mark.parametrize(("how", "want"), [
    ("add", [4.0, 3.0]), ("subtract", [1 - 1.5, -2 - 2.5]), ("average", [4 / 3, 1.0]), ("max", [3.0, 4.0]), ("min", [0.0, -2.0]),
    ("norm average", [(1 / 10**0.5 + 3 / 10**0.5) / 3, (-2 + 4 + 1) / 21**0.5 / 3]),
])  # fmt: skip
def test_combined_as_one(how: Any, want: list[float]) -> None:
    assert combined(E, how, [1, 1, 1])[0, 0].tolist() == pytest.approx(want)
    assert torch.equal(combined(E[:1], how, [1]), E[:1])
    assert combined(E, "add", [1, 0.5, 2])[0, 0].tolist() == [2.5, 2.0]


@pytest.mark.parametrize("how", ["add", "Subtract", "average", "norm average", "max", "min"])
def test_combined_pictures_have_the_tokens_of_one(how: str, engine: Engine) -> None:
    said = sides(engine, look(image=(A, B), combine=how))
    assert len(said.on.decoupled[0].tokens) == 6 == len(said.off.decoupled[0].tokens)
    assert len(sides(engine, look(image=(A, B))).on.decoupled[0].tokens) == 12


@pytest.mark.slow
def test_apart_equals_several_conditions(exact: Engine) -> None:
    one = look(image=(A, B), combine="apart", weights=(0.5, 1.2), weight=0.8)
    two = (look(image=A, weight=0.4), look(image=B, weight=0.96))
    found, want = exact.run(asked(one)).latents, exact.run(asked(*two)).latents
    assert (found - want).abs().max() < 1e-10
    assert len(sides(exact, look(image=(A, B), combine="apart", weights=(0, 1))).on.decoupled) == 1


def test_the_negative_side_hears_a_picture(engine: Engine) -> None:
    said = sides(engine, look(negative_image=B))
    assert torch.equal(said.off.decoupled[0].tokens, sides(engine, look(image=B)).on.decoupled[0].tokens)
    assert not torch.allclose(said.off.decoupled[0].tokens, sides(engine, look()).off.decoupled[0].tokens)


# ── one for each picture or frame ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_one_for_each_picture_of_a_recipe(exact: Engine, tmp_path: Path) -> None:
    each = asked(look(image=(A, B, C), images_per="item"), count=3)
    alone = [exact.run(asked(look(image=p), seed=3 + i)).latents[0] for i, p in enumerate((A, B, C))]
    made = exact.run(each)
    for i, want in enumerate(alone):
        assert (made.latents[i] - want).abs().max() < 1e-10
    one_by_one = [r.latents[0] for r in exact.each(each)]
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(alone, one_by_one, strict=True))
    paths = made.save(tmp_path / "x.png")
    again = Recipe.load(paths[1], trust=True)
    assert again.count == 1 and again.seeds == (4,) and len(again.conditions[0].image) == 1  # type: ignore[union-attr]
    assert (exact.run(again).latents[0] - alone[1]).abs().max() < 1e-10


@pytest.mark.slow
def test_one_face_for_each_picture(exact: Engine) -> None:
    people = [tiny_faces.face(i) for i in range(2)]
    made = exact.run(asked(IPAdapter(model="faceid", face=people, images_per="item"), count=2, seed=[5, 5]))
    for i, person in enumerate(people):
        alone = exact.run(asked(IPAdapter(model="faceid", face=[person]), seed=5)).latents[0]
        assert (made.latents[i] - alone).abs().max() < 1e-10


@pytest.mark.slow
def test_one_for_each_frame() -> None:
    base = tiny.video()
    spec = base.base.network.spec
    engine = tiny.engine(base, {"plus": tiny_faces.adapter("sd1", "plus", spec=spec)})

    def made(*images: Picture, **fields: Any) -> Tensor:
        return engine.run(asked(look(image=images, **fields), frames=4)).latents

    same = made(A, A, A, A, images_per="frame")
    assert (same - made(A)).abs().max() < 1e-5
    assert (made(A, A, A, B, images_per="frame") - same).abs().max() > 1e-3
    said = sides(engine, look(image=(A, B, C, A), images_per="frame", fit="pad"), frames=4)
    assert said.on.decoupled[0].tokens.shape == said.off.decoupled[0].tokens.shape == (4, 6, spec.context_width)


# ── where and how it is heard ───────────────────────────────────────────────────────────────────────────────────────


def four_levels() -> tiny.Tiny:
    """SD 1.x's blocks by their names, eight channels wide."""
    from dataclasses import replace

    from diffusers import UNet2DConditionModel

    from infuse.network.unet import Network

    torch.manual_seed(0)
    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 8, 16, 16), layers_per_block=2, norm_num_groups=4, cross_attention_dim=32, attention_head_dim=2,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"), up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    )  # fmt: skip
    still = tiny.base("sd1")
    spec = NetworkSpec.from_unet_config("sd1", net.config, vae_factor=2, family="sd1")
    return tiny.Tiny("sd1", still.parts, replace(still.base, network=Network(tiny.randomized(net, 1), spec)))


@pytest.mark.slow
def test_precise_presets_turn_the_picture_against_itself() -> None:
    """Where a preset turns it, the prompt's side hears nothing and the negative one the picture, beside its own silence elsewhere."""
    base = four_levels()
    net = base.base.network
    engine = tiny.engine(base, {"plus": tiny_faces.adapter("sd1", "plus", spec=net.spec)})
    said = sides(engine, look(layers="style precise"))
    plain, turned = said.off.decoupled
    assert said.on.decoupled[0].layers == plain.layers and sum(map(bool, plain.layers)) == 11  # type: ignore[arg-type]
    assert turned.layers == (0, 0, 0, 0, 0.25, 1, *[0] * 10) and turned.tokens is said.on.decoupled[0].tokens
    style = sides(engine, look(layers="style"))
    assert torch.equal(style.on.decoupled[0].tokens, said.on.decoupled[0].tokens) and len(style.off.decoupled) == 1
    x, t = torch.randn(4, 16, 16), torch.tensor(500.0)
    text = Ports(context=(Tokens(torch.randn(7, 32)),))

    def answer(ports: Ports) -> Tensor:
        return net.predict(collate([Row(x, t, text + ports)], net.spec))

    with torch.no_grad():
        assert torch.equal(answer(said.on), answer(style.on))
        by_hand = sides(engine, look(layers={"4": 0.25, "5": 1}))
        want = answer(style.off + by_hand.on)
        assert (answer(said.off) - want).abs().max() < 1e-5 < (answer(style.off) - want).abs().max()


@pytest.mark.slow
def test_a_preset_is_heard_as_its_factors(engine: Engine) -> None:
    n = len(engine.store.base("tiny").spec.cross_layers)
    found = engine.run(asked(look(layers="weak middle"))).latents
    assert torch.equal(found, engine.run(asked(look(layers=(*[1.0] * (n - 1), 0.2)))).latents)
    assert not torch.equal(found, engine.run(asked(look())).latents)


@pytest.mark.parametrize("scaling", ["V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty"])
def test_what_a_weight_multiplies(scaling: str, engine: Engine) -> None:
    """The table of cubiq/ComfyUI_IPAdapter_plus@9d076a3, on one attention: W is weight, factor of the layer, and C / 1280."""
    said = sides(engine, look(scaling=scaling, weight=0.7, layers={"up_blocks.1": 0.6})).on.at(0.0, 0.7)
    spec = engine.store.base("tiny").spec
    layer = next(i for i, (path, _) in enumerate(spec.cross_layers) if path.startswith("up_blocks.1"))
    batch = collate(
        [Row(torch.randn(4, 16, 16), torch.tensor(1.0), said + Ports(context=(Tokens(torch.randn(3, 32)),)))], spec
    )
    width = spec.cross_layers[layer][1]
    q = torch.randn(1, 4, 256, width // 4)
    found = PortedAttention("", layer, True).image_answer(q, batch.decoupled[0], 4)
    to_k, to_v = said.decoupled[0].adapter.layer(layer)  # type: ignore[operator]
    k, v = to_k(said.decoupled[0].tokens), to_v(said.decoupled[0].tokens)
    w, mean = 0.7 * 0.6, v.mean(0, keepdim=True)
    c = w * width / 1280

    def attended(k: Tensor, v: Tensor) -> Tensor:
        k, v = (t.unflatten(-1, (4, -1)).transpose(0, 1)[None] for t in (k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    want = {
        "V only": w * attended(k, v),
        "K+V": attended(w * k, w * v),
        "K+V w/ C penalty": attended(c * k, c * v),
        "K+mean(V) w/ C penalty": attended(c * k, (v - mean) + c * mean),
    }[scaling]
    assert torch.allclose(found, want, atol=1e-5)


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────

FACE = tiny_faces.face()
LETTERS: list[tuple[str, dict[str, Any], type[Exception], str, str]] = [
    ("a face of 500 numbers", {"model": "faceid", "face": [FACE[:500]], "image": ()}, RecipeError, "face.0", "500 numbers.*reads faces of 512"),
    ("a face for what sees pictures", {"face": [FACE]}, RecipeError, "face", "reads no faces.*FaceID"),
    ("a picture for what reads faces", {"model": "faceid", "face": [FACE]}, RecipeError, "image", "sees no picture"),
    ("a photo without insightface", {"model": "faceid"}, RecipeError, "face.0", "pip install insightface"),
    ("numbers alone for FaceID-plus", {"model": "faceid_plus", "face": [FACE], "image": ()}, RecipeError, "image", "upright crop"),
    ("two faces, one picture", {"model": "faceid_plus", "face": [FACE, FACE]}, RecipeError, "image", "1 pictures for 2 faces"),
    ("a shortcut of others", {"shortcut": True}, RecipeError, "shortcut", "change nothing"),
    ("a shortcut's scale without it", {"model": "faceid_plus", "face": [FACE], "shortcut": False, "shortcut_scale": 2.0}, RecipeError, "shortcut_scale", "no"),
    ("a low rank of others", {"lowrank": 0.5}, RecipeError, "lowrank", "change nothing"),
    ("a negative picture of faces", {"model": "portrait", "face": [FACE], "image": (), "negative_image": B}, RecipeError, "negative_image", "nothing"),
    ("tiles of faces", {"model": "portrait", "face": [FACE], "image": (), "fit": "tiles"}, RecipeError, "fit", "nothing"),
    ("a detector of pictures", {"detector": "antelopev2"}, RecipeError, "detector", "nothing"),
    ("weights in one softmax", {"image": (A, B), "weights": (1, 2)}, RecipeError, "weights", "combine: apart"),
    ("too many weights", {"weights": (1, 2), "combine": "apart"}, RecipeError, "weights", "2 weights for 1 picture"),
    ("nothing to subtract", {"combine": "subtract"}, RecipeError, "combine", "one picture"),
    ("one for each of other pictures", {"images_per": "item", "image": (A, B)}, RecipeError, "image", "2 pictures.*which are 1.*count: 2"),
    ("frames of a picture", {"images_per": "frame"}, RecipeError, "images_per", "no frames"),
    ("combined for each", {"images_per": "item", "combine": "average"}, RecipeError, "combine", "nothing to combine"),
    ("a preset of other blocks", {"layers": "style"}, RecipeError, "layers", "means blocks of SD 1.x.*has others"),
    ("a block that is not there", {"layers": {"up_blocks.7": 1}}, RecipeError, "layers", "no cross-attention in 'up_blocks.7'"),
    ("of another base", {"model": "xl"}, RecipeError, "model", "context width 64"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "kind", "field", "says"), [row[1:] for row in LETTERS], ids=[row[0] for row in LETTERS]
)
def test_what_is_wrong_is_a_letter(
    fields: dict[str, Any], kind: type[Exception], field: str, says: str, engine: Engine
) -> None:
    fields = {k: v for k, v in ({"image": A} | fields).items() if v != ()}
    with pytest.raises(kind, match=rf"(?s)^conditions\.0\.{field}: .*{says}"):
        engine.check(asked(IPAdapter(**{"model": "plus", **fields})))


@pytest.mark.parametrize(("fields", "field", "says"), [
    ({"layers": "styel"}, "layers", "Did you mean style"), ({"layers": {"a": "b"}}, "layers", "number"), ({"combine": "mix"}, "combine", "concat"),
    ({"scaling": "q"}, "scaling", "v"), ({"face": [1.0]}, "face", "1 numbers"), ({"image": []}, "image", "at least 1"),
])  # fmt: skip
def test_what_cannot_be_read_is_a_letter(fields: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"^{field}: .*{says}"):
        look(**fields)
    with pytest.raises(RecipeError, match=r"^image: this field is required.*face"):
        IPAdapter(model="plus")


def test_the_low_rank_part_on_its_own_is_no_adapter(tmp_path: Path, engine: Engine) -> None:
    names = [f"lora_unet_{b}_attentions_{i}_transformer_blocks_0_attn{j}_{p}" for b in ("down_blocks_0", "up_blocks_1", "mid_block", "up_blocks_2")
             for i in range(4) for j in (1, 2) for p in ("to_q", "to_k", "to_v", "to_out_0")]  # fmt: skip
    state = {
        f"{n}.lora_{side}.weight": torch.zeros((128, 320) if side == "down" else (320, 128))
        for n in names
        for side in ("down", "up")
    }
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"^conditions\.0\.model: .*low-rank part of a FaceID"):
        engine.check(asked(IPAdapter(model=str(tmp_path / "x.safetensors"), face=[FACE])))


def test_others_words_for_its_fields() -> None:
    said = IPAdapter(
        image=A,
        weight_type="style transfer (SDXL)",
        combine_embeds="norm average",
        embeds_scaling="K+mean(V) w/ C penalty",
    )  # type: ignore[call-arg]
    assert (said.layers, said.combine, said.scaling) == ("style", "norm average", "k+mean v c")
    assert IPAdapter(image=A, method="style_precise").layers == "invokeai style precise"  # type: ignore[call-arg]


def test_modules_are_what_is_trained(engine: Engine) -> None:
    from infuse.encoders.kit import Kit

    kit = Kit(engine.store.base("tiny"), (32, 32), engine.store)
    assert isinstance(IPAdapter(model="faceid", face=[FACE]).modules(kit)["ip_adapter"], nn.Module)


def test_every_field_is_read_again_as_it_was_written() -> None:
    for said in (
        look(layers={"up": {"block_1": [0, 1]}}, weights=(1,), combine="apart"),
        IPAdapter(model="faceid", face=[FACE, A], layers="ease in-out"),
    ):
        assert IPAdapter(**said.model_dump()) == said == IPAdapter.model_validate_json(said.model_dump_json())


@pytest.mark.slow
def test_a_photo_s_face_is_found_and_what_it_was_found_in_travels_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `image` or as `face`; FaceID-plus sees the upright crop. A large photo is not replaced by what CLIP saw of another."""
    asked_of: list[Picture] = []

    def found(photo: Picture, detector: str, field: str) -> faces.Found:
        asked_of.append(photo)
        return faces.Found(tuple(20 * x for x in FACE), B)

    monkeypatch.setattr(faces, "missing", lambda detector, field: None)
    monkeypatch.setattr(faces, "found", found)
    for kind, seen in (("faceid", {}), ("faceid_plus", {"image": B, "shortcut": True})):
        want = engine.run(asked(IPAdapter(model=kind, face=[FACE], **seen))).latents
        for field in ("image", "face"):
            shown = {"shortcut": True} if seen else {}
            assert (engine.run(asked(IPAdapter(model=kind, **{field: A}, **shown))).latents - want).abs().max() < 1e-4
    assert set(asked_of) == {A}
    large = Picture.of(np.random.default_rng(0).integers(0, 255, (512, 512, 3)).astype(np.uint8))
    made = engine.run(asked(IPAdapter(model="faceid_plus", image=large, shortcut=True)))
    assert not made.glimpses and made.record().recipe["conditions"][0]["image"][0].startswith("sha256:")
    assert engine.run(asked(look(image=large))).glimpses
