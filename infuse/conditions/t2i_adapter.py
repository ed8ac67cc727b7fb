"""A small network reads a hint once, and what it says is added where each level of the encoder ends: the residuals port.

Source: T2I-Adapter (Mou et al. 2023); TencentARC/T2I-Adapter@16bba67 (SD 1.x: full, light, colour), @c408b05 (SDXL); modes
as in the webui extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.conditions.hints import Hinted
from infuse.encoders.t2i_kinds import anatomy, fits, soft
from infuse.errors import RecipeError
from infuse.network.spec import NetworkSpec
from infuse.ports import Features, Ports, Sides

if TYPE_CHECKING:
    from torch import nn


class T2IAdapter(Hinted, Condition):
    """Guide the composition by a map, with a network that is asked once for a whole run. Any number of them, on any base whose
    encoder has its widths: an adapter for SD 1.x speaks to its inpainting and depth models, too.

    mode: balanced | prompt (prompt more important: shallow features softened, 0.25 0.62 0.825 1) | control (the same, and only on
    the prompt's side). sites: one factor per feature, shallow to deep (4 in SD and SDXL), instead of the mode's own.
    """

    kind: Literal["t2i_adapter"] = "t2i_adapter"
    model: str = Field(min_length=1)
    mode: Literal["balanced", "prompt", "control"] = "balanced"
    sites: tuple[float, ...] | None = None

    def settled(self, view: View) -> T2IAdapter:
        change = self.as_picture(view)
        return self.model_copy(update=change) if change else self

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "t2i_adapter")
        channels, levels = fits(anatomy(found.shapes, self.model), net, self.model)
        if self.sites is not None and len(self.sites) != len(levels):
            raise RecipeError("sites", f"{len(self.sites)} factors, but {self.model!r} has {len(levels)} features. Give one for each.")  # fmt: skip
        notes = self.looked_at(net, view, self.model, channels)
        shape = f"{len(levels)} features of (c h w), once for the whole run"
        one_sided = self.mode == "control"
        return [Route("residuals", shape, found.memory, f"mode {self.mode}", one_sided=one_sided, once=True, warnings=tuple(notes))]  # fmt: skip

    def encode(self, kit: Encoders) -> Sides:
        from infuse.encoders.t2i import T2IAdapter as Network
        from infuse.encoders.t2i import features_of

        adapter = kit.module(self.model, Network.load)
        shapes = {k: tuple(t.shape) for k, t in adapter.state_dict().items()}
        channels, levels = fits(anatomy(shapes, self.model), kit.spec, self.model)
        said = features_of(adapter, self.hint(kit, self.model, channels), levels, kit.spec.vae_factor)
        softened = soft(len(levels)) if self.mode != "balanced" else None
        ports = Ports(residuals=(Features(said, self.sites or softened),))
        return Sides(ports) if self.mode == "control" else Sides.both(ports)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        from infuse.encoders.t2i import T2IAdapter as Network

        return {"t2i_adapter": kit.module(self.model, Network.load)}
