"""Folders that `datasets` wrote with `save_to_disk`: Arrow streams of record batches, one split or several.

An item's `Ref` holds where its record batch lies in the file, so that any process maps that batch alone; of a file in a store also
where its picture does, which is then one request.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import absolute, is_file, opened, part_of
from stylebatch.data.sources.arrow_streams import Batch, Used, opened_stream, sound, stored_batch
from stylebatch.data.sources.further import Kinds, has_gaps
from stylebatch.data.sources.holdings import no_split, one_of
from stylebatch.data.sources.image_columns import (
    ImageColumns,
    find_columns,
    image_bytes,
    regions_of_rows,
    texts_of_rows,
    unread_pictures,
)
from stylebatch.data.sources.local import MAX_FILE_BYTES, require_few_bytes
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import USUAL, Item, Ref, Source
from stylebatch.errors import SampleError, StorageError
from stylebatch.paths import is_address

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"
MAX_JSON = 64 * 2**20


class SavedDataset(Source):
    """Rows of the Arrow files, in order; ids are file and row, from 1."""

    accepted = "a folder that `datasets` saved to disk"
    takes = frozenset(("split", "image", "label", "caption", "captions", "damaged"))

    def __init__(self, uri: str, field: str, options: SourceOptions = USUAL) -> None:
        super().__init__(uri, field, options)
        self._passed_over: Counter[str] = Counter()
        self._numbers: list[str] = []
        self._texts: dict[str, str] = {}
        self._kinds = Kinds()
        self._unread: dict[str, None] = {}

    @classmethod
    def recognises(cls, uri: str) -> bool:
        has = {name: is_file(os.path.join(uri, name)) for name in (SPLITS_FILE, STATE_FILE)}
        return has[SPLITS_FILE] or (has[STATE_FILE] and is_file(os.path.join(uri, INFO_FILE)))

    def items(self) -> Iterator[Item]:
        import pyarrow as pa

        self._passed_over = Counter()
        self._texts, self._kinds, self._numbers, self._unread = {}, Kinds(), [], {}
        self.class_lists = []
        for name in self._files():
            path = absolute(os.path.join(self.uri, name))
            try:
                yield from self._rows(path, name)
            except StorageError:  # a store that does not answer says nothing of the file
                raise
            except (pa.ArrowException, OSError, EOFError) as error:
                if self.options.damaged == "refuse":
                    raise self.fault(
                        f"{path}: cannot be read: {str(error)[:300]}; accepted: whole files. Next: save the dataset anew, or pass over "
                        "what is lost with `damaged: pass_over`"
                    ) from None
                self._passed_over["damaged file, from the damage on"] += 1
        self.types = self._kinds.types()
        self._numbers = []  # a source holds nothing of what it listed

    names_splits = True

    def splits(self) -> list[str]:
        splits_file = os.path.join(self.uri, SPLITS_FILE)
        if not is_file(splits_file):
            return []
        splits = self._json(splits_file).get("splits")
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
            raise self.fault(
                f"{splits_file}: found no list `splits`; accepted: as `datasets` wrote it"
            )
        return splits

    def _files(self) -> list[str]:
        """Names of the Arrow files of the split that is meant, from the folder. Raises ManifestError where it is not clear."""
        folder, wanted = "", self.options.split
        if is_file(os.path.join(self.uri, SPLITS_FILE)):
            splits = self.splits()
            if wanted is None and len(splits) != 1:
                raise self.fault(one_of(splits), "split")
            folder = wanted or splits[0]
            if folder not in splits:
                raise self.fault(no_split(folder, ", ".join(splits)), "split")
        state_file = os.path.join(self.uri, folder, STATE_FILE)
        state = self._json(state_file)
        if not folder and wanted not in (None, state.get("_split")):
            accepted = state.get("_split") or "none, since it has no splits"
            raise self.fault(no_split(str(wanted), str(accepted)), "split")
        found = state.get("_data_files")
        names = [file.get("filename") for file in found if isinstance(file, dict)] if isinstance(found, list) else []  # fmt: skip
        if not names or not all(isinstance(n, str) and os.path.basename(n) == n for n in names):
            raise self.fault(
                f"{state_file}: found no list `_data_files`; accepted: as `datasets` wrote it"
            )
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise self.fault(
                f"{state_file}: found rows that are chosen by a further file, as old versions of `datasets` saved them; accepted: rows "
                "themselves. Next: load it and save it anew"
            )
        return [os.path.join(folder, str(name)) for name in names]

    def _json(self, path: str) -> dict[str, Any]:
        try:
            with opened(path) as file:
                data = file.read(MAX_JSON + 1)
            if len(data) > MAX_JSON:
                raise ValueError(f"over {MAX_JSON:,} bytes")
            found = json.loads(data)
        except StorageError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise self.fault(f"{path}: cannot be read: {str(error)[:200]}") from None
        if not isinstance(found, dict):
            raise self.fault(f"{path}: found no JSON object; accepted: as `datasets` wrote it")
        return found

    def _rows(self, path: str, name: str) -> Iterator[Item]:
        number, texts = 1, self._texts
        with opened_stream(path) as stream:
            columns = find_columns(stream.schema, self.options, path, self.fault)
            columns.learn_classes(self, path)
            self._unread |= dict.fromkeys(columns.unread)
            for batch in stream.batches(_used(columns)):
                # All rows of a batch share its address, and batches the numbers of their rows: a million of each are 80 MB.
                address, rows = f"{path}\0{batch.offset}", batch.rows
                self._numbers += map(str, range(len(self._numbers), rows.num_rows))
                self._learn(rows, columns)
                refs = self._refs(batch, address, columns.image, columns)
                labels: Iterable[Ref | None] = itertools.repeat(None, rows.num_rows)
                if columns.segmentation:
                    labels = self._refs(batch, address, columns.segmentation, columns)
                told = texts_of_rows(rows.select(list(columns.texts)), columns, path, number)
                regions = _regions_of(rows, columns, path, number)
                for ref, of_labels, (label, caption, license), objects in zip(
                    refs, labels, told, regions, strict=True
                ):
                    if ref is None:
                        self._passed_over["row without an image"] += 1
                    else:
                        label, license = (texts.setdefault(text, text) for text in (label, license))
                        yield Item(
                            f"{name}/{number}", ref, label, caption, license, regions=objects, segmentation=of_labels,
                        )  # fmt: skip
                    number += 1

    def _refs(
        self, batch: Batch, address: str, name: str, columns: ImageColumns
    ) -> Iterator[Ref | None]:
        """Where the pictures of a column are, None for rows without."""
        place = "" if name == columns.image else f"\0{name}"
        column = batch.rows.column(name)
        cells = column.field("bytes") if name in columns.structs else column
        # A file of this machine is mapped as quickly; a request to a store brings the picture alone.
        spans = batch.spans(cells) if batch.is_stored else itertools.repeat(None)
        are_empty = _without_image(batch.rows, name, columns)
        for row, (is_empty, span) in enumerate(zip(are_empty, spans, strict=False)):
            if is_empty:
                yield None
                continue
            if batch.is_stored:
                place = f"\0{span[0]}\0{span[1]}" if span else f"\0{column[row].as_py()['path']}"
            yield Ref(address, self._numbers[row] + place, self.field)

    def _learn(self, batch: pa.RecordBatch, columns: ImageColumns) -> None:
        self._kinds.add_rows(batch.num_rows)
        for name in columns.further:
            values = batch.column(name)
            kind, gaps = values.type, has_gaps(values)
            self._kinds.add_column(name, kind, rows=batch.num_rows, has_gaps=gaps)

    def read(self, ref: Ref) -> bytes:
        """The image's bytes. Raises SampleError for a row without any, and for a file that is not as it was listed."""
        return self.head(ref, MAX_FILE_BYTES)

    def head(self, ref: Ref, count: int) -> bytes:
        path, (row, *place) = ref.uri.partition("\0")[0], ref.member.split("\0")
        folder = os.path.dirname(path)
        if is_address(path):
            if len(place) == 1:
                return image_bytes({"path": place[0]}, folder)
            start, size = map(int, place)
            require_few_bytes(size)
            data = part_of(path, start, min(size, count))
            if len(data) < min(size, count):
                raise SampleError("decode", "the file is shorter than when it was listed")
            return data
        batch = _batch(ref)
        name = place[0] if place else find_columns(batch.schema, self.options, path, self.fault).image  # fmt: skip
        _require_sound(batch, (name,))
        data = image_bytes(batch.column(name)[int(row)].as_py(), folder)
        require_few_bytes(len(data))
        return data

    def further(self, item: Item) -> Mapping[str, Any]:
        path, _, offset = item.ref.uri.partition("\0")
        row = int(item.ref.member.partition("\0")[0])
        is_stored, names = is_address(path), tuple(self.types)
        batch = stored_batch(path, int(offset), names) if is_stored else _batch(item.ref)
        columns = find_columns(batch.schema, self.options, item.ref.place, self.fault)
        names = tuple(name for name in columns.carried(self.options) if name in self.types)
        _require_sound(batch, names)
        return {name: batch.column(name)[row].as_py() for name in names}

    def size(self, ref: Ref) -> int | None:
        path = ref.uri.partition("\0")[0]
        # Each worker asks this of each image: a request would double the cost of reading it.
        return 0 if is_address(path) or os.path.isfile(path) else None

    def passed_over(self) -> Counter[str]:
        return self._passed_over

    def notes(self) -> list[str]:
        return [*super().notes(), *unread_pictures(self._unread, self.field)]


def _used(columns: ImageColumns) -> Used:
    """What a listing reads: all but the pictures."""
    whole = (*columns.texts, *columns.further, *filter(None, [columns.objects]))
    return Used(whole, tuple(filter(None, (columns.image, columns.segmentation))))


def _batch(ref: Ref) -> pa.RecordBatch:
    """The record batch of a row of a file of this machine, mapped."""
    import pyarrow as pa

    path, _, offset = ref.uri.partition("\0")
    try:
        with pa.memory_map(path) as file, pa.ipc.open_stream(file) as stream:
            # The schema stands at the beginning alone: a batch is not readable without.
            schema = stream.schema
            file.seek(int(offset))
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
    # It is an OSError too, but tells of a missing image, not of a damaged one.
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, EOFError) as error:
        raise SampleError("decode", f"cannot be read: {str(error)[:200]}") from None
    if int(ref.member.partition("\0")[0]) >= batch.num_rows:
        raise SampleError("missing", "the file has fewer rows than when it was listed")
    return batch


def _require_sound(batch: pa.RecordBatch, names: tuple[str, ...]) -> None:
    """Raise SampleError for columns that changed since they were listed."""
    import pyarrow as pa

    try:
        sound(batch, Used(names))
    except pa.ArrowException as error:
        raise SampleError("decode", f"cannot be read: {str(error)[:200]}") from None


def _regions_of(
    batch: pa.RecordBatch, columns: ImageColumns, path: str, first: int
) -> Iterator[tuple[Region, ...]]:
    """Objects of each row; none where the table has no such column."""
    if columns.objects:
        return regions_of_rows(batch, columns, path, first)
    return itertools.repeat((), batch.num_rows)


def _without_image(batch: pa.RecordBatch, name: str, columns: ImageColumns) -> list[bool]:
    """Whether a row has neither bytes nor a path; looks at no bytes."""
    column = batch.column(name)
    if name not in columns.structs:
        return list(column.is_null().to_pylist())
    has_bytes = column.field("bytes").is_valid().to_pylist()
    if all(has_bytes):
        return [False] * batch.num_rows
    paths = column.field("path").to_pylist() if column.type.get_field_index("path") >= 0 else [None] * batch.num_rows  # fmt: skip
    return [not (is_set or path) for is_set, path in zip(has_bytes, paths, strict=True)]
