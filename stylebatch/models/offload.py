"""Puts networks on their device, or keeps their weights in main memory until they are called; by accelerate's hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device

Offload = Literal["none", "model", "sequential"]
"""What is on the device: everything (none), the network at work (model), the layer at work (sequential)."""


def place(networks: Sequence[Any], device: torch.device, offload: Offload) -> None:
    """Move `networks` to `device`, or install the hooks that do so when they are called."""
    if offload == "sequential":
        for network in networks:
            # accelerate moves parameters that belong to no submodule only if it is told to move buffers
            has_bare = bool(network._parameters)
            cpu_offload(network.to("cpu"), device, offload_buffers=has_bare)
    elif offload == "model":
        group = Turns(device)
        for network in networks:
            add_hook_to_module(network.to("cpu"), group, append=True)
    else:
        for network in networks:
            network.to(device)


class Turns(ModelHook):  # type: ignore[misc]
    """Moves the network that is called to the device, and the previous one back.

    accelerate's hook for this knows one predecessor per network; here they are called in any order: VAE, UNet, VAE.
    """

    no_grad = False  # the caller decides

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.resident: Any = None

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if self.resident is not module:
            if self.resident is not None:
                self.resident.to("cpu")
            module.to(self.device)
            self.resident = module
        return send_to_device(args, self.device), send_to_device(kwargs, self.device)
