"""The way of the T2I-Adapters' goldens through infuse: files through the loader, features through the port, one network call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from infuse.encoders.t2i import T2IAdapter, features_of
from infuse.encoders.t2i_kinds import fits, soft
from infuse.encoders.t2i_style import StyleAdapter
from infuse.network.unet import Network
from infuse.ports import Features, Ports, Voice
from infuse.weights.layouts import ldm_configs, ldm_keys

from .golden import Golden
from .through import network, predicted, said

Outputs = dict[str, Tensor]


def ldm(golden: Golden) -> Network:
    """The UNet of SD 1.x in the original layout, of whatever sizes."""
    weights, config = golden.weights("model.diffusion_model."), golden.config["ldm"]
    names = ldm_keys.trunk(weights)
    tensors = {names[k]: t for k, t in weights.items()}
    read: dict[str, Any] = ldm_configs.unet({k: tuple(t.shape) for k, t in tensors.items()})
    return network(tensors, read | {"attention_head_dim": config["num_heads"]})


def spoken(golden: Golden, net: Network, adapter: T2IAdapter, name: str, repeat: int = 1) -> tuple[Tensor, ...]:
    """The features of a golden's picture; coarse pictures are stored with one number for several pixels."""
    channels, levels = fits(adapter.anatomy, net.spec, name)
    image = golden[name][0].repeat_interleave(repeat, -1).repeat_interleave(repeat, -2)
    assert channels == len(image)
    return features_of(adapter, image, levels, net.spec.vae_factor)


def eps(net: Network, golden: Golden, *heard: tuple[Sequence[Tensor], float, tuple[float, ...] | None]) -> Tensor:
    """One network call with these features, at these weights."""
    ports = Ports(residuals=tuple(Features(tuple(f), sites, Voice(weight)) for f, weight, sites in heard))
    return predicted(net, golden, [text + ports for text in said(golden["context"])])


def sd1(golden: Golden) -> Outputs:
    """Full and light: features, two weights, the webui's soft factors, two adapters at once."""
    net, config = ldm(golden), golden.config
    found, features = {"eps_off": eps(net, golden)}, {}
    for name in config["adapters"]:
        adapter = T2IAdapter.load(golden.weights(f"{name}."))
        features[name] = spoken(golden, net, adapter, f"{name}.image", config["image_repeat"])
        found |= {f"{name}.feature.{i}": f[None] for i, f in enumerate(features[name])}
        found |= {f"{name}.eps_scale{s:g}": eps(net, golden, (features[name], s, None)) for s in config["scales"]}
    rgb = features["rgb"]
    found["rgb.eps_soft"] = eps(net, golden, (rgb, 1.0, soft(len(rgb))))
    if config["mix"]:
        found["eps_mixed"] = eps(net, golden, *((f, w, None) for f, w in zip(features.values(), config["mix"], strict=True)))  # fmt: skip
    return found


def sdxl(golden: Golden) -> Outputs:
    """SDXL's: its first feature after the first downsampler, its last after the middle."""
    net = network(golden.weights("unet."), golden.config["unet"])
    adapter = T2IAdapter.load(golden.weights("adapter."))
    features = spoken(golden, net, adapter, "image")
    return {
        "eps_off": eps(net, golden),
        "eps_on": eps(net, golden, (features, golden.config["scale"], None)),
        **{f"feature.{i}": f[None] for i, f in enumerate(features)},
    }


def style(golden: Golden) -> Outputs:
    """A style adapter's tokens of the states of a picture."""
    adapter = StyleAdapter.load(golden.weights(), heads=golden.config["num_head"])
    return {"style_tokens": adapter(golden["clip_states"])}


WAYS = {"t2i_adapter_full": sd1, "t2i_adapter_light": sd1, "t2i_adapter_xl": sdxl, "t2i_style_adapter": style}
