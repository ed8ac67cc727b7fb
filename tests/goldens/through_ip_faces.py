"""The goldens of FaceID through infuse: faces as numbers, its low-rank part, and the states of a picture beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from infuse.conditions.ip_adapter import IPAdapter
from infuse.encoders.ip_adapter import Adapter
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.ports import Sides

from .golden import Golden
from .through import Outputs, heard, network, predicted, said


class Faced:
    """A kit for faces: pictures are called by their place in the golden's states."""

    def __init__(self, golden: Golden, adapter: Adapter, spec: NetworkSpec) -> None:
        self.golden, self.adapter, self.spec = golden, adapter, spec

    def vector(self, values: Any) -> Tensor:
        return torch.tensor(values)

    def look(self, picture: Picture | None, folder: str | None, hidden: bool) -> Tensor:
        return (
            self.golden["uncond_clip_states"][0] if picture is None else self.golden["clip_states"][int(picture.source)]
        )

    def module(self, model: str, build: Any) -> nn.Module:
        return self.adapter


def says(golden: Golden, net: Network, adapter: Adapter, i: int, **fields: Any) -> Sides:
    """What the condition says of the i-th face."""
    seen = {"image": (Picture(str(i)),)} if adapter.kind == "faceid_plus" else {}
    face = golden["face_id"][i].double()
    asked = IPAdapter(face=(tuple((face / face.norm()).tolist()),), **seen, **fields)
    return asked.encode(Faced(golden, adapter, net.spec))  # type: ignore[arg-type]


def answers(golden: Golden, net: Network, adapter: Adapter, **fields: Any) -> Outputs:
    """Tokens, the network's answers at every scale on both sides, and those of its cross-attentions.

    Scale 0 is an adapter that is heard in no layer: its low-rank part stays, as in the original.
    """
    texts, layers = (said(golden["context"]), said(golden["uncond_context"])), len(net.spec.cross_layers)
    sides = [says(golden, net, adapter, i, **fields) for i in range(len(golden["face_id"]))]
    found = {
        "image_tokens": torch.stack([s.on.decoupled[0].tokens for s in sides]),
        "uncond_image_tokens": sides[0].off.decoupled[0].tokens[None],
    }
    for scale in (0.0, 0.5, 1.0):
        scaled = [says(golden, net, adapter, i, layers=(scale,) * layers, **fields) for i in range(len(sides))]
        for side, name in enumerate(("", "uncond_")):
            heard_now = [t + (s.off if side else s.on) for t, s in zip(texts[side], scaled, strict=True)]
            found[f"eps_{name}scale{scale:g}"] = predicted(net, golden, heard_now)
    for path in (p for p, _ in net.spec.cross_layers):
        with heard(net.unet.get_submodule(path)) as calls:
            predicted(net, golden, [t + s.on for t, s in zip(texts[0], sides, strict=True)])
        found[f"attn2.{path}"] = calls[0][1]
    return found


def faceid(golden: Golden) -> Outputs:
    """Its file changes the projections of all attentions, too."""
    net = network(golden.weights("unet."), golden.config["unet"])
    adapter = Adapter.load(golden.weights(but="unet."))
    plain = predicted(net, golden, said(golden["context"]))
    return _named(golden, {"eps_plain_unet": plain, **answers(golden, net, adapter)})


def faceid_plus(golden: Golden) -> Outputs:
    """Version 1, and version 2 with its shortcut."""
    net = network(golden.weights("unet."), golden.config["unet"])
    adapter = Adapter.load(golden.weights(but="unet."))
    found: Outputs = {}
    for tag, how in golden.config["versions"].items():
        more = {"shortcut": how["shortcut"], "shortcut_scale": how.get("scale", 1.0)}
        found |= {f"{tag}.{k}": t for k, t in answers(golden, net, adapter, **more).items()}
    return _named(golden, found)


def _named(golden: Golden, found: Mapping[str, Tensor]) -> Outputs:
    """Under the golden's own spelling of scales (0.0 or 0)."""
    spelled = {re.sub(r"\.0$", "", k) if "scale" in k else k: k for k in golden.outputs}
    return {spelled.get(k, k): t for k, t in found.items() if k in spelled}


FACE_WAYS = {"ip_adapter_faceid": faceid, "ip_adapter_faceid_plus": faceid_plus}
