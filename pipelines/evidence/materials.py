"""Textures and photographs of Debian packages with free licences, as folders that `python -m pipelines.evidence` takes.

    python -m pipelines.evidence.materials --packages PACKAGES --output MATERIALS

PACKAGES: where Debian packages are downloaded (apt-get download, 740 MB) and unpacked, without administrator rights. Every file stands in
MATERIALS/SOURCES.csv with its package, author and licence; the font is PACKAGES/fonts-noto-color-emoji/usr/share/fonts/truetype/noto/.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipelines.embedded.sources import Picture, fetch, pictures_of

PACKAGES = (
    *("gcompris-qt-data", "endless-sky-data", "supertuxkart-data"),
    "fonts-noto-color-emoji",
)
TEXTURES = (
    "tracks/ancient_colosseum_labyrinth/3td_BrickOldRound_01.jpg",
    "textures/wood_planks1.jpg",
    "tracks/black_forest/roof_3.jpg",
    "textures/rock_mountain.jpg",
    "textures/ceramic.jpg",
    "tracks/ancient_colosseum_labyrinth/wall.png",
)
"""Brick, planks, shingles, granite, plaster, rust: one per class of `silhouettes.CLASSES`, in order; none is a style."""
CLASSES = {
    "animal": r"explore_(farm|world)_animals/",
    "building": r"(images/monuments|explore_monuments)/",
    "fish": r"images/fishes/",
    "landscape": r"land/(beach|canyon|desert|fields|forest|hills|mountain|sea|valley)\d",
    "tool": r"images/tools/",
}
"""Photographs of a class by their paths in the packages."""
MOST = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    fetch(args.packages, PACKAGES)
    args.output.mkdir(parents=True, exist_ok=True)
    with (args.output / "SOURCES.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "package", "path", "author", "licence"))
        for name, picture in chosen(pictures_of(args.packages, PACKAGES[:3])):
            path = args.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.payload)
            table.writerow((name, picture.package, picture.path, picture.author, picture.licence))


def chosen(pictures: Iterator[Picture]) -> Iterator[tuple[str, Picture]]:
    """(name below the output, picture): the textures, and of each class the first `MOST`; none twice."""
    taken: Counter[str] = Counter()
    for picture in pictures:
        suffix = Path(picture.path).suffix
        if picture.path in TEXTURES:
            number = TEXTURES.index(picture.path)
            yield f"textures/{number}_{Path(picture.path).stem}{suffix}", picture
            continue
        for name, pattern in CLASSES.items():
            if picture.kind == "photo" and re.search(pattern, picture.path) and taken[name] < MOST:
                taken[name] += 1
                yield f"photographs/{name}/{picture.name}{suffix}", picture


if __name__ == "__main__":
    main()
