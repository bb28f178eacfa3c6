"""Renders shards: the only such loop; engines decide which shards a worker gets.

A shard is made in these steps:
1. The inputs of a block are decoded (ahead of need, on a thread) and fitted to the run's size.
2. The block's rows and columns are prepared (inverted, encoded), which stays for the next blocks, and its samples are rendered
   together, in batches that the plan fixes (`renderer.py`). On a CPU evaluations go side by side (`models/lanes.py`).
3. A thread measures and encodes the pictures of this block, and appends them to the shard in key order, while the next one
   is rendered.
4. After the last block the shard is committed. Nothing is decoded ahead for the next shard: an image that kills the
   process must kill the shard that it belongs to.
A sample that cannot be made becomes a failed row and keeps its key, as does one that the gates reject (`retries.py`).
Where the device runs out of memory,
the block is tried again in smaller batches, then in smaller parts (`ladder.py`). Every shard begins at the plan's batch,
so that its bytes do not depend on what its worker did before.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch

from stylebatch.data.images import encode
from stylebatch.engine.attempts import Tally
from stylebatch.engine.decoders import Decoders
from stylebatch.engine.ladder import Rung, is_out_of_memory
from stylebatch.engine.measure import lanes_of
from stylebatch.engine.renderer import Renderer, Rendering
from stylebatch.engine.retries import Retries
from stylebatch.engine.sight import Sight
from stylebatch.errors import SampleError
from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.methods.user import users_of
from stylebatch.methods.user_code import UserCodeError
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.loading import find_device, load_model
from stylebatch.planning.grid import Block
from stylebatch.planning.plan import Plan, Sample, Shard
from stylebatch.quality.asked import TABLE
from stylebatch.store.counted_reasons import counted_reasons, rules_of
from stylebatch.store.fingerprints import Fingerprints
from stylebatch.store.looks_record import Looks
from stylebatch.store.records import Record, schema_of_plan
from stylebatch.store.sinks import Sink, sink_of

GATE = "gate"
"""Code of samples that were rejected."""
_COLUMNS = {kind.name: kind.column for kind in INPUT_KINDS}
MAX_NOTES = 100
"""Of a shard, kept in its stats."""


class Worker:
    """A loaded model and the inputs it keeps; a context manager. `render` makes and commits one shard.

    `on_evaluations` gets the rows of each network evaluation, one call at a time. `model`: the plan's, where
    the caller has loaded it already.
    """

    def __init__(
        self,
        plan: Plan,
        output: Folder,
        *,
        threads: int,
        on_evaluations: Callable[[int], None] | None = None,
        model: Denoiser | None = None,
    ) -> None:
        self.plan = plan
        self.output = output
        self.threads = threads
        self.on_evaluations = on_evaluations
        self._given = model
        self.schema = schema_of_plan(plan)
        self.rung = self._top = Rung(plan.batch)
        self._evaluations = 0
        self._notes: dict[str, None] = {}
        self._retries = Retries(plan, self._judged_row) if plan.spec.gates is not None else None
        self._keeps_rejected = plan.spec.gates is not None and plan.spec.gates.keep_rejected
        self._tally, self._looks = Tally(), Looks()
        self._is_extra = False
        self._counting = threading.Lock()

    def __enter__(self) -> Worker:
        with ExitStack() as held:
            self.model = self._given or load_model(
                self.plan.spec.model, device=find_device(self.plan.spec.engine.device)
            )
            # bound before the next line changes it
            held.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self.threads)
            held.callback(self._leave, self.model)
            self.model.on_evaluations = self._count
            self.model.pictures_at_once = self.plan.pictures
            self._decoders = Decoders(2)
            # one thread: samples are appended in key order
            self._finisher = ThreadPoolExecutor(1, thread_name_prefix="encode")
            held.callback(self._decoders.close)
            held.callback(self._finisher.shutdown, wait=True, cancel_futures=True)
            self._lanes = lanes_of(self.plan, self.model, self.threads)
            held.callback(self._lanes.close)
            self._fingerprints = Fingerprints(self.output)
            self._renderer = self._make_renderer()
            self._renderer.sight = Sight.of(self.plan, self.model.device)
            # from here on `__exit__` closes; an error above has closed already
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    @staticmethod
    def _leave(model: Denoiser) -> None:
        model.on_evaluations = None
        model.pictures_at_once = None
        model.lanes = None

    def _make_renderer(self) -> Renderer:
        return Renderer(
            self.plan,
            self.model,
            self._decoders,
            self.on_evaluations,
            self._fingerprints.check,
        )

    def precompute(self, column: int) -> bool:
        """As `Renderer.precompute`."""
        return self._renderer.precompute(column)

    def render(
        self, shard_id: int, executed: Sequence[Sequence[int]] | None = None
    ) -> dict[str, Any]:
        """Render and commit a shard; returns its stats. Leaves no partial file when interrupted.

        `executed`: the rungs [batch, rows, columns] of an earlier rendering of this shard, block by block, to repeat.
        """
        plan, started, before = self.plan, time.monotonic(), self._evaluations
        shard = plan.shard(shard_id)
        self._shard_id = shard_id
        rungs: list[Rung] = []
        planned = [Rung(*numbers) for numbers in executed] if executed else None
        # a shard that ran out of memory must not decide about the next one's bytes
        self._step_to(self._top)
        self._notes.clear()
        self._tally, self._looks = Tally(), Looks()
        self._fingerprints.used.clear()
        name, form = plan.shard_name(shard_id), plan.spec.output
        shares, sink_type = form.inputs == "reference", sink_of(form.format)
        with sink_type(
            self.output, name, self.schema, labels=plan.labels, shares_inputs=shares
        ) as sink:
            if self._keeps_rejected:
                sink.keep_aside()
            self._fill(sink, shard, planned, rungs)
            self._require_numbers(sink.rows)
            lowered = any(rung != self._top for rung in rungs)
            stats = sink.commit(
                {
                    "shard": shard_id,
                    "plan_digest": plan.digest,
                    "seconds": round(time.monotonic() - started, 3),
                    "evaluations": self._evaluations - before,
                    "device": str(self.model.device),
                    # a dict as an ordered set
                    "notes": list(self._notes)[:MAX_NOTES],
                    "executed": [rung.as_list() for rung in rungs] if lowered else [],
                    "inputs": dict(sorted(self._fingerprints.used.items())),
                    "looks": self._looks.as_facts(),
                    **counted_reasons(sink.rows, rules_of(plan.identity)),
                }
            )
        return stats

    def _require_numbers(self, rows: Sequence[dict[str, Any]]) -> None:
        """Raise UserCodeError where the method of a user gave NaN or infinity for all of a shard."""
        is_users = users_of(self.plan.spec.method) is not None
        if is_users and {row["error_code"] for row in rows} == {"not_finite"}:
            raise UserCodeError(rows[0]["error_message"])

    def _fill(
        self, sink: Sink, shard: Shard, planned: list[Rung] | None, rungs: list[Rung]
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
                # the sink is closed next: nothing may be writing into it
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
        elif self.model.device.type == "mps":
            torch.mps.empty_cache()

    def _render_block(
        self, block: Block, samples: list[Sample], upcoming: Block | None
    ) -> Rendering:
        """The block at the present rung, or at the first lower one that fits; at the last, samples fail."""
        while True:
            # lanes multiply activations, which is what ran out where the batch was halved
            self.model.lanes = self._lanes if self.rung.batch == self.plan.batch else None
            rendering = self._renderer.begin(samples, self.rung.batch)
            # of its own, so that a block which is begun again is counted once
            tally = replace(self._tally)
            try:
                for rows, columns in self.rung.parts(block):
                    if self._make_part(rendering, block, rows, columns):
                        self._judge_part(rendering, block, (rows, columns), tally)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside `except`: there the traceback would keep the failed tensors alive
            self._step_to(self.rung.below(block))
        self._tally = tally
        # by parts of the rung that fits now, at which the next block begins
        if upcoming is not None:
            self._renderer.prefetch(*next(self.rung.parts(upcoming)))
        return rendering

    def _make_part(
        self,
        rendering: Rendering,
        block: Block,
        rows: tuple[int, ...],
        columns: tuple[int, ...],
    ) -> bool:
        """Add pictures of the block's samples among these rows and columns; whether the device had the memory."""
        try:
            rendering.make(block, rows, columns)
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self.rung.is_last:
                raise
            self._forget()
            text = f"{self.model.device} has not the memory for one sample: {error}"
            failure = SampleError("oom", text.rstrip(": "))
            rendering.give_up(block, rows, columns, failure)
            return False

    def _judge_part(
        self,
        rendering: Rendering,
        block: Block,
        part: tuple[tuple[int, ...], tuple[int, ...]],
        tally: Tally,
    ) -> None:
        """Judge what was rendered among these rows and columns, and render again what the gates reject."""
        if self._retries is None:
            return
        rows, columns = part
        cells = [cell for cell in block.cells if cell[0] in rows and cell[1] in columns]
        self._is_extra = True
        try:
            self._retries.of_part(rendering, cells, columns, tally)
        except (RuntimeError, MemoryError) as error:
            # at the last rung the verdict on the attempt before stays: there is no lower one to begin again at
            if not is_out_of_memory(error) or not self.rung.is_last:
                raise
            self._forget()
        finally:
            self._is_extra = False

    def _finish(
        self,
        sink: Sink,
        shard_id: int,
        samples: Sequence[Sample],
        rendering: Rendering,
    ) -> None:
        for sample in samples:
            sink.write(self._record(shard_id, sample, rendering))
            self._notes.update(dict.fromkeys(rendering.notes(sample)))

    def _record(self, shard_id: int, sample: Sample, rendering: Rendering) -> Record:
        row = self._row(shard_id, sample) | rendering.row(sample)
        result = rendering.result(sample)
        if isinstance(result, SampleError):
            failure = {"status": "failed", "error_code": result.code, "error_message": str(result)}
            return Record(row | failure, {})
        row |= rendering.measures(sample, result)
        reason = rendering.rejected(sample)
        if reason:
            row |= {"status": "rejected", "error_code": GATE, "error_message": reason}
            if not self._keeps_rejected:
                return Record(row, {})
        spec = self.plan.spec.output
        image = encode(result, spec.image)
        row["sha256"] = hashlib.sha256(image).hexdigest()
        if reason:
            return Record(row, {spec.image.format: image})
        row["status"] = "success"
        look, of_inputs = rendering.looks(sample, result)
        self._looks.samples.append(look)
        for kind, of_input in of_inputs.items():
            self._looks.contents[row[_COLUMNS[kind]]] = of_input
        files: dict[str, bytes] = {spec.image.format: image}
        if spec.inputs:
            files |= rendering.inputs(sample)
        files |= rendering.label_images(sample)
        if self.plan.has_captions:
            files["txt"] = sample.caption.encode()
        if self.plan.labels:
            number = self.plan.class_numbers[sample.label] if sample.label else -1
            files["cls"] = str(number).encode()
        return Record(row, files)

    def _judged_row(self, sample: Sample, rendering: Rendering) -> dict[str, Any]:
        """As `_record`, of what is known before a sample is encoded; no rule looks at its shard but for the split."""
        row = self._row(self._shard_id, sample) | rendering.row(sample)
        result = rendering.result(sample)
        assert not isinstance(result, SampleError), "what failed is not judged"
        return row | rendering.measures(sample, result)

    def _row(self, shard_id: int, sample: Sample) -> dict[str, Any]:
        width, height = self.plan.size_of(sample.row, sample.column)
        return {
            "key": sample.key,
            "shard": shard_id,
            **self._told_of_inputs(shard_id, sample),
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
            **dict.fromkeys(measure.column for measure in TABLE),
        }

    def _told_of_inputs(self, shard_id: int, sample: Sample) -> dict[str, Any]:
        """What the plan knows of a sample beyond its axes, in runs whose records tell it."""
        plan = self.plan
        known = {"split": plan.split_of(shard_id), "captions": list(plan.captions_of(sample.row))}
        return {name: known[name] for name in plan.input_columns if name in known}

    def _count(self, rows: int) -> None:
        with self._counting:  # lanes count at the same time
            self._evaluations += rows
            # no plan counts what is tried again
            if self.on_evaluations is not None and not self._is_extra:
                self.on_evaluations(rows)
