"""Generation methods. `METHODS` maps a manifest's `method.name` to the class that runs it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from stylebatch.methods.plain import Img2Img, Inpaint, Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned import StyleAligned
from stylebatch.methods.styleid import StyleID
from stylebatch.models.base import Denoiser
from stylebatch.spec import CustomMethod, RunSpec

METHODS: dict[str, type[StyleID | StyleAligned | Text2Img | Img2Img | Inpaint]] = {
    "styleid": StyleID,
    "stylealigned": StyleAligned,
    "text2img": Text2Img,
    "img2img": Img2Img,
    "inpaint": Inpaint,
}


class RendersSamples(Protocol):
    """What a `PromptMethod` that makes no sets implements, built in or a user's."""

    def render(self, model: Denoiser, samples: Samples, *, batch: int) -> Tensor:
        """Clean latents (N, c, h, w) of the rows; `batch` bounds the rows of one network evaluation."""
        ...


def method_of(spec: RunSpec) -> RendersSamples | StyleAligned:
    """The method of a run of prompts, with its options."""
    options = spec.method
    if not isinstance(options, CustomMethod):
        method = METHODS[options.name](**options.model_dump())
        assert not isinstance(method, StyleID)
        return method
    found: RendersSamples = options.load()  # type: ignore[assignment]
    return found
