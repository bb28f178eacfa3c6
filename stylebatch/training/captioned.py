"""Captioned training images from a folder, WebDataset tars or Parquet, through Hugging Face `datasets`.

1. `datasets` reads the container and keeps images encoded; `stylebatch.data.images` decodes them (upright, RGB).
2. A caption comes from the caption column, else from the template and the class.
3. A crop is a square of `min_scale`..1 of the shorter side, resized to `size`; the caller's stream places it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from numpy.typing import NDArray
from PIL import Image

from stylebatch.data.images import Pixels
from stylebatch.data.pictures.decoding import decode
from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.reading import read_picture
from stylebatch.data.sources.local import LocalFiles
from stylebatch.errors import ManifestError
from stylebatch.training.spec import TrainData

CAPTIONS = ("text", "caption", "txt")
LABELS = ("label", "cls", "class")


@dataclass(frozen=True)
class Captioned:
    """Rows of encoded images with captions and groups; `crop` decodes one."""

    data: TrainData
    rows: datasets.Dataset
    image: str
    captions: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    before: str | None
    fingerprint: str

    def __len__(self) -> int:
        return len(self.rows)

    def crop(self, row: int, rng: np.random.Generator) -> Pixels:
        """A training crop (size, size, 3) of one row. Raises SampleError if it is no image."""
        return self._crop(row, self.image, rng)

    def crop_before(self, row: int, rng: np.random.Generator) -> Pixels:
        """The same crop of the picture before it was styled, or of the image itself if there is none."""
        has_before = self.before is not None and self.rows[row][self.before] is not None
        return self._crop(row, self.before if has_before and self.before else self.image, rng)

    def _crop(self, row: int, column: str, rng: np.random.Generator) -> Pixels:
        cell = self.rows[row][column]
        where = f"{self.data.path}: row {row}"
        data = cell["bytes"]
        if data is None:  # an image folder: `datasets` keeps paths
            files = LocalFiles(self.data.path, "data")
            data = read_picture(files, files.ref(cell["path"]), where)
        return random_crop(decode(data, where), self.data, rng)


def random_crop(image: Image.Image, data: TrainData, rng: np.random.Generator) -> Pixels:
    """A square window of `image`, Lanczos-resized to `data.size`, mirrored half the time if `data.flip`."""
    # `crop` and `crop_before` are given equal streams: the same draws place the same crop.
    side = max(1, round(min(image.size) * rng.uniform(data.min_scale, 1.0)))
    left = int(rng.integers(0, image.width - side + 1))
    top = int(rng.integers(0, image.height - side + 1))
    box = (left, top, left + side, top + side)
    # `box` resizes straight from the full picture; a crop first would blur its border
    small = image.resize((data.size, data.size), Image.Resampling.LANCZOS, box=box)
    pixels: NDArray[np.uint8] = np.asarray(small)
    return np.ascontiguousarray(pixels[:, ::-1] if data.flip and rng.random() < 0.5 else pixels)


def read(data: TrainData, cache: Path) -> Captioned:
    """Open the training images; `cache` is where `datasets` keeps its Arrow files.

    Raises ManifestError, naming `data`, for a path without images, a missing column, or unequal files.
    """
    builder, files = _files(data)
    where = f"data.path: {data.path}"
    # both are settings of the whole process; `datasets` offers no others
    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        source: dict[str, Any] = {"data_dir": data.path} if files is None else {"data_files": files}
        rows = datasets.load_dataset(builder, split="train", cache_dir=str(cache), **source)
    except (ValueError, OSError, DatasetGenerationError, DatasetNotFoundError) as error:
        cause = error.__cause__ or error  # DatasetGenerationError itself says nothing
        raise ManifestError(
            f"{where}: cannot be read as {builder}: {str(cause).splitlines()[0]}"
        ) from error
    if len(rows) == 0:
        raise ManifestError(f"{where}: found no rows; accepted: at least one image")
    image = _image_column(rows, "image", data.image, data.path)
    # Encoded: `datasets` would decode with its own rules (no orientation, no colour profile), and hold all pixels.
    rows = rows.cast_column(image, datasets.Image(decode=False))
    before = None
    if data.before is not None:
        before = _image_column(rows, "before", data.before, data.path)
        rows = rows.cast_column(before, datasets.Image(decode=False))
    captions, groups = _captions(rows, data), _groups(rows, data)
    return Captioned(data, rows, image, captions, groups, before, str(rows._fingerprint))


def _files(data: TrainData) -> tuple[str, list[str] | None]:
    path = Path(data.path)
    if path.is_file():
        builder = {".parquet": "parquet", ".tar": "webdataset"}.get(path.suffix.lower())
        if builder is not None:
            return builder, [str(path)]
    elif path.is_dir():
        for suffix, builder in ((".parquet", "parquet"), (".tar", "webdataset")):
            if found := sorted(str(file) for file in path.glob(f"*{suffix}")):
                return builder, found
        if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
            return "imagefolder", None
    raise ManifestError(
        f"data.path: found {str(path)!r}, {'which holds no images' if path.exists() else 'which does not exist'}; "
        "accepted: an image folder, .parquet files, or WebDataset .tar files"
    )


def _image_column(rows: datasets.Dataset, field: str, name: str | None, path: str) -> str:
    images = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    structs = [name for name, kind in rows.features.items() if isinstance(kind, dict) and set(kind) == {"bytes", "path"}]  # fmt: skip
    accepted = images + structs
    wanted = name or (accepted[0] if accepted else None)
    if wanted not in accepted:
        raise ManifestError(
            f"data.{field}: found {name or 'no image column'}; accepted in {path}: "
            f"{', '.join(accepted) or 'none of its columns: ' + ', '.join(rows.column_names)}"
        )
    return str(wanted)


def _column(rows: datasets.Dataset, field: str, wanted: str) -> list[Any]:
    if wanted not in rows.column_names:
        raise ManifestError(
            f"data.{field}: found {wanted!r}, which is no column; accepted: {', '.join(rows.column_names)}"
        )
    return list(rows[wanted])


def _captions(rows: datasets.Dataset, data: TrainData) -> tuple[str, ...]:
    name = data.caption or next((c for c in CAPTIONS if c in rows.column_names), None)
    if name is not None:
        values = _column(rows, "caption", name)
        return tuple(v.decode() if isinstance(v, bytes) else str(v or "") for v in values)
    label = next((c for c in LABELS if c in rows.column_names), None)
    if label is None:
        return ("",) * len(rows)
    kind, values = rows.features[label], list(rows[label])
    if isinstance(kind, datasets.ClassLabel):
        values = [kind.int2str(v) if v is not None else "" for v in values]
    return tuple(data.template.replace("{label}", str(v)) for v in values)


def _groups(rows: datasets.Dataset, data: TrainData) -> tuple[tuple[int, ...], ...]:
    if data.group is None:
        return ()
    members: dict[Any, list[int]] = defaultdict(list)
    for row, group in enumerate(_column(rows, "group", data.group)):
        members[group].append(row)
    return tuple(tuple(m) for m in members.values())


def stack(crops: Sequence[Pixels]) -> NDArray[np.float32]:
    """Crops (n, h, w, 3) uint8 as float32 (n, 3, h, w) in [-1, 1]."""
    return np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
