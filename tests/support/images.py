"""Small structured pictures for tests, and a manifest over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image


def picture(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """Coloured waves with a bright disc: structure, colour and no two alike."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [
        np.sin(x / (4 + (seed * k) % 7) + k) + np.cos(y / (3 + (seed + k) % 5)) for k in (1, 2, 3)
    ]
    pixels = np.stack(waves, axis=-1) * 50 + 128
    disc = (x - width * (0.3 + 0.1 * (seed % 4))) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    pixels[disc] = (30 * seed % 256, 200, 255 - 40 * seed % 256)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_inputs(folder: Path, *, contents: int = 4, styles: int = 3) -> None:
    """`contents/CLASS/N.png` over two classes, and `styles/N.png`."""
    for index in range(contents):
        path = folder / "contents" / ("cat" if index % 2 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index).save(path)
    (folder / "styles").mkdir(exist_ok=True)
    for index in range(styles):
        picture(10 + index).save(folder / "styles" / f"{index}.png")


def write_manifest(folder: Path, model: Path, **changes: Any) -> Path:
    """A manifest of the inputs of `write_inputs`: 64 px, 4 steps, shards of 4."""
    data: dict[str, Any] = {
        "name": "waves",
        "contents": {"path": "contents"},
        "styles": {"path": "styles"},
        "method": {"name": "styleid", "steps": 4},
        "model": {"path": str(model)},
        "image": {"size": 64},
        "output": {"path": str(folder / "out"), "shard_size": 4},
        "engine": {"name": "local", "threads": 1, "batch": 4},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    return path
