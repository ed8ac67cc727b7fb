"""A picture runs beside the one being made, as noisy, and self-attention finds keys and values there: the shared port.

Nothing is trained for it. Source: Mikubill/sd-webui-controlnet@56cec5b, scripts/hook.py (reference_only, reference_adain,
reference_adain+attn).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Route, View, brought
from infuse.errors import RecipeError
from infuse.media.fitting import Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Ports, Shared, Sides

if TYPE_CHECKING:
    from infuse.ports import Posterior


class Reference(Condition):
    """Look like this picture: its style, its things, without any file. Several of them are attended together.

    method: attention (keys and values of the picture, "reference only"), norms (mean and spread of its features, "adain"), or both.
    fidelity: 0-1, how much guidance pushes towards it: 0 leaves the negative side as close to it as the prompt's, 1 keeps it out
    of there. reach: in which parts of the network it is heard: 1 all attentions, 0.5 the deeper half; up to 2 for norms (the
    webui's weight). weight: how much attention its places get. fit: what is done to a picture of another shape.
    It costs a row more for each side that hears it.
    """

    LOOKS = True

    kind: Literal["reference"] = "reference"
    image: Picture
    method: Literal["attention", "norms", "both"] = "attention"
    fidelity: float = Field(default=0.5, ge=0, le=1)
    reach: float = Field(default=1.0, gt=0, le=2)
    fit: Fit = "crop"

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.still(net)
        self.positive()
        blocks, norms = self.heard_in(net)
        if not blocks and not norms:
            raise RecipeError("reach", f"{self.reach:g} reaches no part of {net.name}. Use 1 for all of it.")
        parts = [f"{len(blocks)} self-attentions"] * bool(blocks) + [f"{len(norms)} norms"] * bool(norms)
        warnings = tuple(brought(self.image.size, view.size, "image", "the picture to be made", self.fit))
        where = "the prompt's alone" if self.silent_share(net) == 0 or self.applies_to == "prompt" else "each"
        return [Route("shared", " and ".join(parts), note=f"fidelity {self.fidelity:g}; a row beside {where}", warnings=warnings,
                      one_sided=self.silent_share(net) == 0)]  # fmt: skip

    def encode(self, kit: Encoders) -> Sides:
        latent = kit.posterior(kit.pixels(self.image, fit=self.fit))
        blocks, norms = self.heard_in(kit.spec)

        def said(share: float) -> Ports:
            return Ports(shared=(Shared(latent, share, blocks, norms, known(kit, latent)),)) if share else Ports()

        return Sides(said(1.0), said(self.silent_share(kit.spec)))

    def silent_share(self, net: NetworkSpec) -> float:
        """How much of it is heard where guidance wants nobody. SDXL's fidelity is cubed, as in the webui."""
        return 1 - self.fidelity ** (3 if net.family == "sdxl" else 1)

    def heard_in(self, net: NetworkSpec) -> tuple[frozenset[str], frozenset[int]]:
        """(module paths of self-attentions, sites of norms)."""
        blocks = attentions(net, self.reach) if self.method != "norms" else ()
        return frozenset(blocks), frozenset(sites(net, self.reach) if self.method != "attention" else ())


def attentions(net: NetworkSpec, reach: float) -> list[str]:
    """The self-attentions that a reach takes in: the widest first, then in the order of the network."""
    paths = [(path.replace("attn2", "attn1"), width) for path, width in net.cross_layers]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    called = sorted(paths, key=lambda p: order[p[0].partition(".")[0]])  # files number the middle last
    ranked = sorted(called, key=lambda p: -p[1])
    return [path for i, (path, _) in enumerate(ranked) if i / len(ranked) < reach]


def sites(net: NetworkSpec, reach: float) -> list[int]:
    """Sites of the walk (0 is the first layer) whose norms a reach takes in: from the middle outwards.

    The outermost level has none; where a decoder's layer is followed by an upsampler, its site is after it.
    """
    each = net.config.get("layers_per_block", 2)
    per = (each,) * len(net.widths) if isinstance(each, int) else tuple(each)
    down, at = [], 0
    for b, n in enumerate(per):
        down += [at + i for i in range(n)] if b else []
        at += n + (b < len(per) - 1)
    middle, up, at = at, [], at + 1
    for b, n in enumerate(reversed(per)):
        last = b == len(per) - 1
        up += [at + i + (i == n and not last) for i in range(n + 1)]
        at += n + 1 + (not last)
    up = up[: len(up) * 2 // 3]
    far = [(middle, 0.0)]
    far += [(site, 2 * (1 - i / len(down))) for i, site in enumerate(down)]
    far += [(site, 2 * i / len(up)) for i, site in enumerate(up)]
    return [site for site, distance in far if distance < reach]


def known(kit: Encoders, latent: Posterior) -> tuple[Channel, ...]:
    """What an inpainting network is told of the picture in its own row: all of it is known."""
    if not any(s.name == "mask" for s in kit.spec.channel_slots):
        return ()
    return (Channel("mask", latent.mean.new_zeros(1, *latent.mean.shape[1:])), Channel("masked_image", latent))
