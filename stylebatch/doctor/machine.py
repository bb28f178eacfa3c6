"""Memory and devices of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch


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
            Device("Apple GPU (shares main memory)", "mps", memory.total, memory.available)
        )
    cores = usable_cores()
    found.append(
        Device(
            f"CPU, {cores} usable core{'s' if cores > 1 else ''}",
            "cpu",
            memory.total,
            memory.available,
        )
    )
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
    # os.cpu_count() counts the machine's cores, also in a container or under taskset.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
