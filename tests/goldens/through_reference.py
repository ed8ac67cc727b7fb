"""The golden of the reference modes: pictures that run beside a row, in one network call with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import DDIMScheduler

from infuse.conditions.reference import Reference
from infuse.ports import Ports, Posterior, Shared
from infuse.weights.layouts import ldm_configs, ldm_keys

from .golden import Golden
from .through import Named, Outputs, network, predicted, said


def reference_only(golden: Golden) -> Outputs:
    """Attention, norms and both; fidelities 0, 0.5 and 1; all of the network and half of it."""
    weights = golden.weights()
    names = ldm_keys.trunk(weights)
    state = {names.get(k, k): t for k, t in weights.items()}
    net = network(state, ldm_configs.unet({k: tuple(t.shape) for k, t in state.items()}) | {"attention_head_dim": 2})
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    xt = schedule.add_noise(golden["reference_latent"], golden["reference_noise"], golden["timesteps"][:1])
    x = golden["x"].expand(2, -1, -1, -1)
    latent = Posterior(golden["reference_latent"][0], torch.zeros_like(golden["reference_latent"][0]))

    def asked(method: str, reach: float, fidelity: float) -> torch.Tensor:
        condition = Reference(image=Named(""), method=method, reach=reach, fidelity=fidelity)  # type: ignore[arg-type]
        blocks, norms = condition.heard_in(net.spec)
        entry = Shared(latent, 1.0, blocks, norms, x=xt[0])
        silent = replace(entry, share=condition.silent_share(net.spec))
        ports = [a + Ports(shared=(e,)) for a, e in zip(said(golden["context"]), (entry, silent), strict=True)]
        return predicted(net, _Two(golden, x), ports)

    class _Two:
        """The same latent for both rows."""

        def __init__(self, golden: Golden, x: torch.Tensor) -> None:
            self.golden, self.x = golden, x

        def __getitem__(self, name: str) -> torch.Tensor:
            return self.x if name == "x" else self.golden[name]

    part = golden.config["partial_weight"]
    return {
        "reference_xt": xt,
        "eps_plain": predicted(net, _Two(golden, x), said(golden["context"])),  # type: ignore[arg-type]
        "eps_attn_w1_f0": asked("attention", 1, 0),
        "eps_attn_w1_f0.5": asked("attention", 1, 0.5),
        "eps_attn_w1_f1": asked("attention", 1, 1),
        "eps_attn_wpart_f0.5": asked("attention", part, 0.5),
        "eps_attn_mode_prompt": asked("attention", 1, 0),
        "eps_attn_mode_control": asked("attention", 1, 1),
        "eps_adain_w1_f0.5": asked("norms", 1, 0.5),
        "eps_adain_wpart_f0.5": asked("norms", part, 0.5),
        "eps_adain_attn_w1_f0.5": asked("both", 1, 0.5),
    }
