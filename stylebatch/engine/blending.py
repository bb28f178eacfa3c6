"""From the pictures of a group to what the network inverts: each image once, and styles as mixtures of them; masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.data.images import Component, Picture
from stylebatch.methods.pairs import Mixture


def components(
    pictures: Mapping[int, Picture], names: Sequence[str]
) -> tuple[list[Component], list[Mixture]]:
    """The images that a group of styles is made of, each once, and each style as rows of them, in the group's order.

    `names`: of all styles of the run, by index.
    """
    rows: dict[str, int] = {}
    images: list[Component] = []
    mixtures = []
    for index, picture in pictures.items():
        parts = picture.components or (Component(names[index], picture.pixels, 1.0),)
        for part in parts:
            if part.name not in rows:
                rows[part.name] = len(images)
                images.append(part)
        mixtures.append(
            Mixture(tuple(rows[part.name] for part in parts), tuple(part.weight for part in parts))
        )
    return images, mixtures


def latent_masks(pictures: Iterable[Picture], cells: tuple[int, int]) -> Tensor | None:
    """Masks (C, 1, h, w) in [0, 1], means over the pixels of a latent cell; None where no picture has one."""
    found = list(pictures)
    if all(picture.mask is None for picture in found):
        return None
    pooled = []
    for picture in found:
        if picture.mask is None:
            pooled.append(torch.ones(1, *cells))
            continue
        mask = torch.from_numpy(picture.mask.astype("float32") / 255.0)
        pooled.append(F.adaptive_avg_pool2d(mask[None], cells))
    return torch.stack(pooled)
