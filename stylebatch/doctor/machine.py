"""Memory and devices of this machine."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from stylebatch.engine.chosen_device import APPLE_GPU
from stylebatch.usable_cores import usable_cores
from stylebatch.words import counted


@dataclass(frozen=True)
class Device:
    """A device that computes: its name, total bytes of memory and bytes free now."""

    name: str
    kind: str
    total_bytes: int
    free_bytes: int


def free_memory(device: torch.device) -> int:
    """Bytes free on a CUDA device, or available in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def devices() -> list[Device]:
    """Every accelerator, then the CPU."""
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Device(torch.cuda.get_device_name(index), "cuda", total, free))
    memory = psutil.virtual_memory()
    if torch.backends.mps.is_available():
        found.append(
            Device(f"{APPLE_GPU} (shares main memory)", "mps", memory.total, memory.available)
        )
    found.append(
        Device(
            f"CPU, {counted(usable_cores(), 'usable core')}",
            "cpu",
            memory.total,
            memory.available,
        )
    )
    return found
