"""Manifests over tables of images that are never opened, for tests of plans."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import yaml

CLASSES = ("cat", "dog", "")


def table(path: Path, names: list[str], **columns: list[str]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *columns])
        rows.writerows(zip(names, *columns.values(), strict=True))


def manifest(folder: Path, model: Path, **sections: Any) -> Path:
    document = {
        "contents": {"path": "contents.csv"}, "styles": {"path": "styles.csv"},
        "method": {"name": "styleid", "steps": 4}, "model": {"path": str(model)},
        "image": {"size": 64}, "output": {"path": str(folder / "out"), "shard_size": 7},
    } | sections  # fmt: skip
    path = folder / "run.yaml"
    kept = {name: value for name, value in document.items() if value is not None}
    path.write_text(yaml.safe_dump(kept))
    return path


def tables(folder: Path, contents: int, styles: int, seed: int = 0) -> None:
    names = [f"c{i}.jpg" for i in range(contents)]
    random.Random(seed).shuffle(names)
    table(folder / "contents.csv", names, label=[CLASSES[len(n) % 3] for n in names])
    table(folder / "styles.csv", [f"s{i}.jpg" for i in range(styles)])


PAIRINGS: dict[str, dict[str, Any]] = {
    "product": {},
    "zip": {"pairing": {"mode": "zip"}},
    "sample": {"pairing": {"mode": "sample", "per_content": 2}},
    "independent": {"pairing": {"mode": "sample", "pool": "independent", "per_content": 2}},
    "listed": {"pairing": {"mode": "explicit", "path": "pairs.csv"}},
    "in order": {"pairing": {"mode": "explicit", "path": "pairs.csv", "order": "listed"}},
    "images x prompts": {
        "styles": None,
        "method": {"name": "img2img", "steps": 2},
        "prompts": {"template": "a {look}", "values": {"look": ["one", "two", "three"]}},
    },
}
