"""stylebatch: image datasets to stylised training datasets. The public names; imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylebatch.data.images import load_picture as load_picture
    from stylebatch.data.plan import plan as plan
    from stylebatch.engine.run import run as run
    from stylebatch.manifest import load_spec as load_spec
    from stylebatch.methods import METHODS as METHODS
    from stylebatch.methods.pixels import to_pixels as to_pixels
    from stylebatch.methods.pixels import to_tensor as to_tensor
    from stylebatch.methods.styleid import StyleID as StyleID
    from stylebatch.models.base import AttentionEdit as AttentionEdit
    from stylebatch.models.base import Denoiser as Denoiser
    from stylebatch.models.stable_diffusion import load_model as load_model
    from stylebatch.reports.report import report as report
    from stylebatch.spec import ModelSpec as ModelSpec
    from stylebatch.spec import PromptMethod as PromptMethod
    from stylebatch.spec import RunSpec as RunSpec

_HOMES = {
    "RunSpec": "spec",
    "ModelSpec": "spec",
    "PromptMethod": "spec",
    "load_spec": "manifest",
    "plan": "data.plan",
    "run": "engine.run",
    "report": "reports.report",
    "load_model": "models.stable_diffusion",
    "load_picture": "data.images",
    "to_tensor": "methods.pixels",
    "to_pixels": "methods.pixels",
    "StyleID": "methods.styleid",
    "METHODS": "methods",
    "Denoiser": "models.base",
    "AttentionEdit": "models.base",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'stylebatch' has no attribute {name!r}; public names: {', '.join(_HOMES)}"
        )
    value = getattr(importlib.import_module(f"stylebatch.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
