"""Styles that are weighted blends of images: rows of a styles table that share a name in the column `blend`.

    blend,path,weight
    dawn,monet.jpg,0.7
    dawn,hokusai.jpg,0.3
    ,carpet.jpg,

Two styles: the blend `dawn`, and carpet.jpg. A blend is one style of the grid, named as the column says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from stylebatch.data.sources.source import NOWHERE, Item, Part
from stylebatch.errors import ManifestError
from stylebatch.words import counted

TOLERANCE = 1e-6


@dataclass(frozen=True)
class BlendRow:
    """An image of a table with what its columns `blend` and `weight` say, "" where empty."""

    image: Item
    blend: str
    weight: str


def gather(rows: Iterable[BlendRow], where: str) -> Iterator[Item]:
    """Rows as styles, blends in the place of their first row. `where` names the table in errors.

    Raises ManifestError for a weight without a blend, weights that are no numbers above 0 or whose sum is not 1,
    an image twice in one blend, and a blend of one image.
    """
    styles: dict[str | int, Item] = {}
    for number, row in enumerate(rows, 1):
        found = f"{where}: row {number}: "
        if not row.blend:
            if row.weight:
                raise ManifestError(
                    f"{found}weight {row.weight} without a blend; accepted: a name in `blend`, or no weight"
                )
            # A number as key never meets the name of a blend.
            styles[number] = row.image
            continue
        part = Part(row.image.id, row.image.ref, _weight(row.weight, found))
        style = styles.get(row.blend)
        if style is None:
            styles[row.blend] = replace(
                row.image, id=row.blend, ref=NOWHERE, parts=(part,), extra={}
            )
            continue
        if part.id in {former.id for former in style.parts}:
            raise ManifestError(
                f"{found}{part.id!r} stands twice in blend {row.blend!r}; accepted: each image once"
            )
        licenses = [text for text in (style.license, row.image.license) if text]
        styles[row.blend] = replace(
            style,
            parts=(*style.parts, part),
            license=" and ".join(dict.fromkeys(licenses)),
        )
    # Rows of a blend may stand apart, so that its sum is known at the end alone.
    for style in styles.values():
        _check(style, where)
        yield style


def _weight(text: str, found: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    # NaN fails every comparison, hence the negation.
    if not 0.0 < weight <= 1.0:
        raise ManifestError(
            f"{found}weight: found {text!r}; accepted: a number above 0, at most 1, and the weights of a blend sum to 1"
        )
    return weight


def _check(style: Item, where: str) -> None:
    if not style.parts:
        return
    total = math.fsum(part.weight for part in style.parts)
    if len(style.parts) < 2 or abs(total - 1.0) > TOLERANCE:
        raise ManifestError(
            f"{where}: blend {style.id!r}: found {counted(len(style.parts), 'image')} with weights of sum {total:g}; accepted: two "
            "images or more, and weights of sum 1"
        )
