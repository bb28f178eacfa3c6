"""Renders shards: the only such loop; engines decide which shards a worker gets.

A shard is made in these steps:
1. The images of a block are decoded (ahead of need, on a thread) and fitted to the run's size.
2. Contents and styles are encoded to latents and inverted; inversions stay for the next blocks.
3. All pairs of the block are stylised in lockstep, in batches that the plan fixes.
4. The latents are decoded; a thread measures and encodes the pictures of this block while the next
   one is rendered.
5. Records are appended to the shard in key order; after the last block the shard is committed.
A sample that cannot be made becomes a failed row and keeps its key.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from stylebatch.data.grid import Block
from stylebatch.data.images import Picture, Pixels, encode
from stylebatch.data.plan import Plan, Sample, Shard
from stylebatch.engine.inputs import Group, Inputs
from stylebatch.engine.style_bank import StyleBank
from stylebatch.errors import DeviceMemoryError, SampleError
from stylebatch.methods import METHODS
from stylebatch.methods.codec import FeatureCodec
from stylebatch.methods.features import FeatureKind, Inverted
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid import Pairs
from stylebatch.metrics import quality
from stylebatch.models.stable_diffusion import load_model
from stylebatch.store.records import Record
from stylebatch.store.sinks import WebDatasetShard


@dataclass(frozen=True)
class _Rendered:
    """A block's pictures by (content, style), and the inputs they came from."""

    samples: list[Sample]
    contents: Group
    styles: Group
    pixels: dict[tuple[int, int], Pixels | SampleError]


class Worker:
    """A loaded model and the inputs it keeps; a context manager. `render` makes and commits one shard.

    `on_evaluations` is told the rows of each network evaluation, on the rendering thread.
    """

    def __init__(
        self,
        plan: Plan,
        output: Path,
        *,
        threads: int,
        on_evaluations: Callable[[int], None] | None = None,
    ) -> None:
        self.plan = plan
        self.output = output
        self.threads = threads
        self.on_evaluations = on_evaluations
        self.method = METHODS[plan.spec.method.name](**plan.spec.method.model_dump())
        self.batch = plan.batch
        self._evaluations = 0

    def __enter__(self) -> Worker:
        self.model = load_model(self.plan.spec.model)
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
        self._found: set[int] = set()
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

    def _make_inputs(self, kind: FeatureKind) -> Inputs:
        plan, image = self.plan, self.plan.spec.image
        rows = plan.contents if kind == "query" else plan.styles
        capacity = 1 if kind == "query" else plan.num_style_groups_held
        return Inputs(rows, size=plan.size, mode=image.mode, capacity=capacity, pool=self._decoders)

    def render(self, shard_id: int) -> dict[str, Any]:
        """Render and commit a shard; returns its stats. Leaves no partial file when interrupted."""
        plan, started, before = self.plan, time.monotonic(), self._evaluations
        shard = plan.shard(shard_id)
        with WebDatasetShard(self.output, plan.shard_name(shard_id)) as sink:
            try:
                for records in self._records(shard):
                    for record in records:
                        sink.write(record)
            except torch.OutOfMemoryError as error:
                raise DeviceMemoryError(
                    f"{self.model.device} ran out of memory in {plan.shard_name(shard_id)}: {error}. Next: lower "
                    f"engine.batch (now {self.batch}) or engine.feature_gb (now {plan.spec.engine.feature_gb:g}), "
                    "with another --output, since both are part of the plan"
                ) from error
            return sink.commit(
                {
                    "shard": shard_id,
                    "plan_digest": plan.digest,
                    "seconds": round(time.monotonic() - started, 3),
                    "evaluations": self._evaluations - before,
                    "device": str(self.model.device),
                }
            )

    def _records(self, shard: Shard) -> Iterator[list[Record]]:
        """Records of each block; a block is finished on a thread while the next one is rendered."""
        blocks = list(self.plan.samples(shard))
        pending: Future[list[Record]] | None = None
        for position, (block, samples) in enumerate(blocks):
            upcoming = blocks[position + 1][0] if position + 1 < len(blocks) else None
            rendered = self._render_block(block, samples, upcoming)
            if pending is not None:
                yield pending.result()
            pending = self._finisher.submit(self._finish, shard.id, rendered)
        if pending is not None:
            yield pending.result()

    def _render_block(
        self, block: Block, samples: list[Sample], upcoming: Block | None
    ) -> _Rendered:
        contents = self._inputs["query"].group(
            block.contents, lambda pictures: self._invert(pictures, "query")
        )
        styles = self._inputs["key_value"].group(
            block.styles, lambda pictures: self._invert(pictures, "key_value")
        )
        if upcoming is not None:
            self._inputs["query"].prefetch(upcoming.contents)
            self._inputs["key_value"].prefetch(upcoming.styles)
        todo = sorted(
            {
                pair
                for pair in block.pairs
                if pair[0] in contents.position and pair[1] in styles.position
            },
            key=lambda p: (p[1], p[0]),
        )
        pixels: dict[tuple[int, int], Pixels | SampleError] = {}
        if todo and contents.inverted is not None and styles.inverted is not None:
            pairs = Pairs(
                tuple(contents.position[c] for c, _ in todo),
                tuple(styles.position[s] for _, s in todo),
            )
            latents = self.method.stylise(
                self.model, contents.inverted, styles.inverted, pairs, batch=self.batch
            )
            pixels = dict(zip(todo, self._decode(latents), strict=True))
        return _Rendered(samples, contents, styles, pixels)

    def _invert(self, pictures: dict[int, Picture], kind: FeatureKind) -> Inverted:
        if kind == "key_value" and self._bank is not None:
            return self._from_bank(self._bank, pictures)
        pixels = [picture.pixels for picture in pictures.values()]
        parts = [pixels[i : i + self.batch] for i in range(0, len(pixels), self.batch)]
        latents = torch.cat([self.model.encode(to_tensor(part)) for part in parts])
        choice = self.plan.choice
        source = choice.contents if kind == "query" else choice.styles
        return self.method.invert(
            self.model, latents, kind,
            batch=self.batch, codec=FeatureCodec(choice.codec), hold=source == "held",
        )  # fmt: skip

    def _from_bank(self, bank: StyleBank, pictures: dict[int, Picture]) -> Inverted:
        """Styles from the cache; the plan counts each as inverted once, so those found there advance too."""
        built = bank.num_built
        styles = [bank.style(picture, self.plan.styles[i].id) for i, picture in pictures.items()]
        inverted = bank.inverted(styles)
        new = pictures.keys() - self._found
        saved = len(new) - (bank.num_built - built)
        self._found |= new
        if self.on_evaluations is not None and saved > 0:
            self.on_evaluations(saved * self.method.num_inversion_evaluations)
        return inverted

    def _decode(self, latents: Tensor) -> list[Pixels | SampleError]:
        decoded: list[Pixels | SampleError] = []
        for part in latents.split(self.batch):
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

    def _finish(self, shard_id: int, rendered: _Rendered) -> list[Record]:
        return [self._record(shard_id, sample, rendered) for sample in rendered.samples]

    def _record(self, shard_id: int, sample: Sample, rendered: _Rendered) -> Record:
        content = rendered.contents.pictures[sample.content]
        style = rendered.styles.pictures[sample.style]
        row = self._row(shard_id, sample)
        if isinstance(content, SampleError):
            return _failed(row, content)
        row |= {
            "original_width": content.original_width,
            "original_height": content.original_height,
        }
        if isinstance(style, SampleError):
            return _failed(row, style)
        result = rendered.pixels[sample.content, sample.style]
        if isinstance(result, SampleError):
            return _failed(row, result)
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
            files["content.jpg"] = rendered.contents.jpeg(sample.content)
            files["style.jpg"] = rendered.styles.jpeg(sample.style)
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


def _failed(row: dict[str, Any], error: SampleError) -> Record:
    failure = {"status": "failed", "error_code": error.code, "error_message": str(error)}
    return Record(row | failure, {})
