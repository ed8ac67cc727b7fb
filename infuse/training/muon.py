"""Muon: step every weight matrix in all its directions equally, not only in those where the gradient is loud.

The momentum of each matrix is replaced by the nearest orthogonal one (Keller Jordan et al. 2024, "Muon"). What a network
would learn late, because its signal is faint (colour next to brightness, say), is then learned early. Biases and norms,
which are no matrices, and tables of embeddings, whose rows are looked up one by one, are left to AdamW's rule.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iterates push every singular value into 0.7..1.2


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """About U V^T of the matrix's singular value decomposition, by matrix products alone. (m, n) to (m, n)."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions (a convolution is a matrix: outputs x the rest), AdamW for others.

    `lr` is AdamW's; a matrix's step has the size that AdamW's would have, 0.2 a weight on average (Liu et al. 2025,
    "Muon is scalable", 2.2), so both share one learning rate and one schedule.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01, momentum: float = 0.95,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                rule = (
                    self._matrix if parameter.ndim >= 2 and not getattr(parameter, "is_table", False) else self._vector
                )
                parameter.add_(rule(parameter, self.state[parameter], group), alpha=-group["lr"])

    @staticmethod
    def _matrix(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        grad, beta = parameter.grad, group["momentum"]
        assert grad is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(grad, 1 - beta)
        update = orthogonal(torch.lerp(grad, state["momentum"], beta).flatten(1))
        return (0.2 * max(update.shape) ** 0.5 * update).view_as(parameter)

    @staticmethod
    def _vector(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
        grad, (beta1, beta2) = parameter.grad, group["betas"]
        assert grad is not None
        if not state:
            state["step"] = torch.zeros(())
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["first"].lerp_(grad, 1 - beta1)
        state["second"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        steps = float(state["step"])
        return state["first"] / (1 - beta1**steps) / ((state["second"] / (1 - beta2**steps)).sqrt() + 1e-8)
