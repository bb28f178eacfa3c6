"""Compares pictures rendered through each codec with exact ones, and the sources of features with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.bench import workload
from pipelines.bench.record import BenchmarkError, Figure, Outcome, Size
from pipelines.embedded.picture_distances import psnr
from stylebatch.data.images import Pixels, load_picture
from stylebatch.engine.measure import network_threads
from stylebatch.manifest import load_spec
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.codec import FeatureCodec
from stylebatch.models.unet.stable_diffusion import StableDiffusion

DEMO = Path(__file__).resolve().parents[2] / "manifests" / "demo.yaml"
VARIANTS = {
    "x8": FeatureCodec("x8"),
    "x float16": FeatureCodec("x", torch.float16),
    "x float32": FeatureCodec("x", torch.float32),
    "kv float16": FeatureCodec("kv", torch.float16),
}
CEILING_DB = 200.0
"""In place of infinity, where two pictures are equal."""


def codecs(size: Size) -> Outcome:
    """The demo's contents x styles with its settings, against keys and values as they were computed."""
    if not DEMO.exists():
        raise BenchmarkError(f"{DEMO}: not there; run from a checkout of the project")
    spec = load_spec(DEMO)
    method = StyleID(**spec.method.model_dump())
    if size.is_quick:
        method = workload.method(4)
    images = [
        _encoded(spec_path.path, size) for spec_path in (spec.contents, spec.styles) if spec_path
    ]
    with network_threads(size.threads):
        model = workload.loaded()
        contents, styles = (model.encode(to_tensor(pixels)) for pixels in images)
        return _compare(model, method, contents, styles)


def _encoded(folder: str, size: Size) -> list[Pixels]:
    paths = sorted(Path(folder).rglob("*.jpg"))[: size.of(1000, 1)]
    return [load_picture(path, workload.SIZE).pixels for path in paths]


def _compare(model: StableDiffusion, method: StyleID, contents: Tensor, styles: Tensor) -> Outcome:
    queries = method.invert(model, contents, "query")

    def render(codec: FeatureCodec) -> Tensor:
        return method.stylise(
            model, queries, method.invert(model, styles, "key_value", codec=codec)
        )

    exact = render(FeatureCodec())
    expected = _decoded(model, exact)
    figures: list[Figure] = []
    for name, codec in VARIANTS.items():
        found = render(codec)
        decibels = [
            min(CEILING_DB, psnr(a, b))  # an infinite figure would be refused
            for a, b in zip(_decoded(model, found), expected, strict=True)
        ]
        target = 40.0 if name == "x8" else None
        figures += [
            Figure(f"{name} against exact: mean PSNR", float(np.mean(decibels)), "dB", target),
            Figure(f"{name} against exact: least PSNR", min(decibels), "dB"),
            Figure(f"{name} against exact: relative L2 of the latents", workload.relative_l2(found, exact), ""),
        ]  # fmt: skip
    anew = method.stylise(
        model,
        method.invert(model, contents, "query", keep="recomputed"),
        method.invert(model, styles, "key_value", keep="recomputed"),
    )
    again = workload.relative_l2(anew, exact)
    figures.append(Figure("recomputed against held: relative L2 of the latents", again, ""))
    return Outcome(
        tuple(figures),
        {"contents": len(contents), "styles": len(styles), "steps": method.steps},
    )


def _decoded(model: StableDiffusion, latents: Tensor) -> list[Pixels]:
    return [pixels for part in latents.split(16) for pixels in to_pixels(model.decode(part))]
