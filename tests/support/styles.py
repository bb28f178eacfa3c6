"""Small styles for tests of the cache: features deterministic in their timestep, and drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stylebatch.data.images import Picture
from stylebatch.features.cache_index import StyleIndex, TensorRow
from stylebatch.features.cached_style import SiteArrays
from stylebatch.features.codecs import Array, Codec, CodecName
from stylebatch.features.style_cache import StyleCache, StyleKey

TIMESTEPS = (1, 251, 501, 751)
LEVELS = (1, 251, 501, 751, 999)
SITES = (6, 7)
PICTURES = [
    Picture(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8), 64, 64)
    for seed in range(3)
]
CODECS: tuple[CodecName, ...] = ("kv", "x", "x8")


def style_key(pixels: str = "one", codec: CodecName = "kv") -> StyleKey:
    return StyleKey(
        pixels=pixels,
        model="f" * 64,
        dtype="float32",
        size=(64, 64),
        convention="ldm",
        start="level",
        steps=4,
        sites=SITES,
        prompt="",
        codec=Codec(codec, "float16"),
    )


def features(codec: CodecName, timestep: int) -> SiteArrays:
    """In their stored form."""
    draw = np.random.default_rng(timestep)
    shapes = {"k": (2, 16, 4), "v": (2, 16, 4), "x": (16, 8), "x.scale": (8,)}
    types = Codec(codec, "float16").stored_types
    return {
        site: {
            name: (100 * draw.normal(size=shapes[name])).clip(-127, 127).astype(dtype)
            for name, dtype in types.items()
        }
        for site in SITES
    }


def latents() -> dict[int, Array]:
    draw = np.random.default_rng(7)
    return {level: draw.normal(size=(4, 8, 8)).astype(np.float32) for level in LEVELS}


def write(cache: StyleCache, key: StyleKey) -> str:
    with cache.writer(key, {"style_id": "monet.png"}) as writer:
        for timestep in TIMESTEPS if key.codec.tensors else ():
            writer.append(timestep, features(key.codec.name, timestep))
        writer.commit(latents())
    return key.digest


def rows(cache: StyleCache, key: str) -> tuple[TensorRow, ...]:
    path = cache.folder / f"{key}.parquet"
    with path.open("rb") as file:
        return StyleIndex.from_parquet(file, str(path)).rows


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ 1]))


def equal(left: SiteArrays, right: SiteArrays) -> bool:
    return left.keys() == right.keys() and all(
        np.array_equal(left[site][name], array)
        for site, tensors in right.items()
        for name, array in tensors.items()
    )
