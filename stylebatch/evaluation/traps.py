"""What a reader of such numbers should know before comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stylebatch.evaluation.preparing import SHORTER_SIDE

FULL_RANK = 2048
"""Features of Inception v3; covariances of fewer pictures are singular."""


class Known(Protocol):
    """A figure, as traps look at it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def is_published(self) -> bool: ...


def traps(
    figures: Sequence[Known], num_results: int, num_looks: int, size: tuple[int, int], planned: int
) -> tuple[str, ...]:
    """Sentences about the figures that there are."""
    there = {one.name: one for one in figures if one.value is not None}
    frechet = [name for name in there if name.startswith(("fid", "art_fid"))]
    found = []
    if frechet and num_results < FULL_RANK:
        found.append(
            f"Fréchet distances of {num_results:,} results: of fewer than {FULL_RANK:,} pictures they are too large, more so the fewer. "
            "Compare outputs with the same number of samples and the same reference alone; the kernel distance has no such bias."
        )
    if frechet and 0 < num_looks < 40:
        found.append(
            f"The reference is {num_looks} style pictures: a Fréchet distance from so few says how the results differ from these, not from "
            "a style."
        )
    if {"fid", "kid"} & set(there):
        found.append(
            "fid and kid resize to 299 px as TensorFlow 1 does, without antialiasing; another filter, or JPEG of lower quality, changes "
            "them."
        )
    if {"art_fid", "fid_art", "lpips"} & set(there) and min(size) != SHORTER_SIDE:
        found.append(
            f"ArtFID and LPIPS are defined at {SHORTER_SIDE} px; the results have {size[0]} x {size[1]} and are resized. Published figures "
            "are of other pictures."
        )
    if any(name.startswith("art_fid") for name in there):
        found.append(
            "ArtFID alone rewards leaving the content: look at style and structure together (Pareto plot)."
        )
    if any("efficientnet" in name for name in there):
        found.append(
            "Figures over EfficientNet-Lite0 compare outputs with each other; they are none of the published numbers."
        )
    if num_results < planned:
        found.append(f"{num_results:,} of {planned:,} planned samples are evaluated.")
    return tuple(found)
