"""The stylised contents: a manifest with a list of pairs, a run of stylebatch, and a DataLoader over its output."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
import yaml
from PIL import Image
from torch.utils.data import DataLoader

from pipelines.evidence.image_sets import ImageSet, Shown
from pipelines.evidence.mixtures import style_numbers
from stylebatch.data.images import Pixels

Pair = tuple[str, str]
"""Content and style, by their paths below the two folders."""
OURS = ("name", "contents", "styles", "prompts", "pairing", "output", "split")
"""Sections that an experiment writes itself, whatever a base manifest has there."""
SHARD = 64
"""Samples of a shard, about a minute of one core with the embedded model: what an interruption costs at most."""


@dataclass(frozen=True)
class Styles:
    """Styles of the training, and others that only the test shows; paths below `folder`."""

    folder: Path
    training: tuple[str, ...]
    unseen: tuple[str, ...]


OPTIONS = {"training": "styles", "unseen": "unseen"}


class RenderingError(Exception):
    """The run did not render what the experiment needs; `exit_code` is the run's own, as far as it has one."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def collect(folder: Path, training: Sequence[Path], unseen: Sequence[Path]) -> Styles:
    """Copy the images of folders into one. Raises ValueError where one part has no image, or both have the same."""
    found: dict[str, list[str]] = {"training": [], "unseen": []}
    known: dict[bytes, str] = {}
    for part, sources in (("training", training), ("unseen", unseen)):
        for file in sorted(path for source in sources for path in source.iterdir()):
            if file.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
                continue
            data = file.read_bytes()
            if known.setdefault(data, part) != part:
                raise ValueError(
                    f"{file}: a style of the training too. Next: take it out of one of the two"
                )
            path = folder / part / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path)
            found[part].append(f"{part}/{file.name}")
        if not found[part]:
            raise ValueError(
                f"{', '.join(map(str, sources))}: no image. Next: name a folder of images for --{OPTIONS[part]}"
            )
    return Styles(folder, tuple(found["training"]), tuple(found["unseen"]))


def training_pairs(images: ImageSet, styles: Styles, num_styles: int) -> list[Pair]:
    """The style that each training content meets where so many styles are in use: the first ones."""
    numbers = style_numbers([one.label for one in images.training], num_styles)
    return [
        (one.path, styles.training[number])
        for one, number in zip(images.training, numbers, strict=True)
    ]


def pairs_of_test(images: ImageSet, styles: Styles, most: int) -> dict[Shown, Pair]:
    """At most so many images of the clean test, of all classes in turn, each with one unseen style."""
    clean = images.tests["clean"]
    seen: Counter[int] = Counter()
    rank = []
    for one in clean:
        rank.append(seen[one.label])
        seen[one.label] += 1
    chosen = sorted(sorted(range(len(clean)), key=lambda n: (rank[n], clean[n].label))[:most])
    numbers = style_numbers([clean[n].label for n in chosen], len(styles.unseen))
    return {
        clean[n]: (clean[n].path, styles.unseen[number])
        for n, number in zip(chosen, numbers, strict=True)
    }


def manifest(
    images: ImageSet, styles: Styles, pairs: Sequence[Pair], base: Mapping[str, Any]
) -> Path:
    """Write the manifest and its pairs beside the contents; `base` has method, model and whatever else it likes."""
    folder = images.contents.parent
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(("content", "style"))
    table.writerows(sorted(set(pairs)))
    (folder / "pairs.csv").write_text(rows.getvalue(), encoding="utf-8")
    document = {
        **{key: value for key, value in base.items() if key not in OURS},
        "name": f"evidence-{images.name}",
        # contents/PART/CLASS/NAME
        "contents": {"path": str(images.contents.resolve()), "label_from": 2},
        "styles": {"path": str(styles.folder.resolve())},
        "pairing": {"mode": "explicit", "path": str((folder / "pairs.csv").resolve())},
        "output": {"path": str((folder / "rendered").resolve()), "shard_size": SHARD},
    }
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def render(path: Path, options: Sequence[str]) -> Path:
    """Run or continue the manifest; where its output is. Raises RenderingError."""
    command = [sys.executable, "-m", "stylebatch", "run", str(path), *options]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise RenderingError(
            f"{path}: stylebatch run ended with {code}; what it said stands above. Next: mend that and start again, "
            "which goes on from what is rendered; a folder of other settings needs another --output",
            # a negative one names a signal
            code if code > 0 else 128 - code,
        )
    return path.parent / "rendered"


def read(output: Path, pairs: Sequence[Pair], size: int) -> dict[Pair, Pixels]:
    """The rendered pairs, (size, size, 3) uint8 each. Raises RenderingError where one is missing."""
    shards = sorted(str(path) for path in (output / "data").glob("*.tar"))
    found: dict[Pair, Pixels] = {}
    if shards:  # webdataset wants one at least
        samples = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        loader: DataLoader[Any] = DataLoader(samples.map(lambda one: _decoded(one, size)), None)
        found.update(_wanted(loader, set(pairs)))
    missing = [pair for pair in pairs if pair not in found]
    if missing:
        raise RenderingError(
            f"{output}: {len(missing)} of {len(pairs)} pairs are missing, first {' with '.join(missing[0])}; without them numbers "
            f"of images would differ. Next: see {output}/metadata/errors.parquet and leave those images out"
        )
    return found


def _wanted(samples: Any, pairs: set[Pair]) -> Iterator[tuple[Pair, Pixels]]:
    for content, style, pixels in samples:
        if (content, style) in pairs:
            yield (content, style), np.asarray(pixels)


def _decoded(sample: Mapping[str, Any], size: int) -> tuple[str, str, Pixels]:
    record = json.loads(sample["json"])
    with Image.open(io.BytesIO(sample["jpg"])) as picture:
        small = picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return (
        record["content_id"],
        record["style_id"],
        np.array(small),
    )  # torch wants a copy to write in
