"""What a training config asks of EfficientNet-Lite0 as a judge of pictures."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from stylebatch.section import Section


def _once(levels: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(levels)) < len(levels):
        raise ValueError(f"each level once; found {list(levels)}")
    return levels


Levels = Annotated[
    tuple[Annotated[int, Field(ge=0, le=4)], ...],
    Field(min_length=1, strict=False),
    AfterValidator(_once),
]
"""Maps of EfficientNet-Lite0: 0 to 4 are those at strides 2, 4, 8, 16 and 32."""


class Perceptual(Section):
    """Distance of EfficientNet-Lite0's maps (arXiv 1801.03924, unweighted); needs the extra `quality`."""

    weight: float = Field(ge=0.0, description="Next to the absolute error, which has 1")
    levels: Levels = Field((0, 1, 2, 3), description="Maps, 0 to 4: strides 2, 4, 8, 16, 32")


class StyleJudge(Section):
    """EfficientNet-Lite0 as a further part of the style loss; needs the extra `quality`."""

    style_weight: float = Field(
        0.0, ge=0.0, description="Of the distance of its maps' means and deviations to the style"
    )
    content_weight: float = Field(
        0.0, ge=0.0, description="Of the distance of its maps to those of the content, in place"
    )
    style_levels: Levels = Field((0, 1, 2, 3), description="Maps of the style, 0 to 4")
    content_levels: Levels = Field((3, 4), description="Maps of the content, 0 to 4")
