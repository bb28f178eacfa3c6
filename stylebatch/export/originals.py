"""Contents as samples: the picture as it was fitted, with the columns that a stylised sample has.

An original counts as its own content in its own style: pictures and measures of what it is compared with are its own. Nothing
was drawn for it and no option used: these columns are null.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image

from stylebatch.data.image_section import ImageFormat
from stylebatch.data.images import encode
from stylebatch.export.selection import KEPT
from stylebatch.methods.input_kinds import INPUT_KINDS, MASK, REFERENCE, SET, STYLE, TEXT
from stylebatch.quality.measures import measured
from stylebatch.quality.reduction import Reduction
from stylebatch.store.records import IS_ORIGINAL, option_columns
from stylebatch.store.sinks.sink import Members, Row

METHOD = "original"
_EMPTIED = (STYLE.column, REFERENCE.column, SET, TEXT, "negative_prompt", "model")
"""Columns of what an original was not made with; options and seed are null."""
_LOOKS = (STYLE.member, REFERENCE.member)
"""Pictures that an original is itself in place of."""


def original(row: Row, members: Members, image: ImageFormat) -> tuple[Row, Members]:
    """Row and pictures of the content of a sample."""
    kind = next(kind for kind in KEPT if kind.member in members)
    data = members[kind.member]
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    # the stored input is a JPEG: encoding it once more would lose quality for nothing
    result = data if image.format == "jpg" else encode(pixels, image)
    others = {
        name: data if name in _LOOKS else kept for name, kept in members.items() if "." in name
    }
    compared = [one.name for one in INPUT_KINDS if one.member in others and one != MASK]
    height, width = pixels.shape[:2]
    reduction = Reduction(pixels)
    told: dict[str, Any] = {
        "method": METHOD,
        IS_ORIGINAL: True,
        "width": width,
        "height": height,
        "sha256": hashlib.sha256(result).hexdigest(),
        **{name: _empty(row[name]) for name in _EMPTIED if name in row},
        **dict.fromkeys(("seed", *option_columns(list(row)))),
        **measured(reduction, dict.fromkeys(compared, reduction)),
    }
    return row | told, {image.format: result, **others}


def _empty(value: Any) -> Any:
    return type(value)()
