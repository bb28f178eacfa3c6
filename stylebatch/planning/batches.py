"""Rows of one network evaluation, and pictures of one pass of the autoencoder, within the memory for activations."""

from __future__ import annotations

from stylebatch.models.family import Memory
from stylebatch.spec import RunSpec

DEFAULT_BATCH_GB = 4.0


def value_bytes(spec: RunSpec) -> int:
    """Bytes of one number of the network, as far as the manifest tells."""
    return 2 if spec.model.dtype in ("float16", "bfloat16") else 4


def batch_rows(spec: RunSpec, memory: Memory, batch_gb: float | None = None) -> int:
    """Rows of one network evaluation: at most `engine.batch`, within the memory for activations.

    `batch_gb`: GiB where the manifest names none.
    """
    return max(1, min(spec.engine.batch, rows_at_once(spec, memory, batch_gb)))


def rows_at_once(spec: RunSpec, memory: Memory, batch_gb: float | None = None) -> int:
    """Rows whose activations fit in memory; `batch_gb` as in `batch_rows`."""
    return int(_budget(spec, batch_gb) // memory.row)


def batch_pictures(spec: RunSpec, memory: Memory, batch_gb: float | None = None) -> int:
    """Pictures that the autoencoder encodes or decodes at once, within the same memory; as `batch_rows`."""
    return max(1, min(spec.engine.batch, int(_budget(spec, batch_gb) // memory.picture)))


def _budget(spec: RunSpec, batch_gb: float | None) -> float:
    """Bytes for activations."""
    # a plan without a device must not depend on the machine that plans: it takes the default
    return (spec.engine.batch_gb or batch_gb or DEFAULT_BATCH_GB) * 2**30
