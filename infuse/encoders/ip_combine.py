"""Several pictures of one IP-Adapter: what counts as one, for whom each is, and which fields say nothing to which file.

Source: cubiq/ComfyUI_IPAdapter_plus@9d076a3 (ipadapter_execute). Imports no torch before something is combined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from infuse.encoders import faces
from infuse.encoders.ip_kinds import Reads
from infuse.errors import RecipeError
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Combine = Literal["concat", "apart", "add", "subtract", "average", "norm average", "max", "min"]


def combined(e: Float[Tensor, "n ..."], how: Combine, weights: Sequence[float]) -> Float[Tensor, "1 ..."]:
    """What is known of n pictures or faces as if it were known of one; each counts by its weight. One alone is not changed."""
    e = e * e.new_tensor(weights).reshape(-1, *(1,) * (e.ndim - 1))
    if len(e) == 1:
        return e
    match how:
        case "add":
            out = e.sum(0)
        case "subtract":
            out = e[0] - e[1:].mean(0)
        case "average":
            out = e.mean(0)
        case "norm average":  # the norm is taken over the pictures, number by number, as the original does it
            out = (e / e.norm(dim=0, keepdim=True).clamp(min=1e-12)).mean(0)
        case "max":
            out = e.amax(0)
        case "min":
            out = e.amin(0)
        case _:
            raise AssertionError(f"{how} leaves pictures apart")
    return out[None]


def fits(asked: Any, read: Reads) -> None:
    """Raises RecipeError for fields of an IP-Adapter condition that say nothing to a file of this kind, or say it wrongly."""
    model = asked.model
    if read.face is None:
        if asked.face:
            raise RecipeError(
                "face",
                f"{model!r} sees pictures and reads no faces ({read.kind}). Give a picture as image, or choose a FaceID.",
            )
        told = {"shortcut": asked.shortcut != "auto", "detector": asked.detector != "buffalo_l"}
    else:
        _faces(asked, read)
        told = {"negative_image": read.eye is None and asked.negative_image is not None,
                "shortcut": read.kind != "faceid_plus" and asked.shortcut != "auto",
                "fit": asked.fit == "tiles"}  # fmt: skip
    told["shortcut_scale"] = asked.shortcut_scale != 1 and (read.kind != "faceid_plus" or asked.shortcut is False)
    told["lowrank"] = asked.lowrank != 1 and not read.lowrank
    for name, is_said in told.items():
        if is_said:
            raise RecipeError(name, f"{model!r} ({read.kind}) has no {name}; it would change nothing. Remove it.")


def _faces(asked: Any, read: Reads) -> None:
    for i, face in enumerate(asked.face):
        if isinstance(face, Picture):
            faces.missing(asked.detector, f"face.{i}")
        elif len(face) != read.face:
            raise RecipeError(f"face.{i}", f"{len(face)} numbers, but {asked.model!r} reads faces of {read.face}, as insightface's recognition network gives "
                                           "them. Compute it with that one.")  # fmt: skip
    if read.eye is None and asked.image:
        raise RecipeError("image", f"{asked.model!r} reads a face and sees no picture ({read.kind}). Remove image, or remove face and have it read from the "
                                   "picture.")  # fmt: skip
    if read.eye and not asked.image and not all(isinstance(f, Picture) for f in asked.face):
        raise RecipeError(
            "image",
            f"{asked.model!r} sees the face, too ({read.kind}), and numbers are no picture. Give an upright crop of it.",
        )
    if read.eye and asked.image and len(asked.image) != len(asked.face):
        raise RecipeError(
            "image", f"{len(asked.image)} pictures for {len(asked.face)} faces. Give one for each, in the same order."
        )


def counted(asked: Any, net: NetworkSpec, view: Any) -> None:
    """Raises RecipeError if there are more or fewer pictures than are meant, or weights that nothing is weighed by."""
    n = len(asked.image or asked.face)
    many = f"{n} picture{'s' * (n > 1)}"
    if asked.weights is not None:
        if len(asked.weights) != n:
            raise RecipeError("weights", f"{len(asked.weights)} weights for {many}. Give one for each.")
        if asked.combine == "concat":
            raise RecipeError("weights", "pictures that share one softmax (combine: concat) have no weights of their own. Set combine: apart, average or "
                                               "another, or use several conditions.")  # fmt: skip
    if asked.combine == "subtract" and n == 1:
        raise RecipeError(
            "combine", "there is one picture, and nothing to subtract from it. Give another, or remove it."
        )
    if asked.images_per == "call":
        return
    what = "frames" if asked.images_per == "frame" else "pictures"
    if asked.images_per == "frame" and not net.frames:
        raise RecipeError(
            "images_per",
            f"{net.name} makes pictures, which have no frames. Set images_per: call or item, or choose a video base.",
        )
    if asked.combine not in ("concat", "apart") or (asked.combine == "apart" and what == "frames"):
        raise RecipeError("combine", f"each of the {what} hears one, so there is nothing to combine. Remove it.")
    if what == "pictures" and n != view.count:
        raise RecipeError(
            "image",
            f"{many}, one for each that the recipe makes, which are {view.count}. Give as many (count: {n}), or set images_per: call.",
        )
    if what == "frames" and n != view.frames:
        raise RecipeError(
            "image", f"{many} for the {view.frames} frames of the clip. Give one for each, or set images_per: call."
        )
    if what == "frames" and asked.fit == "tiles" and len({p.size for p in asked.image}) > 1:
        raise RecipeError(
            "image",
            "pictures of frames have as many tiles as each other, and these have several sizes. Crop them, or set fit: pad.",
        )
