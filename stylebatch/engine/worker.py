"""Renders shards: the only such loop; engines decide which shards a worker gets.

A shard is made in these steps:
1. The inputs of a block are decoded (ahead of need, on a thread) and fitted to the run's size.
2. The block's samples are rendered together, in batches that the plan fixes: pairs of contents and styles, whose inversions
   stay for the next blocks (`pairs.py`), or rows with prompts (`prompts.py`). On a CPU batches of pairs go side by side.
3. A thread measures and encodes the pictures of this block, and appends them to the shard in key order, while the next one
   is rendered.
4. After the last block the shard is committed. Nothing is decoded ahead for the next shard: an image that kills the
   process must kill the shard that it belongs to.
A sample that cannot be made becomes a failed row and keeps its key. Where the device runs out of memory,
the block is tried again in smaller batches, then in smaller parts (`ladder.py`). Every shard begins at the plan's batch,
so that its bytes do not depend on what its worker met before.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from stylebatch.data.grid import Block
from stylebatch.data.images import encode
from stylebatch.data.plan import PairPlan
from stylebatch.data.prompt_plan import PromptPlan
from stylebatch.data.shards import Plan, Sample, Shard
from stylebatch.engine.ladder import Rung, is_out_of_memory
from stylebatch.engine.pairs import PairRenderer
from stylebatch.engine.prompts import PromptRenderer
from stylebatch.engine.rendering import Renderer, Rendering
from stylebatch.errors import SampleError
from stylebatch.methods.lanes import Lanes
from stylebatch.models.stable_diffusion import StableDiffusion, load_model
from stylebatch.store.records import Record, schema_of
from stylebatch.store.sinks import WebDatasetShard


class Worker:
    """A loaded model and the inputs it keeps; a context manager. `render` makes and commits one shard.

    `on_evaluations` is told the rows of each network evaluation, one call at a time. `model`: the plan's, where
    the caller has loaded it already.
    """

    def __init__(
        self,
        plan: Plan,
        output: Path,
        *,
        threads: int,
        on_evaluations: Callable[[int], None] | None = None,
        model: StableDiffusion | None = None,
    ) -> None:
        self.plan = plan
        self.output = output
        self.threads = threads
        self.on_evaluations = on_evaluations
        self._given = model
        self.schema = schema_of(plan.method, plan.extra_columns)
        self.rung = self._top = Rung(plan.batch)
        self._evaluations = 0
        self._counting = threading.Lock()

    def __enter__(self) -> Worker:
        self.model = self._given or load_model(self.plan.spec.model)
        self._former_threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        self.model.on_evaluations = self._count
        self.model.pictures_at_once = self.plan.pictures
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="encode")
        on_cpu = self.model.device.type == "cpu" and self.plan.spec.model.offload == "none"
        self._lanes = Lanes(self.plan.batches_at_once if on_cpu else 1, self.threads)
        self._renderer = self._make_renderer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lanes.close()
        for pool in (self._decoders, self._finisher):
            pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._former_threads)
        self.model.on_evaluations = None
        self.model.pictures_at_once = None

    def _make_renderer(self) -> Renderer:
        plan = self.plan
        if isinstance(plan, PairPlan):
            return PairRenderer(plan, self.model, self._decoders, self.on_evaluations, self._lanes)
        assert isinstance(plan, PromptPlan)
        return PromptRenderer(plan, self.model, self._decoders, self.on_evaluations)

    def precompute(self, style: int) -> bool:
        """As `Renderer.precompute`."""
        return self._renderer.precompute(style)

    def render(
        self, shard_id: int, executed: Sequence[Sequence[int]] | None = None
    ) -> dict[str, Any]:
        """Render and commit a shard; returns its stats. Leaves no partial file when interrupted.

        `executed`: the rungs [batch, contents, styles] of an earlier rendering of this shard, block by block, to repeat.
        """
        plan, started, before = self.plan, time.monotonic(), self._evaluations
        shard = plan.shard(shard_id)
        rungs: list[Rung] = []
        planned = [Rung(*numbers) for numbers in executed] if executed else None
        self._step_to(self._top)
        with WebDatasetShard(self.output, plan.shard_name(shard_id), self.schema) as sink:
            self._fill(sink, shard, planned, rungs)
            lowered = any(rung != self._top for rung in rungs)
            return sink.commit(
                {
                    "shard": shard_id,
                    "plan_digest": plan.digest,
                    "seconds": round(time.monotonic() - started, 3),
                    "evaluations": self._evaluations - before,
                    "device": str(self.model.device),
                    "executed": [rung.as_list() for rung in rungs] if lowered else [],
                }
            )

    def _fill(
        self, sink: WebDatasetShard, shard: Shard, planned: list[Rung] | None, rungs: list[Rung]
    ) -> None:
        """Render all blocks; each is finished and written on a thread while the next one is rendered."""
        blocks = list(self.plan.samples(shard))
        writing: Future[None] | None = None
        try:
            for position, (block, samples) in enumerate(blocks):
                upcoming = blocks[position + 1][0] if position + 1 < len(blocks) else None
                if planned is not None:
                    self._step_to(planned[position])
                rendered = self._render_block(block, samples, upcoming)
                rungs.append(self.rung)
                if writing is not None:
                    writing.result()
                writing = self._finisher.submit(self._finish, sink, shard.id, samples, rendered)
        finally:
            if writing is not None:
                wait([writing])
        if writing is not None:
            writing.result()

    def _step_to(self, rung: Rung) -> None:
        """Go on at `rung`; what was made at another is forgotten, so that bytes do not depend on history."""
        if rung != self.rung:
            self.rung = rung
            self._forget()

    def _forget(self) -> None:
        self._renderer.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _render_block(
        self, block: Block, samples: list[Sample], upcoming: Block | None
    ) -> Rendering:
        """The block at the present rung, or at the first lower one that fits; at the last, samples fail."""
        while True:
            rendering = self._renderer.begin(samples, self.rung.batch)
            try:
                for contents, styles in self.rung.parts(block):
                    self._make_part(rendering, block, contents, styles)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._step_to(self.rung.below(block))
        if upcoming is not None:
            self._renderer.prefetch(*next(self.rung.parts(upcoming)))
        return rendering

    def _make_part(
        self,
        rendering: Rendering,
        block: Block,
        contents: tuple[int, ...],
        styles: tuple[int, ...],
    ) -> None:
        """Add pictures of the block's samples among these contents and styles."""
        try:
            rendering.make(block, contents, styles)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self.rung.is_last:
                raise
            self._forget()
            failure = SampleError(
                "oom", f"{self.model.device} has not the memory for one sample: {error}"
            )
            rendering.give_up(block, contents, styles, failure)

    def _finish(
        self,
        sink: WebDatasetShard,
        shard_id: int,
        samples: Sequence[Sample],
        rendering: Rendering,
    ) -> None:
        for sample in samples:
            sink.write(self._record(shard_id, sample, rendering))

    def _record(self, shard_id: int, sample: Sample, rendering: Rendering) -> Record:
        row = self._row(shard_id, sample) | rendering.row(sample)
        result = rendering.result(sample)
        if isinstance(result, SampleError):
            failure = {"status": "failed", "error_code": result.code, "error_message": str(result)}
            return Record(row | failure, {})
        spec = self.plan.spec.output
        image = encode(result, spec.image)
        row |= {
            "status": "success",
            "sha256": hashlib.sha256(image).hexdigest(),
            **rendering.measures(sample, result),
        }
        files: dict[str, bytes] = {spec.image.format: image}
        if spec.inputs:
            files |= rendering.inputs(sample)
        if self.plan.has_captions:
            files["txt"] = sample.caption.encode()
        if self.plan.labels:
            number = self.plan.labels.index(sample.label) if sample.label else -1
            files["cls"] = str(number).encode()
        return Record(row, files)

    def _row(self, shard_id: int, sample: Sample) -> dict[str, Any]:
        width, height = self.plan.image_size
        return {
            "key": sample.key,
            "shard": shard_id,
            "label": sample.label,
            "caption": sample.caption,
            "method": self.plan.spec.method.name,
            "model": self.plan.model,
            "seed": sample.seed,
            "width": width,
            "height": height,
            "error_code": "",
            "error_message": "",
            "sha256": "",
        }

    def _count(self, rows: int) -> None:
        with self._counting:  # lanes count at the same time
            self._evaluations += rows
            if self.on_evaluations is not None:
                self.on_evaluations(rows)
