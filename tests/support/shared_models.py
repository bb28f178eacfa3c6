"""Runs of one process share the models that they load, since loading a tiny one takes as long as rendering several samples."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stylebatch.engine import local_engine, measure, precompute
from stylebatch.models.loading import find_checkpoint, load_model
from stylebatch.models.model_section import ModelSpec


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
