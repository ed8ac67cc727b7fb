"""Train a video model of your own: a base, a folder of clips, and out comes a model that infuse loads.

Stage 1 makes a network of pictures move by words; stage 2 makes a video network a VideoComposer. AdamW, constant learning
rate 5e-5 and EMA 0.9999 are the original's; batches are what fits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from infuse.encoders.kit import Base
from infuse.engine.model_store import ModelStore
from infuse.errors import RecipeError
from infuse.network.spec import CLIP, NetworkSpec
from infuse.network.video import VideoNetwork
from infuse.training.powerpaint_run import same_run
from infuse.training.saving import save_video
from infuse.training.trainer import TrainConfig, Trainer
from infuse.training.video import MOVING, STYLE, Learn, Silence, video_objective
from infuse.training.video_folder import ClipFolder
from infuse.training.video_models import CHANNELS, composed_base, video_base

log = logging.getLogger("infuse.training")
SETTINGS = "video.json"


@dataclass(frozen=True)
class Run:
    """What makes one training what it is; it can be resumed with the same, and with nothing else."""

    model: str
    data: str
    stage: Literal[1, 2] = 1
    learn: Learn = "all"
    learn_text: bool = False
    conditions: tuple[str, ...] = ()
    """Of stage 2; all that the data can teach, if left out. `style` is one of them."""
    frames: int | None = None
    """Of a clip; the base's own if it makes clips, else 16."""
    fps: float | None = None
    size: int = 256
    batch_size: int = 1
    still: float = 0.25
    """Fraction of the batches that are pictures: the original gave them a quarter of its machines."""
    silent: Literal["zeros", "empty"] = "zeros"
    """What words and style are where they are silent, in stage 2."""


PLAN = TrainConfig(
    1000, lr=5e-5, warmup=500, schedule="constant", weight_decay=0.01, betas=(0.9, 0.999), save_every=500, log_every=10
)


def train(run: Run, out: Path, plan: TrainConfig = PLAN, store: ModelStore | None = None) -> bool:
    """Train on from the newest checkpoint in `out`; True when the last step is reached. Leaves the model in `out`.

    The store's base is changed where it learns: give none, or one that is used for nothing else.
    Raises RecipeError or WeightsError before anything is loaded, if base, data and settings do not fit together.
    """
    store = store or ModelStore(dtype=torch.float32)
    view = store.view(run.model)
    frames = run.frames or view.spec.frames or CLIP
    fits(run, view.spec, frames)
    folder = ClipFolder(Path(run.data), frames, run.size, run.fps)
    folder.must_teach(run.conditions)
    conditions = asked(run, folder, view.spec, view.vision(None)) if run.stage == 2 else ()
    if "motion" in conditions:
        folder.must_teach(("motion",))
    same_run(run, out, SETTINGS)
    torch.manual_seed(plan.seed)
    given = store.base(run.model)
    base = prepared(run, given, frames, conditions)
    folder.base = base
    silence = MOVING if run.stage == 1 else Silence(null=run.silent)
    objective = video_objective(
        base, folder, learn=run.learn, learn_text=run.learn_text, batch_size=run.batch_size, still=run.still,
        silence=silence, conditions=conditions,
    )  # fmt: skip
    if base.composer is not None:
        known = given.composer.names if given.composer is not None else ()
        objective.settle([n for n in base.composer.names if n not in known])
    log.info("learning %s from %d clips", ", ".join(objective.names), len(folder.lines))
    trainer = Trainer(objective, plan, out / "checkpoints")
    done = trainer.run() >= plan.steps
    trainer.use_average()
    save_video(base, out)
    return done


def asked(run: Run, folder: ClipFolder, spec: NetworkSpec, vision: Any) -> tuple[str, ...]:
    """The conditions to be learned; style only with an image encoder as wide as the network listens.

    Raises RecipeError if style is named and there is none.
    """
    fitting = vision is not None and vision.projection == spec.context_width
    if STYLE in run.conditions and not fitting:
        raise RecipeError("conditions", f"{spec.name} brings no image encoder of width {spec.context_width}, which style is learned from. Add "
                                        "one to its folder (image_encoder/, feature_extractor/), or leave style out.")  # fmt: skip
    return run.conditions or (*folder.teaches(), *([STYLE] if fitting else []))


def fits(run: Run, spec: NetworkSpec, frames: int) -> None:
    """Raises RecipeError unless this stage can be learned from this base."""
    for name in run.conditions:
        if name not in (*CHANNELS, STYLE):
            raise RecipeError("conditions", f"there is no {name!r}. Choose from: {', '.join((*CHANNELS, STYLE))}.")
    if run.stage == 1 and run.conditions:
        raise RecipeError("conditions", "stage 1 learns from words alone. Leave them out, or train stage 2.")
    if run.stage == 1 and run.learn == "new":
        raise RecipeError("learn", "in stage 1 no input channels are new. Learn temporal or all.")
    if run.stage == 1 and (spec.in_channels != spec.latent_channels or spec.embedding_slots):
        raise RecipeError("model", f"{spec.described} has {spec.in_channels} input channels"
                                   f"{' and hears more than words' * bool(spec.embedding_slots)}; stage 1 begins with an SD 1.x or 2.x of "
                                   f"{spec.latent_channels}, or a text-to-video model. Choose one.")  # fmt: skip
    if run.stage == 2 and not spec.frames:
        raise RecipeError("model", f"{spec.name} makes pictures; conditions are learned on top of a network that makes clips. Train stage 1 "
                                   "first, or choose a text-to-video model.")  # fmt: skip
    if frames < 2:
        raise RecipeError("frames", f"a clip has at least 2, not {frames}.")
    step = spec.vae_factor * 2 ** (len(spec.widths) - 1)
    if run.size % step or run.size < step:
        raise RecipeError(
            "size", f"{run.size} px cannot be halved all the way through the network. Choose a multiple of {step}."
        )


def prepared(run: Run, base: Base, frames: int, conditions: tuple[str, ...]) -> Base:
    """The base as the stage needs it."""
    if not base.spec.frames:
        return video_base(base, frames)
    if frames != base.spec.frames:
        base = replace(base, network=VideoNetwork(base.network.unet, replace(base.spec, frames=frames)))
    if run.stage == 1:
        return base
    return composed_base(base, [c for c in conditions if c != STYLE], STYLE in conditions)
