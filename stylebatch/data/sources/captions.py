"""Images with several captions: of a list in a column or a JSON key, of COCO's captions, of the lines of a .txt.

Sources tell them as one text; the listing takes that apart. `captions: first` leaves the others out where they are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.source import Item

_MARK = "\0"
"""Between captions; no text of a source has it."""


def told(captions: Iterable[str | None], options: SourceOptions) -> str:
    """As a source tells captions: the first, or all that differ where each sample draws one."""
    texts = (text.replace(_MARK, "").strip() for text in captions if text)
    found = dict.fromkeys(text for text in texts if text)
    return _MARK.join(found) if options.captions == "drawn" else next(iter(found), "")


def with_captions(item: Item) -> Item:
    """`item` with what its source told as captions of its own, the first as the caption."""
    if _MARK not in item.caption:
        return item
    captions = tuple(item.caption.split(_MARK))
    return replace(item, caption=captions[0], captions=captions)


def drawn(item: Item, seed: int) -> str:
    """The caption of a sample of this seed."""
    # two samples of a content have seeds of their own, and so captions
    return item.captions[seed % len(item.captions)] if item.captions else item.caption
