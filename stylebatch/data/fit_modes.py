"""How images may be fitted; words alone, which a manifest is checked with."""

from __future__ import annotations

from typing import Literal

FixedMode = Literal["center_crop", "resize", "pad"]
"""Every picture has the size of the run."""
NativeMode = Literal["fit", "keep"]
"""Every picture has a size of its own."""
# One literal of all: of a union a misspelt word would be told once for each part.
FitMode = Literal["center_crop", "resize", "pad", "fit", "keep"]
NATIVE: tuple[FitMode, ...] = ("fit", "keep")
GREY = (128, 128, 128)
