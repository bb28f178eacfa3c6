"""From pictures to training crops: plain crops, and crops rendered in procedural styles.

1. Every picture gives crops of 128 px at several scales; paintings and textures give more.
2. Every procedural style is applied to crops of several photographs.
3. A crop has the id of its *group*: the painting or texture it comes from, or its style. Two members of a group
   share a look, not a content. Crops of a photograph share content, not style, so each is its own group.
4. In groups of several members, each crop has a counterpart *before* its style: the photograph that was rendered, or
   the same crop in another look. With it a network learns to take the look from its partner's keys and values.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.embedded import filters

SIDE = 128
ALIKE = ("painting", "texture")
"""Kinds of picture whose crops share a look."""
PHOTOGRAPH_BEFORE = 0.65
"""Share of styled crops that come from the photograph itself, not from another style of it."""
CROPS = {"photo": 7, "painting": 120, "texture": 24, "drawing": 6}
STYLE_WORDS = {
    "strokes": "brush strokes", "swirl": "swirling paint", "dots": "dots of paint",
    "hatch": "ink hatching", "mosaic": "mosaic tiles", "poster": "poster colours",
    "canvas": "paint on canvas", "plain": "tinted colours",
}  # fmt: skip
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """Crops (n, 128, 128, 3) uint8, the same before their style, the group of each, and its caption."""

    pixels: Bytes
    before: Bytes
    groups: NDArray[np.int64]
    captions: Sequence[str]

    def save(self, folder: Path) -> Path:
        """Write one Parquet file that `stylebatch train` reads: image, before, text, group."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = datasets.Dataset.from_dict(
            {
                "image": [{"bytes": _png(crop), "path": None} for crop in self.pixels],
                "before": [{"bytes": _png(crop), "path": None} for crop in self.before],
                "text": list(self.captions),
                "group": self.groups.tolist(),
            },
            features=datasets.Features(
                image=datasets.Image(),
                before=datasets.Image(),
                text=datasets.Value("string"),
                group=datasets.Value("int64"),
            ),
        )
        path = folder / "train-00000.parquet"
        rows.to_parquet(str(path))
        return path


def _png(pixels: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def random_crop(image: Image.Image, rng: np.random.Generator) -> Bytes:
    """A square of 55-100 % of the shorter side, resized to 128 px, mirrored half the time."""
    side = int(min(image.size) * rng.uniform(0.55, 1.0))
    left = int(rng.integers(0, image.width - side + 1))
    top = int(rng.integers(0, image.height - side + 1))
    box = (left, top, left + side, top + side)
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(small)
    return np.ascontiguousarray(pixels[:, ::-1] if rng.random() < 0.5 else pixels)


def _other_look(crop: Bytes, rng: np.random.Generator) -> Bytes:
    """The crop without its fine texture and colours: smoothed and tinted, or in a random style."""
    image = crop.astype(np.float32) / 255
    style = filters.draw_style(rng)
    if rng.random() < 0.5:
        smooth = ndimage.median_filter(image, (5, 5, 1))
        return (np.clip(filters.recolour(smooth, style), 0, 1) * 255).astype(np.uint8)
    return (filters.apply(style, image, rng) * 255).astype(np.uint8)


# Streams are [purpose, number]: a crop depends neither on the number of processes nor on other pictures.
def _plain(job: tuple[Path, str, int]) -> tuple[Bytes, Bytes]:
    path, kind, seed = job
    rng = np.random.default_rng([11, seed])
    with Image.open(path) as picture:
        image = picture.convert("RGB")
    crops = np.stack([random_crop(image, rng) for _ in range(CROPS[kind])])
    if kind not in ALIKE:
        return crops, crops
    return crops, np.stack([_other_look(crop, rng) for crop in crops])


def _styled(job: tuple[int, list[Path]]) -> tuple[str, Bytes, Bytes]:
    seed, paths = job
    rng = np.random.default_rng([23, seed])
    style = filters.draw_style(rng)
    rendered, before = [], []
    for path in paths:
        with Image.open(path) as picture:
            crop = random_crop(picture.convert("RGB"), rng)
        image = crop.astype(np.float32) / 255
        rendered.append((filters.apply(style, image, rng) * 255).astype(np.uint8))
        before.append(crop if rng.random() < PHOTOGRAPH_BEFORE else _other_look(crop, rng))
    return STYLE_WORDS[style.kind], np.stack(rendered), np.stack(before)


def build(pictures: Path, styles: int, per_style: int, workers: int = 2) -> Crops:
    """Make all crops from the folder that ``assemble_tiny_data`` wrote."""
    with (pictures / "pictures.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    rng = np.random.default_rng(5)
    photos = [pictures / row["file"] for row in rows if row["kind"] == "photo"]
    jobs = [
        (seed, [photos[i] for i in rng.choice(len(photos), per_style)]) for seed in range(styles)
    ]
    pixels: list[Bytes] = []
    sources: list[Bytes] = []
    groups: list[int] = []
    captions: list[str] = []

    def add(crops: Bytes, before: Bytes, caption: str, *, alike: bool) -> None:
        first = groups[-1] + 1 if groups else 0
        pixels.append(crops)
        sources.append(before)
        groups.extend([first] * len(crops) if alike else range(first, first + len(crops)))
        captions.extend([caption] * len(crops))

    with Pool(workers) as pool:
        # imap keeps the order, so that the file is the same for any number of workers
        plain = [(pictures / row["file"], row["kind"], i) for i, row in enumerate(rows)]
        for row, (crops, before) in zip(rows, pool.imap(_plain, plain, chunksize=8), strict=True):
            add(crops, before, row["caption"], alike=row["kind"] in ALIKE)
        for look, crops, before in pool.imap(_styled, jobs, chunksize=2):
            add(crops, before, f"a painting in the style of {look}", alike=True)
    together = np.concatenate
    return Crops(together(pixels), together(sources), np.array(groups, dtype=np.int64), captions)
