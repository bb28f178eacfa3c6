"""What the renderer asks of a method: to prepare the inputs of an axis, once, and to render samples at their crossings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, Self

from torch import Tensor

from stylebatch.data.images import Picture, Pixels
from stylebatch.methods.builtin import method_of
from stylebatch.models.denoiser import Denoiser
from stylebatch.planning.plan import Plan
from stylebatch.planning.prompts import PromptRow

PicturesByIndex = Mapping[int, Picture | None]
"""Inputs along an axis by their index in the plan; None for those without a picture."""


@dataclass(frozen=True)
class SampleRequest:
    """A sample that is to be rendered: its places among the prepared rows and columns, its seed, and what its prompt says.

    `size`: width and height in pixels, the same for all of a block. `is_reference`: its picture is the one whose style the other
    samples of its set take.
    """

    row: int
    column: int
    seed: int
    size: tuple[int, int]
    prompt: PromptRow | None = None
    is_reference: bool = False


@dataclass(frozen=True)
class Rendered:
    """Clean latents of the samples that are no reference, in their order, and that of the reference, (1, c, h, w)."""

    latents: Tensor
    reference: Tensor | None = None


class BlockMethod(Protocol):
    """`batch` bounds the rows of one network evaluation. Both raise what the device raises."""

    def prepare(self, axis: str, inputs: PicturesByIndex, batch: int) -> Any:
        """What `render` is given of the inputs, none of them missing or unusable."""
        ...

    def render(
        self, requests: Sequence[SampleRequest], rows: Any, columns: Any, batch: int
    ) -> Rendered:
        """Samples of what was prepared; at least one."""
        ...

    def finished(self, request: SampleRequest, pixels: Pixels, picture: Picture | None) -> Pixels:
        """The picture as it is kept; `picture`: the input of its row."""
        ...

    def changed(self, options: Mapping[str, Any]) -> Self:
        """The same with other options of those that `MethodOptions.retried` names; what was prepared serves both."""
        ...

    def precompute(self, inputs: PicturesByIndex) -> int:
        """Write columns to the cache that it lacks; how many images were written."""
        ...

    def forget(self) -> None:
        """Drop what is kept between blocks."""
        ...


@dataclass(frozen=True)
class Context:
    """What blocks are rendered with. `on_saved` gets the number of evaluations that the plan counts and that were not needed."""

    plan: Plan
    model: Denoiser
    on_saved: Callable[[int], None] | None


class DefaultBlocks:
    """The plan's method, and the members of `BlockMethod` that most methods need not change."""

    method: Any

    def __init__(self, context: Context) -> None:
        self.plan, self.model = context.plan, context.model
        self.method = method_of(context.plan.spec.method)

    def finished(self, request: SampleRequest, pixels: Pixels, picture: Picture | None) -> Pixels:
        return pixels

    def changed(self, options: Mapping[str, Any]) -> Self:
        # shallow: banks and inversions are shared
        other = copy(self)
        other.method = self.method.model_copy(update=dict(options))
        return other

    def precompute(self, inputs: PicturesByIndex) -> int:
        raise ValueError(
            "features: found a plan without cached styles; accepted: one whose styles are cached"
        )

    def forget(self) -> None: ...
