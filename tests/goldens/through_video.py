"""The way of the VideoComposer goldens through infuse's networks: files taken apart by the loaders, plain calls of the modules.

`Composer` says in a few lines what VideoComposer computes, on diffusers' UNet; it is the specification for faster ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from infuse.encoders.annotators import masked_video, midas, pidinet, sketch, sketch_simplification
from infuse.weights.layouts.video_composer import VideoModules, build, read

from .golden import Golden

Outputs = dict[str, Tensor]
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.0120, "beta_schedule": "scaled_linear", "steps_offset": 1,
            "timestep_spacing": "leading", "set_alpha_to_one": False, "clip_sample": False}  # fmt: skip


def enlarged(x: Tensor, times: int) -> Tensor:
    return x.repeat_interleave(times, -1).repeat_interleave(times, -2)


@contextmanager
def added(module: nn.Module, more: Tensor | None) -> Iterator[None]:
    """For this call, what `module` answers plus `more`: diffusers' video UNet has no door for a frame rate."""
    handle = module.register_forward_hook(lambda _, args, out: out if more is None else out + more)
    try:
        yield
    finally:
        handle.remove()


class Composer:
    """eps(x, t, y, style, conditions): VideoComposer as a whole."""

    def __init__(self, parts: VideoModules, zero_y: Tensor) -> None:
        self.parts, self.zero_y = parts, zero_y

    def concat(self, x: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """The eight extra input channels: all spatial conditions, each through its encoder, summed."""
        b, _, f, h, w = x.shape
        encoded = [self.parts.stc[name](video, (h, w)) for name, video in conditions.items()]
        return sum(encoded, start=x.new_zeros(b, 8, f, h, w))

    def context(self, b: int, y: Tensor | None, style: Tensor | None) -> Tensor:
        """Text states, or the empty text's; then the style as one token, if there is one."""
        text = self.zero_y.expand(b, -1, -1) if y is None else y
        return text if style is None else torch.cat([text, self.parts.style(style)], dim=1)  # type: ignore[misc]

    def __call__(self, x: Tensor, t: Tensor, said: Mapping[str, Tensor], fps: Tensor | None = None) -> Tensor:
        """`said`: any of y (text states), image (a style vector) and the spatial conditions."""
        spatial = {k: v for k, v in said.items() if k not in ("y", "image")}
        context = self.context(len(x), said.get("y"), said.get("image"))
        unet, rate = self.parts.unet, None if fps is None else self.parts.fps(fps)  # type: ignore[misc]
        with added(unet.time_embedding, rate):
            return unet(torch.cat([x, self.concat(x, spatial)], dim=1), t, context, return_dict=False)[0]


@contextmanager
def last(module: nn.Module, found: dict[str, Tensor], name: str) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, args, out: found.__setitem__(name, out))
    try:
        yield
    finally:
        handle.remove()


def unet(golden: Golden) -> Outputs:
    """The complete network: no condition, each alone, a few, all; frame rate; guided sampling."""
    config = golden.config
    made = build(read(golden.weights()), torch.float32)
    assert made.unet.config["attention_head_dim"] == config["head_dim"]
    compose = Composer(made, golden["zero_y"])
    x, t = enlarged(golden["x"], 2), golden["timesteps"]
    frames = x.shape[2]
    said = {
        c: golden[f"{c}_frame"].expand(-1, -1, frames, -1, -1) if f"in.{c}_frame" in golden.tensors else golden[c]
        for c in config["conditions"]
    }
    found: Outputs = {}

    def few(eps: Tensor) -> Tensor:
        return eps[..., 1::8, 2::4]

    with last(made.unet.time_embedding, found, "time_embedding"):
        found["eps_none"] = few(compose(x, t, {}))
    with last(made.unet.mid_block, found, "after_middle_all"):  # type: ignore[arg-type]
        eps = compose(x, t, said)
    found["after_middle_all"] = found["after_middle_all"][..., ::4, ::4]
    found["eps_all"], found["eps_all_first_frame"] = few(eps), eps[:1, :, 0]
    found["context_all"] = compose.context(len(x), said["y"], said["image"])
    found["eps_all_fps"] = few(compose(x, t, said, golden["fps"]))
    found["eps_subset"] = few(compose(x, t, {c: said[c] for c in config["subset"]}))
    for c, video in said.items():
        found[f"eps_{c}"] = few(compose(x, t, {c: video}))
        if video.ndim == 5:
            found[f"concat_{c}"] = few(compose.concat(x, {c: video})[:1].transpose(1, 2))

    yes = {c: said[c] for c in ("y", "image", "depth")}
    no = {"image": torch.zeros_like(said["image"]), "depth": said["depth"]}  # guidance acts on words and style alone

    def stepped(x: Tensor, t: Tensor, schedule: DDIMScheduler) -> Tensor:
        on, off = (compose(x, t.expand(len(x)), s) for s in (yes, no))
        answer: Any = off + config["ddim"]["guidance"] * (on - off)
        return schedule.step(answer, int(t), x).prev_sample

    short, long = DDIMScheduler(**SCHEDULE), DDIMScheduler(**SCHEDULE)
    short.set_timesteps(len(config["ddim"]["timesteps"]))
    long.set_timesteps(50)
    assert short.timesteps.tolist() == config["ddim"]["timesteps"]
    z = x
    for at in short.timesteps:
        z = stepped(z, at, short)
    return found | {
        "ddim": few(z),
        "ddim50_first_step": few(stepped(x, long.timesteps[0], long)),
        "ddim50_timesteps": long.timesteps,
        "alphas_cumprod_at_timesteps": long.alphas_cumprod[long.timesteps],
        "alphas_cumprod_0": long.final_alpha_cumprod.view(1),
    }


def stc(golden: Golden) -> Outputs:
    """The encoders alone, at real width and pooling, one or two temporal layers."""
    from infuse.network.stc import STCEncoder

    found: Outputs = {}
    for name, case in golden.config["cases"].items():
        encoder = STCEncoder(case["channels"], golden.config["concat_dim"], case["temporal_layers"]).eval()
        names = {"embedding": "convs", "embedding_after": "after"}
        state = {names[k.split(".")[0]] + k[k.index(".") :]: w for k, w in golden.weights(f"{name}.").items()}
        encoder.load_state_dict(state)
        video = enlarged(golden[name], case["repeat_each_pixel"])
        assert list(video.shape[-2:]) == case["full_size"]
        size = (golden.config["pool"] // 4,) * 2
        found[f"{name}.conv"] = encoder.look(video, size)[..., 1::4, 2::4]
        found[f"{name}.out"] = encoder(video, size)[..., ::2, 1::2]
    return found


def annotators(golden: Golden) -> Outputs:
    """Edges, depth, its clamp, and the masked video."""
    edges = pidinet.PiDiNet.load(golden.weights("pidinet."))
    bias = golden.tensors["stored.midas.head.4.bias"]
    depth = midas.DPT.load(golden.weights("midas.") | {"head.4.bias": bias}, heads=golden.config["midas"]["num_heads"])
    return {
        "pidinet_edges": edges(golden["pidinet_rgb"]),
        "midas_depth": depth(golden["midas_image"]),
        "depth_raw_condition": midas.as_condition(golden["depth_raw"]),
        "masked_video": masked_video.masked_video(golden["video_rgb"], golden["video_mask"]),
    }


def sketch_net(golden: Golden) -> Outputs:
    """The cleaning network at real size, and both inversions around it."""
    net = sketch_simplification.SketchSimplification.load(golden.weights())
    edges = golden["edges"]
    return {"network_output": net(1 - edges), "sketch": sketch.simplified(edges, net)}


VIDEO_WAYS = {
    "videocomposer_unet": unet,
    "videocomposer_stc": stc,
    "videocomposer_annotators": annotators,
    "videocomposer_sketch_net": sketch_net,
}
ELSEWHERE = {"videocomposer_annotators": {"motion_map"}}
"""Outputs of a golden that another file's way answers."""
