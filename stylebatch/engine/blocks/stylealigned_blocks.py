"""Blocks of StyleAligned: samples of a set, beside its first prompt or an inverted image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylebatch.engine.blocks.block_method import (
    Context,
    DefaultBlocks,
    PicturesByIndex,
    Rendered,
    SampleRequest,
)
from stylebatch.engine.blocks.prompt_blocks import samples_of
from stylebatch.engine.blocks.references import Inversion, References
from stylebatch.methods.stylealigned.algorithm import StyleAligned


@dataclass(frozen=True)
class Set:
    """A set by its column; `inverted`: the reference image with what it shows, None where a prompt is the reference."""

    column: int
    inverted: tuple[Inversion, str] | None


class StyleAlignedBlocks(DefaultBlocks):
    method: StyleAligned

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.references = References(
            self.method, self.model,
            model_fingerprint=str(self.plan.identity["model_fingerprint"]),
            cache=self.plan.spec.features.cache, on_saved=context.on_saved,
        )  # fmt: skip

    def prepare(self, axis: str, inputs: PicturesByIndex, batch: int) -> list[Set]:
        sets = []
        for column, picture in inputs.items() if axis == "set" else ():
            inverted = None
            if picture is not None:
                item = self.plan.images(1)[column]
                name = str(item.extra["reference"])
                found = self.references.inverted(picture, item.caption, name)
                inverted = found, item.caption
            sets.append(Set(column, inverted))
        return sets

    def render(
        self, requests: Sequence[SampleRequest], rows: list[Set], columns: list[Set], batch: int
    ) -> Rendered:
        plan, model = self.plan, self.model
        (one,) = columns  # a block is of one set
        beside = None
        if one.inverted is None:
            row = plan.reference_of(one.column)
            assert row is not None, "a set without an image has a first prompt"
            request = plan.request(row, one.column)
            first = SampleRequest(0, 0, request.seed, plan.window, request.prompt)
            beside = samples_of([first], model, plan.window)
        # it comes back beside the others, and is not rendered twice
        others = [sample for sample in requests if not sample.is_reference]
        aligned = self.method.render(
            model, samples_of(others, model, requests[0].size),
            beside=beside, inverted=one.inverted, batch=batch,
        )  # fmt: skip
        return Rendered(aligned.samples, None if one.inverted else aligned.reference)

    def forget(self) -> None:
        self.references.forget()
