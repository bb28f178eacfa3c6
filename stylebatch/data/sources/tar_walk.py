"""Walks over a tar once, and makes an item of each sample: the members that share a name up to the first dot."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.data.sources.sidecars import Sidecars, level
from stylebatch.data.sources.source import Item, Ref, Source
from stylebatch.data.sources.tar_members import BLOCK, DamagedTar, Member, Window, members

IMAGE_NAMES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
MAX_KNOWN = 1000
"""Ends of names that are kept with the extension that they are."""
SEGMENTATION = "segmentation.png"
"""Member with the label image of a sample, as our own outputs have it."""
BARE = ", without an image beside it"
Span = tuple[int, int]
"""Offset and bytes."""
Parts = dict[str, Span]
"""Where members of a sample lie, by extension."""


class Layout(NamedTuple):
    """Extensions of a sample's members: of its image, of what is read beside it, and of what is not."""

    image: str | None
    read: tuple[str, ...]
    unread: tuple[str, ...]


class TarWalk:
    """One tar at `path`; `prefix`: what ids begin with. The counts are complete after the last item."""

    def __init__(self, source: Source, path: str, prefix: str) -> None:
        self.source, self.path, self.prefix = source, path, prefix
        self.is_cut = False
        self.passed_over: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.sidecars = Sidecars(source.options)
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._names: dict[str, str] = {}

    def items(self, file: Window) -> Iterator[Item]:
        """Raises ManifestError for two images in a sample, and for damage that the options do not allow."""
        key, parts, names = "", Parts(), self._names
        known: dict[str, str] = {}
        for name, offset, size, kind in self._members(file):
            # Most members go on with a sample, in a way that another one did.
            suffix = known.get(name[len(key) :]) if key and name.startswith(key) else None
            if suffix is None or kind:
                start = name.rfind("/") + 1
                dot = name.find(".", start)
                # A name without a dot, or one that begins with it, has no extension.
                if kind or dot <= start or name[0] == "/" or (".." in name and _leads_up(name)):
                    self._pass_over(name, kind, has_suffix=dot > start)
                    continue
                stem, suffix = name[:dot], name[dot + 1 :].lower()
                if len(known) < MAX_KNOWN:
                    known[name[dot:]] = suffix
                # A sample's members are neighbours, so that one pass with little memory suffices.
                if stem != key:
                    item = self._sample(file, parts)
                    if item is not None:
                        yield item
                    key, parts = stem, {}
                    self._names = names = {}
            if suffix in parts:
                raise self.source.fault(
                    f"{self.path}: found the member {name} twice; accepted: each once. Next: pack the tar anew"
                )
            parts[suffix] = (offset, size)
            names[suffix] = name
        # Where the tar is cut, members of the last sample may be lost.
        item = None if self.is_cut else self._sample(file, parts)
        if item is not None:
            yield item

    def _members(self, file: Window) -> Iterator[Member]:
        """The members before any damage, which stops the listing or is counted, as the options say."""
        try:
            yield from members(file)
        except DamagedTar as damage:
            if self.source.options.damaged == "refuse":
                raise self.source.fault(
                    f"{self.path}: {damage}; accepted: whole tars. Next: copy or pack it anew, or pass over what is lost with "
                    "`damaged: pass_over`"
                ) from None
            self.passed_over["damaged tar, from the last sample before the damage on"] += 1
            self.is_cut = True

    def _pass_over(self, name: str, kind: str, *, has_suffix: bool) -> None:
        if kind == "folder":
            return
        hidden = os.path.basename(name).startswith(".")
        outside = "name that leads outside" if has_suffix else "without suffix"
        self.passed_over[kind or ("hidden" if hidden else outside)] += 1

    def _sample(self, file: Window, parts: Parts) -> Item | None:
        """None for members without an image among them."""
        if not parts:
            return None
        suffixes = tuple(parts)
        # Samples of a tar are alike: what holds for one need not be found out again.
        layout = self._layouts.get(suffixes)
        if layout is None:
            layout = self._layouts[suffixes] = self._layout_of(suffixes)
        suffix = layout.image
        if suffix is None:
            for other in parts:
                self.passed_over[f".{other}{BARE}"] += 1
            return None
        name = self._names[suffix]
        texts: dict[str, bytes] = {}
        for other in layout.unread:
            self.unread[other] += 1
        for other in layout.read:
            offset, size = parts[other]
            if self.sidecars.is_small(other, size):
                texts[other] = file.read(offset, size)
        found = self.sidecars.read(texts, name)
        label = found.label
        if self.source.options.label_from is not None:
            label = level(name, self.source.options.label_from)
        name = name.removeprefix("./")
        spans = spans_text(parts[suffix], parts["json"] if "json" in texts else None)
        ref = Ref(self.path, f"{name}\0{spans}", self.source.field)
        item = Item(self.prefix + name, ref, label, found.caption, found.license)
        if found.regions:
            item = replace(item, regions=found.regions)
        if SEGMENTATION in parts and suffix != SEGMENTATION:
            member = f"{self._names[SEGMENTATION]}\0{spans_text(parts[SEGMENTATION], None)}"
            item = replace(item, segmentation=Ref(self.path, member, self.source.field))
        return item

    def _layout_of(self, suffixes: tuple[str, ...]) -> Layout:
        image = self._image_of(suffixes)
        others = [suffix for suffix in suffixes if suffix not in (image, SEGMENTATION)]
        read = tuple(suffix for suffix in others if suffix in Sidecars.READ)
        return Layout(image, read, tuple(suffix for suffix in others if suffix not in read))

    def _image_of(self, suffixes: tuple[str, ...]) -> str | None:
        """The extension of the sample's image: the one that the options name, else the only one, or the only one without dots."""
        wanted = self.source.options.image
        if wanted is not None:
            wanted = wanted.lower().lstrip(".")
            return wanted if wanted in suffixes else None
        images = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in IMAGE_NAMES]
        plain = images
        if len(images) > 1:
            # Our own shards have content.jpg and style.jpg beside a sample's jpg.
            plain = [suffix for suffix in images if "." not in suffix] or images
        if len(plain) > 1:
            names = ", ".join(self._names[suffix] for suffix in plain)
            raise self.source.fault(
                f"{self.path}: found the images {names} in one sample; accepted: one. Next: name its extension, such as "
                f"`image: {plain[0]}`"
            )
        return plain[0] if plain else None

    def facts(self) -> dict[str, Any]:
        """The counts, as JSON has them."""
        return {
            "passed_over": dict(self.passed_over),
            "unread": dict(self.unread),
            "sidecars": self.sidecars.facts(),
        }


def _leads_up(name: str) -> bool:
    return ".." in name.split("/")


def spans_text(image: Span, sidecar: Span | None) -> str:
    """`1a+384,+2c`: for image and JSON the block where data begin, and their bytes, in hexadecimal.

    No block is the one behind the header that follows the image, where the JSON usually is. A million are 32 MB less than in digits.
    """
    text = f"{image[0] // BLOCK:x}+{image[1]:x}"
    if sidecar is None:
        return text
    block = "" if sidecar[0] == _following(image) else f"{sidecar[0] // BLOCK:x}"
    return f"{text},{block}+{sidecar[1]:x}"


def spans_of(text: str) -> tuple[Span, Span | None]:
    """Of the image, and of its JSON. Raises ValueError."""
    image, _, sidecar = text.partition(",")
    block, _, count = image.partition("+")
    found = int(block, 16) * BLOCK, int(count, 16)
    if not sidecar:
        return found, None
    block, _, count = sidecar.partition("+")
    return found, (int(block, 16) * BLOCK if block else _following(found), int(count, 16))


def _following(span: Span) -> int:
    """Where the data of the next member begin."""
    return span[0] + (span[1] + BLOCK - 1) // BLOCK * BLOCK + BLOCK
