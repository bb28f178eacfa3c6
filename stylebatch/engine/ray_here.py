"""Whether Ray is installed: an extra, since one device or torchrun's ranks need none of it."""

from __future__ import annotations

from importlib.util import find_spec

from stylebatch.errors import ManifestError


def has_ray() -> bool:
    """Whether the package `ray` can be imported."""
    return find_spec("ray") is not None


def require_ray(asked: str, otherwise: str) -> None:
    """Raise ManifestError where Ray is missing. `asked`: what needs it; `otherwise`: what to do without it."""
    if not has_ray():
        raise ManifestError(
            f"{asked} needs the package ray, which is not installed. Next: pip install 'stylebatch[ray]', or {otherwise}"
        )
