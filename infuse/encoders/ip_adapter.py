"""An IP-Adapter's own modules: a projection to tokens, K and V for every cross-attention, and of a FaceID a low-rank part.

Files number attentions by the list of all of them, encoder, decoder, middle, self-attention first: the i-th transformer
block has 2 i for its self-attention and 2 i + 1 for its cross-attention. Source: IP-Adapter (Ye et al. 2023), sec. 3.2;
tencent-ailab/IP-Adapter@62e4af9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.ip_kinds import LOWRANK, Kind, variant
from infuse.encoders.ip_projections import PROJECTIONS, Face, FacePlus, Full, Plain, Resampler
from infuse.errors import WeightsError

__all__ = ["Adapter", "Face", "FacePlus", "Full", "LowRank", "Plain", "Resampler"]


class Adapter(nn.Module):
    """An IP-Adapter file: one projection, and K and V for every cross-attention in the file's own numbering."""

    def __init__(self, kind: str, project: nn.Module, pairs: int, widths: list[int], context: int) -> None:
        super().__init__()
        self.kind, self.project = kind, project
        self.kv = nn.ModuleList(nn.ModuleList(nn.Linear(context, w, bias=False) for _ in range(2)) for w in widths)

    def layer(self, i: int) -> nn.ModuleList:
        """(to_k, to_v) of the i-th cross-attention: down, up, middle."""
        return self.kv[i]  # type: ignore[return-value]

    def tokens(
        self,
        states: Float[Tensor, "n ..."] | None,
        faces: Float[Tensor, "n e"] | None = None,
        shortcut: float | None = None,
    ) -> Float[Tensor, "m d"]:
        """Tokens of all pictures or faces, one after another."""
        return self.each(states, faces, shortcut).flatten(0, 1)

    def each(
        self,
        states: Float[Tensor, "n ..."] | None,
        faces: Float[Tensor, "n e"] | None = None,
        shortcut: float | None = None,
    ) -> Float[Tensor, "n m d"]:
        """Tokens of each picture or face: of what the image encoder says of it, of its face, or of both (FaceID-plus, with or
        without `shortcut`)."""
        like = next(self.parameters())
        states, faces = (None if t is None else t.to(like) for t in (states, faces))
        match self.kind:
            case "faceid":
                return self.project(faces)
            case "instantid":
                assert faces is not None
                return self.project(faces[:, None])
            case "faceid_plus":
                return self.project(faces, states, shortcut)
            case _:
                return self.project(states)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Adapter:
        """From the flat keys of an IP-Adapter file (`image_proj.*`, `ip_adapter.N.to_k_ip.weight`, `..._lora.down.weight`)."""
        kind: Kind = variant({k: tuple(t.shape) for k, t in tensors.items()}, "this file")
        numbers = sorted({int(m[1]) for k in tensors if (m := re.fullmatch(r"ip_adapter\.(\d+)\.to_k_ip\.weight", k))})
        widths = [tensors[f"ip_adapter.{n}.to_k_ip.weight"].shape[0] for n in numbers]
        context = tensors[f"ip_adapter.{numbers[0]}.to_k_ip.weight"].shape[1]
        project = PROJECTIONS[kind].shaped(tensors, context)
        parts = {(int(m[1]), m[2], m[3]): k for k in tensors if (m := LOWRANK.fullmatch(k))}
        with torch.device("meta"):
            out = (LowRank if parts else cls)(kind, project, len(numbers), widths, context)
            for n, name, side in parts:
                if isinstance(out, LowRank) and side == "down":
                    shapes = [tensors[f"ip_adapter.{n}.{name}_lora.{s}.weight"].shape for s in ("down", "up")]
                    out.change(n, name, *((s[1], s[0]) for s in shapes))
        state = {
            f"kv.{i}.{j}.weight": tensors[f"ip_adapter.{n}.to_{kv}_ip.weight"]
            for i, n in enumerate(numbers)
            for j, kv in enumerate("kv")
        }
        state |= {
            f"project.{k.removeprefix('image_proj.')}": t for k, t in tensors.items() if k.startswith("image_proj.")
        }
        state |= {
            f"changes.{n} {name}.{('down', 'up').index(side)}.weight": tensors[k]
            for (n, name, side), k in parts.items()
        }
        out.load_state_dict(state, assign=True)
        return out

    def save(self) -> dict[str, Tensor]:
        """The file's flat keys; cross-attentions get the odd numbers, as in a full list of attentions."""
        out = {f"image_proj.{k}": t for k, t in self.project.state_dict().items()}
        for i, pair in enumerate(self.kv):
            out |= {f"ip_adapter.{2 * i + 1}.to_{kv}_ip.weight": m.weight for kv, m in zip("kv", pair, strict=True)}  # type: ignore[arg-type]
        return out


class LowRank(Adapter):
    """An adapter whose file changes the projections of all attentions, too: W x becomes W x + up(down(x)), without alpha.

    Source: tencent-ailab/IP-Adapter@62e4af9, attention_processor_faceid.py.
    """

    def __init__(self, kind: str, project: nn.Module, pairs: int, widths: list[int], context: int) -> None:
        super().__init__(kind, project, pairs, widths, context)
        self.changes = nn.ModuleDict()
        """"number name" -> down and up."""
        self.numbers: dict[str, int] = {}
        """Module path of an attention -> its number in the file."""

    def change(self, number: int, name: str, down: tuple[int, int], up: tuple[int, int]) -> None:
        """A change of one projection: (width in, width out) of its two matrices."""
        self.changes[f"{number} {name}"] = nn.Sequential(nn.Linear(*down, bias=False), nn.Linear(*up, bias=False))

    def placed(self, cross_layers: Sequence[str]) -> None:
        """Say which attentions are meant: paths of the base's cross-attentions in the file's order.

        Raises WeightsError if it speaks to a base already whose attentions lie in another order.
        """
        here = {
            path.removesuffix("attn2") + f"attn{j + 1}": 2 * i + j
            for i, path in enumerate(cross_layers)
            for j in (0, 1)
        }
        if any(self.numbers.get(path, n) != n for path, n in here.items()):
            raise WeightsError("model", "this adapter is in use beside a base whose attentions lie in another order. Load it twice, under two "
                                        "names.")  # fmt: skip
        self.numbers = self.numbers | here

    def edit(self, path: str, name: str, x: Float[Tensor, "k n c"]) -> Float[Tensor, "k n d"] | None:
        """What is added to the answer of projection `name` (to_q, to_k, to_v, to_out) of the attention at this module path."""
        key = f"{self.numbers.get(path)} {name}"
        return self.changes[key](x) if key in self.changes else None

    def save(self) -> dict[str, Tensor]:
        out = super().save()
        for key, (down, up) in self.changes.items():  # type: ignore[misc]
            number, name = key.split()
            out |= {
                f"ip_adapter.{number}.{name}_lora.{side}.weight": m.weight for side, m in (("down", down), ("up", up))
            }
        return out
