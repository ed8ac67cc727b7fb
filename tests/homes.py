"""A folder as the documents imagine it: tiny networks under the names of the embedded models and of released ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import disk
import pytest
from weights import ldm
from weights.test_base import checkpoint

HUB: dict[str, Callable[[Path], object]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": disk.base,
    "stabilityai/stable-diffusion-xl-base-1.0": lambda folder: disk.base(folder, "sdxl"),
    "SimianLuo/LCM_Dreamshaper_v7": disk.base,
    "lllyasviel/control_v11p_sd15_canny": disk.controlnet,
    "h94/IP-Adapter": lambda folder: disk.adapter(folder / "models" / "ip-adapter_sd15.safetensors"),
}
"""What the documents take from the Hub."""


def embedded(weights: Path) -> None:
    """What comes with infuse."""
    disk.base(weights / "base")
    disk.powerpaint1(weights / "inpaint")
    disk.video(weights / "video")
    disk.controlnet(weights / "edges")
    (weights / "edges" / "card.json").write_text('{"description": "edges", "annotator": "canny"}')
    disk.adapter(weights / "ip-adapter.safetensors")


def released(home: Path, hub: Path) -> None:
    """What somebody has in their folder, and in the Hub's cache."""
    disk.base(home / "my-sd15")
    disk.base(home / "my-sdxl", "sdxl")
    for kin, name in (("sd1", "v1-5-pruned-emaonly"), ("sdxl", "sd_xl_base_1.0")):
        ldm.save(home / f"{name}.safetensors", checkpoint(kin)[0])
    for repo, make in HUB.items():
        cached = hub / ("models--" + repo.replace("/", "--"))
        snapshot = cached / "snapshots" / ("0" * 40)
        for folder in (cached / "refs", snapshot / "models" if repo == "h94/IP-Adapter" else snapshot):
            folder.mkdir(parents=True)
        (cached / "refs" / "main").write_text("0" * 40)
        make(snapshot)


def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, beside tiny models as if they came with infuse."""
    embedded(tmp_path / "weights")
    monkeypatch.setattr("infuse.weights.library.embedded_root", lambda: tmp_path / "weights")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for place in ("huggingface_hub.constants", "huggingface_hub._snapshot_download.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"
