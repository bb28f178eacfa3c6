"""The kinds of sources of images. A further one is a file beside this one and a row of `KINDS`."""

from __future__ import annotations

import difflib

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import exists
from stylebatch.data.sources.annotated import VocImages
from stylebatch.data.sources.coco import CocoImages
from stylebatch.data.sources.container_files import ContainerFiles
from stylebatch.data.sources.files_output import FilesOutput
from stylebatch.data.sources.hub_datasets import local_copy
from stylebatch.data.sources.image_folder import ImageFolder
from stylebatch.data.sources.outputs import annotations_of, output_above
from stylebatch.data.sources.parquet_images import ParquetImages
from stylebatch.data.sources.patterns import is_pattern, root_of
from stylebatch.data.sources.saved import SavedDataset
from stylebatch.data.sources.source import USUAL, Source
from stylebatch.data.sources.stored import StoredFolder
from stylebatch.data.sources.table import PathTable
from stylebatch.data.sources.tars import TarImages
from stylebatch.data.sources.yolo import YoloImages
from stylebatch.errors import ManifestError
from stylebatch.paths import is_address
from stylebatch.words import written

KINDS: dict[str, type[Source]] = {
    "folder": ImageFolder,
    "table": PathTable,
    "store": StoredFolder,
    "parquet": ParquetImages,
    "webdataset": TarImages,
    "saved": SavedDataset,
    "coco": CocoImages,
    "voc": VocImages,
    "yolo": YoloImages,
    "files": FilesOutput,
}
"""The last is asked first: a folder of tars is a folder as well."""
FORMS = ("coco", "voc", "yolo")
"""Of annotations, by the kinds that read them."""
OF_ANY = frozenset(
    (
        "kind",
        "labels",
        "objects",
        "min_side",
        "aspect",
        "shuffle",
        "limit",
        "limit_per_class",
        "carry",
    )
)
"""Options that every kind takes."""


def kind_of(uri: str, options: SourceOptions = USUAL) -> str | None:
    """The kind that the options name, or the last that recognises what is there; None where none does."""
    if options.kind is not None:
        # A folder of a store is a kind of its own, which nobody needs to know.
        named = "store" if options.kind == "folder" and is_address(uri) else options.kind
        return named if named in KINDS else None
    if options.annotations is not None:
        of = options.annotations
        return next((name for name, kind in KINDS.items() if kind.describes(of)), None)
    return next((name for name, kind in reversed(KINDS.items()) if kind.recognises(uri)), None)


def accepted_kinds() -> str:
    """What may be a source of images, for people."""
    *first, last = (kind.accepted for kind in KINDS.values())
    return f"{', '.join(first)}, or {last}" if first else last


def is_there(uri: str) -> bool:
    """Whether there is a file or folder, or for a pattern the folder that it begins in."""
    return exists(root_of(uri) if is_pattern(uri) else uri)


def is_source(uri: str, field: str, options: SourceOptions = USUAL) -> bool:
    """Whether a kind takes what is there, or what is annotated. Raises ManifestError for a kind that does not exist."""
    _require_known(field, options)
    return options.annotations is not None or kind_of(uri, options) is not None


def _require_known(field: str, options: SourceOptions) -> None:
    if options.kind is not None and options.kind not in KINDS:
        close = difflib.get_close_matches(options.kind, KINDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ManifestError(
            f"{field}.kind: found {options.kind!r}; {hint}accepted: {', '.join(KINDS)}"
        )


def open_source(uri: str, field: str, options: SourceOptions = USUAL) -> Source:
    """The source at `uri`; a table, which tells what is wrong with it, where no kind recognises what is there.

    What is on the hub is fetched first. Raises ManifestError for a kind that does not exist, and for options that mean nothing
    to the kind.
    """
    uri = local_copy(uri, field)
    _require_known(field, options)
    name = kind_of(uri, options)
    if name is None and options.annotations is not None:
        gone = "" if exists(options.annotations) else ", which does not exist"
        raise ManifestError(
            f"{field}.annotations: found {options.annotations!r}{gone}; accepted: a COCO file (.json), or a folder of Pascal VOC "
            "files (.xml) or of YOLO files (.txt)"
        )
    name = name or "table"
    kind = KINDS[name]
    for option, usual in SourceOptions.model_fields.items():
        value = getattr(options, option)
        if value != usual.default and option not in kind.takes | OF_ANY:
            found = repr(value) if isinstance(value, str) else written(value)
            raise ManifestError(
                f"{field}.{option}: found {found}, which means nothing to the kind {name} of {uri}; accepted: "
                f"{', '.join(sorted(kind.takes | OF_ANY))}"
            )
    return kind(uri, field, options)


def form_of(source: Source) -> str:
    """In which form the annotations of a source are, or those were that an output of ours was made of; COCO for all others."""
    name = name_of(source)
    # other kinds have not asked a store for outputs, which may not list what lies around a file
    if isinstance(source, ContainerFiles) and not is_pattern(source.uri):
        output = output_above(source.uri)
        name = annotations_of(output) if output is not None else ""
    return name if name in FORMS else FORMS[0]


def name_of(source: Source) -> str:
    """The row of `KINDS` that a source is of."""
    # Kinds derive from each other: by isinstance, a store would be a folder.
    return next(name for name, kind in KINDS.items() if type(source) is kind)
