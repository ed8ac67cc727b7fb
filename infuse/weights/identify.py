"""What is this file? Its tensors say so: which marker keys it has and how wide they are. File names are never asked.

`identify` asks one look after the other, from the most to the least specific; the first that knows the file answers.
Imports no torch: a check of a recipe reads headers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from infuse.weights.formats import Header
from infuse.weights.kinds import Identity
from infuse.weights.layouts.wrapped import UNET as UNET
from infuse.weights.looks import attended, bases, beside, clips, components, differences, loras, others
from infuse.weights.looks.bases import LEARNED as LEARNED
from infuse.weights.looks.bases import TASK_ROWS as TASK_ROWS
from infuse.weights.looks.bases import VAE as VAE
from infuse.weights.looks.bases import VOCABULARY as VOCABULARY
from infuse.weights.looks.table import Table
from infuse.weights.prediction import predicted


def identify(header: Header, *, prediction: str | None = None) -> Identity:
    """Decide what a file is from its keys and shapes.

    `prediction` overrides what a base model predicts (epsilon, v_prediction), which tensors cannot tell: without it,
    marker keys (`v_pred`), then metadata, then the family's usual answer decide, and a note says which did.
    Never raises: an unrecognised file is an Identity of kind "unknown".
    """
    table = Table(header)
    try:
        found = next((i for look in LOOKS if (i := look(table))), Identity("unknown"))
    except (IndexError, KeyError, ValueError, ZeroDivisionError, TypeError):  # known names, shapes of nothing known
        found = Identity("unknown", notes=("its tensors have the names of a known model, but not the shapes",))
    if found.kind in ("base", "unet"):
        said, evidence, notes = predicted(header, found.family, found.variant, prediction)
        found = replace(found, prediction=said, evidence=evidence, notes=(*found.notes, *notes))
    if table.quantised and found.kind != "foreign":
        found = replace(found, notes=(*found.notes, "its weights are packed (quantised), which infuse does not read"))
    return found


def _judge(table: Table) -> Identity | None:
    """The embedded judge, which scores pictures of the tabletop."""
    prefix = table.before("join_fine.1.running_mean")
    return (
        Identity("judge", prefix=prefix)
        if prefix is not None and table.under(prefix, "coarse.0.1.running_mean")
        else None
    )


LOOKS: tuple[Callable[[Table], Identity | None], ...] = (
    _judge, others.family, beside.brushnet, attended.ip_adapter, beside.lllite, beside.ctrlora, beside.sparse, beside.xs, beside.fuser,
    beside.controlnet, differences.difference, loras.lora, clips.motion, attended.gligen, bases.video, bases.base, attended.style, beside.t2i,
    components.component, attended.inversion,
)  # fmt: skip
"""Most specific first: a ControlNet 1.0 file holds a whole base model as well, a GLIGEN is a base with more in it."""
