"""Muon: momentum orthogonalised by a Newton-Schulz iteration for matrices, AdamW for the rest.

Every direction of a matrix moves at the same rate from the start, which helps short runs most.
Kernels (out, in, 3, 3) are treated as matrices (out, in * 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Push all singular values of a matrix (rows, columns) towards one."""
    # The Frobenius norm bounds the largest singular value by one, where the iteration converges.
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the smaller Gram matrix
    for _ in range(iterations):
        gram = x @ x.T
        # Muon's quintic: steep at 0 and not convergent, it leaves singular values in about 0.7..1.2, which suffices
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """Two parameter groups with their own learning rates; `matrix` in a group marks the orthogonalised one."""

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        matrix_rate: float,
        rate: float,
        weight_decay: float = 0.01,
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(others), "matrix": False, "lr": rate}]
        if matrices:
            groups.append({"params": list(matrices), "matrix": True, "lr": matrix_rate})
        self.weight_decay = weight_decay
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        if closure is not None:
            raise ValueError("closures are not supported")
        for group in self.param_groups:
            if group["matrix"]:
                self._matrices(group["params"], group["lr"])
                continue
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._adamw(parameter, parameter.grad, group["lr"])

    def _matrices(self, parameters: Sequence[Tensor], rate: float) -> None:
        """Update matrices. Each rank orthogonalises its share; a sum with zeros elsewhere distributes the updates."""
        shared = dist.is_initialized() and dist.get_world_size() > 1
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        updates = []
        for index, parameter in enumerate(parameters):
            gradient = parameter.grad
            if gradient is None:  # every rank must join the sum below
                gradient = torch.zeros_like(parameter)
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradient)
            momentum = state["momentum"].lerp_(gradient, 0.05)
            if index % ranks == rank:
                # Nesterov's form; tall matrices get larger steps, so that outputs change alike for every shape
                flat = orthogonalise(gradient.lerp(momentum, 0.95).flatten(1))
                updates.append(flat.flatten() * max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5)
            else:
                updates.append(torch.zeros(parameter.numel()))
        if shared:
            joined = torch.cat(updates)
            dist.all_reduce(joined)
            updates = list(joined.split([u.numel() for u in updates]))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - rate * self.weight_decay).add_(
                update.view_as(parameter), alpha=-rate
            )

    def _adamw(self, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if "step" not in state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 0.1)
        square = state["square"].mul_(0.98).addcmul_(gradient, gradient, value=0.02)
        bias1, bias2 = 1 - 0.9 ** state["step"], 1 - 0.98 ** state["step"]
        parameter.addcdiv_(mean / bias1, (square / bias2).sqrt().add_(1e-8), value=-rate)
