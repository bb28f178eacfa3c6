"""Image sets as folders of contents: one part to train on, others to test with, and no image or near-copy in two of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.evidence import silhouettes
from stylebatch.data.images import Pixels, load_picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
ALIKE = 6
"""Photographs whose hashes differ in at most so many of 64 bits count as copies of one another."""


@dataclass(frozen=True)
class Shown:
    """One image: its path below the contents, its class, and the class that its texture stands for (-1: nothing known)."""

    path: str
    label: int
    hint: int = -1


@dataclass(frozen=True)
class ImageSet:
    """`unhinted`: the training images over again with textures that say nothing; what shapes alone can teach."""

    name: str
    contents: Path
    classes: tuple[str, ...]
    training: tuple[Shown, ...]
    tests: Mapping[str, tuple[Shown, ...]]
    unhinted: tuple[Shown, ...] = field(default=())

    def pixels(self, images: Iterable[Shown], size: int) -> Pixels:
        """(images, size, size, 3), uint8: the middle squares."""
        pictures = [load_picture(self.contents / one.path, size).pixels for one in images]
        return np.stack(pictures)


def cue_conflict(
    contents: Path, painter: silhouettes.Painter, num_training: int, num_tests: int, seed: int
) -> ImageSet:
    """Draw the silhouettes that are not there yet. Raises ValueError for numbers that classes do not divide."""
    training = silhouettes.training_examples(num_training, seed)
    parts = {
        "train": training,
        "unhinted": silhouettes.unhinted(training),
        "agree": silhouettes.examples_of_test(num_tests, seed, conflict=False),
        "conflict": silhouettes.examples_of_test(num_tests, seed, conflict=True),
    }
    classes = tuple(silhouettes.CLASSES)
    shown: dict[str, tuple[Shown, ...]] = {}
    for part, examples in parts.items():
        rows = []
        for example in examples:
            path = contents / part / classes[example.shape] / f"{example.name}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_suffix(".part")
                painter.draw(example).save(unfinished, "png")
                unfinished.rename(path)
            rows.append(
                Shown(path.relative_to(contents).as_posix(), example.shape, example.texture)
            )
        shown[part] = tuple(rows)
    tests = {"clean": shown["agree"], "conflict": shown["conflict"]}
    return ImageSet("cue", contents, classes, shown["train"], tests, shown["unhinted"])


def photographs(contents: Path, source: Path, test_share: float, seed: int) -> ImageSet:
    """Copy a folder of classes, so that near-copies of an image stay on one side. Raises ValueError for fewer than 2 classes."""
    classes = tuple(sorted(path.name for path in source.iterdir() if path.is_dir()))
    if len(classes) < 2:
        raise ValueError(
            f"{source}: {len(classes)} folders of a class; at least 2 are needed. Next: put the images of each class in a folder"
        )
    parts: dict[str, list[Shown]] = {"train": [], "test": []}
    for part, name, file in _split(source, classes, test_share, seed):
        path = contents / part / name / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            unfinished = path.with_suffix(".part")
            shutil.copyfile(file, unfinished)
            unfinished.rename(path)
        parts[part].append(Shown(path.relative_to(contents).as_posix(), classes.index(name)))
    for part, rows in parts.items():
        missing = set(range(len(classes))) - {row.label for row in rows}
        if missing:
            raise ValueError(
                f"{source}: class {classes[min(missing)]} has no image left for the part {part}. "
                "Next: add images, or leave the class out"
            )
    return ImageSet(
        "photographs",
        contents,
        classes,
        tuple(parts["train"]),
        {"clean": tuple(parts["test"])},
    )


def _split(
    source: Path, classes: Sequence[str], test_share: float, seed: int
) -> list[tuple[str, str, Path]]:
    """(part, class, file) of every image; groups of near-copies go to the test of each class until it has its share."""
    files = [
        (name, file)
        for name in classes
        for file in sorted((source / name).iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    groups = near_copies([perceptual_hash(file) for _, file in files])
    placed: dict[int, str] = {}
    for name in classes:
        own = [index for index, (other, _) in enumerate(files) if other == name]
        wanted = round(test_share * len(own))
        order = sorted({groups[index] for index in own})
        random.Random(f"{seed} {name}").shuffle(order)
        for group in order:
            members = [index for index in own if groups[index] == group]
            # a group with images of an earlier class has its place
            part = placed.setdefault(group, "test" if wanted > 0 else "train")
            wanted -= len(members) if part == "test" else 0
    return [(placed[groups[index]], name, file) for index, (name, file) in enumerate(files)]


def perceptual_hash(path: Path) -> int:
    """64 bits: whether each of 8 x 8 cells is brighter than its right neighbour. Raises ValueError for no readable image."""
    try:
        with Image.open(path) as picture:
            grey = picture.convert("L").resize((9, 8), Image.Resampling.BOX)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: no image that can be read ({error}). Next: take it away"
        ) from error
    cells = np.asarray(grey, dtype=np.int16)
    return int("".join("01"[int(bit)] for bit in (cells[:, :-1] > cells[:, 1:]).ravel()), 2)


def near_copies(hashes: Sequence[int]) -> list[int]:
    """A number per image, the same for images that a chain of near-copies joins."""
    known = np.array(hashes, dtype=np.uint64)
    group = np.arange(len(known))
    for late in range(1, len(known)):
        apart = np.bitwise_count(known[:late] ^ known[late])
        for other in np.unique(group[:late][apart <= ALIKE]):
            group[group == other] = group[late]
    return [int(one) for one in group]
