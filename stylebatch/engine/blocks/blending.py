"""From the pictures of a group to what the network inverts: each image once, and styles as mixtures of them; masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.data.images import Component, Picture
from stylebatch.methods.styleid.block_pairs import Mixture


def components(
    pictures: Mapping[int, Picture], names: Sequence[str]
) -> tuple[list[list[Component]], list[Mixture]]:
    """The images that a group of styles is made of, each once and those of one size together, and each style as rows of them all, in
    the group's order.

    `names`: of all styles of the run, by index.
    """
    parts = [
        picture.components or (Component(names[index], picture.pixels, 1.0),)
        for index, picture in pictures.items()
    ]
    images = {part.name: part for of_style in parts for part in of_style}
    by_size: dict[tuple[int, ...], list[Component]] = {}
    for image in images.values():
        by_size.setdefault(image.pixels.shape, []).append(image)
    ordered = [image.name for some in by_size.values() for image in some]
    rows = {name: row for row, name in enumerate(ordered)}
    mixtures = [
        Mixture(
            tuple(rows[part.name] for part in of_style), tuple(part.weight for part in of_style)
        )
        for of_style in parts
    ]
    return list(by_size.values()), mixtures


def latent_masks(pictures: Iterable[Picture], cells: tuple[int, int]) -> Tensor | None:
    """Masks (C, 1, h, w) in [0, 1], means over the pixels of a latent cell; None where no picture has one."""
    found = list(pictures)
    if all(picture.mask is None for picture in found):
        return None
    pooled = []
    for picture in found:
        if picture.mask is None:
            # without a mask the style applies everywhere
            pooled.append(torch.ones(1, *cells))
            continue
        mask = torch.from_numpy(picture.mask.astype("float32") / 255.0)
        pooled.append(F.adaptive_avg_pool2d(mask[None], cells))
    return torch.stack(pooled)
