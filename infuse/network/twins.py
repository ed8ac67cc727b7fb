"""A module's twin: the same weights, asked differently. A shuffle model that pools though its config does not say so; a union or a
ControlNet-XS that somebody made with diffusers, with the answers that infuse asks for.

One twin for each question and module, as long as the module lives: entries of one branch are grouped by what it is.
"""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary, ref

from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from diffusers.models.controlnets.controlnet_xs import ControlNetXSAdapter
from torch import nn

from infuse.network.union import Union
from infuse.network.xs import XS

OURS = {ControlNetUnionModel: Union, ControlNetXSAdapter: XS}
_twins: WeakKeyDictionary[nn.Module, dict[bool | None, Any]] = WeakKeyDictionary()


def twin(module: Any, pool: bool | None = None) -> Any:
    """The module itself, if it is asked for nothing that it does not do; else one that shares its weights.

    pool: are its answers averaged over all places? None: as its config says.
    """
    cls = OURS.get(type(module), type(module))
    pools = getattr(module, "config", {}).get("global_pool_conditions", False)
    if cls is type(module) and pool in (None, pools):
        return module
    kept = _twins.setdefault(module, {})
    if pool not in kept:
        other = copy.copy(module)
        other.__class__ = cls
        if pool is not None:
            other.register_to_config(global_pool_conditions=pool)
        other.twin_of = ref(module)  # whoever lets go of the one lets go of the other
        kept[pool] = other
    return kept[pool]
