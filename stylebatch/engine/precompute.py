"""Fills a style cache before the run: every style of a manifest is inverted once and written."""

from __future__ import annotations

import time
from dataclasses import dataclass

from stylebatch.data.choice import Conditions
from stylebatch.data.loading import load_input
from stylebatch.data.plan import plan_pairs as resolve
from stylebatch.engine.blending import components
from stylebatch.engine.measure import network_threads
from stylebatch.engine.run import interruptible, threads_of
from stylebatch.engine.style_bank import StyleBank
from stylebatch.errors import ManifestError, SampleError
from stylebatch.manifest import check_inputs
from stylebatch.methods.styleid import StyleID
from stylebatch.models.stable_diffusion import load_model
from stylebatch.progress import Progress
from stylebatch.spec import RunSpec
from stylebatch.store.bandwidth import cache_room


@dataclass(frozen=True)
class Precomputed:
    """What `precompute` did: images of styles written, those that were there, styles that cannot be used."""

    cache: str
    num_built: int
    num_found: int
    num_failed: int
    seconds: float


def precompute(spec: RunSpec, *, progress: Progress | None = None) -> Precomputed:
    """Write the styles of `spec` that its cache lacks. Images that cannot be used are noted and passed over.

    Raises ManifestError where the manifest names no cache, CacheError when the cache cannot be
    written, Interrupted with whole styles kept.
    """
    features = spec.features
    if spec.prompts is not None:
        raise ManifestError(
            f"method.name: found {spec.method.name}; accepted: styleid (reference images are inverted when first needed)"
        )
    if features.cache is None or features.source not in ("auto", "cached"):
        raise ManifestError(
            f"features: found source {features.source}, cache {features.cache}; accepted: a cache to fill. Next: give "
            "`features: {cache: FOLDER}` or --set features.cache=FOLDER"
        )
    progress = progress or Progress()
    check_inputs(spec)
    cached = features.model_copy(update={"source": "cached"})
    plan = resolve(
        spec.model_copy(update={"features": cached}),
        conditions=Conditions(room_bytes=cache_room(features.cache)),
    )
    method = StyleID(**plan.spec.styleid.model_dump())
    started, failed, num_found = time.monotonic(), 0, 0
    num_images = sum(len(row.parts) or 1 for row in plan.styles)
    progress.begin(
        evaluations=num_images * method.num_inversion_evaluations,
        samples=len(plan.styles),
        samples_done=0,
        unit="styles",
    )
    with interruptible(), network_threads(threads_of(spec)):
        try:
            bank = StyleBank.of_plan(plan, method, load_model(spec.model))
            for row in plan.styles:
                try:
                    picture = load_input(row, plan.size, spec.image.mode)
                except SampleError as error:
                    progress.note(f"{row.id}: {error}")
                    failed += 1
                else:
                    images, _ = components({0: picture}, [row.id])
                    num_found += len(images) - bank.fill(images)
                progress.advance((len(row.parts) or 1) * method.num_inversion_evaluations)
                progress.add_samples(1)
        finally:
            progress.end()
    seconds = time.monotonic() - started
    return Precomputed(str(features.cache), bank.num_built, num_found, failed, seconds)
