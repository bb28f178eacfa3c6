"""Samples of an output and their pixels, read as anybody would read them."""

from __future__ import annotations

import glob
import io
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image


def samples_of(output: Path) -> list[dict[str, Any]]:
    tars = sorted(glob.glob(f"{output}/data/*.tar"))
    return list(webdataset.WebDataset(tars, shardshuffle=False))


def pixels_of(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
