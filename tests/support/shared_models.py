"""Runs of one process share what they load, since loading a tiny model takes as long as rendering several samples."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stylebatch.engine import local_engine, measure, precompute
from stylebatch.models.loading import find_checkpoint, load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet import weight_checks
from stylebatch.models.unet.unet_family import UNet


@functools.lru_cache(maxsize=4)
def _loaded(spec: ModelSpec, device: Any, _fingerprint: str) -> Any:
    return load_model(spec, device=device)


def load_once(spec: ModelSpec, *, device: Any = None) -> Any:
    """As `load_model`; the same model for the same files and options, which every worker leaves as it was."""
    if spec.compile != "off" or spec.offload != "none":  # these change the networks while they run
        return load_model(spec, device=device)
    return _loaded(spec, device, find_checkpoint(spec).fingerprint)


@contextmanager
def runs_share_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (local_engine, measure, precompute):
            patch.setattr(module, "load_model", load_once)
        yield


class _Described:
    """A family and its part, equal to others whose files say the same."""

    def __init__(self, family: UNet, part: str) -> None:
        fields = family.files.fields(part)
        self.family, self.part = family, part
        self.key = (part, fields.path.read_bytes(), repr(fields.values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Described) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@contextmanager
def checks_share_networks() -> Iterator[None]:
    """The networks without weights, by which checkpoints are checked, are built once for each config."""
    build = weight_checks.bare

    @functools.lru_cache(maxsize=64)
    def built(described: _Described) -> Any:
        return build(described.family, described.part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_checks, "bare", lambda family, part: built(_Described(family, part)))
        yield
