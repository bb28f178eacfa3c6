"""Generation methods. `METHODS` maps a manifest's `method.name` to the class that runs it."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from stylebatch.methods.method import MethodOptions
from stylebatch.methods.pair_samples import PairSamples
from stylebatch.methods.pixels import Pixels
from stylebatch.methods.plain.algorithm import Img2Img, Inpaint, Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned.algorithm import StyleAligned
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.user import CustomMethod
from stylebatch.models.denoiser import Denoiser
from stylebatch.section import Section

METHODS: dict[str, type[StyleID | StyleAligned | Text2Img | Img2Img | Inpaint]] = {
    "styleid": StyleID,
    "stylealigned": StyleAligned,
    "text2img": Text2Img,
    "img2img": Img2Img,
    "inpaint": Inpaint,
}


class RendersSamples(Protocol):
    """What a `PromptMethod` that makes no sets implements, built in or a user's."""

    def prepare(
        self, model: Denoiser, images: dict[str, Tensor], *, batch: int
    ) -> dict[str, Tensor]:
        """As `PromptMethod.prepare`."""
        ...

    def render(self, model: Denoiser, samples: Samples, *, batch: int) -> Tensor:
        """Clean latents (N, c, h, w) of the rows; `batch` bounds the rows of one network evaluation."""
        ...

    def finished(self, pixels: Pixels, original: Pixels | None, mask: Pixels | None) -> Pixels:
        """As `PromptMethod.finished`."""
        ...


class RendersPairs(Protocol):
    """What a `PairMethod` implements."""

    def prepare(self, model: Denoiser, axis: str, images: Tensor) -> Tensor:
        """As `PairMethod.prepare`."""
        ...

    def render(self, model: Denoiser, pairs: PairSamples, *, batch: int) -> Tensor:
        """Clean latents (N, c, h, w) of the pairs; `batch` bounds the rows of one network evaluation."""
        ...


def method_of(section: Section) -> Any:
    """The algorithm that a manifest's section names: its options with `render`."""
    if isinstance(section, CustomMethod):
        return section.load()
    assert isinstance(section, MethodOptions)
    # a dump may leave out options at their defaults; the class fills them in again
    values = section.model_dump()
    return METHODS[values["name"]](**values)
