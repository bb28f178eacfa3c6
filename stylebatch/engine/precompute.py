"""Fills a style cache before the run: every style of a manifest is inverted once and written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from stylebatch.engine.axis_inputs import PictureLoader
from stylebatch.engine.blocks.blending import components
from stylebatch.engine.decoders import Decoders
from stylebatch.engine.measure import network_threads
from stylebatch.engine.run_record import threads_of
from stylebatch.errors import ManifestError, SampleError
from stylebatch.features.bandwidth import cache_room
from stylebatch.features.style_bank import StyleBank
from stylebatch.interruption import interruptible
from stylebatch.manifest import check_inputs
from stylebatch.methods.builtin import METHODS, method_of
from stylebatch.models.loading import find_device, load_model
from stylebatch.planning.choice import Measurements
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan as resolve
from stylebatch.progress import Progress
from stylebatch.spec import RunSpec


@dataclass(frozen=True)
class Precomputed:
    """What `precompute` did: images of styles written, those that were there, styles that cannot be used."""

    cache: str
    num_built: int
    num_found: int
    num_failed: int
    seconds: float


def precompute(
    spec: RunSpec, *, progress: Progress | None = None, dry_run: bool = False
) -> Precomputed:
    """Write the styles of `spec` that its cache lacks, or count them alone (`dry_run`). Images that cannot be used are noted.

    Raises ManifestError where the manifest names no cache, CacheError when the cache cannot be
    written, Interrupted with whole styles kept.
    """
    progress, plan = progress or Progress(), _plan(spec)
    method, evaluations = method_of(plan.spec.method), plan.options.prepare_evaluations("style")
    started, failed, num_found = time.monotonic(), 0, 0
    missing: set[str] = set()
    num_images = sum(len(row.parts) or 1 for row in plan.images(1))
    progress.begin(
        evaluations=num_images * evaluations,
        samples=len(plan.images(1)),
        samples_done=0,
        unit="styles",
    )
    with interruptible(), network_threads(threads_of(spec)), Decoders(1) as decoders:
        try:
            model = load_model(spec.model, device=find_device(spec.engine.device))
            bank = StyleBank.of_plan(plan, method, model)
            loader = PictureLoader.of(plan, 1)
            for place, row in enumerate(plan.images(1)):
                try:
                    load = partial(loader.require, place)
                    # on a thread that can be left behind, should the read never return
                    picture = decoders.submit(load).result()
                except SampleError as error:
                    progress.note(f"{row.id}: {error}")
                    failed += 1
                else:
                    for note in picture.notes:
                        progress.note(note)
                    by_size, _ = components({0: picture}, [row.id])
                    images = [image for some in by_size for image in some]
                    if dry_run:
                        keys = bank.missing(images)
                        num_found += len(images) - len(keys - missing)
                        missing |= keys
                    else:
                        num_found += len(images) - bank.fill(images)
                progress.advance((len(row.parts) or 1) * evaluations)
                progress.add_samples(1)
        finally:
            progress.end()
    num_built, seconds = len(missing) if dry_run else bank.num_built, time.monotonic() - started
    return Precomputed(str(spec.features.cache), num_built, num_found, failed, seconds)


def _plan(spec: RunSpec) -> Plan:
    """The plan of a run whose styles are all cached. Raises ManifestError where the manifest names no cache."""
    features = spec.features
    if not spec.options.keeps_features:
        keeping = ", ".join(name for name, one in METHODS.items() if one.keeps_features)
        raise ManifestError(
            f"method.name: found {spec.method.name}; accepted: {keeping} (reference images are inverted when first needed)"
        )
    if features.cache is None or features.source not in ("auto", "cached"):
        raise ManifestError(
            f"features: found source {features.source}, cache {features.cache}; accepted: a cache to fill. Next: give "
            "`features: {cache: FOLDER}` or --set features.cache=FOLDER"
        )
    check_inputs(spec)
    cached = features.model_copy(update={"source": "cached"})
    return resolve(
        spec.model_copy(update={"features": cached}),
        conditions=Measurements(room_bytes=cache_room(features.cache)),
    )
