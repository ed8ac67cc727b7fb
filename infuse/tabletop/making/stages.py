"""The tabletop from nothing, stage by stage: each resumes where it was cut off, and leaves what the next one needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from infuse.tabletop.dataset import TRAIN, load
from infuse.tabletop.making import models as recipes
from infuse.tabletop.making import objectives_maps as lessons
from infuse.tabletop.making.saving import save_base
from infuse.tabletop.making.workshop import ALONE, ALONE_HELD, FRAMES, HELD, LOOKS, RANK, SCENES, Workshop
from infuse.training.objectives_diffusion import freeze
from infuse.training.saving import halved, save_texts, save_video
from infuse.training.trainer import TrainConfig, Trainer
from infuse.training.video import Learn


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


def edit(shop: Workshop) -> bool:
    """Eight channels: pictures are changed as they are told to be. What is added to the base is all that is kept."""
    from infuse.tabletop.making.objectives_vae import latent_means

    torch.manual_seed(0)
    path, base = shop.root / "changed.npy", shop.base()
    if not path.is_file():
        views = lessons.changed_views(len(shop.pictures), shop.root / "cache")
        np.save(path, latent_means(base.vae, replace(shop.pictures, rgb=views)))
    objective = lessons.edit_objective(base, shop.root / "latents.npy", path)
    return shop.added("edit", objective, "edits of a picture, told in words")


def depth(shop: Workshop) -> bool:
    """Five channels: a depth2img model, as what is added to the base."""
    torch.manual_seed(0)
    objective = lessons.depth_objective(shop.base(), shop.pictures, shop.root / "latents.npy")
    return shop.added("depth", objective, "text to image in the spaces of a depth map")


def depths(shop: Workshop) -> bool:
    """A ControlNet for depth maps."""
    objective = lessons.depths_objective(shop.base(), shop.pictures, shop.root / "latents.npy")
    done = shop.train("depths", objective)
    net: Any = objective.learn["controlnet"]
    net.half().save_pretrained(shop.models / "depths")
    card = {"description": "ControlNet for depth maps of the tabletop", "annotator": "depth"}
    (shop.models / "depths" / "card.json").write_text(json.dumps(card, indent=1))
    return done


def segments(shop: Workshop) -> bool:
    """A T2I-Adapter for maps of the kinds of solids."""
    import diffusers

    torch.manual_seed(0)
    objective = lessons.segments_objective(shop.base(), shop.pictures, shop.root / "latents.npy")
    done = shop.train("segments", objective)
    net: Any = diffusers.T2IAdapter(**lessons.SEGMENTS)
    net.load_state_dict(objective.learn["adapter"].state_dict())
    net.half().save_pretrained(shop.models / "segments")
    card = {"description": "T2I-Adapter for maps of the kinds of solids on the tabletop", "annotator": "seg"}
    (shop.models / "segments" / "card.json").write_text(json.dumps(card, indent=1))
    return done


def wood(shop: Workshop) -> bool:
    """A LoRA: solids are of wood. An encoder that hears grain comes first; of it, latents are kept."""
    from infuse.tabletop.making import objectives_looks as looks
    from infuse.tabletop.making.objectives_vae import latent_means
    from infuse.training.low_rank import save_look

    torch.manual_seed(0)
    base, path = shop.base(), shop.root / "wood.npy"
    rgb = looks.pictures(LOOKS, looks.wooden_at, shop.root / "cache" / f"wood-{LOOKS}.npy")
    if not path.is_file():
        grain = looks.Grain(base.vae, rgb)
        if not shop.train("grain", grain):
            return False
        np.save(path, latent_means(grain.vae.eval(), rgb))
    done = shop.train("wood", looks.wood_objective(base, path))
    told = "LoRA for tabletop pictures: solids of wood"
    save_look(base.network.unet, shop.models / "wood.safetensors", *RANK, told)
    return done


def gold(shop: Workshop) -> bool:
    """A word for the material of gold: a vector."""
    from infuse.tabletop.making import objectives_looks as looks
    from infuse.tabletop.making.objectives_vae import latent_means
    from infuse.training.words import save_word

    torch.manual_seed(0)
    base, path = shop.base(), shop.root / "gold.npy"
    if not path.is_file():
        rgb = looks.pictures(LOOKS, looks.golden_at, shop.root / "cache" / f"gold-{LOOKS}.npy")
        np.save(path, latent_means(base.vae, rgb))
    objective, word = looks.gold_objective(base, path)
    done = shop.train("gold", objective)
    told = "embedding for tabletop pictures: the word <gold> before the name of a solid"
    save_word(looks.WORD, word.rows, shop.models / "gold.safetensors", told)
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
    "edit": edit,
    "depth": depth,
    "depths": depths,
    "segments": segments,
    "wood": wood,
    "gold": gold,
    "video": video,
    "install": install,
}
"""In the order in which each needs those before it."""
