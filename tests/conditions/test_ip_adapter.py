"""One condition for pictures and faces: every kind of file, where and how it is heard, for whom each picture is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_faces
import torch
from looked import A, B, asked, look, sides
from safetensors.torch import save_file
from some import some
from torch import Tensor, nn

import tiny
from infuse import IPAdapter, Recipe
from infuse.encoders import faces
from infuse.encoders.ip_adapter import Adapter, LowRank
from infuse.engine.engine import Engine
from infuse.errors import InfuseWarning, RecipeError, WeightsError
from infuse.media.pictures import Picture

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
