"""Noise, or velocity? Tensors do not tell what a base model predicts, so ask whoever might know, in order of trust.

The caller's word, marker keys, metadata, the family's usual answer. Imports no torch.
"""

from __future__ import annotations

import re

from infuse.weights.formats import Header

USUAL = {"unclip": "v_prediction", "upscaler": "v_prediction"}  # their only releases (SD 2.1 unCLIP, x4 upscaler)


def predicted(header: Header, family: str, variant: str, override: str | None) -> tuple[str, str, tuple[str, ...]]:
    """(epsilon, v_prediction or edm; who said so; notes).

    Who: override, marker, metadata, family, or assumed (loading then measures it).
    """
    notes = ("trained with zero terminal SNR (marker ztsnr)",) * ("ztsnr" in header)
    if override:
        return override, "override", notes
    if any(k.startswith("edm_vpred.") for k in header) or {"edm_mean", "edm_std"} <= header.keys():
        return "edm", "marker", (*notes, "trained with EDM preconditioning, which infuse's schedulers do not offer yet")
    if "v_pred" in header:
        return "v_prediction", "marker", notes
    if said := _said(header):
        return said, "metadata", notes
    if family != "sd2":
        return "epsilon", "family", notes
    if variant:
        return USUAL.get(variant, "epsilon"), "family", notes
    note = "no tensor tells what an SD 2.x model predicts; v_prediction is assumed, and measured when it is loaded"
    return "v_prediction", "assumed", (*notes, note)


def _said(header: Header) -> str:
    """epsilon or v_prediction, if the metadata says (modelspec.org, kohya's trainer, a folder's scheduler config)."""
    keys = ("modelspec.prediction_type", "modelspec.predict_key", "modelspec.architecture", "prediction_type")
    said = " ".join(header.metadata.get(k, "") for k in keys).lower()
    trained = header.metadata.get("ss_v_parameterization", "").lower()
    if trained == "true" or re.search(r"(^|[\s-])v($|\s|_pred|-pred)|768-v", said):
        return "v_prediction"
    return "epsilon" if trained == "false" or re.search(r"eps|v2-512", said) else ""
