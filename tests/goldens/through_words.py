"""What weights do to the states of words, as the webui computes it."""

from __future__ import annotations

from torch import Tensor

from infuse.encoders.emphasis import weighted

from .golden import Golden


def prompt_emphasis(golden: Golden) -> dict[str, Tensor]:
    z, weights = golden["z"], golden["multipliers"]
    return {"z_original": weighted(z, weights, keep_mean=True), "z_no_norm": weighted(z, weights, keep_mean=False)}


WAYS = {"prompt_emphasis": prompt_emphasis}
