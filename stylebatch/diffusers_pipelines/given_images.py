"""Images as callers of a pipeline give them, to uint8 pixels of one size, fitted as a run fits files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stylebatch.data.fit_modes import GREY, FixedMode
from stylebatch.data.image_section import ImageSpec
from stylebatch.data.images import fitted_image, load_image
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.source import Ref
from stylebatch.methods.pixels import Pixels

BLACK = (0, 0, 0)
ACCEPTED = (
    "a PIL image, a path, an array (H, W, 3) or (N, H, W, 3), a tensor (3, H, W) or (N, 3, H, W), each uint8 or floats from 0 to 1, "
    "or a list of these"
)


@dataclass(frozen=True)
class Fit:
    """How images are fitted to `size` (width, height)."""

    size: tuple[int, int]
    mode: FixedMode

    def __post_init__(self) -> None:
        if self.mode not in get_args(FixedMode):
            raise ValueError(
                f"resize_mode: found {self.mode!r}; accepted: {', '.join(get_args(FixedMode))}"
            )

    @property
    def of_styles(self) -> Fit:
        """Never padded, since what is around a style would be of the style."""
        return Fit(self.size, "center_crop" if self.mode == "pad" else self.mode)


def pixels_of_images(given: Any, name: str, fit: Fit) -> list[Pixels]:
    """Each image as (height, width, 3). `name`: the argument, for errors.

    Raises ValueError, naming argument and place, for what is no image; SampleError for a file that cannot be read.
    """
    return [_fitted(one, place, fit) for place, one in _each(given, name)]


def masks_of_images(given: Any, name: str, fit: Fit) -> list[Pixels]:
    """Each mask as (height, width), fitted as its image; 255 is white, and where the image is padded there is none."""
    return [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(_fitted(one, place, fit, BLACK))).convert("L")
        )
        for place, one in _each(given, name)
    ]


def _each(given: Any, name: str) -> list[tuple[str, Any]]:
    """The single images, each with its place."""
    if isinstance(given, np.ndarray | torch.Tensor) and given.ndim == 4:
        return [(f"{name}[{row}]", one) for row, one in enumerate(given)]
    if isinstance(given, Iterator):  # such as Path.glob
        given = list(given)
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return [(name, given)]
    if not given:
        raise ValueError(f"{name}: found an empty list; accepted: {ACCEPTED}")
    return [pair for row, one in enumerate(given) for pair in _each(one, f"{name}[{row}]")]


def _fitted(given: Any, place: str, fit: Fit, fill: tuple[int, int, int] = GREY) -> Pixels:
    if isinstance(given, str | os.PathLike):
        path = os.fspath(given)
        how = ImageSpec(mode=fit.mode, fill=fill)
        return load_image(Ref(path), LocalFiles("", ""), fit.size, how, name=path).pixels
    if isinstance(given, torch.Tensor):
        if given.ndim == 3 and given.shape[0] in (1, 3):
            given = given.permute(1, 2, 0)
        elif given.ndim != 2:
            raise _refusal(place, f"a tensor of shape {tuple(given.shape)}")
        given = given.detach().float().cpu().numpy() if given.is_floating_point() else given.cpu().numpy()  # fmt: skip
    if isinstance(given, np.ndarray):
        given = Image.fromarray(_as_bytes(given, place))
    if not isinstance(given, Image.Image):
        raise _refusal(place, f"an object of type {type(given).__name__}")
    return fitted_image(given, fit.size, ImageSpec(mode=fit.mode, fill=fill))


def _as_bytes(values: NDArray[Any], place: str) -> NDArray[np.uint8]:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if not values.size or (
        values.ndim != 2 and (values.ndim != 3 or values.shape[2] not in (3, 4))
    ):
        raise _refusal(place, f"an array of shape {values.shape}")
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        raise _refusal(place, f"numbers of type {values.dtype}")
    least, most = float(values.min()), float(values.max())
    if not (least >= 0.0 and most <= 1.0):  # also for NaN
        raise _refusal(place, f"floats from {least:g} to {most:g}")
    return np.ascontiguousarray(np.rint(values * 255.0).astype(np.uint8))


def _refusal(place: str, found: str) -> ValueError:
    return ValueError(f"{place}: found {found}; accepted: {ACCEPTED}")
