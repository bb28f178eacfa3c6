"""Optimizers by name, and the learning rate: linear warmup, constant, cosine to zero at the end."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from stylebatch.training.muon import Muon
from stylebatch.training.spec import Optimizer

EDGES = ("conv_in", "conv_out", "time_embedding", "quant_conv")
"""Layers at the borders of a network, where channels have different meanings and scales: AdamW updates them."""


def build_optimizer(model: nn.Module, options: Optimizer) -> TorchOptimizer:
    """The optimizer of all trainable parameters of `model`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if options.name == "adamw":
        parameters = [parameter for _, parameter in named]
        return _with_peaks(
            torch.optim.AdamW(parameters, options.rate, weight_decay=options.weight_decay)
        )
    matrices = [p for name, p in named if p.ndim >= 2 and not any(edge in name for edge in EDGES)]
    chosen = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in chosen]
    return _with_peaks(
        Muon(matrices, others, options.matrix_rate, options.rate, options.weight_decay)
    )


def _with_peaks(optimizer: TorchOptimizer) -> TorchOptimizer:
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]  # in the group, so that checkpoints carry it
    return optimizer


def rate_factor(progress: float, options: Optimizer) -> float:
    """Share of the peak rate at `progress` in [0, 1]."""
    if progress < options.warmup:
        return (progress + 1e-3) / (options.warmup + 1e-3)  # above 0 at the first step
    start = 1.0 - options.decay
    if progress <= start or options.decay == 0.0:
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (progress - start) / options.decay))


def set_rates(optimizer: TorchOptimizer, factor: float) -> None:
    """Scale every group's peak rate; a function of progress alone, so there is nothing to resume."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
