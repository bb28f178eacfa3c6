"""What every kind of source has in common: items, references to their images, and how the bytes are read.

A source may be pickled and read in another process: it holds no open files, and nothing of what it listed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.regions import Region
from stylebatch.errors import ManifestError
from stylebatch.masking import masked

USUAL = SourceOptions()
"""Options of a source that a manifest says nothing more about."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Where an image is: a file or URL, and what of it, such as the member of an archive, or a file in a folder.

    Both may go on behind a NUL with what their source needs to find it at once, such as a row group, or offset and length.
    `source`: name of the source that reads it (see `Sources`).
    """

    uri: str
    member: str = ""
    source: str = ""

    @property
    def place(self) -> str:
        """As one path: `photos.zip/cat/1.png`."""
        if not self.member:
            return self.uri
        return f"{self.uri.partition(chr(0))[0]}/{self.member.partition(chr(0))[0]}"

    def is_same_as(self, other: Ref) -> bool:
        """Whether both are one image, by whatever way."""
        # Two paths may lead to one file through links.
        return self == other or (
            self.member.partition("\0")[2] == other.member.partition("\0")[2]
            and self.uri.partition("\0")[2] == other.uri.partition("\0")[2]
            and os.path.realpath(self.place) == os.path.realpath(other.place)
        )


NOWHERE = Ref("")
"""Of an item without an image of its own, such as a blend."""


class _Nothing(dict[str, Any]):
    """The further columns of an item without any; all share one."""

    __hash__ = object.__hash__  # type: ignore[assignment]


_NOTHING: Mapping[str, Any] = _Nothing()


@dataclass(frozen=True, slots=True)
class ClassList:
    """Names of classes by the numbers that a source has for them. `where`: the file that says so; `of_objects`: not of whole images.

    `is_chosen`: those that the run chose, of more.
    """

    where: str
    names: tuple[tuple[int, str], ...]
    of_objects: bool = False
    is_chosen: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One image of a blend of styles; `weight` above 0, of sum 1 over the blend."""

    id: str
    ref: Ref
    weight: float


@dataclass(frozen=True, init=False)
class Item:
    """One thing that a source lists. `label` is a class name or "", `license` an identifier or "".

    `parts`: the images of a style that is a blend; `mask`: the picture that says where a content takes the style;
    `reference`: an image whose style is taken. `extra`: further columns; `regions`: what is annotated in it; `number`: of its row, from 1;
    `size`: width and height of the image as it is displayed, where the source knows them; `split`: the one that the source has it in,
    "" where nobody asks; `captions`: all, where a sample draws one of several; `segmentation`: an image of labels; `origin`: id of
    the original that a sample of ours was made from, where the splits of a run follow from it.
    A million items are 80 MB less where they have no room for what only some have: that stays with the class.
    """

    __slots__ = ("caption", "id", "label", "license", "ref")

    id: str
    ref: Ref
    label: str
    caption: str
    license: str
    parts: tuple[Part, ...] = ()
    mask: Ref | None = None
    reference: Ref | None = None
    # Neither a dict nor the packed polygons of regions can be hashed.
    extra: Mapping[str, Any] = field(default=_NOTHING, hash=False)
    number: int = 0
    regions: tuple[Region, ...] = field(default=(), hash=False)
    size: tuple[int, int] | None = None
    split: str = ""
    captions: tuple[str, ...] = ()
    segmentation: Ref | None = None
    origin: str = ""

    def __new__(
        cls, id: str, ref: Ref, label: str = "", caption: str = "", license: str = "", **more: Any
    ) -> Item:
        """`more`: the other fields."""
        if unknown := more and more.keys() - _DEFAULTS.keys():
            raise TypeError(f"an item has no {', '.join(sorted(unknown))}")
        further = {name: value for name, value in more.items() if value != _DEFAULTS[name]}
        item = object.__new__(_FullItem if further else Item)
        _set_id(item, id)
        _set_ref(item, ref)
        _set_label(item, label)
        _set_caption(item, caption)
        _set_license(item, license)
        if further:
            for name, default in _DEFAULTS.items():
                object.__setattr__(item, name, further.get(name, default))
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        usual = (self.id, self.ref, self.label, self.caption, self.license)
        names = _DEFAULTS if isinstance(self, _FullItem) else ()
        return _item, (usual, {name: getattr(self, name) for name in names})

    @property
    def mask_id(self) -> str:
        """The mask's place relative to the image's, so that a moved folder keeps its plan; "" without a mask."""
        if self.mask is None:
            return ""
        return masked(os.path.relpath(self.mask.place, os.path.dirname(self.ref.place)))

    def images(self) -> Iterator[tuple[str, Ref]]:
        """Each image by the name under which errors and records know it."""
        yield from ((part.id, part.ref) for part in self.parts or (self,))
        if self.mask is not None:
            yield f"mask of {self.id}", self.mask
        if self.segmentation is not None:
            yield f"segmentation of {self.id}", self.segmentation


_set_id, _set_ref, _set_label, _set_caption, _set_license = (
    # slots, past what keeps an item frozen
    vars(Item)[name].__set__
    for name in ("id", "ref", "label", "caption", "license")
)
_DEFAULTS = {one.name: one.default for one in fields(Item) if one.name not in Item.__slots__}


class _FullItem(Item):
    """An item with room for every field."""

    __slots__ = tuple(_DEFAULTS)


def _item(usual: tuple[Any, ...], further: dict[str, Any]) -> Item:
    return Item(*usual, **further)


class Source(ABC):
    """A place that holds inputs. `field`: of the manifest, such as `contents`; it names the source in messages and `Ref`s."""

    accepted: ClassVar[str]
    """What the kind takes, for people: `an image folder`."""
    takes: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that mean something to this kind, beside those of any (`kinds.OF_ANY`)."""
    labels_by_objects: ClassVar[bool] = False
    """Whether an image's label is that of its objects (`label_of`), and no other."""

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        self.uri, self.field, self.options = uri, field, options
        self.types: dict[str, str] = {}
        """Types of the further columns (see `further.py`) by name; known once all is listed."""
        self.class_lists: list[ClassList] = []
        """Each that differs, in the order of the files; known once all is listed."""

    class_names: tuple[str, ...] = ()
    """Those that the manifest gives to numbers."""

    @classmethod
    @abstractmethod
    def recognises(cls, uri: str) -> bool:
        """Whether what is there is of this kind; cheap, since kinds are asked one after the other."""

    @classmethod
    def describes(cls, annotations: str) -> bool:
        """Whether the kind is that of images with these annotations; it is asked in place of `recognises` where some are named."""
        return False

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Every item in a stable order, with stable ids; nothing is decoded. Raises ManifestError."""

    @abstractmethod
    def read(self, ref: Ref) -> bytes:
        """The bytes of an image, in any process. What it raises fails the sample; a SampleError comes without the image's name."""

    def further(self, item: Item) -> Mapping[str, Any]:
        """Every further column of an item as plain values, read where that is needed, in any process."""
        return item.extra

    def learn_classes(
        self, path: str, names: Iterable[tuple[int, str]], *, of_objects: bool = False
    ) -> None:
        """Remember what a file at `path` calls its class numbers, unless another one said the same."""
        found = tuple(one for one in names if one[1])
        if found and found not in [one.names for one in self.class_lists]:
            self.class_lists.append(ClassList(os.path.basename(path), found, of_objects))

    def splits(self) -> list[str]:
        """Names that the option `split` takes here, in order; none where the source has no splits."""
        return []

    @property
    def names_splits(self) -> bool:
        """Whether the splits are written down as such, under any names; else folders may be taken for some. Known after `splits`."""
        return False

    def size(self, ref: Ref) -> int | None:
        """Bytes of an image, without reading it; 0 where that takes too long to tell, None where there is no such image."""
        return 0

    def head(self, ref: Ref, count: int) -> bytes:
        """The first `count` bytes of an image, or all of them where that is as quick; raises as `read`."""
        return self.read(ref)

    def passed_over(self) -> Counter[str]:
        """How many files or rows were not listed, by reason; complete after the last item."""
        return Counter()

    def notes(self) -> list[str]:
        """What people should know of the listing; complete after the last item."""
        counts = self.passed_over()
        kinds = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        return [f"{self.field}: {counts.total()} passed over: {kinds}"] if counts else []

    def fault(self, what: str, option: str = "path") -> ManifestError:
        """An error about the source, naming the manifest's field: `contents.path: PATH: WHAT`."""
        # A field with a dot, such as `contents.masks`, is the whole name already.
        where = f"{self.field}.{option}" if "." not in self.field else self.field
        place = "" if what.startswith(self.uri) else f"{self.uri}: "
        return ManifestError(f"{where}: {place}{what}")


@dataclass(frozen=True)
class Sources:
    """The sources of a run, by field. They read as one."""

    by_field: Mapping[str, Source]

    @classmethod
    def of(cls, *sources: Source | None) -> Sources:
        return cls({source.field: source for source in sources if source is not None})

    def __or__(self, other: Sources) -> Sources:
        return Sources({**self.by_field, **other.by_field})

    def read(self, ref: Ref) -> bytes:
        """As `Source.read`."""
        return self.by_field[ref.source].read(ref)

    def size(self, ref: Ref) -> int | None:
        """As `Source.size`."""
        return self.by_field[ref.source].size(ref)

    def head(self, ref: Ref, count: int) -> bytes:
        """As `Source.head`."""
        return self.by_field[ref.source].head(ref, count)
