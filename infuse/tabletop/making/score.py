"""What the embedded models are worth, by the judge: fixed seeds, held-out scenes, one table for the model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infuse.conditions import AnyCondition, ControlNet, Inpaint, IPAdapter
from infuse.media.pictures import Picture
from infuse.tabletop import measure
from infuse.tabletop.captions import Asked, canonical
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.making import score_looks as looks_of
from infuse.tabletop.making import score_powerpaint as powerpaint
from infuse.tabletop.making.data_sources import around
from infuse.tabletop.making.scorer import Example, Scorer
from infuse.tabletop.world import COLOURS, SHAPES


def text(scorer: Scorer) -> dict[str, float]:
    """Words alone."""
    return asdict(
        measure.mean(
            [measure.answer(e.prompt, s) for e, _, s in scorer.made("text", lambda e: ("tabletop", e.prompt.text, ()))]
        )
    )


def edges(scorer: Scorer, on: bool) -> dict[str, float]:
    """Edge F1 with the prompt and, or without, the ControlNet."""

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        hint = np.repeat(e.picture.edges[..., None], 3, axis=-1)
        return "tabletop", e.prompt.text, [ControlNet(model="edges", image=Picture.of(hint))] if on else []

    return {
        "edge_f1": float(np.mean([measure.edge_f1(p, s, e.picture.edges) for e, p, s in scorer.made("edges", recipe)]))
    }


def looks(scorer: Scorer, on: bool) -> dict[str, float]:
    """Agreement with a reference picture under a prompt that names nothing."""

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        return (
            "tabletop",
            "a picture of a table",
            [IPAdapter(model="ip-adapter", image=(Picture.of(e.picture.rgb),))] if on else [],
        )

    seen = [(s, measure.truth(e.scene, e.picture)) for e, _, s in scorer.made("looks", recipe)]
    both = [measure.agreement(a, b) for a, b in seen]
    out = {k: float(np.mean([getattr(a, k) for a in both])) for k in ("colours", "shapes", "room")}
    return out | {"colours_and_room": (out["colours"] + out["room"]) / 2}


def inpaint(scorer: Scorer, model: str, paste: bool) -> dict[str, float]:
    """Another solid asked for in the hole where one stood; the rest must stay."""
    holes: dict[int, tuple[np.ndarray, Asked]] = {}

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        rng = np.random.default_rng((HELD_OUT, e.index, 2))
        old = e.scene.things[0]
        new = Asked(
            str(rng.choice([s for s in SHAPES if s != old.shape])),
            str(rng.choice([c for c in COLOURS if c != old.colour])),
        )
        hole = around(old, e.scene.camera, 128, np.random.default_rng((HELD_OUT, e.index, 3)))
        holes[e.index] = hole.astype(bool), new
        prompt = f"a {old.size} {new.colour} {new.shape}"
        return (
            model,
            prompt,
            [Inpaint(image=Picture.of(e.picture.rgb), mask=Picture.of(hole * np.uint8(255)), paste=paste)],
        )

    found = [
        measure.inpainting(p, e.picture.rgb, holes[e.index][0], [holes[e.index][1]], s)
        for e, p, s in scorer.made(f"inpaint {model}", recipe)
    ]
    return {
        "inside": float(np.mean([f.inside for f in found])),
        "outside_psnr": float(np.mean([f.outside for f in found])),
    }


def renders(scorer: Scorer) -> dict[str, float]:
    """What the judge says of the held-out renders themselves: the most that any model could reach here."""
    pictures = torch.from_numpy(np.stack([e.picture.rgb for e in scorer.examples])).permute(0, 3, 1, 2).float() / 255
    return asdict(
        measure.mean(
            [
                measure.answer(canonical(e.scene), s)
                for e, s in zip(scorer.examples, scorer.judge.look(pictures), strict=True)
            ]
        )
    )


def score(scorer: Scorer, out: Path) -> dict[str, Any]:
    """Every experiment, written to `out` after each so that a cut-off run keeps what it has."""
    plan: dict[str, Callable[[], dict[str, float]]] = {
        "renders": lambda: renders(scorer), "text": lambda: text(scorer),
        "edges_with": lambda: edges(scorer, True), "edges_without": lambda: edges(scorer, False),
        "looks_with": lambda: looks(scorer, True), "looks_without": lambda: looks(scorer, False),
        "inpaint_9ch": lambda: inpaint(scorer, "tabletop-inpaint", False),
        "inpaint_9ch_pasted": lambda: inpaint(scorer, "tabletop-inpaint", True),
        "inpaint_4ch": lambda: inpaint(scorer, "tabletop", False), **powerpaint.experiments(scorer), **looks_of.experiments(scorer),
    }  # fmt: skip
    known: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    for name, experiment in plan.items():
        if name not in known:
            known[name] = {
                "pictures": len(scorer.examples),
                "steps": scorer.steps,
                "scheduler": scorer.scheduler,
                "guidance": scorer.guidance,
                **experiment(),
            }
            out.write_text(json.dumps(known, indent=1))
            scorer.tell(f"{name}: {known[name]}")
    return known
