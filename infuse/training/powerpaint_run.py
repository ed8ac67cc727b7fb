"""Train a PowerPaint of your own: a base, a folder of pictures, and out comes a model that infuse loads.

Defaults are the paper's: AdamW, constant learning rate 1e-5, weight decay 0.01, gradients clipped at 1.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from infuse.encoders.generations import GENERATIONS, V1, V2
from infuse.encoders.kit import Base
from infuse.engine.model_store import ModelStore
from infuse.errors import RecipeError
from infuse.network.brushnet import BrushNet
from infuse.network.spec import NetworkSpec
from infuse.training.folder import Folder
from infuse.training.powerpaint import Learn, powerpaint_objective
from infuse.training.powerpaint_folder import Crops, Lesson
from infuse.training.powerpaint_models import inpaint_base, task_texts
from infuse.training.saving import save_branch, save_powerpaint
from infuse.training.trainer import TrainConfig, Trainer

log = logging.getLogger("infuse.training")
SETTINGS = "powerpaint.json"


@dataclass(frozen=True)
class Run:
    """What makes one training what it is; it can be resumed with the same, and with nothing else."""

    model: str
    data: str
    generation: Literal["v1", "v2"] = "v1"
    learn: Learn = "all"
    lessons: tuple[Lesson, ...] = ()
    """What to learn; all that the data can teach, if left out."""
    size: int = 512
    batch_size: int = 4
    original: bool = False
    """Grow silhouettes as the original's code does (once), not as its paper says."""


PLAN = TrainConfig(
    1000, lr=1e-5, warmup=500, schedule="constant", weight_decay=0.01, betas=(0.9, 0.999), save_every=500, log_every=10
)


def train(run: Run, out: Path, plan: TrainConfig = PLAN, store: ModelStore | None = None) -> bool:
    """Train on from the newest checkpoint in `out`; True when the last step is reached. Leaves the model in `out`.

    The store's base is changed where it learns: give none, or one that is used for nothing else.

    v1: a whole nine-channel model. v2: `PowerPaint_Brushnet/`, for the field `model` of a PowerPaint condition.
    Raises RecipeError or WeightsError before anything is loaded, if base, data and settings do not fit together.
    """
    store = store or ModelStore(dtype=torch.float32)
    fits(run, store.view(run.model).spec)
    folder = Folder(Path(run.data), run.size)
    Crops(folder, None, run.lessons)
    same_run(run, out)
    torch.manual_seed(plan.seed)
    base = prepared(run, store.base(run.model))
    examples = Crops(folder, base.vae, run.lessons, original=run.original)
    texts = task_texts(base, GENERATIONS[run.generation])
    unet: Any = base.network.unet
    branch = BrushNet.from_unet(unet).to(base.network.device) if run.generation == V2.name else None
    objective = powerpaint_objective(base, texts, examples, branch=branch, learn=run.learn, batch_size=run.batch_size)
    log.info("learning %s from %d pictures", ", ".join(examples.lessons), len(folder))
    trainer = Trainer(objective, plan, out / "checkpoints")
    done = trainer.run() >= plan.steps
    trainer.use_average()
    if branch is None:
        save_powerpaint(base, texts, out)
    else:
        save_branch(branch, texts, out)
    return done


def fits(run: Run, spec: NetworkSpec) -> None:
    """Raises RecipeError unless this generation can be learned from this base."""
    wide = spec.in_channels
    if spec.embedding_slots.get("text_embeds"):
        raise RecipeError("model", f"{spec.described} has two text encoders; PowerPaint's task tokens belong to the one of SD 1.x. Choose "
                                   "such a base.")  # fmt: skip
    if run.generation == V2.name and wide != 4:
        raise RecipeError("model", f"{spec.name} has {wide} input channels; PowerPaint 2 is a BrushNet beside a base of 4. Choose one, or "
                                   "generation v1.")  # fmt: skip
    if run.generation == V1.name and wide not in (4, 9):
        raise RecipeError("model", f"{spec.name} has {wide} input channels; PowerPaint 1 is made of a base of 4, or of an inpainting "
                                   "model of 9. Choose one.")  # fmt: skip
    if run.learn == "tokens" and wide == 4 and run.generation == V1.name:
        raise RecipeError("learn", f"{spec.name} has 4 input channels and never saw a mask: task tokens alone cannot teach it. Choose an "
                                   "inpainting model of 9, or learn all.")  # fmt: skip
    step = spec.vae_factor * 2 ** (len(spec.widths) - 1)
    if run.size % step or run.size < step:
        raise RecipeError(
            "size", f"{run.size} px cannot be halved all the way through the network. Choose a multiple of {step}."
        )


def prepared(run: Run, base: Base) -> Base:
    """The base as the generation needs it: nine channels for v1."""
    if run.generation == V2.name:
        return base
    return inpaint_base(base, base.name) if base.spec.in_channels == 4 else base


def same_run(run: Any, out: Path, settings: str = SETTINGS) -> None:
    """Write the settings down, or compare. Raises RecipeError for a folder that holds another run."""
    out.mkdir(parents=True, exist_ok=True)
    path, said = out / settings, json.loads(json.dumps(asdict(run)))
    if not path.is_file():
        path.write_text(json.dumps(said, indent=1), "utf-8")
        return
    before = json.loads(path.read_text("utf-8"))
    for name, value in said.items():
        if before.get(name) != value:
            raise RecipeError("out", f"{out} holds a run whose {name} is {before.get(name)!r}; this one says {value!r}. Say the same to "
                                     "resume it, or choose another folder.")  # fmt: skip
