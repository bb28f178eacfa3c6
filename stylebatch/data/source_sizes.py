"""Sizes of the images of a source as they are displayed, for runs in which every image keeps its own proportions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from stylebatch.data.geometry import Size
from stylebatch.data.pictures.header import HEAD_BYTES, displayed_size
from stylebatch.data.sources.source import NOWHERE, Item, Ref, Sources
from stylebatch.errors import StorageError

THREADS = 8
"""Reads of a network file system wait; those of a disk hardly gain."""
AT_ONCE = 4096
Sizes = tuple[Size | None, ...]
"""Of the images of an item, one or those of a blend; None where a header does not tell."""


def sizes_of(items: Sequence[Item], sources: Sources) -> tuple[list[Sizes], Counter[str]]:
    """The sizes of each item's images, and how many of the images were `known` to the source, `read` or could not be (`unread`)."""
    counts: Counter[str] = Counter()
    # A million photographs have a few hundred sizes.
    shared: dict[Sizes, Sizes] = {}
    found = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="sizes") as pool:
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            wanted = [ref for item in some for ref in _unknown(item)]
            read = iter(list(pool.map(lambda ref: _size(ref, sources), wanted)))
            for item in some:
                sizes = tuple(item.size or next(read) for _ in _refs(item))
                counts["known" if item.size else "read"] += sum(size is not None for size in sizes)
                counts["unread"] += sizes.count(None)
                found.append(shared.setdefault(sizes, sizes))
    return found, counts


def _refs(item: Item) -> Iterator[Ref]:
    """The images of an item, without its mask."""
    if item.parts:
        yield from (part.ref for part in item.parts)
    elif item.ref != NOWHERE:
        yield item.ref


def _unknown(item: Item) -> Iterable[Ref]:
    return () if item.size else _refs(item)


def _size(ref: Ref, sources: Sources) -> Size | None:
    """The size that the image's header tells. Raises StorageError for a store that does not answer."""
    try:
        head = sources.head(ref, HEAD_BYTES)
        is_whole = len(head) != HEAD_BYTES
        size = displayed_size(head, is_whole=is_whole)
        if size is None and not is_whole:
            size = displayed_size(sources.read(ref), is_whole=True)
    except (StorageError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - a file that cannot be read fails its samples, not the plan
        return None
    return size
