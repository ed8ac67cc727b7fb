"""The goldens of what stands beside the network: the web UI's control modes, Control-LoRA, union, ControlNet-XS."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetUnionModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from infuse.batch import Row, collate
from infuse.conditions.controlnet.condition import ControlNet
from infuse.encoders.kit import Base, Kit
from infuse.encoders.text import TextEncoders
from infuse.media.pictures import Picture
from infuse.network.attention import install
from infuse.network.corrections import colours_of, corrected, kept, softer, wide
from infuse.network.twins import twin
from infuse.ports import Ports, Residual, Tokens, Voice
from infuse.weights.layouts import ldm_configs, ldm_keys
from infuse.weights.layouts.beside import load_beside

from .golden import Golden
from .through import Outputs, frequencies_of_the_golden, heard, network, predicted


def loaded(weights: Mapping[str, Tensor], base: Any) -> Any:
    """What stands in a file of these tensors."""
    with tempfile.TemporaryDirectory() as folder:
        save_file({k: v.contiguous() for k, v in weights.items()}, path := Path(folder) / "beside.safetensors")
        net = load_beside(path, base=base)
    install(net)
    return net


def control_lora(golden: Golden) -> Outputs:
    """Low-rank differences to the base in use."""
    names = ldm_keys.trunk(of_base := golden.weights("model.diffusion_model."))
    state = {names[k]: t for k, t in of_base.items()}
    config = ldm_configs._trunk({k: tuple(t.shape) for k, t in state.items()}, None) | {"attention_head_dim": 4}
    ups = ["CrossAttnUpBlock2D" if "Cross" in kind else "UpBlock2D" for kind in reversed(config["down_block_types"])]
    base = UNet2DConditionModel(**config, up_block_types=ups)
    assert not base.load_state_dict(state, strict=False).unexpected_keys  # the decoder is nobody's affair here
    marker = {"lora_controlnet": golden.tensors["stored.control_lora.lora_controlnet"]}
    net = loaded(golden.weights("control_lora.") | marker, base)
    down, middle = net(
        golden["x"], golden["timesteps"], golden["context"], golden["hint"].expand(2, -1, -1, -1), return_dict=False
    )
    return {f"residual.{i:02d}": r for i, r in enumerate([*down, middle])}


def controlnet_union(golden: Golden) -> Outputs:
    """Every type alone, two at once, and rows that differ: which the original's block mixes, by a slip."""
    with frequencies_of_the_golden():
        return _union(golden)


def _union(golden: Golden) -> Outputs:
    config = golden.config["diffusers"]
    fake = UNet2DConditionModel(
        **{k: config[k] for k in ("in_channels", "down_block_types", "block_out_channels", "layers_per_block", "cross_attention_dim",
                                  "attention_head_dim", "transformer_layers_per_block", "use_linear_projection", "norm_num_groups",
                                  "addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim")},
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    net = loaded(golden.weights(), fake)
    hint, hint2 = golden["hint"][0], golden["hint2"][0]
    added = {"text_embeds": golden["text_embeds"], "time_ids": golden["time_ids"]}

    def asked(hints: Sequence[Sequence[Tensor]], types: Sequence[int], parts: Sequence[float] = ()) -> list[Tensor]:
        """hints: those of each row."""
        vectors = torch.eye(8)[list(types)].expand(2, -1, -1)
        down, middle = net(
            golden["x"], golden["timesteps"], golden["context"], torch.stack([torch.stack([*row]) for row in hints]), vectors,
            parts=torch.tensor(parts).expand(2, -1) if parts else None, added_cond_kwargs=added,
        )  # fmt: skip
        return [*down, middle]

    found: Outputs = {}
    with heard(net.add_embedding) as calls:
        answers = {f"type{k}": asked([[hint], [hint]], [k]) for k in golden.config["single_types"]}
    pair = golden.config["pair_types"]
    answers["pair"] = asked([[hint, hint2]] * 2, pair)
    answers["pair_scaled"] = asked([[hint, hint2]] * 2, pair, golden.config["pair_scales"])
    first = golden.config["single_types"][0]
    answers["mixed_webui"] = asked([[hint], [hint2]], [first])
    # what infuse does not do: diffusers' own forward, on the weights that were loaded
    flags = torch.eye(8)[[first, first]]
    down, middle = ControlNetUnionModel.forward(
        net, golden["x"], golden["timesteps"], golden["context"], [torch.stack([hint, hint2])], flags, [first],
        added_cond_kwargs=added, return_dict=False,
    )  # fmt: skip
    answers["mixed_diffusers"] = [*down, middle]
    for case, answer in answers.items():
        found |= {f"{case}.residual.{i:02d}": r for i, r in enumerate(answer)}
    found["y"] = calls[0][0][:, : golden.outputs["y"].shape[1]]
    return {k: t for k, t in found.items() if k in golden.outputs}


def controlnet_xs(golden: Golden) -> Outputs:
    """Beside the base, through ports. diffusers' fused network has another epsilon, hence the tolerance."""
    net = network(golden.weights("unet."), golden.config["unet"])
    branch = loaded(golden.weights("adapter."), net.unet)

    def eps(weight: float) -> Tensor:
        hinted = (Residual(branch, golden["hint"][0], voice=Voice(weight)),) if weight else ()
        return predicted(net, golden, [Ports(context=(Tokens(c),), residuals=hinted) for c in golden["context"]])

    silent = eps(0)
    return {
        **dict.fromkeys(("eps_base", "eps_control_off", "eps_scale0"), silent),
        "eps_scale0.5": eps(0.5),
        "eps_scale1": eps(1),
    }


class Hinting(Kit):
    """A kit that is given pixels: a picture's name is the golden's input, coarse there."""

    golden: Golden
    branch: Any

    def controlnet(self, model: str, pool: bool | None = None) -> nn.Module:
        return twin(self.branch, pool)

    def card(self, model: str) -> Mapping[str, Any]:
        return {}

    def hole(self, picture: Picture, fit: Any = "stretch") -> Tensor:
        return coarse(self.golden["mask_blocks"], 8)[0]


class Hint(ControlNet):
    """Of this picture only the name is known."""

    def hint(self, kit: Any, model: str, channels: int) -> Tensor:
        hint = coarse(kit.golden["hint"], 4)[0]
        return hint.flip(-1) if self.invert else hint

    def _hole(self, kit: Any) -> Tensor:
        return kit.hole(self.hole)


def coarse(value: Tensor, times: int) -> Tensor:
    return value.repeat_interleave(times, -1).repeat_interleave(times, -2)


def control_modes(golden: Golden) -> Outputs:
    """Modes, weights, regions and two units as conditions; corrections of x0 as functions of the answer."""
    names = ldm_keys.trunk(of_base := golden.weights("model.diffusion_model."))
    state = {names[k]: t for k, t in of_base.items()}
    config = ldm_configs.unet({k: tuple(t.shape) for k, t in state.items()}) | {"attention_head_dim": 2}
    net = network(state, config | {"use_linear_projection": False})
    kit = Hinting(Base("golden", net, None, TextEncoders((), ()), {}), (64, 128), None)
    kit.golden, kit.branch = golden, loaded(golden.weights("control_model."), net.unet)

    def eps(*hints: Hint, voices: Sequence[Voice] = ()) -> Tensor:
        """Entry 0 on the prompt's side, entry 1 on the silent one."""
        sides = [h.encode(kit).spoken(v) for h, v in zip(hints, voices or [Voice()] * len(hints), strict=True)]
        rows = [sum((side for side in of_both), Ports()) for of_both in ([s.on for s in sides], [s.off for s in sides])]
        texts = [Ports(context=(Tokens(c),)) for c in golden["context"]]
        xs = golden["x"].expand(2, -1, -1, -1)
        asked = [Row(x, t, (a + b).at(0.0)) for x, t, a, b in zip(xs, golden["timesteps"], texts, rows, strict=True)]
        return net.predict(collate(asked, net.spec))

    def hint(**fields: Any) -> Hint:
        return Hint(model="golden", image="hint", **fields)

    with torch.no_grad():
        down, middle = kit.branch(golden["x"], golden["timesteps"][:1], golden["context"][:1], coarse(golden["hint"], 4), return_dict=False)  # fmt: skip
    x, known = golden["x"].expand(2, -1, -1, -1), golden["control_latent"].expand(2, -1, -1, -1)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    alpha, blur = float((1 - betas).cumprod(0)[golden["timesteps"][0]]), golden.config["tile_blur"]
    mask = coarse(golden["mask_blocks"], 8)
    loud, share = eps(hint()), 0.8
    quiet, holed = eps(hint(), voices=[Voice(share)]), eps(hint(hole="mask"))
    colour, sharp = colours_of(known[:1], blur), 0.01 * golden.config["sharp_slider"]
    sharpened = [corrected(quiet[i : i + 1], x[:1], alpha, e, share) for i, e in enumerate((colour, softer(colour, blur, sharp)))]  # fmt: skip
    return {
        **{f"residual.{i:02d}": r for i, r in enumerate([*down, middle])},
        "eps_no_control": eps(),
        "eps_balanced": loud,
        "eps_balanced_0.7": eps(hint(), voices=[Voice(0.7)]),
        "eps_prompt_first": eps(hint(mode="prompt")),
        "eps_control_first": eps(hint(mode="control")),
        "eps_pooled": eps(hint(pool=True)),
        "eps_layer_weights": eps(hint(sites=tuple(golden.config["layer_weights"]))),
        "eps_region": eps(hint(), voices=[Voice(mask=mask[0, 0])]),
        "eps_inpaint_hint": holed,
        "eps_two_units": eps(hint(), hint(invert=True, mode="prompt"), voices=[Voice(), Voice(0.5)]),
        "eps_colorfix": corrected(loud, x, alpha, colours_of(known, blur)),
        "eps_colorfix_sharp": torch.cat(sharpened),
        "eps_inpaint_only": corrected(holed, x, alpha, kept(known, wide(mask))),
    }


WAYS = {
    "control_lora": control_lora,
    "control_modes": control_modes,
    "controlnet_union_sdxl": controlnet_union,
    "controlnet_xs": controlnet_xs,
}
