"""Versions of what makes an output, as run.json records them."""

from __future__ import annotations

import importlib.metadata
import platform

_LIBRARIES = (
    "stylebatch",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "pillow",
    "pyarrow",
)


def versions() -> dict[str, str]:
    """By name, of Python and of the libraries that change bytes."""
    return {
        "python": platform.python_version(),
        **{name: version_of(name) for name in _LIBRARIES},
    }


def version_of(package: str) -> str:
    """The installed version, `unknown` where the package is used from a folder."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
