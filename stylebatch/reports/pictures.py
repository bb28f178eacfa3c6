"""Loads what reports draw: results and inputs, scaled down, each input once; and the short names under them."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.pixel_memory import Pixels
from stylebatch.reports.committed import Row, damaged, read_samples, result_member
from stylebatch.store.names import metadata_file

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UNDECODABLE = (OSError, ValueError, SyntaxError, LookupError, Image.DecompressionBombError)
"""What Pillow raises for bytes that are no picture, or not all of one."""

Box = tuple[int, int]
"""The most pixels that a picture may be wide and high."""


@dataclass
class Pictures:
    """Results by key, inputs by kind and id (absent when the output stores none)."""

    results: dict[str, Image.Image] = field(default_factory=dict)
    inputs: dict[str, dict[str, Image.Image]] = field(
        default_factory=lambda: {axis.name: {} for axis in INPUT_KINDS}
    )


@dataclass(frozen=True)
class Wanted:
    """A row to be drawn, and how large its pictures may be."""

    row: Row
    box: Box


def load_pictures(output: Folder, wanted: Iterable[Wanted]) -> Pictures:
    """Pictures of the rows that succeeded, scaled down (never up). One that is wanted twice gets the larger of each side."""
    rows: dict[str, Row] = {}
    boxes: dict[str, Box] = {}
    shards: dict[str, dict[str, Row]] = {}
    for one in wanted:
        key = one.row["key"]
        if one.row["status"] == "success":
            rows[key] = shards.setdefault(one.row["shard"], {})[key] = one.row
            (wide, high), (other, height) = one.box, boxes.get(key, one.box)
            boxes[key] = max(wide, other), max(high, height)
    pictures = Pictures()
    for key, members in read_samples(output, shards):
        row, box = rows[key], boxes[key]
        try:
            pictures.results[key] = _thumbnail(result_member(members), box)
            for axis in INPUT_KINDS:
                name, into = row.get(axis.column), pictures.inputs[axis.name]
                # the first sample that holds an input gives its picture; the others hold the same
                # no name: of an original, which has no style
                if name and name not in into and axis.member in members:
                    into[name] = _thumbnail(members[axis.member], box)
        except UNDECODABLE as error:
            raise damaged(output, f"data/sample {key}", str(error)) from None
    for name, keys in shards.items():
        for key in keys:
            if key not in pictures.results:
                raise damaged(output, metadata_file(name), f"found no files of sample {key}")
    return pictures


def decoded(data: bytes) -> Pixels:
    """The stored picture, (H, W, 3) uint8. Raises one of UNDECODABLE."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _thumbnail(data: bytes, box: Box) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    # JPEG alone: decoded at 1/2, 1/4 or 1/8, never below the box
    opened.draft("RGB", box)
    image = opened.convert("RGB")
    image.thumbnail(box, Image.Resampling.LANCZOS)
    return image


def short_names(ids: Iterable[str]) -> dict[str, str]:
    """File stem of each id, or the id where a stem is shared. Control characters become spaces."""
    stems = {name: PurePosixPath(name).stem for name in ids}
    # a/sea.jpg and b/sea.jpg would both be `sea`
    shared = Counter(stems.values())
    names = {name: stem if shared[stem] == 1 else name for name, stem in stems.items()}
    return {name: CONTROL.sub(" ", shown) for name, shown in names.items()}
