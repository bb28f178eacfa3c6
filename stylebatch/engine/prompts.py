"""Renders blocks of rows with prompts, by any method but StyleID."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylebatch.data.grid import Block
from stylebatch.data.images import Picture, Pixels, encode, load_picture
from stylebatch.data.prompt_plan import PromptPlan
from stylebatch.data.shards import Sample
from stylebatch.engine.references import References
from stylebatch.engine.rendering import Rendering, decoded
from stylebatch.errors import SampleError
from stylebatch.methods import RendersSamples, method_of
from stylebatch.methods.pixels import overlaid, to_tensor
from stylebatch.methods.plain import Inpaint
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned import StyleAligned
from stylebatch.metrics import measures
from stylebatch.models.stable_diffusion import StableDiffusion
from stylebatch.spec import ImageFormat
from stylebatch.store.records import options_of

Input = tuple[str, str]
"""Column and id of an image."""


class PromptRenderer:
    """`pool` decodes ahead; `on_saved` is told of evaluations that the plan counts and that were not needed."""

    def __init__(
        self,
        plan: PromptPlan,
        model: StableDiffusion,
        pool: Executor,
        on_saved: Callable[[int], None] | None,
    ) -> None:
        self.plan, self.model, self.pool = plan, model, pool
        self.method = method_of(plan.spec)
        self.references: References | None = None
        if isinstance(self.method, StyleAligned):
            self.references = References(
                self.method, model,
                model_fingerprint=str(plan.identity["model_fingerprint"]),
                cache=plan.spec.features.cache, on_saved=on_saved,
            )  # fmt: skip
        self._ahead: dict[Input, Future[Picture | SampleError]] = {}

    def begin(self, samples: Sequence[Sample], batch: int) -> Rendering:
        return PromptRendering(self, batch)

    def prefetch(self, contents: tuple[int, ...], styles: tuple[int, ...]) -> None:
        for wanted in self._inputs_of(contents, styles):
            if wanted not in self._ahead:
                self._ahead[wanted] = self.pool.submit(self._load, wanted)

    def forget(self) -> None:
        self._ahead.clear()
        if self.references is not None:
            self.references.forget()

    def precompute(self, style: int) -> bool:
        raise ValueError("features: found a plan of prompts; accepted: one whose styles are cached")

    def pictures(
        self, contents: tuple[int, ...], styles: tuple[int, ...]
    ) -> dict[Input, Picture | SampleError]:
        """The inputs of rows and of their set; only these are kept for what comes next."""
        self.prefetch(contents, styles)
        wanted = self._inputs_of(contents, styles)
        self._ahead = {one: self._ahead[one] for one in wanted}
        return {one: future.result() for one, future in self._ahead.items()}

    def _inputs_of(self, rows: tuple[int, ...], sets: tuple[int, ...]) -> list[Input]:
        plan = self.plan
        found = [
            (name, getattr(plan.rows[row], name)) for row in rows for name in plan.method.inputs
        ]
        found += [("reference", plan.sets[own].reference) for own in sets]
        return [one for one in dict.fromkeys(found) if one[1]]

    def _load(self, wanted: Input) -> Picture | SampleError:
        column, name = wanted
        plan = self.plan
        size = plan.window if column == "reference" else plan.size
        try:
            path = plan.files[column][name]
            return load_picture(path, size, plan.spec.image.mode, name=f"{column} {name}")
        except SampleError as error:
            return error


class PromptRendering:
    """Pictures of a block by row, the inputs they came from, and the picture whose style they take."""

    def __init__(self, renderer: PromptRenderer, batch: int) -> None:
        self.renderer, self.plan, self.batch = renderer, renderer.plan, batch
        self.pixels: dict[int, Pixels | SampleError] = {}
        self.pictures: dict[Input, Picture | SampleError] = {}
        self.reference: Pixels | None = None
        self._encoded: dict[Input, bytes] = {}

    def make(self, block: Block, contents: tuple[int, ...], styles: tuple[int, ...]) -> None:
        self.pictures |= self.renderer.pictures(contents, styles)
        for row in contents:
            problem = self._problem(row, styles[0])
            if problem is not None:
                self.pixels[row] = problem
        good = [row for row in contents if row not in self.pixels]
        method = self.renderer.method
        if not good:
            return
        if isinstance(method, StyleAligned):
            self._make_set(method, good, styles[0])
        else:
            self._make_rows(method, good)

    def give_up(
        self,
        block: Block,
        contents: tuple[int, ...],
        styles: tuple[int, ...],
        error: SampleError,
    ) -> None:
        self.pixels.update(dict.fromkeys(contents, error))

    def _problem(self, row: int, own: int) -> SampleError | None:
        """Why a row cannot be rendered."""
        plan = self.plan
        asked = plan.rows[row]
        wanted = [(name, getattr(asked, name)) for name in plan.method.inputs]
        wanted += [("reference", plan.sets[own].reference)] if plan.sets[own].reference else []
        found = [self.pictures[one] for one in wanted]
        where = plan.where(row)
        for picture in found:
            if isinstance(picture, SampleError):
                return SampleError(picture.code, f"{where}: {picture}")
        sizes = [
            (picture.original_width, picture.original_height)
            for (name, _), picture in zip(wanted, found, strict=True)
            if name != "reference" and isinstance(picture, Picture)
        ]
        if len(set(sizes)) > 1:
            shown = " and ".join(f"{wide} x {tall}" for wide, tall in sizes)
            return SampleError(
                "mask_size",
                f"{where}: mask: image and mask are {shown} pixels; accepted: a mask of its image's size",
            )
        return None

    def _samples(self, rows: Sequence[int], size: tuple[int, int]) -> Samples:
        """`rows` as the method sees them, on a canvas of `size` pixels (width, height)."""
        plan, model = self.plan, self.renderer.model
        asked = [plan.rows[row] for row in rows]
        images = {
            name: self._images(name, [getattr(row, name) for row in asked])
            for name in plan.method.inputs
        }
        cells = (size[1] // model.latent_factor, size[0] // model.latent_factor)
        return Samples(
            texts=tuple(row.prompt for row in asked),
            negative=tuple(row.negative_prompt for row in asked),
            seeds=tuple(row.seed for row in asked),
            shape=(model.latent_channels, *cells),
            images=images,
        )

    def _images(self, column: str, names: list[str]) -> Tensor:
        pixels = [self._pixels((column, name)) for name in names]
        if column != "mask":
            return to_tensor(pixels)
        grey = np.stack([one.mean(axis=-1) for one in pixels]) / 255.0
        return torch.from_numpy(grey.astype(np.float32))[:, None]

    def _pixels(self, wanted: Input) -> Pixels:
        picture = self.pictures[wanted]
        assert isinstance(picture, Picture)
        return picture.pixels

    def _make_rows(self, method: RendersSamples, rows: list[int]) -> None:
        model, samples = self.renderer.model, self._samples(rows, self.plan.size)
        latents = method.render(model, samples, batch=self.batch)
        if latents.shape[0] != len(rows) or latents.shape[1:] != samples.shape:
            raise ValueError(
                f"method {self.plan.spec.method.name}: render returned {tuple(latents.shape)}; accepted: "
                f"{(len(rows), *samples.shape)}, clean latents of each sample"
            )
        made = decoded(model, latents, self.batch)
        if isinstance(method, Inpaint) and method.keep_original:
            made = [self._kept(row, one) for row, one in zip(rows, made, strict=True)]
        self.pixels.update(zip(rows, made, strict=True))

    def _kept(self, row: int, made: Pixels | SampleError) -> Pixels | SampleError:
        """`made` with the original pixels outside the row's mask."""
        if isinstance(made, SampleError):
            return made
        asked = self.plan.rows[row]
        mask = self._images("mask", [asked.mask])[0, 0].numpy()
        return overlaid(made, self._pixels(("image", asked.image)), mask)

    def _make_set(self, method: StyleAligned, rows: list[int], own: int) -> None:
        plan, members = self.plan, self.plan.sets[own]
        model, references = self.renderer.model, self.renderer.references
        beside, inverted = None, None
        if members.has_first:
            beside = self._samples([members.first], plan.window)
        elif references is not None:
            picture = self.pictures["reference", members.reference]
            assert isinstance(picture, Picture)
            found = references.inverted(picture, members.prompt, members.reference)
            inverted = found, members.prompt
        others = [row for row in rows if not plan.is_reference(row, own)]
        aligned = method.render(
            model, self._samples(others, plan.size),
            beside=beside, inverted=inverted, batch=self.batch,
        )  # fmt: skip
        if members.has_first:
            first = decoded(model, aligned.reference, self.batch)[0]
            if isinstance(first, SampleError):
                self.pixels.update(dict.fromkeys(rows, first))
                return
            if members.first in rows:
                self.pixels[members.first] = first
            self.reference = first
        else:
            self.reference = self._pixels(("reference", members.reference))
        if others:
            found_pixels = decoded(model, aligned.samples, self.batch)
            self.pixels.update(zip(others, found_pixels, strict=True))

    def row(self, sample: Sample) -> dict[str, Any]:
        plan, asked = self.plan, self.plan.rows[sample.content]
        row: dict[str, Any] = {
            "id": asked.id,
            "prompt": asked.prompt,
            "negative_prompt": asked.negative_prompt or "",
            **options_of(plan.method),
            **dict.fromkeys(("structure", "color_distance", "contrast")),
            **{name: getattr(asked, name) for name in plan.method.inputs},
            "original_width": 0,
            "original_height": 0,
        }
        members = plan.sets[sample.style]
        if plan.method.uses_sets:
            row["style"] = members.name
            row["reference"] = members.reference or plan.rows[members.first].id
        if plan.is_reference(sample.content, sample.style):
            row["width"], row["height"] = plan.window
        picture = self.pictures.get(("image", asked.image))
        if isinstance(picture, Picture):
            row["original_width"] = picture.original_width
            row["original_height"] = picture.original_height
        return row

    def result(self, sample: Sample) -> Pixels | SampleError:
        return self.pixels[sample.content]

    def measures(self, sample: Sample, pixels: Pixels) -> dict[str, float]:
        asked = self.plan.rows[sample.content]
        content = self._pixels(("image", asked.image)) if asked.image else None
        return measures(pixels, content=content, style=self.reference)

    def inputs(self, sample: Sample) -> dict[str, bytes]:
        asked = self.plan.rows[sample.content]
        found = {
            f"{name}.jpg": self._jpeg((name, getattr(asked, name)))
            for name in self.plan.method.inputs
        }
        if self.plan.method.uses_sets:
            found["reference.jpg"] = self._jpeg(("reference", ""))
        return found

    def _jpeg(self, wanted: Input) -> bytes:
        """An input as it was fitted; without an id, the reference."""
        if wanted not in self._encoded:
            pixels = self._pixels(wanted) if wanted[1] else self.reference
            assert pixels is not None
            self._encoded[wanted] = encode(pixels, ImageFormat())
        return self._encoded[wanted]
