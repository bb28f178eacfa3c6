"""A picture of what classifiers are trained and tested with: a row for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stylebatch.data.images import Pixels

GAP, HEAD = 4, 18


def write_sheet(columns: Mapping[str, tuple[Pixels, Sequence[int]]], path: Path) -> None:
    """`columns`: name -> (images, their classes). Row k has of each column its k-th image of class k (counted around)."""
    side = next(iter(columns.values()))[0].shape[1]
    num_classes = 1 + max(int(max(labels)) for _, labels in columns.values())
    size = (len(columns) * (side + GAP), HEAD + num_classes * (side + GAP))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, (name, (images, labels)) in enumerate(columns.items()):
        left = column * (side + GAP)
        pen.text((left, 3), name, fill="black")
        for label in range(num_classes):
            own = np.flatnonzero(np.asarray(labels) == label)
            if len(own):
                one = Image.fromarray(images[own[label % len(own)]])
                sheet.paste(one, (left, HEAD + label * (side + GAP)))
    sheet.save(path, quality=90)
