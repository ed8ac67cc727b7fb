"""The tabletop from nothing, stage by stage: each resumes where it was cut off, and leaves what the next one needs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infuse.encoders.kit import Base
from infuse.tabletop.dataset import HELD_OUT, TRAIN, Dataset, load
from infuse.tabletop.making import models as recipes
from infuse.tabletop.making.saving import save_base
from infuse.training.objectives_diffusion import freeze
from infuse.training.saving import halved, save_texts, save_video
from infuse.training.trainer import TrainConfig, Trainer
from infuse.training.video import Learn

log = logging.getLogger("infuse.training")

SCENES, PICTURES = 31_000, 12_000
"""Scenes whose latents the UNet learns from, and those whose pixels are kept for everything that needs pixels."""
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
    "video-text": TrainConfig(500, lr=1e-3, optimizer="muon", warmup=50, ema=0.995, bf16=True, save_every=250),
    "video": TrainConfig(3700, lr=1.5e-3, optimizer="muon", warmup=50, ema=0.995, bf16=True, save_every=250),
    "video-all": TrainConfig(6000, lr=5e-4, optimizer="muon", warmup=30, ema=0.995, bf16=True, save_every=250),
    "video-held": TrainConfig(2000, lr=4e-4, optimizer="muon", warmup=30, ema=0.995, bf16=True, save_every=250),
}
"""What each stage is given. Steps of 32 pictures; of 20 crops for the autoencoder, 64 pictures for the image encoder,
4 clips for the video network."""


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

    def base(self, name: str = "tabletop") -> Base:
        """A model made by an earlier stage."""
        from infuse.engine.model_store import ModelStore
        from infuse.weights.library import Library

        store = ModelStore(dtype=torch.float32, device="cpu")
        store.library = Library([], embedded=self.models)
        return store.base(name)


def vae(shop: Workshop) -> bool:
    """The autoencoder on crops; then its decoder alone, on latents with a little noise."""
    from infuse.tabletop.making.objectives_vae import VaeObjective, latent_means, tabletop_vae

    torch.manual_seed(0)
    net = tabletop_vae()
    start = Trainer(
        VaeObjective(net, shop.pictures, batch_size=12, anchor=1.0),
        TrainConfig(300, lr=2e-3, warmup=30, schedule="constant", bf16=True),
        shop.root / "runs" / "vae-anchored",
    )
    start.run()
    done = shop.train("vae", VaeObjective(net, shop.pictures, batch_size=20, kl=5e-6))
    net.eval()
    means = latent_means(net, shop.held_out)
    net.register_to_config(scaling_factor=float(1 / means.astype(np.float32).std()))
    done = done and shop.train(
        "decoder", VaeObjective(net, shop.pictures, batch_size=20, decoder_only=True, noise=0.06)
    )
    halved(net, shop.models / "base" / "vae")
    return done


def latents(shop: Workshop) -> bool:
    """Every training scene through the encoder, once."""
    from diffusers import AutoencoderKL

    from infuse.tabletop.making.objectives_vae import latent_means

    net = AutoencoderKL.from_pretrained(shop.models / "base" / "vae").eval()
    np.save(shop.root / "latents.npy", latent_means(net, load(SCENES, TRAIN, root=shop.root / "cache")))
    return True


def unet(shop: Workshop) -> bool:
    """UNet and text encoder together."""
    from diffusers import AutoencoderKL

    from infuse.tabletop.tokenizer import build_tokenizer

    torch.manual_seed(0)
    folder = shop.models / "base"
    tokenizer = build_tokenizer(folder / "tokenizer")
    base = recipes.new_base(AutoencoderKL.from_pretrained(folder / "vae").eval(), tokenizer)
    freeze(base)
    for module in (base.network.unet, base.texts.models[0]):
        module.requires_grad_(True)
    done = shop.train("unet", recipes.base_objective(base, shop.root / "latents.npy"))
    save_base(base, folder)
    return done


def judge(shop: Workshop) -> bool:
    """On renders and on what the autoencoder makes of them. Writes its accuracy on held-out renders beside its weights."""
    from infuse.tabletop.judge import Judge
    from infuse.tabletop.making.objectives_judge import JudgeObjective, accuracy

    torch.manual_seed(0)
    net = Judge()
    done = shop.train("judge", JudgeObjective(net, shop.pictures, rebuilt=shop.rebuilt(6000)))
    net.save(shop.models / "judge.safetensors")
    found = accuracy(Judge.load(shop.models / "judge.safetensors"), shop.held_out, np.array(shop.held_out.rgb))
    card = {"description": "the judge that measures tabletop pictures", "accuracy on 2,000 held-out renders": found}
    (shop.models / "judge.card.json").write_text(json.dumps(card, indent=1))
    return done


def clip(shop: Workshop) -> bool:
    """An image encoder that knows colours, shapes and rooms, trained with captions beside it."""
    from infuse.tabletop.making.objectives_clip import ClipObjective, save_image_processor
    from infuse.tabletop.tokenizer import build_tokenizer

    torch.manual_seed(0)
    folder = shop.models / "base"
    objective = ClipObjective(
        build_tokenizer(folder / "tokenizer"), shop.pictures, rebuilt=shop.rebuilt(6000), batch_size=64
    )
    done = shop.train("clip", objective)
    halved(objective.vision, folder / "image_encoder")
    save_image_processor(folder / "feature_extractor")
    return done


def powerpaint(shop: Workshop) -> bool:
    """Nine channels and task tokens: PowerPaint 1, from the base's weights, or from what an earlier life left in `models/`."""
    from infuse.tabletop.making.powerpaint_tabletop import Lessons
    from infuse.training.powerpaint import powerpaint_objective
    from infuse.training.powerpaint_models import inpaint_base, task_texts

    folder, name = shop.models / "inpaint", "tabletop-inpaint"
    base = shop.base(name) if folder.is_dir() else inpaint_base(shop.base(), name)
    texts = task_texts(base)
    picked, count = recipes.latents_of(shop.root / "latents.npy", base.vae.config.scaling_factor)
    lessons = Lessons(shop.pictures, picked, count, base.vae)
    done = shop.train("powerpaint", powerpaint_objective(base, texts, lessons))
    save_base(base, folder, under="tabletop")
    save_texts(texts, folder / "text_encoder")
    return done


def edges(shop: Workshop) -> bool:
    """A ControlNet for edges."""
    objective = recipes.edges_objective(shop.base(), shop.pictures, shop.root / "latents.npy")
    done = shop.train("edges", objective)
    net: Any = objective.learn["controlnet"]
    net.half().save_pretrained(shop.models / "edges")
    card = {"description": "ControlNet for edge maps of the tabletop", "annotator": "canny"}
    (shop.models / "edges" / "card.json").write_text(json.dumps(card, indent=1))
    return done


def ip_adapter(shop: Workshop) -> bool:
    """An IP-Adapter plus on the tabletop's image encoder."""
    from safetensors.torch import save_file

    objective = recipes.looks_objective(shop.base(), shop.pictures, shop.root / "latents.npy")
    done = shop.train("ip-adapter", objective)
    adapter: Any = objective.learn["ip_adapter"]
    save_file({k: t.half().contiguous() for k, t in adapter.save().items()}, shop.models / "ip-adapter.safetensors")
    card = {"description": "IP-Adapter plus for tabletop pictures"}
    (shop.models / "ip-adapter.card.json").write_text(json.dumps(card, indent=1))
    return done


def video(shop: Workshop) -> bool:
    """The network of pictures learns to move by words; then, with conditions, to be a VideoComposer; then all of it at once,
    and at last to keep still.

    Without checkpoints of its own it goes on, where all of it learns, from what an earlier life left in `models/`.
    """
    from infuse.tabletop.clips import load_clips
    from infuse.tabletop.making.video_tabletop import TabletopClips, latents_of_clips, looks_of_clips
    from infuse.training.video import MOVING, Silence, video_objective
    from infuse.training.video_models import CHANNELS, composed_base, video_base

    torch.manual_seed(0)
    pictures = shop.base()
    clips = load_clips(shop.clips, TRAIN, frames=FRAMES, root=shop.root / "cache")
    means = latents_of_clips(pictures.vae, clips, shop.root / f"video-latents-{len(clips)}.npy")
    looks = looks_of_clips(pictures, clips, shop.root / f"video-looks-{len(clips)}.npy")
    examples = TabletopClips(clips, means, pictures.vae.config.scaling_factor, looks)
    options: dict[str, Any] = {"learn_text": shop.learn_text, "dropout": False}

    folder, last = shop.models / "video", shop.learn_video
    again = folder.is_dir() and not (shop.root / "runs" / "video-text").is_dir()
    base = shop.base("tabletop-video") if again else video_base(pictures, FRAMES, "tabletop-video")
    first: Learn = "temporal" if last == "new" else "attention" if last == "all" else last
    done = base.composer is not None
    done = done or shop.train("video-text", video_objective(base, examples, learn=first, silence=MOVING, **options))
    if done:
        own = {"text": 0.12, "motion": 0.2, "local_image": 0.42, "depth": 0.62}
        options |= {"silence": Silence(keep=0.05, each=0.85, own=own, null="empty"), "early": 2.0}
        if base.composer is None or last != "all":
            new = () if base.composer is not None else tuple(CHANNELS)
            base = composed_base(base)
            objective = video_objective(base, examples, learn="attention" if last == "all" else last, **options)
            objective.settle(new)
            done = shop.train("video", objective)
        if done and last == "all":
            for stage, alone, held in (("video-all", ALONE, 0.0), ("video-held", ALONE_HELD, HELD)):
                options |= {"silence": replace(options["silence"], only=alone), "held": held}
                done = done and shop.train(stage, video_objective(base, examples, learn=last, **options))
    lender = None if last == "all" else shop.base().network.unet
    save_video(base, folder, under="tabletop", own_text=shop.learn_text, lender=lender)
    return done


def install(shop: Workshop) -> bool:
    """Put the models where infuse finds its own."""
    from shutil import copytree

    from infuse.weights.library import embedded_root

    copytree(shop.models, embedded_root(), dirs_exist_ok=True)
    return True


STAGES: dict[str, Callable[[Workshop], bool]] = {
    "vae": vae,
    "latents": latents,
    "unet": unet,
    "judge": judge,
    "clip": clip,
    "powerpaint": powerpaint,
    "edges": edges,
    "ip-adapter": ip_adapter,
    "video": video,
    "install": install,
}
"""In the order in which each needs those before it."""
