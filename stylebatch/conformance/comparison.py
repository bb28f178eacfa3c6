"""Compares the tensors that a case expects with those that were computed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Comparison:
    """One compared tensor. `rel_l2` is None where only the absolute difference counts."""

    name: str
    max_abs: float
    max_abs_tolerance: float | None
    rel_l2: float | None
    rel_l2_tolerance: float | None
    unit: str = ""

    @property
    def ok(self) -> bool:
        absolute = self.max_abs_tolerance is None or self.max_abs <= self.max_abs_tolerance
        return absolute and (
            self.rel_l2_tolerance is None
            or (self.rel_l2 is not None and self.rel_l2 <= self.rel_l2_tolerance)
        )

    def line(self) -> str:
        parts = [
            f"max abs {self.max_abs:.2e}{self.unit}"
            + ("" if self.max_abs_tolerance is None else f" (tolerance {self.max_abs_tolerance:g})")
        ]
        if self.rel_l2_tolerance is not None:
            parts.append(f"rel l2 {self.rel_l2:.2e} (tolerance {self.rel_l2_tolerance:g})")
        return f"{self.name}: {', '.join(parts)}: {'ok' if self.ok else 'FAILED'}"


def compare(
    folder: Path, options: dict[str, Any], found: dict[str, Tensor]
) -> Iterator[Comparison]:
    """Compare every tensor that has a tolerance; a missing one differs by infinity."""
    # Latents that the paper's code encoded are inputs of the case, and expected of our encoder.
    expected = load_file(folder / "expected.safetensors") | {
        k: v for k, v in load_file(folder / "inputs.safetensors").items() if k.endswith("/z0")
    }
    for name, want in sorted(expected.items()):
        tolerance = next(
            (
                t
                for pattern, t in options["tolerances"].items()
                if fnmatch.fnmatchcase(name, pattern)
            ),
            None,
        )
        if not tolerance:
            continue
        got = found.get(name)
        if got is None or got.shape != want.shape:
            yield Comparison(
                name, float("inf"), tolerance.get("max_abs"), float("inf"), tolerance.get("rel_l2")
            )
            continue
        # in float64: the norm of a large float32 tensor would lose more than the tolerance
        difference = got.double() - want.double()
        rel = float(difference.norm() / want.double().norm()) if "rel_l2" in tolerance else None
        yield Comparison(
            name,
            float(difference.abs().max()),
            tolerance.get("max_abs"),
            rel,
            tolerance.get("rel_l2"),
        )
