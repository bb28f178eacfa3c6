"""Bytes, bandwidth and use of the style cache."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipelines.bench import sizes, workload
from pipelines.bench.record import Figure, Outcome, Size
from stylebatch.engine.measure import network_threads
from stylebatch.features.cached_style import prefetch
from stylebatch.features.codecs import Array, Codec
from stylebatch.features.style_cache import StyleCache, StyleKey
from stylebatch.methods.styleid.codec import FeatureCodec

Features = dict[int, dict[int, dict[str, Array]]]
"""By timestep, site and tensor name, for one style, not yet encoded."""
CHUNK_BYTES = 4 << 20


def name_of(codec: Codec) -> str:
    """The codec's name for people."""
    return codec.name if codec.name in ("x8", "trajectory") else f"{codec.name} {codec.dtype}"


def key_for(name: str, codec: Codec) -> StyleKey:
    """A key for measured styles."""
    return StyleKey(
        pixels=name, model="bench", dtype="float32", size=(workload.SIZE, workload.SIZE),
        convention="ldm", start="paper", steps=50, sites=(6, 7, 8, 9, 10, 11), prompt="", codec=codec,
    )  # fmt: skip


def write(
    root: Path, name: str, codec: Codec, encoded: Features, levels: Mapping[int, Array]
) -> tuple[float, Path]:
    """Store one style as a run does, from its encoded form: seconds, and the tar."""
    cache, key = StyleCache(root), key_for(name, codec)

    def store() -> None:
        with cache.writer(key) as writer:
            for t in sorted(encoded):
                writer.append(t, encoded[t])
            writer.commit(levels)

    return workload.seconds(store), root / f"{key.digest}.tar"


def forget(path: Path) -> None:
    """Drop the pages of a file that is on disk, where the system can."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(source: Path, target: Path) -> None:
    """A plain copy, durable like what the cache writes."""
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        while chunk := reading.read(CHUNK_BYTES):
            writing.write(chunk)
        os.fsync(writing.fileno())


def read_plainly(path: Path) -> None:
    """Every byte, in order, into a buffer."""
    buffer = bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_cached(root: Path, key: str) -> None:
    """Every timestep as the reverse asks for them: checksums verified, the next one read meanwhile."""
    style = StyleCache(root).open(key)
    for _ in prefetch([style], tuple(reversed(style.timesteps))):
        pass


def bandwidth(
    root: Path, codec: Codec, encoded: Features, levels: Mapping[int, Array], rounds: int
) -> dict[str, float]:
    """Ratios of bytes per second, cache / plain file, and MB/s: medians over rounds, in which the order alternates.

    Written: by the cache, and as a copy of its tar, both synced. Read: from disk, with the pages of both dropped before
    either (what one read leaves in memory would serve the other), and out of the page cache.
    """
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object], num_bytes: int) -> None:
        found.setdefault(name, []).append(workload.seconds(work) / num_bytes)

    for turn in range(rounds):
        took, tar = write(root, f"{codec.name}-{turn}", codec, encoded, levels)
        num_bytes, duplicate = tar.stat().st_size, tar.with_suffix(".copy")
        found.setdefault("write", []).append(took / num_bytes)
        timed("copy", partial(copy, tar, duplicate), num_bytes)
        works = {
            "read": partial(read_cached, root, tar.stem),
            "plain": partial(read_plainly, duplicate),
        }
        order = list(works) if turn % 2 else list(works)[::-1]
        for name in order:
            # both, before either: pages that one read leaves in memory would serve the other
            forget(tar)
            forget(duplicate)
            timed(name, works[name], num_bytes)
        for work in works.values():  # into the page cache
            work()
        for name in order:
            timed(f"{name} again", works[name], num_bytes)
        # a round's files must not crowd out the next one's pages
        for path in (tar, duplicate, tar.with_suffix(".parquet")):
            path.unlink()

    def against(plain: str, cached: str) -> float:
        return statistics.median(
            one / other for one, other in zip(found[plain], found[cached], strict=True)
        )

    speeds = {f"{name} MB/s": 1e-6 / statistics.median(times) for name, times in found.items()}
    return speeds | {
        "write": against("copy", "write"),
        "read": against("plain", "read"),
        "read as copy": against("copy", "read"),
        "read again": against("plain again", "read again"),
    }


def encoded_with(codec: Codec, features: Features) -> Features:
    """The stored form of features."""
    if codec.name == "trajectory":
        return {}
    encoder = FeatureCodec(codec.name, getattr(torch, codec.dtype))
    return {
        t: {site: _encoded(encoder, codec, tensors) for site, tensors in at.items()}
        for t, at in features.items()
    }


def _encoded(encoder: FeatureCodec, codec: Codec, tensors: Mapping[str, Array]) -> dict[str, Array]:
    batch = {name: torch.from_numpy(tensors[name])[None] for name in codec.tensors}
    return {name: tensor[0].numpy() for name, tensor in encoder.encode(batch).items()}


def cache(size: Size) -> Outcome:
    """One style of the embedded model through every codec; a style of SD 1.5's shape for the bandwidth."""
    steps = size.of(50, 4)
    model, method = workload.loaded(), workload.method(steps)
    clean = workload.latents(model, 1, first_seed=9)
    with network_threads(size.threads), tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        both = [
            method.invert(model, clean, "key_value", codec=FeatureCodec(n)) for n in ("kv", "x")
        ]
        inversion = workload.alternated(
            {"invert": lambda: method.invert(model, clean, "key_value", codec=FeatureCodec("x"))},
            size.of(3, 1),
        )["invert"]
        levels = {int(level): latent[0].numpy() for level, latent in both[0].levels.items()}
        features: Features = {
            int(step.t): {
                site: {
                    name: tensor[0].numpy()
                    for part in both
                    for name, tensor in part.features.at(step.t)[site].items()
                }
                for site in method.sites
            }
            for step in method.trajectory(model).reverse
        }
        figures, bytes_of = _bytes(root, features, levels)
        rounds = size.of(8, 2)
        for codec in (sizes.CODECS[0], sizes.CODECS[2], sizes.CODECS[4]):
            ways = bandwidth(root, codec, encoded_with(codec, features), levels, rounds)
            figures += _ratios(f"128 px, {name_of(codec)}", ways)
        figures += _ratios("SD 1.5 shapes, x float16", _large(root, size))
        figures += _saved(root, features, levels, statistics.median(inversion))
    figures += _arithmetic()
    return Outcome(tuple(figures), {"steps": steps, "threads": size.threads, "bytes": bytes_of})


def _bytes(
    root: Path, features: Features, levels: Mapping[int, Array]
) -> tuple[list[Figure], dict[str, int]]:
    """Tar and index on disk, for each codec."""
    found: dict[str, int] = {}
    for codec in sizes.CODECS:
        _, tar = write(root, "size", codec, encoded_with(codec, features), levels)
        found[name_of(codec)] = sum(tar.with_suffix(s).stat().st_size for s in (".tar", ".parquet"))
    figures = [
        Figure(f"style of the embedded model, {name}", n, "bytes") for name, n in found.items()
    ]
    share = found["x8"] / found["kv float32"]
    figures.append(Figure("x8 / kv float32, on disk", share, "x", 0.25, "<="))
    return figures, found


def _arithmetic() -> list[Figure]:
    figures = []
    for label, decoder in (("SD 1.5, 512 px", sizes.SD15), ("SDXL, 1024 px", sizes.SDXL)):
        for codec in sizes.CODECS:
            value = decoder.style_bytes(codec) / 1e6
            figures.append(
                Figure(f"style of {label}, {name_of(codec)}, by arithmetic", value, "MB")
            )
    return figures


def _ratios(label: str, ways: Mapping[str, float]) -> list[Figure]:
    return [
        Figure(f"{label}: cache write / durable copy, bandwidth", ways["write"], "x", 0.7),
        Figure(f"{label}: cache read / plain read, bandwidth, from disk", ways["read"], "x", 0.7),
        Figure(f"{label}: cache read / durable copy, bandwidth", ways["read as copy"], "x", 0.7),
        Figure(f"{label}: the same reads out of the page cache", ways["read again"], "x"),
        *(Figure(f"{label}: {n[:-5]}", v, "MB/s") for n, v in ways.items() if n.endswith("MB/s")),
    ]


def _large(root: Path, size: Size) -> dict[str, float]:
    """A style of SD 1.5 at 512 px, as large as the real one."""
    rng = np.random.default_rng(0)
    shapes = {6: (1024, 640), 7: (1024, 640), 8: (1024, 640)} | {
        s: (4096, 320) for s in (9, 10, 11)
    }
    one = {s: {"x": rng.standard_normal(shape).astype(np.float16)} for s, shape in shapes.items()}
    encoded: Features = dict.fromkeys(range(1, 1 + size.of(49, 2)), one)
    levels = {0: rng.standard_normal((4, 64, 64)).astype(np.float32)}
    return bandwidth(root, Codec("x", "float16"), encoded, levels, size.of(6, 2))


def _saved(
    root: Path, features: Features, levels: Mapping[int, Array], inversion_s: float
) -> list[Figure]:
    """Inverting a style again against reading it, pages dropped."""
    codec = Codec("x", "float32")
    _, tar = write(root, "saved", codec, encoded_with(codec, features), levels)
    forget(tar)
    reading_s = workload.seconds(lambda: read_cached(root, tar.stem))
    return [
        Figure("seconds saved per style by reading it (x float32)", inversion_s - reading_s, "s"),
        Figure("inverting a style again / reading it", inversion_s / reading_s, "x"),
    ]
