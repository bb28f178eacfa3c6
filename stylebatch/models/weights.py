"""Reads the headers of safetensors files (names, shapes, sizes), and finds the files that stock loaders would read.

A header is JSON after its length (8 bytes, little-endian); no weights are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylebatch.errors import ManifestError
from stylebatch.models.configs import read_json

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")
"""Parts of a pipeline folder that may hold weights."""
STEMS = dict.fromkeys(("unet", "transformer", "vae"), "diffusion_pytorch_model")
"""Names of weight files by part; those of text encoders are called `model`."""
LFS_POINTER = b"version https://git-lfs"
LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Stored:
    """A tensor in a file; `dtype` as safetensors writes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by name.

    Raises ManifestError for a file that is a Git LFS pointer, truncated, or none of this kind.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            text = file.read(
                min(length, LARGEST_HEADER)
            )  # the length of a foreign file is arbitrary
    except OSError as error:
        raise ManifestError(f"model: {path} cannot be read ({error.strerror})") from None
    if (start + text).startswith(LFS_POINTER):
        raise ManifestError(
            f"model: {path} is a Git LFS pointer of {size} bytes, not the weights; next: `git lfs pull` where it was "
            "cloned, or `hf download`"
        )
    try:
        table: dict[str, Any] = json.loads(text)
        table.pop("__metadata__", None)
        found = {name: _stored(row) for name, row in table.items()}
        # the last tensor's end must be the file's: a download that broke off has a whole header
        end = 8 + length + max((row["data_offsets"][1] for row in table.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ManifestError(
            f"model: {path} ({size} bytes) is no safetensors file, or its header is cut off; next: fetch it again"
        ) from None
    if end != size:
        raise ManifestError(
            f"model: {path} has {size} bytes, and its header describes {end}; next: fetch it again"
        )
    return found


def _stored(row: dict[str, Any]) -> Stored:
    shape = tuple(row["shape"])
    if not isinstance(row["dtype"], str) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("no tensor")
    return Stored(row["dtype"], shape)


def stock_files(place: Path, part: str, variant: str | None) -> list[Path]:
    """The weight files in `place` that diffusers or transformers would read for a part: one, those of an index, or none.

    Raises ManifestError for an index that cannot be read or names missing files.
    """
    stem, infix = STEMS.get(part, "model"), f".{variant}" if variant else ""
    single = place / f"{stem}{infix}.safetensors"
    index = place / f"{stem}.safetensors.index{infix}.json"
    # With both present, diffusers (the parts of STEMS) reads the index, and transformers the single file.
    if single.exists() and (part not in STEMS or not index.exists()):
        return [single]
    if not index.exists():
        return []
    try:
        named = read_json(index).get("weight_map")
    except ValueError as error:
        raise ManifestError(
            f"model: {index} cannot be read ({error}); next: fetch it again"
        ) from None
    names = set(named.values()) if isinstance(named, dict) and _all_texts(named) else set()
    # names with folders in them could point anywhere
    if not names or any(Path(name).name != name for name in names):
        raise ManifestError(
            f"model: {index}: weight_map names no files beside it; next: fetch it again"
        )
    for name in sorted(names):
        if not (index.parent / name).exists():
            raise ManifestError(
                f"model: {index} names {name}, which is not there; next: fetch the folder again"
            )
    return sorted(index.parent / name for name in names)


def _all_texts(table: dict[str, Any]) -> bool:
    return all(isinstance(value, str) for value in table.values())


def num_parameters(tensors: Mapping[str, Stored], prefixes: Iterable[str] = ("",)) -> int:
    """Number of weights in the floating tensors whose names begin with one of `prefixes`."""
    chosen = tuple(prefixes)
    return sum(
        tensor.elements
        for name, tensor in tensors.items()
        if name.startswith(chosen) and tensor.dtype in FLOATS
    )
