"""The folder in which the tabletop is made, and what each stage is given: steps, learning rate, how often it is saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infuse.encoders.kit import Base
from infuse.tabletop.dataset import HELD_OUT, TRAIN, Dataset, load
from infuse.training.low_rank import save_difference
from infuse.training.trainer import TrainConfig, Trainer
from infuse.training.video import Learn

SCENES, PICTURES = 31_000, 12_000
"""Scenes whose latents the UNet learns from, and those whose pixels are kept for everything that needs pixels."""
LOOKS, RANK, GILDED = 1_500, (8, 4), 0.3
"""Scenes that are drawn again with wooden, and with golden solids; ranks of the LoRA (transformers, convolutions); how often each
further solid is golden."""
CLIPS, FRAMES = 8_000, 8
"""Moves that the video network learns from (0.8 MB each), and the frames of each."""
ALONE = ((0.35, ("motion", "local_image")), (0.12, ("depth",)), (0.05, ("local_image",)))
"""What the video network hears by itself, beside words, when all of it learns, and how often: as people ask most."""
HELD = 0.4
"""Batches of its last lesson in which nothing moves: from them it knows that what is not told to move stands still."""
ALONE_HELD = (
    (0.30, ("motion", "local_image")), (0.40, ("local_image",)), (0.07, ("depth",)), (0.06, ("motion",)), (0.02, ()),
)  # fmt: skip
"""What it hears by itself in that lesson."""

PLANS: dict[str, TrainConfig] = {
    "vae": TrainConfig(2000, lr=2e-3, optimizer="muon", warmup=20, bf16=True, save_every=250),
    "decoder": TrainConfig(450, lr=1e-3, optimizer="muon", warmup=20, ema=0.98, bf16=True, save_every=250),
    "unet": TrainConfig(7600, lr=1.5e-3, optimizer="muon", warmup=200, ema=0.999, bf16=True),
    "judge": TrainConfig(950, lr=2e-3, optimizer="muon", warmup=50, ema=0.995, clip=10, weight_decay=0.05, bf16=True),
    "clip": TrainConfig(950, lr=2e-3, optimizer="muon", warmup=50, ema=0.99, clip=5, weight_decay=0.02, bf16=True),
    "powerpaint": TrainConfig(2800, lr=1e-3, optimizer="muon", warmup=50, ema=0.995, bf16=True),
    "edges": TrainConfig(900, lr=2e-3, optimizer="muon", warmup=50, ema=0.99, bf16=True),
    "ip-adapter": TrainConfig(1400, lr=2e-3, optimizer="muon", warmup=50, ema=0.99, bf16=True),
    "edit": TrainConfig(3000, lr=2e-3, optimizer="muon", warmup=100, ema=0.995, bf16=True),
    "depth": TrainConfig(1600, lr=2e-3, optimizer="muon", warmup=100, ema=0.99, bf16=True),
    "depths": TrainConfig(1200, lr=1.5e-3, optimizer="muon", warmup=50, ema=0.99, bf16=True),
    "segments": TrainConfig(3000, lr=2e-3, optimizer="muon", warmup=50, ema=0.99, bf16=True),
    "grain": TrainConfig(240, lr=2e-3, optimizer="muon", warmup=20, ema=0.98, save_every=80),
    "wood": TrainConfig(700, lr=2e-3, optimizer="muon", warmup=50, ema=0.99, save_every=100),
    "gold": TrainConfig(120, lr=1e-3, warmup=10, ema=0.95, weight_decay=0.0, save_every=100),
    "video-text": TrainConfig(500, lr=1e-3, optimizer="muon", warmup=50, ema=0.995, bf16=True, save_every=250),
    "video": TrainConfig(3700, lr=1.5e-3, optimizer="muon", warmup=50, ema=0.995, bf16=True, save_every=250),
    "video-all": TrainConfig(6000, lr=5e-4, optimizer="muon", warmup=30, ema=0.995, bf16=True, save_every=250),
    "video-held": TrainConfig(2000, lr=4e-4, optimizer="muon", warmup=30, ema=0.995, bf16=True, save_every=250),
}
"""What each stage is given. Steps of 32 pictures; of 20 crops for the autoencoder, 64 pictures for the image encoder,
16 for the LoRA and the word, 8 crops for their encoder, 4 clips for the video network."""


@dataclass
class Workshop:
    """A folder in which the tabletop is made: `runs/<stage>` while training, `models/` when done."""

    root: Path
    minutes: float = float("inf")
    """Longest time for one stage; it stops with its checkpoint and goes on in the next run."""
    plans: dict[str, TrainConfig] = field(default_factory=lambda: dict(PLANS))
    clips: int = CLIPS
    learn_video: Learn = "all"
    """What of the video network learns in the end. "all" begins with what a network of pictures lacks."""
    learn_text: bool = True
    """Whether the text encoder learns with it: it has never met the verbs of moving things."""

    @property
    def models(self) -> Path:
        return self.root / "models"

    @cached_property
    def pictures(self) -> Dataset:
        return load(PICTURES, TRAIN, root=self.root / "cache")

    @cached_property
    def held_out(self) -> Dataset:
        return load(2000, HELD_OUT, root=self.root / "cache")

    def rebuilt(self, count: int) -> np.ndarray:
        """(count h w 3) uint8: pictures after a round trip through the autoencoder, with up to 0.2 of noise on the latents."""
        path = self.root / f"rebuilt-{count}.npy"
        if not path.is_file():
            from diffusers import AutoencoderKL

            from infuse.tabletop.making.objectives_vae import rebuilt

            net = AutoencoderKL.from_pretrained(self.models / "base" / "vae").eval()
            np.save(path, rebuilt(net, self.pictures, count))
        return np.load(path, mmap_mode="r")

    def train(self, stage: str, objective: Any) -> bool:
        """Train on; True if the stage's last step is reached. The modules then hold their moving average."""
        plan = replace(self.plans[stage], max_minutes=self.minutes)
        trainer = Trainer(objective, plan, self.root / "runs" / stage)
        done = trainer.run() >= plan.steps
        if trainer.ema:
            trainer.use_average()
        return done

    def added(self, stage: str, objective: Any, description: str) -> bool:
        """Train what a model adds to the base, and keep that alone; True if the last step is reached."""
        done = self.train(stage, objective)
        path = self.models / f"{stage}.safetensors"
        save_difference(objective.learn, path, "tabletop", f"the tabletop's own model: {description}")
        return done

    def base(self, name: str = "tabletop") -> Base:
        """A model made by an earlier stage."""
        from infuse.engine.model_store import ModelStore
        from infuse.weights.library import Library

        store = ModelStore(dtype=torch.float32, device="cpu")
        store.library = Library([], embedded=self.models)
        return store.base(name)
