"""A picture or a face as a prompt: tokens of their own, attended beside the text with K and V of their own.

Source: IP-Adapter (Ye et al. 2023), sec. 3.2; tencent-ailab/IP-Adapter@62e4af9 (plain, full, plus, FaceID, FaceID-plus);
how pictures are combined, and the silent side's picture: cubiq/ComfyUI_IPAdapter_plus@9d076a3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from infuse.conditions.base import Condition, Encoders, Look, Route, View, overlooked, same_family, squares
from infuse.encoders import faces, ip_layers
from infuse.encoders.ip_combine import Combine, counted, fits
from infuse.encoders.ip_kinds import Reads, is_faces_lora, reads, v2
from infuse.errors import RecipeError, WeightsError
from infuse.media.pictures import Picture
from infuse.media.vectors import Faces
from infuse.network.spec import NetworkSpec
from infuse.ports import LOUD, Decoupled, Ports, Scaling, Sides, Voice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from infuse.encoders.ip_adapter import Adapter


def _pictures(value: Any) -> tuple[Any, ...]:
    return () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)


Pictures = Annotated[tuple[Picture, ...], BeforeValidator(_pictures)]
SCALINGS: Mapping[str, str] = {"k+v w/ c penalty": "k+v c", "k+mean(v) w/ c penalty": "k+mean v c", "v only": "v"}
WORDS = BeforeValidator(lambda v: " ".join(v.lower().replace("_", " ").split()) if isinstance(v, str) else v)


class IPAdapter(Condition):
    """Prompt with one or several pictures or faces. Several of one condition share a softmax; several conditions add.

    image: what is seen. face: for FaceID, the numbers of one or several faces (a list of 512, a .npy, .json or .safetensors
    file), or photos, if insightface is installed; FaceID-plus sees `image`, too, or the upright faces of the photos.
    image_encoder: where the CLIP vision model lies, if it is neither beside the adapter's file, where releases have it, nor
    the base's own. fit: what is seen of a picture that is no square: its middle (crop), all of it between bars (pad), or one
    square after another (tiles).
    layers: where it is heard: a preset (style, composition, ease in, ...), blocks or numbers of groups with factors, or one
    factor per cross-attention (16 in SD 1.x, 70 in SDXL; down, up, middle). composition: a factor of those that a preset
    hears as layout; boost: of those where a precise one turns the picture against itself.
    combine: concat (all tokens in one softmax), apart (each picture a softmax of its own, summed), or what the image encoder
    says of them as one: add, subtract (the first without the mean of the others), average, norm average, max, min.
    weights: one for each picture, with any of these but concat. images_per: call (all of them for every picture of the
    recipe), item (the i-th for its i-th), or frame (the i-th for the i-th of a clip).
    negative_image: what the negative side hears instead of nothing. scaling: what the weight multiplies.
    shortcut: is this FaceID-plus a v2? Its tensors don't tell; auto goes by its name, and says so. shortcut_scale: how much of
    the picture such a one adds to the face. lowrank: a factor of the changes that a FaceID makes to all attentions.
    """

    LOOKS = True

    kind: Literal["ip_adapter"] = "ip_adapter"
    model: str = Field(default="ip-adapter", min_length=1)
    image: Pictures = ()
    face: Faces = ()
    image_encoder: str | None = None
    layers: Annotated[ip_layers.Layers | None, BeforeValidator(ip_layers.read)] = None
    composition: float = 1.0
    boost: float = 1.0
    fit: Look = "crop"
    combine: Annotated[Combine, WORDS] = "concat"
    weights: tuple[float, ...] | None = None
    images_per: Literal["call", "item", "frame"] = "call"
    negative_image: Picture | None = None
    scaling: Annotated[Scaling, BeforeValidator(lambda v: SCALINGS.get(v, v) if isinstance(v, str) else v), WORDS] = "v"
    shortcut: bool | Literal["auto"] = "auto"
    shortcut_scale: float = 1.0
    lowrank: float = 1.0
    detector: faces.Detector = "buffalo_l"

    @model_validator(mode="after")
    def _something(self) -> IPAdapter:
        if not self.image and not self.face:
            raise RecipeError(
                "image",
                "this field is required: at least 1 picture that is the prompt. Give one, or for a FaceID the face.",
            )
        return self

    # Before anything is loaded ------------------------------------------------------------------------------------------

    def settled(self, view: View) -> IPAdapter:
        """With the encoder that lies beside its file, and of a FaceID without numbers, the pictures as photos of the face."""
        try:
            read = reads(view.identity(self.model, "model", "ip_adapter").shapes, self.model)
            found: dict[str, Any] = {}
            if read.face is not None and not self.face:
                found = {"face": self.image, "image": ()}
            if self.image_encoder is None and read.eye is not None:
                beside = (place for place in view.eyes(self.model) if seen(view.vision(place), read) == read.eye)
                found["image_encoder"] = next(beside, None)
        except WeightsError:  # `check` says so under its field
            return self
        return self.model_copy(update=found)

    def only(self, items: Sequence[int]) -> IPAdapter:
        """For these pictures of the recipe: of one for each, theirs."""
        if self.images_per != "item":
            return self
        picked = {
            name: tuple(own[i] for i in items if i < len(own))
            for name in ("image", "face")
            if (own := getattr(self, name))
        }
        weights = self.weights and tuple(self.weights[i] for i in items if i < len(self.weights))
        return self.model_copy(update={**picked, "weights": weights})

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = self._identity(view)
        same_family(self.model, found.context_width, net, "an IP-Adapter")
        read = reads(found.shapes, self.model)
        self._sees(read, net, view)
        fits(self, read)
        counted(self, net, view)
        ip_layers.spread(self.layers, net, self.composition, self.boost)
        pairs = len({k for k in found.shapes if k.endswith("to_k_ip.weight")})
        if pairs != len(net.cross_layers):
            raise WeightsError(
                "model",
                f"{self.model!r} has {pairs} pairs of K and V, {net.name} has {len(net.cross_layers)} "
                "cross-attentions. This adapter belongs to another base.",
            )
        notes = [n for i, p in enumerate(self.image) for n in overlooked(p, f"image.{i}", self.fit)]
        notes += [] if self.negative_image is None else overlooked(self.negative_image, "negative_image", "crop")
        notes += self._said_of_faces(read, net)
        count = sum(len(squares(p, self.fit)) for p in self.image) or len(self.face)
        what = f"{'face' if read.face else 'picture'}{'s' if count > 1 else ''}"
        changed = f", changes {read.lowrank} attentions" if read.lowrank else ""
        return [Route("decoupled", f"tokens (m {net.context_width}) of {count} {what}", found.memory, note=read.kind + changed,
                      warnings=tuple(notes))]  # fmt: skip

    def _identity(self, view: View) -> Any:
        try:
            return view.identity(self.model, "model", "ip_adapter")
        except WeightsError:
            if not is_faces_lora(view.shapes(self.model, "model")):
                raise
        raise WeightsError("model", f"{self.model!r} is a LoRA of all attentions and nothing else, as the low-rank part of a FaceID lies beside it for "
                                    "programs that cannot read it from the adapter. Name the adapter itself, which has it inside.")  # fmt: skip

    def _sees(self, read: Reads, net: NetworkSpec, view: View) -> None:
        """Raises WeightsError if it is not shown what it was trained on."""
        if read.eye is None:
            return
        have = view.vision(self.image_encoder)
        if have is None:
            raise WeightsError(
                "image_encoder",
                f"the base {net.name!r} brings no image encoder, and {self.model!r} needs one of width "
                f"{read.eye}. Name a CLIP vision folder here.",
            )
        width = seen(have, read)
        if width != read.eye:
            raise WeightsError(
                "image_encoder",
                f"{self.model!r} was trained on an image encoder of width {read.eye}{_named(read.eye, read)}; "
                f"{have.name} gives {width}{_named(width, read)}. Name the right CLIP vision folder here.",
            )

    def _said_of_faces(self, read: Reads, net: NetworkSpec) -> list[str]:
        """What is adjusted, and what is hardly meant."""
        notes = [f"face.{i}: {text}" for i, f in enumerate(self.face) if read.face and isinstance(f, tuple)
                 if (text := faces.on_sphere(f, read.raw)[1])]  # fmt: skip
        if read.kind == "faceid_plus" and self.shortcut == "auto":
            version = "2, with" if v2(self.model, net.family) else "1, without"
            why = "by its name" if net.family != "sdxl" else "as SDXL's are"
            notes.append(f"shortcut: the tensors of FaceID-plus v1 and v2 are alike, and {self.model!r} is taken for version {version} the shortcut, "
                         f"{why}. Set shortcut: true or false to say so.")  # fmt: skip
        if read.kind in ("faceid", "faceid_plus") and read.tokens <= 4 and not read.lowrank:
            notes.append(f"model: {self.model!r} lacks the low-rank part that a FaceID of {read.tokens} tokens was trained with: faces will be less alike. "
                         "Use the whole file.")  # fmt: skip
        return notes

    # Pictures and faces to tokens ---------------------------------------------------------------------------------------

    def encode(self, kit: Encoders) -> Sides:
        from infuse.encoders.ip_adapter import Adapter, LowRank

        adapter: Adapter = kit.module(self.model, Adapter.load)
        if isinstance(adapter, LowRank):
            adapter.placed([path for path, _ in kit.spec.cross_layers])
        where = ip_layers.Spread(self.layers if isinstance(self.layers, tuple) else None)  # checked: one for each layer
        if isinstance(self.layers, str | dict):
            where = ip_layers.spread(self.layers, kit.spec, self.composition, self.boost)
        heard = self._tokens(kit, adapter)

        def entries(
            tokens: Sequence[tuple[Tensor, float]], layers: tuple[float, ...] | None, lowrank: float
        ) -> tuple[Decoupled, ...]:
            return tuple(
                Decoupled(adapter, t, layers, LOUD if w == 1 else Voice(w), self.scaling, lowrank)
                for t, w in tokens
                if w
            )

        on = entries([(t, w) for t, _, w in heard], where.plain, self.lowrank)
        off = entries([(t, w) for _, t, w in heard], where.plain, self.lowrank)
        if where.turned is not None:  # there the negative side hears the picture, and the prompt's side nothing
            off += entries([(t, w) for t, _, w in heard], where.turned, self.lowrank)
        return Sides(Ports(decoupled=on), Ports(decoupled=off))

    def _tokens(self, kit: Encoders, adapter: Adapter) -> list[tuple[Tensor, Tensor, float]]:
        """(tokens, those of the silent side, weight) of each softmax: (m d), of a clip's frames (f m d)."""
        import torch

        from infuse.encoders.ip_combine import combined

        shown, numbers = self._shown(kit, adapter)
        parts = shown or numbers
        assert parts is not None
        each = [w for w, part in zip(self.weights or (1.0,) * len(parts), parts, strict=True) for _ in part]
        states, people = (None if p is None else torch.cat(p) for p in (shown, numbers))
        if self.combine not in ("concat", "apart"):
            states, people = (None if t is None else combined(t, self.combine, each) for t in (states, people))
        shortcut = self._shortcut(kit) if adapter.kind == "faceid_plus" else None
        # off = projection of zeros (plain, faces) or of the states of a zero picture, never absence (IP-Adapter sec. 3.2)
        nothing, nobody = self._silent(kit, adapter, states), None if people is None else torch.zeros_like(people)
        on, off = adapter.each(states, people, shortcut), adapter.each(nothing, nobody, shortcut)
        if self.images_per == "frame":
            return [
                (on.unflatten(0, (len(parts), -1)).flatten(1, 2), off.unflatten(0, (len(parts), -1)).flatten(1, 2), 1.0)
            ]
        if self.combine == "apart":
            return [(on[i], off[i], w) for i, w in enumerate(each)]
        return [(on.flatten(0, 1), off.flatten(0, 1), 1.0)]

    def _shown(self, kit: Encoders, adapter: Adapter) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """For each picture or face: what the image encoder says of its squares (t ...), and its numbers (1 e)."""
        import torch

        numbers: list[Tensor] | None = None
        views = [squares(p, self.fit) for p in self.image]
        if adapter.kind in ("faceid", "faceid_plus", "instantid"):
            people = [
                faces.found(f, self.detector, f"face.{i}") if isinstance(f, Picture) else None
                for i, f in enumerate(self.face)
            ]
            plain = [f if p is None else p.numbers for f, p in zip(self.face, people, strict=True)]
            numbers = [kit.vector(faces.on_sphere(n, adapter.kind == "instantid")[0])[None] for n in plain]  # type: ignore[arg-type]
            if adapter.kind != "faceid_plus":
                return None, numbers
            views = [v[:1] for v in views] or [[p.crop] for p in people if p is not None]
        return [torch.stack([self._look(kit, adapter, s) for s in view]) for view in views], numbers

    def _look(self, kit: Encoders, adapter: Adapter, picture: Picture | None) -> Tensor:
        return kit.look(picture, self.image_encoder, adapter.kind != "plain")

    def _silent(self, kit: Encoders, adapter: Adapter, states: Tensor | None) -> Tensor | None:
        """What the image encoder says where nobody speaks, as often as it says something of pictures."""
        import torch

        if states is None:
            return None
        if self.negative_image is not None:
            one = self._look(kit, adapter, self.negative_image)
        else:
            one = torch.zeros_like(states[0]) if adapter.kind == "plain" else self._look(kit, adapter, None)
        return one.expand_as(states)

    def _shortcut(self, kit: Encoders) -> float | None:
        """How much of the picture is added to a face (v2); None: what is read of it alone (v1)."""
        asked = v2(self.model, kit.spec.family) if self.shortcut == "auto" else self.shortcut
        return self.shortcut_scale if asked else None

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        from infuse.encoders.ip_adapter import Adapter

        return {"ip_adapter": kit.module(self.model, Adapter.load)}


def seen(eye: Any, read: Reads) -> int:
    """What an image encoder shows to a projection of this kind: its states, or their pooled embedding."""
    return eye.projection if read.pooled else eye.hidden


def _named(width: int | None, read: Reads) -> str:
    names = (
        {1024: " (ViT-H)", 1280: " (bigG)", 768: " (ViT-L)"}
        if read.pooled
        else {1280: " (ViT-H)", 1664: " (bigG)", 1024: " (ViT-L)"}
    )
    return names.get(width or 0, "")
