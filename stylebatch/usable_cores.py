"""How many cores this process may use: of a container or a batch job often fewer than the machine has."""

from __future__ import annotations

import os
from contextlib import suppress

QUOTA = "/sys/fs/cgroup/cpu.max"


def usable_cores() -> int:
    """By affinity (taskset, Slurm) and by the quota of the control group (Docker, Kubernetes); at least 1."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError), open(QUOTA, encoding="ascii") as file:
        quota, period = map(int, file.read().split())  # `max` for none
        cores = min(cores, -(-quota // period))
    return max(1, cores)
