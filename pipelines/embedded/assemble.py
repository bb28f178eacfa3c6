"""Writing the demo images, the training images and the card that lists where they come from."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipelines.embedded.sources import DEMO_CONTENTS, DEMO_STYLES, HELD_OUT, Picture

DEMO_SIDE = 256
TRAIN_SIDE = 288
HEAD = "| file | title / author | source package and path | licence |\n|---|---|---|---|\n"


def without_border(image: Image.Image, tolerance: float = 14.0) -> Image.Image:
    """Crop rows and columns at the edges that hardly vary (frames of scans)."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    # an image that would shrink below 64 px is not framed but plain
    rows = np.flatnonzero(grey.std(axis=1) > tolerance)
    columns = np.flatnonzero(grey.std(axis=0) > tolerance)
    if rows.size < 64 or columns.size < 64:
        return image
    return image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Scale so that the shorter side is at most ``side``; never enlarge."""
    ratio = side / min(image.size)
    if ratio >= 1:
        return image
    size = (round(image.width * ratio), round(image.height * ratio))
    return image.resize(size, Image.Resampling.LANCZOS)


def write_demo(pictures: Iterable[Picture], out: Path) -> int:
    """Write ``contents/<class>/<name>.jpg``, ``styles/<name>.jpg`` and ``SOURCES.md``."""
    lines = []
    for picture in pictures:
        key = (picture.package, picture.path)
        if key in DEMO_CONTENTS:
            target = f"contents/{DEMO_CONTENTS[key]}.jpg"
        elif key in DEMO_STYLES:
            target = f"styles/{DEMO_STYLES[key]}.jpg"
        else:
            continue
        image = picture.image()
        if target.endswith("starry_night.jpg"):  # a scan with a frame
            image = without_border(image)
        small = shrink(image, DEMO_SIDE)
        if max(small.size) > 1.6 * min(small.size):
            side = min(small.size)
            tall = (side, round(1.5 * side))
            small = ImageOps.fit(small, tall if small.height > side else tall[::-1])
        path = out / target
        path.parent.mkdir(parents=True, exist_ok=True)
        small.save(path, quality=90)
        title = f"{picture.caption} / {picture.author}"
        lines.append(f"| {target} | {title} | {picture.package}: {picture.path} | "
                     f"{picture.licence} |\n")  # fmt: skip
    text = (
        "# Sources of the demo images\n\nResized to 256 px on the shorter side and re-encoded. "
        "None of them was used to train the embedded model.\n\n"
    )
    (out / "SOURCES.md").write_text(text + HEAD + "".join(sorted(lines)))
    return len(lines)


def write_training(pictures: Iterable[Picture], out: Path, card: Path) -> int:
    """Write the training pictures, ``pictures.csv`` and the data card; demo pictures are skipped."""
    out.mkdir(parents=True, exist_ok=True)
    used: list[Picture] = []
    with (out / "pictures.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["file", "kind", "caption", "package", "path", "author", "licence"])
        for picture in pictures:
            # by origin, not by name: the demo must stay unseen
            if (picture.package, picture.path) in HELD_OUT:
                continue
            file = f"{len(used):04d}_{picture.name}.png"
            shrink(picture.image(), TRAIN_SIDE).save(out / file)
            origin = (picture.package, picture.path, picture.author, picture.licence)
            table.writerow([file, picture.kind, picture.caption, *origin])
            used.append(picture)
    write_card(used, card)
    return len(used)


def write_card(used: list[Picture], card: Path) -> None:
    """Summarise the training pictures by package and licence, then list every file."""
    totals = Counter((p.package, p.kind, p.licence) for p in used)
    lines = [
        "# Training data of the embedded model\n\n",
        f"{len(used)} pictures, all public domain, CC0 or CC-BY, plus procedural versions of them "
        "(strokes, dots, hatching, mosaic, posterising, canvas, recolouring) made by "
        "`pipelines/embedded/filters.py`. Pictures under GPL, LGPL, share-alike, non-commercial "
        "or unstated terms were left out, and so were the demo images. Licences are as stated by "
        "the package: in its machine-readable copyright file, or in notes beside the pictures.\n\n"
        "The endless-sky landscapes are stated to be public domain, from NASA, the USGS, the "
        "Library of Congress, and the photo collections unsplash.com and morguefile.com as of "
        "2018. Van Gogh died in 1890; the paintings are in the public domain.\n\n",
        "| package | kind | licence | pictures |\n|---|---|---|---|\n",
    ]
    lines += [f"| {a} | {b} | {c} | {n} |\n" for (a, b, c), n in sorted(totals.items())]
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in used:
        groups[picture.package].append(picture)
    for package, members in sorted(groups.items()):
        lines.append(f"\n## {package}\n\n| path | author | licence |\n|---|---|---|\n")
        lines += [
            f"| {p.path} | {p.author.replace('|', '/')} | {p.licence} |\n"
            for p in sorted(members, key=lambda p: p.path)
        ]
    card.write_text("".join(lines))
