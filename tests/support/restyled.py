"""Rows whose input shows another picture than their target, and a training over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets

from stylebatch.training.spec import TrainSpec
from tests.support.images import picture


def write_rows(folder: Path, *, before: bool = True) -> Path:
    """Six pictures in two groups; the odd ones have a negative before their style."""
    folder.mkdir()
    pictures = [picture(seed) for seed in range(6)]
    rows: dict[str, Any] = {"image": pictures, "group": [i % 2 for i in range(6)]}
    features: dict[str, Any] = {"image": datasets.Image(), "group": datasets.Value("int64")}
    if before:
        rows["before"] = [
            p.point(lambda value: 255 - value) if i % 2 else None for i, p in enumerate(pictures)
        ]
        features["before"] = datasets.Image()
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    made.to_parquet(str(folder / "rows.parquet"))
    return folder


def restyling(data: Path, model: Path, out: Path, **unet: Any) -> TrainSpec:
    return TrainSpec.model_validate_json(
        json.dumps(
            {
                "stage": "unet",
                "model": {"path": str(model)},
                "data": {"path": str(data), "group": "group", "before": "before", "size": 32},
                "steps": 2,
                "batch": 4,
                "unet": unet,
                "validation": {"every": 2, "steps": 1, "count": 1, "prompts": [""]},
                "threads": 1,
                "output": str(out),
            }
        )
    )
