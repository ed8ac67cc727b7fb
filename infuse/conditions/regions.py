"""Regional prompts: each region of the picture hears words of its own. One condition, two ways.

`attention` (attention couple): in every cross-attention each region's words are attended by themselves, and the answers are mixed
by region; one row. `latent` (latent couple): each region's words are a term of guidance of their own, which pulls in its region
only; one row more for each. The first is cheap and blends well, the second keeps regions strictly apart.
Sources: laksjdjf/cgem156-ComfyUI@884563c; opparco/stable-diffusion-webui-two-shot@9936c52; hako-mikan/sd-webui-regional-prompter@be62345.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from infuse.conditions.areas import Area
from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.conditions.text import Part, Prompt, must_be_short
from infuse.errors import RecipeError, under
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Tokens, Voice

MOST = 16


class Regions(Condition):
    """Words for parts of the picture, beside the recipe's prompt.

    weight: how much of all this there is (0-1). way: attention or latent, see above. base: how much of the recipe's prompt is heard inside of the regions (0-1; left out,
    0.2 in attention and 0 as terms, where two that differ are seen through one another); where no region
    is, it is all that is heard. The negative prompt is everywhere. Each region is {prompt, mask or box, weight}; where regions
    overlap, they share by their weights.
    """

    WORDS = True

    kind: Literal["regions"] = "regions"
    regions: tuple[Area, ...] = Field(min_length=1, max_length=MOST)
    way: Literal["attention", "latent"] = "attention"
    base: float | None = Field(default=None, ge=0, le=1)

    @property
    def rest(self) -> float:
        """How much of the recipe's prompt is heard inside of the regions."""
        return (0.2 if self.way == "attention" else 0.0) if self.base is None else self.base

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.still(net)
        self.part()
        self.plain("weight", "start", "end") if self.way == "attention" else self.plain("weight")
        if self.way == "latent" and not isinstance(self.weight, float | int):
            raise RecipeError(
                "weight",
                "regions that are terms of guidance have one weight for the whole run. Give a number, or use way: attention.",
            )
        for i, area in enumerate(self.regions):
            must_be_short(area.prompt, f"regions.{i}.prompt")
            with under(f"regions.{i}"):
                area.somewhere(view.size)
        if all(area.weight == 0 for area in self.regions):
            raise RecipeError("regions", "all of them have weight 0, so that none is heard. Give one of them a weight.")
        if self.way == "latent" and net.embeds_guidance:
            raise RecipeError("way", f"{net.name} is told the guidance scale and answers once: it has no terms to which regions could be added. "
                                     "Use way: attention.")  # fmt: skip
        n = sum(77 * (1 + len(a.prompt.split()) // 75) for a in self.regions)
        note = f"{len(self.regions)} regions, " + (
            "each attended by itself" if self.way == "attention" else "a row more for each"
        )
        return [Route("context", f"({n} {net.context_width})", note=note)]

    def join(self, who: str, everyone: Mapping[str, Condition]) -> dict[str, Condition]:
        if self.way == "attention":
            return dict(everyone)
        prompt = next((name for name, c in everyone.items() if isinstance(c, Prompt) and not isinstance(c, Part)), None)
        if prompt is not None and getattr(everyone[prompt], "areas", ()):
            raise RecipeError(
                who, "two conditions share the picture out among their regions. Put all regions into one of them."
            )
        out = {name: c for name, c in everyone.items() if name != who}
        weight = self.weight if isinstance(self.weight, float | int) else 1.0
        said: dict[str, Any] = {"areas": self.regions, "rest": 1 - weight * (1 - self.rest)}
        if prompt is not None:  # else another condition says it in its own words, beside which parts are refused
            out[prompt] = out[prompt].model_copy(update=said)
        for i, area in enumerate(self.regions):
            if area.weight:
                out[f"{who}.{i}"] = Part(kind="text", prompt=area.prompt, mine=i, **said)
        return out

    def encode(self, kit: Encoders) -> Sides:
        said = (
            Tokens(kit.text(a.prompt), Voice(mask=a.on(kit)), apart=a.weight, rest=self.rest)
            for a in self.regions
            if a.weight
        )
        return Sides(Ports(context=tuple(said)))
