"""What pictures of a source are like: their sizes by headers, and which of them cannot be read, of a bounded number of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from stylebatch.data.geometry import Size
from stylebatch.data.pictures.decoding import decode_into
from stylebatch.data.reading import read_picture
from stylebatch.data.source_sizes import sizes_of
from stylebatch.data.sources.source import Item, Ref, Sources
from stylebatch.errors import SampleError

MOST_HEADERS = 1000
MOST_DECODED = 128
MOST_PIXELS = 200_000_000
"""Of all pictures that are decoded, about two seconds of two cores; bounded by pixels, so that every look is the same."""
THREADS = 4


@dataclass(frozen=True)
class PictureLook:
    """`sizes`: of those whose header tells one; `faults`: name and reason of each that cannot be read, of `num_decoded`."""

    num_items: int
    sizes: Counter[Size]
    num_decoded: int
    faults: tuple[tuple[str, str], ...]

    @property
    def sized(self) -> str:
        """For people, how many headers tell the sizes; "" for all."""
        count = self.sizes.total()
        return "" if count >= self.num_items else f"{count:,} of {self.num_items:,}"

    @property
    def failing(self) -> float:
        """Share of the decoded pictures that cannot be read."""
        return len(self.faults) / self.num_decoded if self.num_decoded else 0.0

    @property
    def looked_at(self) -> str:
        """For people: `all 12`, `128 of 20,000`."""
        if self.num_decoded >= self.num_items:
            return f"all {self.num_items:,}"
        return f"{self.num_decoded:,} of {self.num_items:,}"


def look_at(items: Sequence[Item], sources: Sources) -> PictureLook:
    """Evenly spread over the items. Raises StorageError for a store that does not answer."""
    chosen = spread(items, MOST_HEADERS)
    found, _ = sizes_of(chosen, sources)
    sizes = Counter(size for sizes in found for size in sizes if size is not None)
    by_item = dict(zip((item.id for item in chosen), found, strict=True))
    decoded: list[tuple[str, Ref]] = []
    pixels = 0
    for item in spread(chosen, MOST_DECODED):
        pixels += sum(width * height for width, height in filter(None, by_item[item.id]))
        if decoded and pixels > MOST_PIXELS:
            break
        decoded += item.images()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="look") as pool:
        reasons = list(pool.map(lambda one: _fault(one[0], one[1], sources), decoded))
    faults = ((name, reason) for (name, _), reason in zip(decoded, reasons, strict=True) if reason)
    return PictureLook(len(items), sizes, len(decoded), tuple(faults))


def spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many, evenly spread, so that each class of a sorted source has some."""
    if len(items) <= most:
        return items
    return [items[place * len(items) // most] for place in range(most)]


def _fault(name: str, ref: Ref, sources: Sources) -> str:
    """Why a picture cannot be read; "" where it can."""
    try:
        decode_into(read_picture(sources, ref, name), name, lambda found: None)
    except SampleError as error:
        return str(error).removeprefix(f"{name}: ")
    return ""
