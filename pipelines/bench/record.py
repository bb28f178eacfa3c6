"""Records benchmarks: figures with units and targets, facts of the machine, one JSON file."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch


class BenchmarkError(RuntimeError):
    """A part could not measure what it should."""


class SkippedError(BenchmarkError):
    """A part was left out on purpose: there was no time for it, or the machine lacks what it measures."""


@dataclass(frozen=True)
class Figure:
    """One number. `sense` says on which side of `target` it should lie."""

    name: str
    value: float
    unit: str
    target: float | None = None
    sense: Literal[">=", "<="] = ">="

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.sense == ">=" else self.value <= self.target

    def line(self) -> str:
        """Name, value, unit and target as a line of text."""
        text = f"  {self.name:<64} {self.value:>12.5g} {self.unit}"
        if self.target is not None:
            text += f"   [{self.sense} {self.target:g}: {'met' if self.is_met else 'MISSED'}]"
        return text

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "sense": self.sense,
            "met": self.is_met,
        }


@dataclass(frozen=True)
class Outcome:
    """Figures of one part, and the conditions of the measurement."""

    figures: tuple[Figure, ...]
    conditions: Mapping[str, Any]
    text: str = ""

    def require_sound(self) -> None:
        """Raise BenchmarkError when there is no figure, one is not finite, or a ratio is not above 0."""
        if not self.figures:
            raise BenchmarkError("measured nothing")
        for figure in self.figures:
            if not math.isfinite(figure.value) or (figure.unit == "x" and figure.value <= 0):
                raise BenchmarkError(
                    f"{figure.name}: {figure.value} {figure.unit} is no measurement"
                )


@dataclass(frozen=True)
class Size:
    """How much to measure. `is_quick`: seconds in all, for the tests; its figures mean nothing."""

    is_quick: bool = False
    threads: int = 1

    def of(self, full: int, quick: int) -> int:
        """A count at this size."""
        return quick if self.is_quick else full


Part = Callable[[Size], Outcome]


def machine() -> dict[str, Any]:
    """Facts that the figures depend on."""
    return {
        "cores": os.cpu_count() or 1,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
    }


def measure(
    parts: Mapping[str, Part],
    size: Size,
    path: Path,
    *,
    say: Callable[[str], None],
    about: Mapping[str, Any] | None = None,
) -> list[str]:
    """Run the parts in order, print and record their figures in `path`; what failed, one line each.

    A part that fails does not keep the others from running. The file is written after each part. `about`: further facts of the
    machine. That every part was skipped is a failure.
    """
    failures = [] if parts else ["no part was chosen: measured nothing"]
    facts = {**machine(), **(about or {})}
    record: dict[str, Any] = {"quick": size.is_quick, "machine": facts, "parts": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        say(f"{name}:")
        started = time.perf_counter()
        try:
            outcome = part(size)
            outcome.require_sound()
        except SkippedError as reason:
            say(f"  skipped: {reason}")
            record["parts"][name] = {"skipped": str(reason)}
        except Exception as error:  # noqa: BLE001 - the other parts still run, and the exit code is not 0
            failures.append(f"{name} did not run: {error.__class__.__name__}: {error}")
            say(f"  FAILED: {error}")
            record["parts"][name] = {"error": str(error)}
        else:
            say("\n".join(figure.line() for figure in outcome.figures))
            if outcome.text:
                say(outcome.text)
            record["parts"][name] = {
                "seconds": round(time.perf_counter() - started, 3),
                "conditions": dict(outcome.conditions),
                "figures": [figure.as_json() for figure in outcome.figures],
            }
        # after each part: an hour of figures must not depend on the last one
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if parts and all("skipped" in part for part in record["parts"].values()):
        failures.append("every part was skipped: measured nothing")
    return failures
