"""Folders that `datasets` wrote with `save_to_disk`: Arrow streams of record batches, one split or several.

An item's `Ref` holds where its record batch lies in the file, so that any process maps that batch alone.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import is_file
from stylebatch.data.sources.further import Kinds, has_gaps
from stylebatch.data.sources.holdings import one_of
from stylebatch.data.sources.image_columns import (
    ImageColumns,
    find_columns,
    image_bytes,
    regions_of_rows,
    texts_of_rows,
    unread_pictures,
)
from stylebatch.data.sources.local import require_few_bytes
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import USUAL, Item, Ref, Source
from stylebatch.errors import SampleError
from stylebatch.paths import is_address

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"
MAX_JSON = 64 * 2**20
END = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends a stream; one without was cut short, even where it stops behind a whole batch."""


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

        if is_address(self.uri):
            raise self.fault(
                "is a saved dataset in a store; accepted: one on this machine. Next: copy it here, or keep it in the store as Parquet "
                "(`Dataset.to_parquet`), which is read from there"
            )
        self._passed_over = Counter()
        self._texts, self._kinds, self._numbers, self._unread = {}, Kinds(), [], {}
        self.class_lists = []
        for name in self._files():
            path = os.path.abspath(os.path.join(self.uri, name))
            try:
                yield from self._rows(path, name)
            except (pa.ArrowException, OSError, EOFError) as error:
                if self.options.damaged == "refuse":
                    raise self.fault(
                        f"{path}: cannot be read: {str(error)[:300]}; accepted: whole files. Next: save the dataset anew, or pass over "
                        "what is lost with `damaged: pass_over`"
                    ) from None
                self._passed_over["damaged file, from the damage on"] += 1
        self.types = self._kinds.types()
        self._numbers = []  # a source holds nothing of what it listed

    def splits(self) -> list[str]:
        splits_file = os.path.join(self.uri, SPLITS_FILE)
        if not os.path.isfile(splits_file):
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
        if os.path.isfile(os.path.join(self.uri, SPLITS_FILE)):
            splits = self.splits()
            if wanted is None and len(splits) != 1:
                raise self.fault(one_of(splits), "split")
            folder = wanted or splits[0]
            if folder not in splits:
                raise self.fault(f"found {folder!r}; accepted: {', '.join(splits)}", "split")
        state_file = os.path.join(self.uri, folder, STATE_FILE)
        state = self._json(state_file)
        if not folder and wanted not in (None, state.get("_split")):
            raise self.fault(
                f"found {wanted!r}; accepted: {state.get('_split') or 'none, since it has no splits'}",
                "split",
            )
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
            if os.path.getsize(path) > MAX_JSON:
                raise ValueError(f"over {MAX_JSON:,} bytes")
            with open(path, "rb") as file:
                found = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            raise self.fault(f"{path}: cannot be read: {str(error)[:200]}") from None
        if not isinstance(found, dict):
            raise self.fault(f"{path}: found no JSON object; accepted: as `datasets` wrote it")
        return found

    def _rows(self, path: str, name: str) -> Iterator[Item]:
        import pyarrow as pa

        number, texts = 1, self._texts
        with pa.memory_map(path) as file, pa.ipc.open_stream(file) as stream:
            columns = find_columns(stream.schema, self.options, path, self.fault)
            columns.learn_classes(self, path)
            self._unread |= dict.fromkeys(columns.unread)
            while True:
                # The place is asked before the batch is read: there its message begins.
                offset = file.tell()
                try:
                    batch = stream.read_next_batch()
                except StopIteration:
                    break
                # All rows of a batch share its address, and batches the numbers of their rows: a million of each are 80 MB.
                address = f"{path}\0{offset}"
                self._numbers += map(str, range(len(self._numbers), batch.num_rows))
                self._learn(batch, columns)
                is_empty = _without_image(batch, columns.image, columns)
                labels = columns.segmentation
                unlabelled = _without_image(batch, labels, columns) if labels else []
                rows = texts_of_rows(batch.select(list(columns.texts)), columns, path, number)
                regions = _regions_of(batch, columns, path, number)
                for row, ((label, caption, license), objects) in enumerate(
                    zip(rows, regions, strict=True)
                ):
                    if is_empty[row]:
                        self._passed_over["row without an image"] += 1
                    else:
                        ref = Ref(address, self._numbers[row], self.field)
                        label, license = (texts.setdefault(text, text) for text in (label, license))
                        yield Item(
                            f"{name}/{number}", ref, label, caption, license, regions=objects,
                            segmentation=self._labels_at(address, row, columns) if labels and not unlabelled[row] else None,
                        )  # fmt: skip
                    number += 1
            # Arrow takes the end of a file for the end of its stream.
            if file.size() < len(END) or file.read_at(len(END), file.size() - len(END)) != END:
                raise EOFError("it is cut short: its end is missing")

    def _labels_at(self, address: str, row: int, columns: ImageColumns) -> Ref:
        return Ref(address, f"{row}\0{columns.segmentation}", self.field)

    def _learn(self, batch: pa.RecordBatch, columns: ImageColumns) -> None:
        self._kinds.add_rows(batch.num_rows)
        for name in columns.further:
            values = batch.column(name)
            kind, gaps = values.type, has_gaps(values)
            self._kinds.add_column(name, kind, rows=batch.num_rows, has_gaps=gaps)

    def read(self, ref: Ref) -> bytes:
        """The image's bytes. Raises SampleError for a row without any, and for a file that is not as it was listed."""
        batch, row = _batch(ref)
        path = ref.uri.partition("\0")[0]
        name = ref.member.partition("\0")[2]
        name = name or find_columns(batch.schema, self.options, path, self.fault).image
        data = image_bytes(batch.column(name)[row].as_py(), os.path.dirname(path))
        require_few_bytes(len(data))
        return data

    def further(self, item: Item) -> Mapping[str, Any]:
        batch, row = _batch(item.ref)
        columns = find_columns(batch.schema, self.options, item.ref.place, self.fault)
        return {name: batch.column(name)[row].as_py() for name in columns.carried(self.options)}

    def size(self, ref: Ref) -> int | None:
        return 0 if os.path.isfile(ref.uri.partition("\0")[0]) else None

    def passed_over(self) -> Counter[str]:
        return self._passed_over

    def notes(self) -> list[str]:
        return [*super().notes(), *unread_pictures(self._unread, self.field)]


def _batch(ref: Ref) -> tuple[pa.RecordBatch, int]:
    """The record batch of a row, mapped, and the row's place in it."""
    import pyarrow as pa

    path, _, offset = ref.uri.partition("\0")
    row = int(ref.member.partition("\0")[0])
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
    if row >= batch.num_rows:
        raise SampleError("missing", "the file has fewer rows than when it was listed")
    return batch, row


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
