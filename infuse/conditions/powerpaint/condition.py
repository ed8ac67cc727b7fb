"""PowerPaint: one inpainting model for four tasks, told apart by learned task tokens. Several holes may have several tasks.

v1 hears the tokens in place of the prompt and is shown mask and masked picture in nine channels; v2 hears the prompt as
ever and a BrushNet beside it hears the tokens. Which of them it is, the weights say. Source: Zhuang et al. 2023
(PowerPaint); conventions of each generation in `encoders/tasks.py` and `words.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infuse.conditions.base import (
    HOLED,
    Condition,
    Encoders,
    Route,
    View,
    brought,
    guess_sites,
    said,
)
from infuse.conditions.holed import Holed, opening
from infuse.conditions.powerpaint.canvas import blanked
from infuse.conditions.powerpaint.checks import speaker, task_fits
from infuse.conditions.powerpaint.words import Task, Words, words
from infuse.curves import Curve
from infuse.encoders.generations import GENERATIONS, PLAIN, Generation
from infuse.errors import RecipeError, under
from infuse.media.fitting import Cells, Fit, fitted_hole
from infuse.media.outpaint import Canvas
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import LOUD, Channel, Latent, Ports, Posterior, Residual, Sides, Tokens, Voice
from infuse.timetable import PROMPT

if TYPE_CHECKING:
    from torch import Tensor, nn

NINE = "mask (1 h w) + masked_image (4 h w)"
MOST = 4.0
"""The largest ratio of canvas to picture: beyond it there is hardly a picture to continue."""


class PowerPaint(Holed):
    """Fill what is white in `mask` as the task says.

    task: text (paint what the prompt says), shape (in the shape of the mask), removal (leave nothing there), outpaint
    (continue the picture on a larger canvas; makes its own mask). mask: scaled to image if it has another size. prompt,
    negative_prompt: for this hole; the recipe's if left out. fit: shape only, 0 (loose) to 1 (as the mask is drawn), or
    a curve. horizontal, vertical: outpainting's canvas by its ratio to the picture; or left, right, top, bottom in
    pixels; `overlap` pixels of the picture are repainted beside them. model: the BrushNet of PowerPaint 2 (a folder
    with its task encoder); left out, the recipe's model must be a PowerPaint 1. weight, start, end: of the BrushNet, and
    mode: balanced, or guess (its sites from 0.1 to 1, on the prompt's side only).
    paste: put the original pixels back outside of the hole, behind a soft edge that lies inside of it. cells: as in `inpaint`.

    Several of them in one recipe act together: same image and model, one hole each, each heard in its own.
    """

    kind: Literal["powerpaint"] = "powerpaint"
    task: Task = "text"
    image: Picture
    prompt: str | None = None
    negative_prompt: str | None = None
    fit: Curve = 1.0
    model: str | None = Field(default=None, min_length=1)
    mode: Literal["balanced", "guess"] = "balanced"
    horizontal: float = Field(default=1.0, ge=1, le=MOST)
    vertical: float = Field(default=1.0, ge=1, le=MOST)
    left: int = Field(default=0, ge=0)
    right: int = Field(default=0, ge=0)
    top: int = Field(default=0, ge=0)
    bottom: int = Field(default=0, ge=0)
    overlap: int = Field(default=10, ge=0)
    paste: bool = True
    cells: Cells = "touched"

    @property
    def canvas(self) -> Canvas | None:
        """What outpainting paints on; None for the other tasks."""
        if self.task != "outpaint":
            return None
        sides = (self.left, self.right, self.top, self.bottom)
        return Canvas.around(self.image.size, (self.horizontal, self.vertical), sides)

    def openings(self) -> tuple[tuple[Picture, Fit], ...]:
        if self.canvas is None:
            return () if self.mask is None else ((self.mask, "stretch"),)
        return ((self.canvas.hole(self.image.size, self.overlap), "stretch"),)

    def native(self) -> tuple[int, int] | None:
        if self.area == "masked":
            return None
        return self.canvas.size if self.canvas else self.image.size

    @property
    def grows(self) -> bool:
        return self.task == "outpaint"

    @property
    def ground_fit(self) -> Fit:
        return "stretch"  # its own `fit` is the task's

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        routes = self._routes(net, view)
        notes = () if self.mask is None else tuple(brought(self.mask.size, self.image.size, "mask", "its image"))
        return [replace(routes[0], warnings=(*routes[0].warnings, *notes)), *routes[1:]]

    def _routes(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain("mask", *(("weight", "start", "end") if self.model else ()))
        self.still(net, "Use masked_video")
        if self.mode == "guess" and self.model is None:
            raise RecipeError("mode", "only the BrushNet of PowerPaint 2 can guess. Remove it, or name that in model.")
        task_fits(self)
        generation, memory, sites = speaker(self, net, view)
        tokens = f"({77} {net.context_width})"
        if generation.branch:
            note = f"PowerPaint {generation.name}, task {self.task}"
            return [
                Route(
                    "residuals",
                    f"{sites} sites inside of the blocks",
                    memory,
                    note=note,
                    one_sided=self.mode == "guess",
                )
            ]
        if generation is PLAIN:
            nine = any(slot.name == "mask" for slot in net.channel_slots)
            port, what = ("channels", NINE) if nine else ("latent", f"keep ({net.latent_channels} h w)")
            return [Route(port, what, note="continued by the prompt alone, without PowerPaint's words")]
        return [
            Route("channels", NINE, note=f"PowerPaint {generation.name}"),
            Route("context", tokens, note=f"task {self.task}, in place of the prompt"),
        ]

    def join(self, who: str, everyone: Mapping[str, Condition]) -> dict[str, Condition]:
        """All PowerPaints become one, and it says the prompt."""
        mine = {k: c for k, c in everyone.items() if isinstance(c, PowerPaint)}
        others = {k: c for k, c in everyone.items() if k not in mine and k != PROMPT}
        prompt: Any = everyone[PROMPT]
        said: dict[str, Any] = {
            "regions": tuple(mine.values()),
            "places": tuple(mine),
            "prompt": prompt.prompt,
            "negative_prompt": prompt.negative_prompt,
            "controlled": any(c.kind == "controlnet" for c in others.values()),
        }
        place, first = next(iter(mine.items()))
        if first.model is None:
            return {PROMPT: PowerPaints(**said), **others}
        loud = {"weight": first.weight, "start": first.start, "end": first.end}
        return {PROMPT: PowerPaintWords(**said), place: PowerPaintHole(**said, **loud), **others}

    def encode(self, kit: Encoders) -> Sides:
        joined = PowerPaints(regions=(self,), places=("",), prompt="", negative_prompt="", controlled=False)
        return joined.encode(kit)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        if self.model is None:
            return {"task_tokens": kit.tasks(None).model}
        return {"brushnet": kit.brushnet(self.model), "task_tokens": kit.tasks(self.model).model}


class PowerPaints(Condition):
    """What a recipe's PowerPaints say together: the holes as one, the words of each in its own hole."""

    WORDS = True
    VOICE = HOLED
    HOLE = "image"

    kind: Literal["powerpaint"] = "powerpaint"
    regions: tuple[PowerPaint, ...]
    places: tuple[str, ...]
    """The recipe's field of each region."""
    prompt: str
    negative_prompt: str
    controlled: bool
    """A ControlNet speaks, too."""

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        """That they can paint in one picture; each for itself is checked in its own place."""
        for place, region in zip(self.places[1:], self.regions[1:], strict=True):
            with under(place):
                self._together(self.regions[0], region)
        return []

    def _together(self, first: PowerPaint, other: PowerPaint) -> None:
        """Raises RecipeError unless both can paint in one picture."""
        if other.image.sha256 != first.image.sha256:
            raise RecipeError(
                "image",
                f"it is another picture than that of {self.places[0]}. PowerPaints of one recipe paint in one picture.",
            )
        for name in ("model", "mode", "weight", "start", "end", "paste", "cells", "mask_blur"):
            mine, theirs = getattr(other, name), getattr(first, name)
            if mine != theirs:
                raise RecipeError(
                    name,
                    f"it is {mine!r} here and {theirs!r} in {self.places[0]}. One network paints all holes: make them equal.",
                )
        if other.task == first.task == "outpaint":
            raise RecipeError(
                "task", f"{self.places[0]} makes a canvas already. Say in one condition how far to outpaint."
            )

    def encode(self, kit: Encoders) -> Sides:
        with under(self.places[0]):  # a file that could not be loaded is the first region's
            return self._encoded(kit)

    def _encoded(self, kit: Encoders) -> Sides:
        if self.generation(kit).branch:
            hole, words = self.hole(kit), self.base_words(kit)
            return Sides(hole.on + words.on, hole.off + words.off)
        latent, small, masked = self.shown(kit)
        if not any(slot.name == "mask" for slot in kit.spec.channel_slots):
            kept = kit.posterior(kit.pixels(self.laid()[0]))
            shown = Ports(latent=(replace(latent, keep=kept),))
        else:
            shown = Ports(latent=(latent,), channels=(Channel("mask", small), Channel("masked_image", masked)))
        if self.generation(kit) is PLAIN:
            silent = None if self.negative_prompt else kit.silence()
            return Sides(shown + said(kit, self.prompt), shown + (silent or said(kit, self.negative_prompt)))
        on, off = self.task_words(kit)
        return Sides(shown + Ports(context=on), shown + Ports(context=off))

    def hole(self, kit: Encoders) -> Sides:
        """What the BrushNet of v2 is shown and told."""
        first, generation = self.regions[0], self.generation(kit)
        latent, small, masked = self.shown(kit)
        branch = kit.brushnet(str(first.model))
        parts: tuple[Tensor | Posterior, ...] = (small, masked) if generation.hole_first else (masked, 1 - small)
        factors = guess_sites(branch.sites) if first.mode == "guess" else None
        on, off = (Residual(branch, parts, factors, context=said) for said in self.task_words(kit))
        silent = () if first.mode == "guess" else (off,)
        heard, unheard = (Ports(latent=(latent,), residuals=said) for said in ((on,), silent))
        return Sides(heard, unheard)

    def base_words(self, kit: Encoders) -> Sides:
        """What the base's own encoder says beside the BrushNet of v2."""
        said = [self.words(self.generation(kit), r) for r in self.regions]
        on, off = (
            self.spoken_by_base(kit, [str(p) for p in prompts], self.where(kit))
            for prompts in ([w.base for w in said], [w.not_base for w in said])
        )
        return Sides(on, off)

    def generation(self, kit: Encoders) -> Generation:
        model = self.regions[0].model
        return PLAIN if model is None and kit.spec.tasks not in GENERATIONS else kit.tasks(model).generation

    def shown(self, kit: Encoders) -> tuple[Latent, Tensor, Posterior]:
        """(what is kept and where, all holes on the latent's grid (1 h w), picture without what lies in them)."""
        import torch

        image, holes = self.laid()
        known, hole = blanked(kit, image, holes, self.generation(kit))
        told = kit.open(hole)
        own, small = (kit.cells(h, self.regions[0].cells) for h in (hole, told))
        if not torch.equal(told, hole):
            known = known * (1 - told + hole) + self.generation(kit).blank * (told - hole)
        first = self.regions[0]
        drawn = [lambda h=h: fitted_hole(h.mask, image.size) for h in holes]
        edge = opening(kit, drawn, first.mask_blur, hole)
        return (
            Latent(hole=own, picture=kit.exact(image) if first.paste else None, opening=edge),
            small,
            kit.posterior(known),
        )

    def where(self, kit: Encoders) -> list[Tensor | None]:
        """Where each region's words are heard: in its own hole, or everywhere if there is one only."""
        holes = self.laid()[1]
        return [kit.hole(h)[0].float() for h in holes] if len(holes) > 1 else [None]

    def task_words(self, kit: Encoders) -> list[tuple[Tokens, ...]]:
        """The task tokens of all regions, when they speak and when they are silent."""
        model, generation = self.regions[0].model, self.generation(kit)
        said = [self.words(generation, r) for r in self.regions]
        return [self.tokens(kit, model, said, self.where(kit), sides) for sides in (("a", "b"), ("not_a", "not_b"))]

    def openings(self) -> tuple[tuple[Picture, Fit], ...]:
        return tuple((hole, "stretch") for hole in self.laid()[1])

    def laid(self) -> tuple[Picture, list[Picture]]:
        """The picture on its canvas, and every region's hole there."""
        image = self.regions[0].image
        canvas = next((c for r in self.regions if (c := r.canvas)), None) or Canvas(image.size)
        holes = [
            canvas.hole(image.size, r.overlap) if r.mask is None else canvas.mask(r.mask, image.size)
            for r in self.regions
        ]
        return canvas.picture(image), holes

    def words(self, generation: Generation, region: PowerPaint) -> Words:
        prompt = self.prompt if region.prompt is None else region.prompt
        negative = self.negative_prompt if region.negative_prompt is None else region.negative_prompt
        return words(generation, region.task, prompt, negative, self.controlled)

    def tokens(
        self,
        kit: Encoders,
        model: str | None,
        said: Sequence[Words],
        where: Sequence[Tensor | None],
        sides: tuple[str, str],
    ) -> tuple[Tokens, ...]:
        """fit * E(A) + (1 - fit) * E(B) of every region, heard in its hole."""

        def one(region: PowerPaint, w: Words, mask: Tensor | None) -> Tokens:
            a, b = (kit.task_text(model, getattr(w, side)) for side in sides)
            voice = LOUD if mask is None else Voice(mask=mask)
            if getattr(w, sides[0]) == getattr(w, sides[1]):
                return Tokens(a, voice)
            return Tokens(a, voice, other=b, share=region.fit)

        return tuple(one(*each) for each in zip(self.regions, said, where, strict=True))

    def spoken_by_base(self, kit: Encoders, prompts: Sequence[str], where: Sequence[Tensor | None]) -> Ports:
        """What the base's own encoder says (v2): each region's words in its hole, or everywhere if all say the same."""
        spoken = said(kit, prompts[0])
        if len(set(prompts)) == 1:
            return spoken
        context = tuple(Tokens(kit.text(p), Voice(mask=m)) for p, m in zip(prompts, where, strict=True))
        return Ports(context=context, embedding=spoken.embedding)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return self.regions[0].modules(kit)


class PowerPaintWords(PowerPaints):
    """What the base hears beside a BrushNet: the prompt as PowerPaint 2 says it."""

    def encode(self, kit: Encoders) -> Sides:
        with under(self.places[0]):
            return self.base_words(kit)


class PowerPaintHole(PowerPaints):
    """What the BrushNet of PowerPaint 2 says, as loudly and when the recipe wants it."""

    def encode(self, kit: Encoders) -> Sides:
        return self.hole(kit)
