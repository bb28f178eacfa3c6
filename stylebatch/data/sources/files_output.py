"""Outputs of this program of the format `files`: pictures in trees, which the metadata of committed shards list.

An item's `Ref` holds its picture, and behind a NUL the shard, row group and row of its record.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stylebatch.data.places import absolute, is_folder
from stylebatch.data.sources.further import Kinds, has_gaps
from stylebatch.data.sources.image_columns import (
    ImageColumns,
    columns_beside,
    regions_of_rows,
    texts_of_rows,
)
from stylebatch.data.sources.local import LocalFiles
from stylebatch.data.sources.origins import ALWAYS
from stylebatch.data.sources.outputs import PICTURES, format_of, output_above, shards_of
from stylebatch.data.sources.parquet_images import ParquetImages
from stylebatch.data.sources.parquet_rows import row_of
from stylebatch.data.sources.patterns import Found, is_pattern
from stylebatch.data.sources.regions import Region
from stylebatch.data.sources.source import Item, Ref
from stylebatch.data.tables.table_columns import shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FILE, INPUTS = "file_name", "input_files"
OF_FILES = (FILE, INPUTS, "input_sha256", "shard", "error_code")
"""Columns that tell of files and shards alone."""
INPUT_PICTURES = "input_images"
LABELS_AMONG_INPUTS = f"{INPUT_PICTURES}/segmentation/"
ROWS = 4096


class FilesOutput(LocalFiles, ParquetImages):
    """Samples of committed shards. An id is the picture's path below the folder of its split; no two splits share one."""

    accepted = "an output of this program"

    @classmethod
    def recognises(cls, uri: str) -> bool:
        if is_pattern(uri) or not is_folder(uri):
            return False
        output = output_above(uri)
        return output is not None and format_of(output) == "files"

    def items(self) -> Iterator[Item]:
        self._listed = set[str]()
        yield from ParquetImages.items(self)
        self._listed.clear()  # a source holds nothing of what it listed

    def _all_files(self) -> Found:
        output = self._output = output_above(self.uri)
        if output is None:
            raise self.fault("found no output of this program; accepted: the folder of one")
        shards, self._uncommitted = shards_of(output, ".parquet", "metadata")
        self._folder = absolute(output).rstrip("/")
        above, split = os.path.split(absolute(self.uri).rstrip("/"))
        if above == f"{self._folder}/{PICTURES}":
            shards = [path for path in shards if os.path.basename(path).startswith(f"{split}-")]
        return Found(os.path.join(output, "metadata"), tuple(shards))

    def _columns_in(self, schema: pa.Schema, path: str) -> ImageColumns:
        if not {FILE, INPUTS} <= set(schema.names):
            raise self.fault(f"{path}: found no columns {FILE} and {INPUTS}; accepted: as written")
        return columns_beside(schema, self.options, path, self.fault, taken=OF_FILES)

    def _learn(self, kinds: Kinds, table: pq.ParquetFile, columns: ImageColumns) -> None:
        """Types of columns by the rows of pictures alone: those of failed samples have gaps."""
        import pyarrow.compute as pc

        names = columns.further
        for batch in table.iter_batches(ROWS, columns=[FILE, *names]):
            batch = batch.filter(pc.not_equal(batch.column(FILE), ""))
            kinds.add_rows(batch.num_rows)
            for name in names:
                values = batch.column(name)
                gaps = has_gaps(values)
                kinds.add_column(name, values.type, rows=batch.num_rows, has_gaps=gaps)

    def _rows(
        self, table: pq.ParquetFile, columns: ImageColumns, path: str, prefix: str
    ) -> Iterator[Item]:
        shard, number = os.path.splitext(os.path.basename(path))[0], 1
        names = list(
            dict.fromkeys((FILE, INPUTS, *columns.texts, *filter(None, [columns.objects])))
        )
        for group in range(table.num_row_groups):
            row = 0
            for batch in table.iter_batches(ROWS, row_groups=[group], columns=names):
                for item in self._of_batch(batch, columns, path, number):
                    place = f"{shard} {group} {row}"
                    row += 1
                    if item is not None:
                        yield replace(
                            item, ref=self.within(self._folder, f"{item.ref.member}\0{place}")
                        )
                number += batch.num_rows

    def _of_batch(
        self, batch: pa.RecordBatch, columns: ImageColumns, path: str, first: int
    ) -> Iterator[Item | None]:
        """An item for each row, None where there is no picture."""
        texts = texts_of_rows(batch.select(list(columns.texts)), columns, path, first)
        regions: Iterator[tuple[Region, ...]] = itertools.repeat((), batch.num_rows)
        if columns.objects:
            regions = regions_of_rows(batch, columns, path, first)
        files, inputs = (batch.column(name).to_pylist() for name in (FILE, INPUTS))
        for result, others, (label, caption, license), objects in zip(
            files, inputs, texts, regions, strict=True
        ):
            if not result:
                self._passed_over["failed sample"] += 1
                yield None
                continue
            file = self._picture(result, others or [], path)
            if file in self._listed:
                yield None
                continue
            self._listed.add(file)
            labels = next((f for f in others or () if f.startswith(LABELS_AMONG_INPUTS)), None)
            if labels is not None:
                self._id(labels, path)  # refuses a path that leads elsewhere
            yield Item(
                self._id(file, path), self.within(self._folder, file),
                self._shared(label), caption, self._shared(license), regions=objects,
                segmentation=None if labels is None else self.within(self._folder, labels),
            )  # fmt: skip

    def _picture(self, result: str, others: list[str], path: str) -> str:
        """The file that the option `image` means: the result, or an input of its kind."""
        wanted = (self.options.image or PICTURES).partition(".")[0]
        if wanted in (PICTURES, "image"):
            return result
        kinds = {file.split("/")[1]: file for file in others if "/" in file}
        if wanted not in kinds:
            raise self.fault(
                f"{path}: found {wanted!r}; accepted: {', '.join(['image', *kinds])}", "image"
            )
        return kinds[wanted]

    def _id(self, file: str, path: str) -> str:
        folder, *parts = file.split("/")
        # images/SPLIT/..., input_images/KIND/SPLIT/...
        levels = {PICTURES: 1, INPUT_PICTURES: 2}.get(folder, len(parts))
        if not parts[levels:] or {"", ".", ".."} & set(parts) or "\0" in file:
            raise self.fault(f"{path}: found the file {shown(file)!r}; accepted: one of the output")
        return "/".join(parts[levels:])

    def further(self, item: Item) -> Mapping[str, Any]:
        carry = self.options.carry
        names = [n for n in self.types if carry is None or n in carry or n in ALWAYS]
        if not names:
            return item.extra
        shard, group, row = item.ref.member.partition("\0")[2].split(" ")
        return row_of(Ref(f"{item.ref.uri}/metadata/{shard}.parquet\0{group}", row), names)
