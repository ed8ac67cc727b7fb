"""Control modes are factors per site, and the side on which they are heard.

Source: Mikubill/sd-webui-controlnet@56cec5b (scripts/hook.py); guess mode as in diffusers.
"""

from __future__ import annotations

from typing import Literal

from infuse.conditions.base import guess_sites

Mode = Literal["balanced", "prompt", "control", "guess"]
ONE_SIDED = ("control", "guess")
"""Modes that are heard on the prompt's side only."""


def mode_sites(mode: Mode, sites: int) -> tuple[float, ...] | None:
    """Factors per site, shallow to middle. The webui takes the FIRST entries of its 13, so SDXL's middle gets 0.5615."""
    match mode:
        case "balanced":
            return None
        case "guess":
            return guess_sites(sites)
        case _:
            return tuple(0.825 ** (12 - i) for i in range(sites))
