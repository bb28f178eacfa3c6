"""Renders shards: the only such loop; engines decide which shards a worker gets.

A shard is made in these steps:
1. The images of a block are decoded (ahead of need, on a thread) and fitted to the run's size.
2. Contents and styles are encoded to latents and inverted; inversions stay for the next blocks.
3. All pairs of the block are stylised in lockstep, in batches that the plan fixes.
4. The latents are decoded; a thread measures and encodes the pictures of this block, and appends them to the shard in
   key order, while the next one is rendered.
5. After the last block the shard is committed. Nothing is decoded ahead for the next shard: an image that kills the
   process must kill the shard that it belongs to.
A sample that cannot be made becomes a failed row and keeps its key. Where the device runs out of memory,
the block is tried again in smaller batches, then in smaller parts (`ladder.py`). Every shard begins at the plan's batch,
so that its bytes do not depend on what its worker met before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from stylebatch.data.grid import Block
from stylebatch.data.images import Component, Picture, Pixels, encode
from stylebatch.data.loading import load_input
from stylebatch.data.plan import Plan, Sample, Shard
from stylebatch.engine.blending import components, latent_masks
from stylebatch.engine.inputs import Group, Inputs
from stylebatch.engine.ladder import Rung, is_out_of_memory
from stylebatch.engine.style_bank import StyleBank
from stylebatch.errors import SampleError
from stylebatch.methods import METHODS
from stylebatch.methods.codec import FeatureCodec
from stylebatch.methods.features import FeatureKind, Inverted
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid import Pairs
from stylebatch.metrics import quality
from stylebatch.models.stable_diffusion import StableDiffusion, load_model
from stylebatch.store.records import Record
from stylebatch.store.sinks import WebDatasetShard


@dataclass(frozen=True)
class _Rendered:
    """A block's pictures by (content, style), and the groups of inputs they came from, by index."""

    samples: list[Sample]
    contents: dict[int, Group] = field(default_factory=dict)
    styles: dict[int, Group] = field(default_factory=dict)
    pixels: dict[tuple[int, int], Pixels | SampleError] = field(default_factory=dict)


class Worker:
    """A loaded model and the inputs it keeps; a context manager. `render` makes and commits one shard.

    `on_evaluations` is told the rows of each network evaluation, on the rendering thread. `model`: the plan's, where
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
        self.method = METHODS[plan.spec.method.name](**plan.spec.method.model_dump())
        self.rung = self._top = Rung(plan.batch)
        self._evaluations = 0

    def __enter__(self) -> Worker:
        self.model = self._given or load_model(self.plan.spec.model)
        self._former_threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        self.model.on_evaluations = self._count
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._inputs = {
            "query": self._make_inputs("query"),
            "key_value": self._make_inputs("key_value"),
        }
        cached = self.plan.choice.styles == "cached"
        self._bank = StyleBank.of_plan(self.plan, self.method, self.model) if cached else None
        self._found: set[str] = set()
        self._style_names = [row.id for row in self.plan.styles]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pool in (self._decoders, self._finisher):
            pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._former_threads)
        self.model.on_evaluations = None

    def _make_inputs(self, kind: FeatureKind) -> Inputs:
        plan, image = self.plan, self.plan.spec.image
        rows = plan.contents if kind == "query" else plan.styles
        capacity = 1 if kind == "query" else plan.num_style_groups_held
        return Inputs(rows, size=plan.size, mode=image.mode, capacity=capacity, pool=self._decoders)

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
        with WebDatasetShard(self.output, plan.shard_name(shard_id)) as sink:
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
                writing = self._finisher.submit(self._finish, sink, shard.id, rendered)
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
        for inputs in self._inputs.values():
            inputs.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _render_block(
        self, block: Block, samples: list[Sample], upcoming: Block | None
    ) -> _Rendered:
        """The block at the present rung, or at the first lower one that fits; at the last, pairs fail."""
        while True:
            rendered = _Rendered(samples)
            try:
                for contents, styles in self.rung.parts(block):
                    self._render_part(block, contents, styles, rendered)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._step_to(self.rung.below(block))
        if upcoming is not None:
            contents, styles = next(self.rung.parts(upcoming))
            self._inputs["query"].prefetch(contents)
            self._inputs["key_value"].prefetch(styles)
        return rendered

    def _render_part(
        self,
        block: Block,
        content_ids: tuple[int, ...],
        style_ids: tuple[int, ...],
        rendered: _Rendered,
    ) -> None:
        """Add pictures of the block's pairs among these contents and styles."""
        wanted = [pair for pair in block.pairs if pair[0] in content_ids and pair[1] in style_ids]
        try:
            contents = self._inputs["query"].group(
                content_ids, lambda pictures: self._invert(pictures, "query")
            )
            styles = self._inputs["key_value"].group(
                style_ids, lambda pictures: self._invert(pictures, "key_value")
            )
            rendered.contents.update(dict.fromkeys(content_ids, contents))
            rendered.styles.update(dict.fromkeys(style_ids, styles))
            rendered.pixels.update(self._stylised(wanted, contents, styles))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self.rung.is_last:
                raise
            self._forget()
            failure = SampleError(
                "oom", f"{self.model.device} has not the memory for one sample: {error}"
            )
            rendered.pixels.update(dict.fromkeys(wanted, failure))

    def _stylised(
        self, wanted: list[tuple[int, int]], contents: Group, styles: Group
    ) -> dict[tuple[int, int], Pixels | SampleError]:
        todo = sorted(
            {(c, s) for c, s in wanted if c in contents.position and s in styles.position},
            key=lambda pair: (pair[1], pair[0]),
        )
        if not todo or contents.inverted is None or styles.inverted is None:
            return {}
        pairs = Pairs(
            tuple(contents.position[c] for c, _ in todo),
            tuple(styles.position[s] for _, s in todo),
        )
        _, mixtures = components(_good(styles), self._style_names)
        cells = (contents.inverted.latent.shape[-2], contents.inverted.latent.shape[-1])
        latents = self.method.stylise(
            self.model, contents.inverted, styles.inverted, pairs,
            batch=self.rung.batch, mixtures=mixtures, masks=latent_masks(_good(contents).values(), cells),
        )  # fmt: skip
        return dict(zip(todo, self._decode(latents), strict=True))

    def precompute(self, style: int) -> bool:
        """Write the style of this index to the cache unless it is there; whether it was written.

        Raises SampleError for an image that cannot be used, ValueError where the plan caches no styles.
        """
        if self._bank is None:
            raise ValueError(
                "features: found a plan without cached styles; accepted: one whose styles are cached"
            )
        picture = load_input(self.plan.styles[style], self.plan.size, self.plan.spec.image.mode)
        return self._bank.fill(components({style: picture}, self._style_names)[0]) > 0

    def _invert(self, pictures: dict[int, Picture], kind: FeatureKind) -> Inverted:
        pixels = [picture.pixels for picture in pictures.values()]
        if kind == "key_value":
            images, _ = components(pictures, self._style_names)
            if self._bank is not None:
                return self._from_bank(self._bank, images)
            pixels = [image.pixels for image in images]
        batch = self.rung.batch
        parts = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
        latents = torch.cat([self.model.encode(to_tensor(part)) for part in parts])
        choice = self.plan.choice
        source = choice.contents if kind == "query" else choice.styles
        return self.method.invert(
            self.model, latents, kind,
            batch=batch, codec=FeatureCodec(choice.codec), hold=source == "held",
        )  # fmt: skip

    def _from_bank(self, bank: StyleBank, images: list[Component]) -> Inverted:
        """Styles from the cache; the plan counts each as inverted once, so those found there advance too."""
        built = bank.num_built
        inverted = bank.inverted([bank.style(image.pixels, image.name) for image in images])
        new = {image.name for image in images} - self._found
        saved = len(new) - (bank.num_built - built)
        self._found |= new
        if self.on_evaluations is not None and saved > 0:
            self.on_evaluations(saved * self.method.num_inversion_evaluations)
        return inverted

    def _decode(self, latents: Tensor) -> list[Pixels | SampleError]:
        decoded: list[Pixels | SampleError] = []
        for part in latents.split(self.rung.batch):
            images = self.model.decode(part).cpu()
            for image in images:
                if bool(torch.isfinite(image).all()):
                    decoded += to_pixels(image[None])
                else:
                    decoded.append(
                        SampleError(
                            "not_finite",
                            "the model returned NaN or infinity; try model.dtype float32 or bfloat16",
                        )
                    )
        return decoded

    def _finish(self, sink: WebDatasetShard, shard_id: int, rendered: _Rendered) -> None:
        for sample in rendered.samples:
            sink.write(self._record(shard_id, sample, rendered))

    def _record(self, shard_id: int, sample: Sample, rendered: _Rendered) -> Record:
        row = self._row(shard_id, sample)
        result = rendered.pixels.get((sample.content, sample.style))
        inverted = sample.content in rendered.contents and sample.style in rendered.styles
        if isinstance(result, SampleError) and not inverted:
            return _failed(row, result)  # one image alone did not fit in memory
        contents, styles = rendered.contents[sample.content], rendered.styles[sample.style]
        content, style = contents.pictures[sample.content], styles.pictures[sample.style]
        if isinstance(content, SampleError):
            return _failed(row, content)
        row |= {
            "original_width": content.original_width,
            "original_height": content.original_height,
        }
        if isinstance(style, SampleError):
            return _failed(row, style)
        if isinstance(result, SampleError):
            return _failed(row, result)
        assert result is not None, f"{sample.key} was passed over"
        measured = quality(content.pixels, style.pixels, result)
        spec = self.plan.spec.output
        image = encode(result, spec.image)
        row |= {
            "status": "success",
            "sha256": hashlib.sha256(image).hexdigest(),
            "structure": measured.structure,
            "color_distance": measured.color_distance,
            "contrast": measured.contrast,
        }
        files: dict[str, bytes] = {spec.image.format: image}
        if spec.inputs:
            files["content.jpg"] = contents.jpeg(sample.content)
            files["style.jpg"] = styles.jpeg(sample.style)
        if self.plan.has_captions:
            files["txt"] = sample.caption.encode()
        if self.plan.labels:
            number = self.plan.labels.index(sample.label) if sample.label else -1
            files["cls"] = str(number).encode()
        return Record(row, files)

    def _row(self, shard_id: int, sample: Sample) -> dict[str, Any]:
        plan, method = self.plan, self.method
        return {
            "key": sample.key,
            "shard": shard_id,
            "content_id": plan.contents[sample.content].id,
            "style_id": plan.styles[sample.style].id,
            "label": sample.label,
            "caption": sample.caption,
            "method": method.name,
            "model": plan.model,
            "seed": sample.seed,
            "gamma": method.gamma,
            "tau": method.tau,
            "steps": method.steps,
            "convention": method.convention,
            "start": method.start or "",
            "sites": list(method.sites),
            "init_adain": method.init_adain,
            "inject": method.inject,
            "width": plan.size,
            "height": plan.size,
            "original_width": 0,
            "original_height": 0,
            "error_code": "",
            "error_message": "",
            "sha256": "",
            "structure": None,
            "color_distance": None,
            "contrast": None,
        }

    def _count(self, rows: int) -> None:
        self._evaluations += rows
        if self.on_evaluations is not None:
            self.on_evaluations(rows)


def _good(group: Group) -> dict[int, Picture]:
    """The pictures that were inverted, in their order."""
    return {i: image for i, image in group.pictures.items() if isinstance(image, Picture)}


def _failed(row: dict[str, Any], error: SampleError) -> Record:
    failure = {"status": "failed", "error_code": error.code, "error_message": str(error)}
    return Record(row | failure, {})
