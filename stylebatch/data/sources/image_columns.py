"""Which columns of a table of images are meant, and what its rows say: for Parquet and Arrow files, of `datasets` and others.

An image is bytes, or a struct of `bytes` and `path` as `datasets` stores its feature `Image`. Labels are texts or numbers; those
of its feature `ClassLabel` are named.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.captions import told
from stylebatch.data.sources.further import tag_of_arrow
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.objects import KEY, NAMES, SHAPES, regions_of
from stylebatch.data.sources.origins import ALWAYS, is_read
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import USUAL, Source
from stylebatch.data.tables.parquet_table import require_plain, texts_of
from stylebatch.data.tables.table_columns import plain, shown, slip_of
from stylebatch.errors import ManifestError, SampleError

if TYPE_CHECKING:
    import pyarrow as pa

NAMED = 12
USUAL_NAMES = ("image", "img", "image_bytes", "bytes", "jpg", "jpeg", "png", "webp")
TEXTS = ("label", "caption", "license")
SEGMENTATION = "segmentation"
"""The column of label images."""
NAMED_BY_OPTIONS = ("label", "caption")
"""These options name a column. `license` does not: it is the licence of images whose table has no column for it."""
Fault = Callable[[str, str], ManifestError]
"""Makes an error from what is wrong and the name of the option at fault."""


@dataclass(frozen=True)
class ImageColumns:
    """Names of columns, "" for one that the table lacks; `classes`: names of the numbers of `label`, where it has any, and `categories`
    of those in `objects`. `structs`: columns whose bytes are in a struct; `unread`: further ones of pictures.
    """

    image: str = ""
    segmentation: str = ""
    structs: frozenset[str] = frozenset()
    label: str = ""
    caption: str = ""
    license: str = ""
    classes: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    options: SourceOptions = USUAL
    objects: str = ""
    categories: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def bytes_path(self, name: str) -> str:
        """Where the bytes of a column of pictures are, as Parquet names it."""
        return f"{name}.bytes" if name in self.structs else name

    def carried(self, options: SourceOptions) -> tuple[str, ...]:
        """The further columns that the options take, and those that name originals."""
        names = options.carry
        return tuple(
            name for name in self.further if names is None or name in names or name in ALWAYS
        )

    def learn_classes(self, source: Source, path: str) -> None:
        """Tell the source how the file at `path` numbers classes of images and of objects."""
        source.learn_classes(path, enumerate(self.classes))
        source.learn_classes(path, enumerate(self.categories), of_objects=True)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that listing reads."""
        return tuple(
            dict.fromkeys(name for name in (self.label, self.caption, self.license) if name)
        )


def has_images(schema: pa.Schema) -> bool:
    """Whether rows hold images, and not the paths of some."""
    structs, bare = _candidates(schema)
    paths = {plain(name) for name in schema.names}
    # Bare bytes beside a path may be anything; structs with bytes are images.
    return bool(structs or (bare and "path" not in paths))


def find_columns(
    schema: pa.Schema, options: SourceOptions, place: str, fault: Fault
) -> ImageColumns:
    """The columns of a table at `place`. Raises ManifestError for names that it lacks or that look misspelt."""
    structs, bare = _candidates(schema)
    image = _image_column(schema, options.image, place, fault)
    labels = next((n for n in (*structs, *bare) if plain(n) == SEGMENTATION and n != image), "")
    found = columns_beside(schema, options, place, fault, taken=(image, labels))
    return replace(
        found,
        image=image,
        segmentation=labels,
        structs=frozenset(structs),
        unread=tuple(name for name in structs if name not in (image, labels)),
    )


def columns_beside(
    schema: pa.Schema,
    options: SourceOptions,
    place: str,
    fault: Fault,
    *,
    taken: Collection[str] = (),
) -> ImageColumns:
    """As `find_columns`, of a table without pictures; `taken`: columns that do not go along."""
    features = features_of(schema.metadata)
    found: dict[str, str] = {}
    for field in TEXTS:
        wanted = getattr(options, field) if field in NAMED_BY_OPTIONS else None
        found[field] = _named(schema, wanted, field, place, fault)
        if found[field] and not _is_texts(schema.field(found[field]).type):
            require_plain(place, found[field], schema.field(found[field]).type)
    feature = features.get(found["label"])
    names = feature.get("names") if isinstance(feature, dict) else None
    classes = tuple(map(str, names)) if isinstance(names, list) else ()
    objects = KEY if _are_objects(schema) else ""
    used = {*found.values(), *taken, objects}
    further = tuple(
        f.name
        for f in schema
        # pandas keeps its index in a column of such a name
        if f.name not in used and not f.name.startswith("__index_level_") and tag_of_arrow(f.type)
        if is_read(f.name, options)
    )
    return ImageColumns(
        label=found["label"],
        caption=found["caption"],
        license=found["license"],
        classes=classes,
        further=further,
        options=options,
        objects=objects,
        categories=tuple(_names_within(features.get(objects))),
    )


def _are_objects(schema: pa.Schema) -> bool:
    """Whether the column `objects` is one of boxes: a struct of lists, or a list of structs."""
    from pyarrow import types

    if schema.get_field_index(KEY) < 0:
        return False
    kind = schema.field(KEY).type
    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
    return types.is_struct(inner) and any(inner.get_field_index(name) >= 0 for name in SHAPES)


def _names_within(feature: Any) -> list[str]:
    """Names of the classes of categories, wherever the feature of objects has its lists."""
    found = feature.get("feature", feature) if isinstance(feature, dict) else {}
    for name in (*NAMES, "feature"):
        inner = found.get(name) if isinstance(found, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            return list(map(str, inner["names"]))
        if isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            names = inner["feature"].get("names")
            if isinstance(names, list):
                return list(map(str, names))
    return []


def regions_of_rows(
    batch: pa.RecordBatch, columns: ImageColumns, place: str, first: int
) -> Iterator[tuple[Region, ...]]:
    """Objects of each row. Raises ManifestError, naming row and object."""
    for number, found in enumerate(batch.column(columns.objects).to_pylist(), first):
        try:
            yield regions_of(found or {}, columns.categories)
        except ValueError as error:
            raise ManifestError(f"{place}: row {number}: {columns.objects}: {error}") from None


def features_of(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """Features of `datasets` by column; nothing where the metadata have none that can be read."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = found["info"]["features"]
    # JSON that is nested too deep raises RecursionError, which is no ValueError.
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _candidates(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Columns that may be images: structs with bytes, and bare bytes."""
    from pyarrow import types

    structs = [
        field.name
        for field in schema
        if types.is_struct(field.type)
        # pyarrow gives -1 for no such field, and for two of one name.
        and field.type.get_field_index("bytes") >= 0
        and _is_bytes(field.type.field("bytes").type)
    ]
    return structs, [field.name for field in schema if _is_bytes(field.type)]


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_texts(kind: pa.DataType) -> bool:
    """Whether a cell is a list of texts, such as several captions."""
    from pyarrow import types

    return bool(
        (types.is_list(kind) or types.is_large_list(kind))
        and (types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
    )


def _image_column(schema: pa.Schema, wanted: str | None, place: str, fault: Fault) -> str:
    """The name of the column of images: the one that is wanted, else the only one that can be meant."""
    structs, bare = _candidates(schema)
    features = features_of(schema.metadata)
    of_type = [
        name
        for name in (*structs, *bare)
        if isinstance(features.get(name), dict) and features[name].get("_type") == "Image"
    ]
    # Some writers store texts as bytes, too.
    meant = [name for name in bare if plain(name) not in (*TEXTS, "path")]
    usual = [name for name in meant if plain(name) in USUAL_NAMES]
    candidates = of_type or structs or (usual if len(usual) == 1 else meant)
    # beside its inputs, as in our own outputs, a sample has the usual name
    candidates = [name for name in candidates if plain(name) == "image"][:1] or candidates
    if wanted is not None:
        if wanted in (*structs, *bare):
            return wanted
        what = "which holds no bytes" if wanted in schema.names else "which it lacks"
        close = difflib.get_close_matches(wanted, (*structs, *bare), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise fault(
            f"{place}: found {wanted!r}, {what}; {hint}accepted: {_some((*structs, *bare))}",
            "image",
        )
    if len(candidates) != 1:
        what = f"the columns {_some(candidates)}" if candidates else "no column with images"
        raise fault(
            f"{place}: found {what} (columns: {_some(schema.names)}); accepted: one column of bytes, or of structs with `bytes`. "
            f"Next: name it, such as `image: {candidates[0] if candidates else 'img'}`",
            "image",
        )
    return candidates[0]


def unread_pictures(names: Collection[str], field: str) -> list[str]:
    """A note on columns of pictures that are neither images nor label images."""
    if not names:
        return []
    told = f"{field}: columns of images that are not read: {_some(names)}"
    return [f"{told}; label images are read from one that is named `{SEGMENTATION}`"]


def _named(schema: pa.Schema, wanted: str | None, field: str, place: str, fault: Fault) -> str:
    """The column of a field: the one that the options name, else the one that is named like the field, if any."""
    if wanted is not None:
        if wanted in schema.names:
            return wanted
        close = difflib.get_close_matches(wanted, schema.names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise fault(
            f"{place}: found no column {wanted!r}; {hint}accepted: {_some(schema.names)}", field
        )
    for name in schema.names:
        if plain(name) == field:
            return str(name)
    for name in schema.names:
        if slip_of(plain(name), [field]):
            next_step = f"name it with `{field}: {name}`" if field != "license" else "rename it"
            raise fault(
                f"{place}: found column `{shown(name)}`; did you mean `{field}`? Next: {next_step}",
                field,
            )
    return ""


def _some(names: Any) -> str:
    kept = [shown(str(name), 40) for name in names]
    return ", ".join(kept[:NAMED]) + (f" and {len(kept) - NAMED} more" if len(kept) > NAMED else "")


def texts_of_rows(
    batch: pa.RecordBatch, columns: ImageColumns, place: str, first: int
) -> Iterator[tuple[str, str, str]]:
    """Label, caption and license of each row; `first`: the number of its first one. Raises ManifestError, naming row and column."""
    cells = []
    for field in TEXTS:
        name = getattr(columns, field)
        if not name:
            cells.append([""] * batch.num_rows)
            continue
        values = batch.column(name)
        if field == "label" and columns.classes:
            cells.append(_class_names(values.to_pylist(), columns, place, first))
        elif _is_texts(values.type):
            of_captions = columns.options if field == "caption" else USUAL
            cells.append([told(texts or (), of_captions) for texts in values.to_pylist()])
        else:
            cells.append([text.strip() for text in texts_of(place, first, name, values)])
    return zip(*cells, strict=True)


def _class_names(numbers: list[Any], columns: ImageColumns, place: str, first: int) -> list[str]:
    names = columns.classes
    found = []
    for i, number in enumerate(numbers):
        # A ClassLabel has -1 for rows without a label.
        if number is None or number == -1:
            found.append("")
        elif isinstance(number, int) and 0 <= number < len(names):
            found.append(names[number])
        else:
            raise ManifestError(
                f"{place}: row {first + i}: {columns.label}: found {shown(repr(number))}; accepted: a class number below {len(names)}, "
                "or -1 for none"
            )
    return found


def image_bytes(cell: Any, folder: str) -> bytes:
    """The bytes of an image's cell, or of the file beside the table that it names. Raises SampleError for neither."""
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(data, bytes):
        return data
    if not path:
        raise SampleError("missing", "the row has no image")
    # A table from elsewhere must not make us read files outside its folder.
    if os.path.isabs(path) or ".." in path.replace("\\", "/").split("/"):
        raise SampleError(
            "missing", f"the row names the file {shown(path)}, which does not lie beside the table"
        )
    return LocalFiles("", "").read(LocalFiles("", "").ref(os.path.join(folder, path)))
