"""stylebatch: image datasets to stylised training datasets. The public names; imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # `as` exports a name to type checkers
    from stylebatch.data.images import load_picture as load_picture
    from stylebatch.diffusers_pipelines.stylealigned_pipeline import (
        StyleAlignedPipeline as StyleAlignedPipeline,
    )
    from stylebatch.diffusers_pipelines.styleid_pipeline import StyleIDPipeline as StyleIDPipeline
    from stylebatch.engine.run import run as run
    from stylebatch.manifest import load_spec as load_spec
    from stylebatch.methods.builtin import METHODS as METHODS
    from stylebatch.methods.method import PairMethod as PairMethod
    from stylebatch.methods.method import PromptMethod as PromptMethod
    from stylebatch.methods.pixels import to_pixels as to_pixels
    from stylebatch.methods.pixels import to_tensor as to_tensor
    from stylebatch.methods.styleid.algorithm import StyleID as StyleID
    from stylebatch.models.denoiser import AttentionEdit as AttentionEdit
    from stylebatch.models.denoiser import Denoiser as Denoiser
    from stylebatch.models.loading import load_model as load_model
    from stylebatch.models.model_section import ModelSpec as ModelSpec
    from stylebatch.monitoring.status import status as status
    from stylebatch.planning.resolve import plan as plan
    from stylebatch.reports.report import report as report
    from stylebatch.spec import RunSpec as RunSpec

_HOMES = {
    "RunSpec": "spec",
    "ModelSpec": "models.model_section",
    "PairMethod": "methods.method",
    "PromptMethod": "methods.method",
    "load_spec": "manifest",
    "plan": "planning.resolve",
    "run": "engine.run",
    "report": "reports.report",
    "status": "monitoring.status",
    "load_model": "models.loading",
    "load_picture": "data.images",
    "to_tensor": "methods.pixels",
    "to_pixels": "methods.pixels",
    "StyleID": "methods.styleid.algorithm",
    "StyleIDPipeline": "diffusers_pipelines.styleid_pipeline",
    "StyleAlignedPipeline": "diffusers_pipelines.stylealigned_pipeline",
    "METHODS": "methods.builtin",
    "Denoiser": "models.denoiser",
    "AttentionEdit": "models.denoiser",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if (
        name == "__version__"
    ):  # pyproject.toml alone has the number; asked for late, since it reads the disk
        return importlib.import_module("stylebatch.store.versions").version_of("stylebatch")
    if name not in _HOMES:
        raise AttributeError(
            f"module 'stylebatch' has no attribute {name!r}; public names: {', '.join(_HOMES)}"
        )
    value = getattr(importlib.import_module(f"stylebatch.{_HOMES[name]}"), name)
    globals()[name] = value  # Python asks `__getattr__` only for missing names, so once
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, *(name for name in globals() if name.startswith("__"))])
