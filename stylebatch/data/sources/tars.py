"""WebDataset: images in tars, each beside the members that share its name up to the first dot.

    cat/0001.jpg  cat/0001.json  cat/0001.cls  cat/0001.txt

A tar is walked over once, header by header, and what was found is kept (`tar_index.py`); an item's `Ref` holds offset and
length, so that any process reads an image at one go. One in a store is streamed for that; an image of it is one ranged request.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import AT_ONCE, Stamp, absolute, part_of, stamp_of
from stylebatch.data.sources.container_files import ContainerFiles
from stylebatch.data.sources.local import require_few_bytes
from stylebatch.data.sources.sidecars import Sidecars, further_of, parsed
from stylebatch.data.sources.source import USUAL, Item, Ref
from stylebatch.data.sources.tar_index import IndexWriter, read_index
from stylebatch.data.sources.tar_members import Window
from stylebatch.data.sources.tar_walk import BARE, IMAGE_NAMES, Span, TarWalk, spans_of
from stylebatch.data.tables.table_columns import shown
from stylebatch.errors import ManifestError, SampleError, StorageError
from stylebatch.paths import is_address

SHOWN = 6


class TarImages(ContainerFiles):
    """Samples of tars, in the order of the files. `cls`, `txt` and `json` give label, caption, license and what is further."""

    accepted = "a .tar file, or a folder or pattern of them"
    takes = frozenset(("split", "image", "label", "caption", "captions", "label_from", "damaged"))
    suffix = ".tar"

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._begin()

    def items(self) -> Iterator[Item]:
        self._begin()
        self._begin_classes()
        found, is_empty = self.files(), True
        for file in found.files:
            for item in self._of_tar(absolute(file), self.prefix(found, file)):
                is_empty = False
                yield item
        if is_empty and self.options.image is not None:
            self._require_members(self.options.image)
        self._sidecars.require_used(self)
        self.types = self._sidecars.types()

    def _require_members(self, image: str) -> None:
        """Raise ManifestError where samples have images, of which the options name none."""
        bare = [
            reason.removesuffix(BARE)[1:] for reason in self._passed_over if reason.endswith(BARE)
        ]
        images = [one for one in bare if one.rpartition(".")[2] in IMAGE_NAMES]
        if images:
            near = next((one for one in images if image.lower() in one.split(".")), "")
            hint = f"did you mean {near!r}? " if near else ""
            raise self.fault(
                f"found {image!r}, which no sample has; {hint}accepted: {', '.join(images)}",
                "image",
            )

    def _begin(self) -> None:
        self._passed_over: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._sidecars = Sidecars(self.options)

    def _of_tar(self, path: str, prefix: str) -> Iterator[Item]:
        """What an earlier start found in the tar, or else what is found now, which is kept."""
        with self._opened(path) as (file, stamp):
            kept = read_index(path, stamp, self.options)
            if kept is not None:
                self._add(kept.facts)
                yield from kept.items(path, prefix, self.field)
                return
            walk, index = TarWalk(self, path, prefix), IndexWriter(path, stamp, self.options)
            for item in walk.items(file):
                index.add(item, len(prefix))
                yield item
        facts = walk.facts()
        self._add(facts)
        # What is lost of a damaged tar may be there again the next time.
        if not walk.is_cut:
            index.close(facts)

    def _add(self, facts: Mapping[str, Any]) -> None:
        """Add what was counted in one tar."""
        self._passed_over.update(facts["passed_over"])
        self._unread.update(facts["unread"])
        self._sidecars.add(facts["sidecars"])

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[Window, Stamp]]:
        try:
            # Before the walk: a tar that changes meanwhile has another stamp than what is kept of it.
            stamp = stamp_of(path)
            if is_address(path):
                yield Window(partial(part_of, path), stamp[0], AT_ONCE), stamp
                return
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield Window.on(descriptor), stamp
            finally:
                os.close(descriptor)
        except StorageError:  # a store that does not answer says nothing of the tar
            raise
        except OSError as error:
            raise self.fault(f"{path}: cannot be read: {error.strerror}") from None

    def read(self, ref: Ref) -> bytes:
        """The image's bytes. Raises SampleError where the tar is not as it was listed."""
        name, image, _ = _spans(ref)
        require_few_bytes(image[1])
        data = part_of(ref.uri, *image)
        if len(data) < image[1]:
            raise SampleError(
                "decode", f"the tar ends within {name}: it is shorter than when it was listed"
            )
        return data

    def head(self, ref: Ref, count: int) -> bytes:
        _, (offset, size), _ = _spans(ref)
        return part_of(ref.uri, offset, min(count, size))

    def size(self, ref: Ref) -> int | None:
        _, (offset, count), _ = _spans(ref)
        # Each worker asks this of each image: a request would double the cost of reading it.
        if is_address(ref.uri):
            return count
        try:
            return count if os.stat(ref.uri).st_size >= offset + count else None
        except OSError:
            return None

    def further(self, item: Item) -> Mapping[str, Any]:
        """What the sample's JSON holds beside label, caption and licence; nothing where it cannot be read."""
        _, _, span = _spans(item.ref)
        if span is None:
            return item.extra
        try:
            found = parsed(part_of(item.ref.uri, *span))
        except StorageError:
            raise
        except OSError:
            return item.extra
        return further_of(found, self.options) if isinstance(found, dict) else item.extra

    def passed_over(self) -> Counter[str]:
        return self._passed_over

    def notes(self) -> list[str]:
        notes = [*super().notes(), *self._sidecars.notes(self.field)]
        if self._unread:
            kinds = ", ".join(f"{count} .{name}" for name, count in self._unread.most_common(SHOWN))
            notes.append(f"{self.field}: members beside the images that are not read: {kinds}")
        return notes


def _spans(ref: Ref) -> tuple[str, Span, Span | None]:
    """The member's name, where its image lies, and where its JSON does."""
    name, _, text = ref.member.partition("\0")
    try:
        return name, *spans_of(text)
    except ValueError:
        raise ManifestError(
            f"{ref.uri}: found the member {shown(name)!r} without its place"
        ) from None
