"""A name is found in one place, always the same; and when it is not, the letter says where infuse looked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from infuse.errors import WeightsError
from infuse.weights import hub
from infuse.weights.library import Library
from infuse.weights.source import Source, variant_of, weights_of


def weights(path: Path, key: str = "a") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: torch.ones(2)}, str(path))
    return path


def pipeline(root: Path, **index: object) -> Path:
    weights(root / "unet" / "diffusion_pytorch_model.safetensors")
    (root / "unet" / "config.json").write_text("{}")
    (root / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DConditionModel"], **index}))
    return root


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )
    inside = tmp_path / "embedded"
    weights(pipeline(inside / "base") / "vae" / "model.safetensors")
    (inside / "base" / "card.json").write_text('{"description": "a small world on a table"}')
    (inside / "inpaint").mkdir()
    pipeline(inside / "inpaint", infuse_base="tabletop")
    (weights(inside / "edges" / "model.safetensors").parent / "config.json").write_text("{}")
    weights(inside / "ip-adapter.safetensors")
    weights(tmp_path / "root" / "photo.safetensors")
    pipeline(tmp_path / "root" / "painting")
    return Library([tmp_path / "root"], offline=True, embedded=inside)


def test_embedded_names_and_what_a_folder_leaves_to_its_base(library: Library) -> None:
    assert set(library.names()) == {"tabletop", "tabletop-inpaint", "edges", "ip-adapter", "photo", "painting"}
    assert library.names()["tabletop"] == "a small world on a table"
    found = library.find("tabletop-inpaint")
    assert found.embedded and found.path.name == "inpaint"
    assert found.component("vae") == library.find("tabletop").path / "vae"
    assert found.component("unet") == found.path / "unet"
    assert set(found.header) == {"unet/a", "vae/a"}


def test_paths_and_roots(library: Library, tmp_path: Path) -> None:
    assert library.find("photo").path == tmp_path / "root" / "photo.safetensors"
    assert library.find("photo.safetensors").path == library.find(str(tmp_path / "root" / "photo.safetensors")).path
    assert library.find("painting").is_folder
    header, identity = library.header("photo")
    assert set(header) == {"a"} and identity.kind == "unknown"


def test_a_folder_made_for_one_checkpoint_is_that_checkpoint(library: Library, tmp_path: Path) -> None:
    only = weights(tmp_path / "release" / "dream_v8.safetensors")
    assert library.find(str(tmp_path / "release")).path == only
    weights(tmp_path / "release" / "dream_v9.safetensors")
    with pytest.raises(WeightsError, match="neither model_index.json nor config.json"):
        library.find(str(tmp_path / "release"))
    with pytest.raises(WeightsError) as letter:
        library.find("models/none.safetensors")
    assert "Hub cache" not in letter.value.message


def test_no_network_is_a_letter_not_a_traceback(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    online = Library(library.roots, offline=False)
    with pytest.raises(WeightsError, match="not in the local cache and the Hub did not answer"):
        online.find("owner/thing")


def test_roots_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights(tmp_path / "mine" / "x.safetensors")
    monkeypatch.setenv("INFUSE_MODELS", f"{tmp_path / 'nowhere'}:{tmp_path / 'mine'}")
    assert Library(offline=True).find("x").path.parent.name == "mine"


def test_strangers_cannot_leave_the_roots(library: Library, tmp_path: Path) -> None:
    outside = weights(tmp_path / "secret.safetensors")
    closed = Library(library.roots, offline=True, paths=False)
    for name in (str(outside), "../secret", "../secret.safetensors"):
        with pytest.raises(WeightsError, match="was not found"):
            closed.find(name)
    assert closed.find("photo").path.name == "photo.safetensors"


def cache(tmp_path: Path, repo: str) -> Path:
    root = tmp_path / "hub" / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


def test_the_hub_cache_is_enough(library: Library, tmp_path: Path) -> None:
    snapshot = pipeline(cache(tmp_path, "someone/model"))
    weights(snapshot / "extra" / "adapter.safetensors")
    assert library.find("someone/model").path == snapshot
    assert library.find("someone/model/extra/adapter.safetensors").path.name == "adapter.safetensors"
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").unlink()  # an interrupted download
    with pytest.raises(WeightsError, match="was not found"):
        library.find("someone/model")


def test_a_revision_stands_behind_the_name(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = pipeline(cache(tmp_path, "someone/model"))
    weights(snapshot / "extra" / "adapter.safetensors")
    (tmp_path / "hub" / "models--someone--model" / "refs" / "v2").write_text("0" * 40)
    assert library.find("someone/model@v2").path == snapshot
    assert library.find("someone/model@v2/extra/adapter.safetensors").path.name == "adapter.safetensors"
    with pytest.raises(WeightsError, match=r"offline.*`hf download someone/model --revision v3`"):
        library.find("someone/model@v3")
    assert hub.split_id("a/b@refs/pr/3/unet") == ("a/b@refs/pr/3", "unet") and hub.at_revision("a/b") == ("a/b", None)
    assert hub.is_id("a/b@v1.0") and not hub.is_id("a/b@") and not hub.is_id("a@b")

    asked: list[tuple[str, str | None]] = []
    for name in ("huggingface_hub.HfApi.list_repo_files", "huggingface_hub.snapshot_download"):
        monkeypatch.setattr(name, lambda *a, revision=None, **_: asked.append((a[-1], revision)) or ["m.safetensors"])
    monkeypatch.setattr("huggingface_hub.get_session", lambda: type("S", (), {"head": lambda *_, **__: None})())
    monkeypatch.setattr(hub, "Path", lambda _: tmp_path)
    assert hub.download("a/b@v2", "", "model") == tmp_path and asked == [("a/b", "v2")] * 2


def test_a_folder_without_a_model_is_not_asked_of_the_hub(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(hub, "download", asked)
    monkeypatch.chdir(tmp_path)
    online = Library(library.roots, offline=False)
    (tmp_path / "models" / "empty").mkdir(parents=True)
    for name in ("a", "b"):
        weights(tmp_path / "models" / "loras" / f"{name}.safetensors")
    for part in ("vae", "text_encoder"):
        (weights(tmp_path / "models" / "half" / part / "model.safetensors").parent / "config.json").write_text("{}")
    for name in ("x", "y"):
        weights(tmp_path / "root" / "kept" / "of" / f"{name}.safetensors")
    for name, says in {
        "models/empty": "is there, but no model: .*holds no weights",
        "models/loras": r"is there, but no model: neither .* in it. It holds 2 models \(a.safetensors, b.safetensors\). Name the one",
        "models/half": "is there, but no model: .*It has text_encoder, vae, but no unet",
        "kept/of": "is there, but no model: .*2 models",
    }.items():
        with pytest.raises(WeightsError, match=says) as caught:
            online.find(name)
        assert "Hub" not in caught.value.message
    closed = Library(library.roots, offline=True, paths=False)
    with pytest.raises(WeightsError, match="was not found"):
        closed.find("models/loras")


def test_an_unknown_name_with_a_slash_is_said_to_be_neither(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match='there is no file or folder "owner/thing" here.*on the Hub.*did not answer'):
        Library(library.roots, offline=False).find("owner/thing")


def test_not_found_says_where_close_names_and_what_to_do(library: Library) -> None:
    with pytest.raises(WeightsError, match=r"conditions.0.model: .edge. was not found.*root.*Close names: edges"):
        library.find("edge", "conditions.0.model")
    with pytest.raises(WeightsError, match="infuse is offline.*hf download owner/thing"):
        library.find("owner/thing")
    with pytest.raises(WeightsError, match="no model is named"):
        library.find(" ")


def test_offline_is_asked_of_the_environment_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.is_offline() and not hub.is_offline(False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert not hub.is_offline()


def test_only_the_needed_files_are_taken() -> None:
    files = ["README.md", "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "unet/config.json",
             "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
             "unet/diffusion_pytorch_model.fp16.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.bin",
             "text_encoder/model-00001-of-00002.safetensors", "text_encoder/model-00002-of-00002.safetensors",
             "text_encoder/model.safetensors.index.json", "safety_checker/model.safetensors", "tokenizer/vocab.json",
             "image_encoder/model.fp16.safetensors", "adapters/a.safetensors"]  # fmt: skip
    assert set(hub.needed(files)) == {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.bin", "text_encoder/model-00001-of-00002.safetensors", "tokenizer/vocab.json",
        "text_encoder/model-00002-of-00002.safetensors", "text_encoder/model.safetensors.index.json",
        "image_encoder/model.fp16.safetensors",
    }  # fmt: skip
    assert hub.needed(files, "adapters/a.safetensors") == ["adapters/a.safetensors"]
    assert hub.needed(files, "vae") == ["vae/config.json", "vae/diffusion_pytorch_model.bin"]
    assert hub.split_id("a/b/c/d.bin") == ("a/b", "c/d.bin")


def test_which_weights_of_a_component(tmp_path: Path) -> None:
    names = ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    assert [p.name for p in weights_of(tmp_path)] == names[1:]
    assert variant_of(weights_of(tmp_path)[0]) == "fp16" and variant_of(tmp_path / "model.safetensors") is None
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    assert variant_of(weights_of(tmp_path)[0]) is None
    with pytest.raises(WeightsError, match="no weights"):
        (tmp_path / "none").mkdir()
        weights_of(tmp_path / "none")


def test_shards_are_one_model_and_a_missing_one_is_named(tmp_path: Path) -> None:
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for n, shard in enumerate(shards):
        weights(tmp_path / shard, f"k{n}")
    index = {"weight_map": {"k0": shards[0], "k1": shards[1]}}
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    assert set(Source("m", tmp_path).header) == {"k0", "k1"}
    (tmp_path / shards[1]).unlink()
    with pytest.raises(WeightsError, match="1 of 2 shards missing"):
        weights_of(tmp_path)
