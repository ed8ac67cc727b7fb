"""The way of the goldens through infuse: weights through its loaders, inputs through its conditions and ports.

Every function takes a golden and answers all of its outputs by name. Here are sampling and ControlNets; the other
mechanisms have files of their own, beside this one.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models import embeddings
from safetensors.torch import save_file
from torch import Tensor, nn

from infuse.batch import Row, collate
from infuse.conditions import Text
from infuse.conditions.controlnet.modes import mode_sites
from infuse.conditions.img2img import Img2Img
from infuse.conditions.inpaint import Inpaint
from infuse.encoders.kit import Base, Kit
from infuse.encoders.text import TextEncoders
from infuse.engine.job import Job, ground
from infuse.guidance import chain
from infuse.media.pictures import Picture
from infuse.network.attention import install
from infuse.network.branches import branch_answer
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.ports import Ports, Residual, Sides, Tokens, Vector, Voice
from infuse.solvers import parse, plan
from infuse.timetable import PROMPT, timetable
from infuse.weights.build import assemble
from infuse.weights.layouts import ldm_keys
from infuse.weights.layouts.controlnet import load_controlnet

from .golden import Golden

Outputs = dict[str, Tensor]


def network(weights: Mapping[str, Tensor], config: Mapping[str, Any], factor: int = 8) -> Network:
    """The UNet that these tensors (in diffusers' names) make."""
    unet = assemble(lambda: UNet2DConditionModel(**config), weights, torch.float32, "cpu", "the golden's UNet", "model")
    return Network(unet, NetworkSpec.from_unet_config("golden", unet.config, vae_factor=factor))


def predicted(net: Network, golden: Golden, ports: Sequence[Ports]) -> Tensor:
    """One network call: a row for each sample of the golden."""
    rows = [Row(x, t, p.at(0.0)) for x, t, p in zip(golden["x"], golden["timesteps"], ports, strict=True)]
    return net.predict(collate(rows, net.spec))


def said(context: Tensor) -> list[Ports]:
    """Text states (b n d) as one row's ports each."""
    return [Ports(context=(Tokens(c),)) for c in context]


@contextmanager
def heard(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """(input, output) of a module at each of its calls."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = module.register_forward_hook(lambda _, args, out: calls.append((args[0], out)))
    try:
        yield calls
    finally:
        handle.remove()


# ── sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Given(Kit):
    """A kit that is given pixels, not files: a picture's name is the golden's input."""

    golden: Golden

    def exact(self, picture: Picture, channels: int = 3, fit: str = "stretch") -> Tensor:
        return self.golden[picture.source][0]

    def hole(self, picture: Picture, fit: str = "stretch") -> Tensor:
        return (self.golden[picture.source][0] >= 0.5).to(self.dtype)


class Named(Picture):
    """A picture of which only the name is known: of one size with its mask."""

    size = (0, 0)


@contextmanager
def drawn(noises: Sequence[Tensor]) -> Iterator[None]:
    """Replay the golden's noise in its order of drawing; all of it must be asked for."""
    left = list(noises)

    def draw(shape: Sequence[int], **_: Any) -> Tensor:
        assert tuple(shape) == left[0].shape
        return left.pop(0)

    with patch.object(torch, "randn", draw):
        yield
    assert not left, f"{len(left)} noises were not drawn"


def sampling(golden: Golden) -> Outputs:
    """img2img and inpainting: condition, job, solver, decoder."""
    config = golden.config
    vae = assemble(
        lambda: AutoencoderKL(**config["vae"]),
        golden.weights("vae."),
        torch.float32,
        "cpu",
        "the golden's VAE",
        "model",
    )
    net = network(golden.weights("unet."), config["unet"], 2 ** (len(config["vae"]["block_out_channels"]) - 1))
    schedule = {k: v for k, v in config["scheduler"].items() if k != "class"}
    base = Base("golden", net, vae, TextEncoders((), ()), schedule)
    found: Outputs = {}
    for name, call in config["calls"].items():
        at = "" if name == "call" else f"{name}."
        found |= {at + k: t for k, t in sampled(golden, base, call, at).items()}
    return found


def sampled(golden: Golden, base: Base, call: Mapping[str, Any], at: str) -> Outputs:
    height, width = golden["image"].shape[-2:]
    kit = Given(base, (width, height), None)
    kit.golden = golden
    picture = Named(call["image"])
    condition = (
        Inpaint(image=picture, mask=Named(call["mask_image"]), strength=call["strength"], cells="nearest")
        if "mask_image" in call
        else Img2Img(image=picture, strength=call["strength"])
    )
    sides = {
        PROMPT: Sides(said(golden["prompt_embeds"])[0], said(golden["negative_prompt_embeds"])[0]),
        "conditions.0": condition.sides(kit),
    }
    run = plan(parse("DDIM", ""), base.scheduler, call["num_inference_steps"], condition.strength_of_start())
    factor, spec = base.spec.vae_factor, base.spec
    speakers = {PROMPT: Text(prompt=""), "conditions.0": condition}
    table = timetable(speakers, len(run.timesteps), call["guidance_scale"], {})
    job = Job(
        run,
        table,
        sides,
        ground(kit, sides, table),
        0,
        (spec.latent_channels, height // factor, width // factor),
        torch.float32,
        torch.device("cpu"),
    )
    noises = [golden[f"{at}noise{i}"] for i in range(9) if f"in.{at}noise{i}" in golden.tensors]
    with torch.no_grad(), drawn(noises), heard(base.network.unet) as calls:
        job.start()
        xs = []
        while job.latent is None:
            rows = job.rows()
            xs.append(rows[0].x)  # DDIM shows the network the latent as it is
            job.answer(base.network.predict(collate(rows, spec)))
    latents = [*xs[1:], job.latent]
    return {
        "image": base.decode(job.latent[None]),
        "timesteps": run.timesteps,
        "unet_in": calls[0][0],
        **{f"latents.{i}": x[None] for i, x in enumerate(latents)},
    }


# ── ControlNet ──────────────────────────────────────────────────────────────────────────────────────────────────────


def branch(golden: Golden, weights: Mapping[str, Tensor], base: Network) -> nn.Module:
    """The ControlNet in a file of the original layout."""
    with tempfile.TemporaryDirectory() as folder:
        save_file(dict(weights), path := Path(folder) / "control.safetensors")
        net = load_controlnet(path, base=base.unet)
    install(net)
    return net


def pooled(net: nn.Module) -> nn.Module:
    """The same branch as a shuffle model: each residual its own mean."""
    net = copy.deepcopy(net)
    net.register_to_config(global_pool_conditions=True)  # type: ignore[operator]
    return net


def residuals(net: Network, golden: Golden, ports: Sequence[Ports]) -> list[Tensor]:
    """What the only branch answers for all samples."""
    batch = collate([Row(x, t, p) for x, t, p in zip(golden["x"], golden["timesteps"], ports, strict=True)], net.spec)
    return branch_answer(batch.residuals[0], batch)


def controlnet_ldm(golden: Golden) -> Outputs:
    """SD 1 and 2: every weighting, and guidance with control on both sides or on one."""
    weights = golden.weights("model.diffusion_model.")
    names = ldm_keys.trunk(weights)
    net = network({names[k]: t for k, t in weights.items()}, golden.config["diffusers"])
    control = branch(golden, golden.weights(but="model."), net)
    n, scale = net.spec.sites, golden.config["guidance"]
    yes, no = said(golden["context"]), said(golden["uncond_context"])

    def hints(sites: tuple[float, ...] | None = None, weight: float = 1.0, by: nn.Module = control) -> list[Ports]:
        return [Ports(residuals=(Residual(by, h, sites, Voice(weight)),)) for h in golden["hint"]]

    def eps(texts: list[Ports], controls: list[Ports]) -> Tensor:
        return predicted(net, golden, [a + b for a, b in zip(texts, controls, strict=True)])

    def guided(controls: list[Sides]) -> Tensor:
        guidance = chain(("prompt", "control"), {"prompt": scale})
        answers = []
        for term in guidance.terms:
            speaks = "prompt" in term.speaks
            answers.append(eps(yes if speaks else no, [s.on if speaks else s.off for s in controls]))
        return torch.stack([guidance.combine(of_one) for of_one in torch.stack(answers, dim=1)])

    soft, silent = tuple(0.825 ** (n - 1 - i) for i in range(n)), [Ports()] * len(yes)
    answer = residuals(net, golden, [a + b for a, b in zip(yes, hints(), strict=True)])
    return {
        "hint_embedding": control.controlnet_cond_embedding(golden["hint"]),
        **{f"residual.{i:02d}": r for i, r in enumerate(answer)},
        "eps_no_control": eps(yes, silent),
        "eps_scale1": eps(yes, hints()),
        "eps_scale0.6": eps(yes, hints(weight=0.6)),
        "eps_only_mid": eps(yes, hints((*[0.0] * (n - 1), 1.0))),
        "eps_soft": eps(yes, hints(soft)),
        "eps_logspace": eps(yes, hints(mode_sites("guess", n))),
        "eps_uncond_scale1": eps(no, hints()),
        "eps_uncond_no_control": eps(no, silent),
        "cfg_balanced": guided([Sides.both(p) for p in hints()]),
        "cfg_guess": guided([Sides(p) for p in hints(soft)]),
        "eps_global_average_pooling": eps(yes, hints(by=pooled(control))),
    }


ABOVE = (13, 44, 119)
"""Of the 128 frequencies of SDXL's ids: where `exp` gave the machine that made the golden not the nearest float, but the
one above. Another processor's last bits are its own, and an id of 1024 makes 6e-5 of such a bit: more than the tolerance."""


@contextmanager
def frequencies_of_the_golden(width: int = 256) -> Iterator[None]:
    """Sinusoids of that width with the frequencies that the golden's machine had, whatever `exp` says on this one."""
    half = width // 2
    exact = torch.exp((-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half).double()).float()
    exact[list(ABOVE)] = torch.nextafter(exact, torch.ones(())).take(torch.tensor(ABOVE))
    own = embeddings.get_timestep_embedding

    def sinusoids(timesteps: Tensor, embedding_dim: int, **how: Any) -> Tensor:
        if embedding_dim != width:
            return own(timesteps, embedding_dim, **how)
        angles = timesteps[:, None].float() * exact
        return torch.cat([angles.cos(), angles.sin()], dim=-1)  # flip_sin_to_cos, as SDXL has it

    with patch.object(embeddings, "get_timestep_embedding", sinusoids):
        yield


def controlnet_sdxl(golden: Golden) -> Outputs:
    """The bare file layout, and SDXL's vector."""
    with frequencies_of_the_golden():
        return _controlnet_sdxl(golden)


def _controlnet_sdxl(golden: Golden) -> Outputs:
    net = network(golden.weights("unet."), golden.config["diffusers_unet"])
    control = branch(golden, golden.weights(but="unet."), net)
    texts = [
        p + Ports(embedding=(Vector("text_embeds", e), Vector("time_ids", i)))
        for p, e, i in zip(said(golden["context"]), golden["text_embeds"], golden["time_ids"], strict=True)
    ]

    def hinted(sites: tuple[float, ...] | None = None) -> list[Ports]:
        return [p + Ports(residuals=(Residual(control, golden["hint"][0], sites),)) for p in texts]

    with heard(control.add_embedding) as calls:
        answer = residuals(net, golden, hinted())
    return {
        "y": calls[0][0][:, : golden.outputs["y"].shape[1]],
        **{f"residual.{i:02d}": r for i, r in enumerate(answer)},
        "eps_no_control": predicted(net, golden, texts),
        "eps_scale1": predicted(net, golden, hinted()),
        "eps_logspace": predicted(net, golden, hinted(mode_sites("guess", net.spec.sites))),
    }


WAYS = {
    "latent_img2img": sampling,
    "latent_inpaint_4ch": sampling,
    "inpaint_9ch": sampling,
    "controlnet_sd15": controlnet_ldm,
    "controlnet_sd21": controlnet_ldm,
    "controlnet_sdxl": controlnet_sdxl,
}
