"""Several T2I-Adapters that hear each other: a fuser balances them, so that they act as one condition.

It breaks no sum: its members live inside of it, and what comes out is features (residuals) and a style's tokens (context) like
anybody's. Source: CoAdapter, TencentARC/T2I-Adapter@16bba67.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from infuse.conditions.base import Condition, Encoders, Route, View, overlooked, same_family
from infuse.conditions.hints import Hinted, eye_for, sees
from infuse.encoders.t2i_kinds import TASKS, anatomy, fits, fuser_of, soft, style_of
from infuse.errors import RecipeError, WeightsError, under
from infuse.network.spec import NetworkSpec
from infuse.ports import Features, Ports, Sides, Tokens

if TYPE_CHECKING:
    from torch import Tensor, nn

    from infuse.encoders.coadapter import Said

STYLE = "style"


class Member(Hinted):
    """One adapter of a CoAdapter. type: what the fuser was told of it: sketch, keypose, seg, depth, canny, style, color or openpose.
    weight: how loudly it is heard by the others, too; 0 leaves it out.
    """

    type: Literal["sketch", "keypose", "seg", "depth", "canny", "style", "color", "openpose"]
    model: str = Field(min_length=1)
    weight: float = 1.0

    @model_validator(mode="after")
    def _heard(self) -> Member:
        if self.type == STYLE and self.weight < 0:
            raise RecipeError("weight", "a style cannot be heard less than not at all. Use 0 or more.")
        return self


class CoAdapter(Condition):
    """Any of T2I's hints together, each at most once in most recipes, balanced by the fuser. `model` is the fuser's file.

    mode and sites are those of a t2i_adapter, after the fuser. image_encoder: for a style, as of a t2i_style. The condition's own
    weight is heard after the fuser: a curve of it changes no balance.
    """

    kind: Literal["coadapter"] = "coadapter"
    model: str = Field(min_length=1)
    members: tuple[Member, ...] = Field(min_length=1)
    image_encoder: str | None = None
    mode: Literal["balanced", "prompt", "control"] = "balanced"
    sites: tuple[float, ...] | None = None

    @property
    def speakers(self) -> list[tuple[int, Member]]:
        """Those who are heard, with their place in the recipe. A silent one would still be heard by the others: it is left out."""
        return [(i, m) for i, m in enumerate(self.members) if m.weight != 0]

    def settled(self, view: View) -> CoAdapter:
        stills = tuple(m.model_copy(update=m.as_picture(view)) for m in self.members)
        return self.model_copy(update={"members": stills})._with_eye(view)

    def _with_eye(self, view: View) -> CoAdapter:
        style = next((m for _, m in self.speakers if m.type == STYLE), None)
        if style is None or self.image_encoder is not None:
            return self
        try:
            shapes = view.identity(style.model, "model", "t2i_style").shapes
            place = eye_for(view, style.model, style_of(shapes, style.model)[1])
        except WeightsError:  # `check` says so under its field
            return self
        return self if place is None else self.model_copy(update={"image_encoder": place})

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "coadapter_fuser")
        fuser = fuser_of(found.shapes, self.model)
        same_family(self.model, fuser.width, net, "a CoAdapter")
        if not self.speakers:
            raise RecipeError("members", "all of them have weight 0, so that nobody speaks. Give one a weight, or remove this condition.")  # fmt: skip
        if self.sites is not None and len(self.sites) != len(fuser.channels):
            raise RecipeError("sites", f"{len(self.sites)} factors, but {self.model!r} has {len(fuser.channels)} features. Give one for each.")  # fmt: skip
        memory, notes, tokens = found.memory, [], 0
        for i, member in self.speakers:
            with under(f"members.{i}"):
                if member.film is not None:
                    raise RecipeError("film", "a fuser balances the members of one picture. Give a picture, or a t2i_adapter for each film.")  # fmt: skip
                file = view.identity(member.model, "model", "t2i_style" if member.type == STYLE else "t2i_adapter")
                memory += file.memory
                if member.type != STYLE:
                    said = self._map(member, file.shapes, fuser.channels, net, view)
                else:
                    tokens += style_of(file.shapes, member.model)[0]
                    said = self._style(member, file.shapes, net)
                notes += [f"members.{i}.{n}" for n in said]
            if member.type == STYLE:
                sees(view, self.image_encoder, style_of(file.shapes, member.model)[1], member.model, net)
        if tokens:
            self.positive()
        routes = [Route("context", f"{tokens} tokens ({net.context_width}) of a style", note="fused")] * bool(tokens)
        if any(m.type != STYLE for _, m in self.speakers):
            shape = f"{len(fuser.channels)} features of (c h w), once for the whole run"
            one_sided = self.mode == "control"
            routes.insert(0, Route("residuals", shape, note=f"mode {self.mode}", one_sided=one_sided, once=True))
        return [replace(routes[0], memory=memory, warnings=tuple(notes)), *routes[1:]]

    def _map(
        self,
        member: Member,
        shapes: Mapping[str, tuple[int, ...]],
        fused: tuple[int, ...],
        net: NetworkSpec,
        view: View,
    ) -> list[str]:
        """What is odd about a member's hint; raises letters about it."""
        adapter = anatomy(shapes, member.model)
        channels, _ = fits(adapter, net, member.model)
        if adapter.widths != fused:
            raise RecipeError("model", f"{member.model!r} has features of {adapter.widths} channels, and the fuser {self.model!r} "
                                       f"balances {fused}. Choose adapters that were made for it.")  # fmt: skip
        return member.looked_at(net, view, member.model, channels)

    def _style(self, member: Member, shapes: Mapping[str, tuple[int, ...]], net: NetworkSpec) -> list[str]:
        same_family(member.model, style_of(shapes, member.model)[2], net, "a style adapter")
        assert member.image is not None
        return overlooked(member.image, "image", "crop")

    def encode(self, kit: Encoders) -> Sides:
        from infuse.encoders.coadapter import Fuser

        fuser = kit.module(self.model, Fuser.load)
        maps, tokens = fuser([(TASKS.index(m.type), self._said(m, kit)) for _, m in self.speakers])
        sites = self.sites or (None if self.mode == "balanced" else soft(len(maps or ())))
        spatial = Ports(residuals=(Features(maps, sites),)) if maps else Ports()
        words = Ports(context=(Tokens(tokens),)) if tokens is not None else Ports()
        # off = the maps alone, as in the original; of a style's tokens absence, as for t2i_style
        return Sides(words + spatial, Ports() if self.mode == "control" else spatial)

    def _said(self, member: Member, kit: Encoders) -> Said:
        """Features or tokens of a member, times its weight: the fuser hears that, too."""
        module, weight = self._module(member, kit), member.weight
        assert member.image is not None
        if member.type == STYLE:
            tokens: Tensor = module(kit.states(member.image, self.image_encoder)[None])[0]
            return tokens * weight
        from infuse.encoders.t2i import features_of

        shapes = {k: tuple(t.shape) for k, t in module.state_dict().items()}
        channels, levels = fits(anatomy(shapes, member.model), kit.spec, member.model)
        said = features_of(module, member.hint(kit, member.model, channels), levels, kit.spec.vae_factor)
        return tuple(f * weight for f in said)

    def _module(self, member: Member, kit: Encoders) -> nn.Module:
        from infuse.encoders.t2i import T2IAdapter
        from infuse.encoders.t2i_style import StyleAdapter

        return kit.module(member.model, StyleAdapter.load if member.type == STYLE else T2IAdapter.load)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        from infuse.encoders.coadapter import Fuser

        return {"fuser": kit.module(self.model, Fuser.load), **{f"members.{i}": self._module(m, kit) for i, m in self.speakers}}  # fmt: skip
