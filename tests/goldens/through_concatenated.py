"""The way of the goldens of concatenated bases through infuse: depth, a picture to be edited, a small picture, an embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from infuse.batch import collate
from infuse.conditions import Condition, Depth, Edit, Img2Img, Text, Upscale
from infuse.encoders.kit import Base
from infuse.encoders.noise_augmentation import ImageNoise
from infuse.encoders.text import TextEncoders
from infuse.engine.job import Job, ground
from infuse.media.pictures import Picture
from infuse.ports import Ports, Sides, Vector
from infuse.solvers import parse, plan
from infuse.timetable import PROMPT, timetable
from infuse.weights.build import assemble

from .golden import Golden
from .through import Given, Named, Outputs, drawn, heard, network, predicted, said


class Shown(Given):
    """A kit that is given small pictures as well."""

    def small(self, picture: Picture, fit: str = "stretch") -> Tensor:
        return self.golden[picture.source][0]

    def pixels(self, picture: Picture, channels: int = 3, fit: str = "stretch") -> Tensor:
        return self.exact(picture, channels, fit)


class Map(Picture):
    """A depth map, (b h w) in the golden: one channel of what a kit gives."""

    size = (0, 0)


class Deep(Shown):
    def exact(self, picture: Picture, channels: int = 3, fit: str = "stretch") -> Tensor:
        return self.golden[picture.source] if isinstance(picture, Map) else super().exact(picture, channels, fit)


Asked = Mapping[str, Any]
CONDITIONS: Mapping[str, Callable[[Asked], list[Condition]]] = {
    "depth2img_5ch": lambda c: [Img2Img(image=Named(c["image"]), strength=c["strength"]), Depth(image=Map(c["depth_map"]))],
    "instruct_pix2pix_8ch": lambda c: [Edit(image=Named(c["image"]), image_guidance_scale=c["image_guidance_scale"])],
    "upscale_x4_7ch": lambda c: [Upscale(image=Named(c["image"]), noise_level=c["noise_level"])],
}  # fmt: skip


def sampling(golden: Golden) -> Outputs:
    """Conditions, job, solver, decoder: one whole run."""
    config, call = golden.config, golden.config["calls"]["call"]
    weights = golden.weights("vae.")
    vae = assemble(lambda: AutoencoderKL(**config["vae"]), weights, torch.float32, "cpu", "the golden's VAE", "model")
    factor = 2 ** (len(config["vae"]["block_out_channels"]) - 1)
    net = network(golden.weights("unet."), config["unet"], factor)
    schedule = {k: v for k, v in config["scheduler"].items() if k != "class"}
    base = Base("golden", net, vae, TextEncoders((), ()), schedule)
    height, width = golden.outputs["image"].shape[-2:]
    kit = Deep(base, (width, height), None)
    kit.golden = golden
    conditions = {f"conditions.{i}": c for i, c in enumerate(CONDITIONS[golden.name](call))}
    sides = {
        PROMPT: Sides(said(golden["prompt_embeds"])[0], said(golden["negative_prompt_embeds"])[0]),
        **{who: c.sides(kit) for who, c in conditions.items()},
    }
    strength = next((s for c in conditions.values() if (s := c.strength_of_start()) is not None), None)
    run = plan(parse("DDIM", ""), base.scheduler, call["num_inference_steps"], strength)
    own = {who: c.guided for who, c in conditions.items() if c.guided is not None}
    speakers = {PROMPT: Text(prompt=""), **conditions}
    table = timetable(speakers, len(run.timesteps), call["guidance_scale"], own)
    shape = (base.spec.latent_channels, height // factor, width // factor)
    job = Job(run, table, sides, ground(kit, sides, table), 0, shape, torch.float32, torch.device("cpu"))
    noises = [golden[f"noise{i}"] for i in range(9) if f"in.noise{i}" in golden.tensors]
    labelled = "class_labels" in golden.outputs
    with (
        torch.no_grad(),
        drawn(noises),
        heard(net.unet) as calls,
        heard(net.unet.class_embedding if labelled else vae) as labels,
    ):  # type: ignore[arg-type]
        xs = []
        while job.latent is None:
            rows = job.rows()
            xs.append(rows[0].x)  # DDIM shows the network the latent as it is
            job.answer(net.predict(collate(rows, base.spec)))
        first = calls[0][0]
        found = {
            "image": base.decode(job.latent[None]),
            "timesteps": run.timesteps,
            # diffusers asks for all that is said first here, and elsewhere last
            "unet_in": first.flip(0) if own else first,
            **{f"latents.{i}": x[None] for i, x in enumerate([*xs[1:], job.latent])},
        }
        return found | ({"class_labels": labels[0][0]} if labelled else {})


def unclip(golden: Golden) -> Outputs:
    """The class vector of an embedding at levels of noise, and what the network makes of it; zeros where nobody speaks."""
    net = network(golden.weights("unet."), golden.config["unet"])
    noise = ImageNoise(golden.tensors["stored.image_normalizer.mean"], golden.tensors["stored.image_normalizer.std"])
    width = net.spec.embedding_slots["image_embeds"]
    texts = said(golden["context"])
    below = Ports(embedding=(Vector("image_embeds", torch.zeros(width), ground=True),))

    def vectors(level: int) -> Tensor:
        found = []
        for embedding, drawn_noise in zip(golden["image_embeds"], golden["noise"], strict=True):
            with drawn([drawn_noise[None]]):
                found.append(noise(embedding, level).draw(torch.Generator()))
        return torch.stack(found)

    found = {"eps_zero_vector": predicted(net, golden, [t + below for t in texts])}
    for level in golden.config["levels"]:
        found[f"class_vector_level{level}"] = told = vectors(level)
        spoken = [t + below + Ports(embedding=(Vector("image_embeds", v),)) for t, v in zip(texts, told, strict=True)]
        found[f"eps_level{level}"] = predicted(net, golden, spoken)
    return found


WAYS = {**dict.fromkeys(CONDITIONS, sampling), "stable_unclip": unclip}
