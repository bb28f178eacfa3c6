"""What every sink shares: the books of a shard, and the order in which it becomes durable.

1. `write` takes a sample's row, and hands the files of one that succeeded to the format; of one that was rejected they may be kept
   aside.
2. `commit` makes the payload durable, then what is aside, then the metadata, and last the stats, which are the commit marker.
An instance is a shard being written. Who reads an output (ledger, verify, reports, card) asks the class.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import pyarrow as pa

from stylebatch.faults import passing
from stylebatch.folder import Folder
from stylebatch.local_files import TEMPORARY
from stylebatch.masking import masked_values
from stylebatch.spec.output import OutputFormat
from stylebatch.store.names import marker, metadata_file
from stylebatch.store.output_record import RunRecord, ShardStats
from stylebatch.store.records import Record, as_parquet
from stylebatch.store.shard_counts import ShardCounts
from stylebatch.store.sinks.aside import Aside, aside_file
from stylebatch.store.sinks.columns import Shape
from stylebatch.store.sinks.spans import Spans

Members = dict[str, bytes]
"""Pictures of a sample by the names that they have in a tar: `jpg`, `content.jpg`, ..."""
Row = dict[str, Any]
RECORD_FILES = ("txt", "cls")
"""Files of a sample that tell what columns of its record tell as well; the others are pictures, the result first."""


class Payload(NamedTuple):
    """What a shard holds beside its records. `sha256`: "" where no sample succeeded; `inputs_*`: of a file of shared inputs."""

    sha256: str = ""
    size_bytes: int = 0
    num_files: int = 0
    inputs_sha256: str = ""
    inputs_bytes: int = 0


class Sink(ABC):
    """One shard being written; a context manager that leaves nothing behind unless `commit` ran.

    `labels`: names of the classes, by number; `shares_inputs`: an input is stored once, not beside each sample. A shard whose
    samples all failed has metadata and stats, and no payload: readers choke on empty files.
    """

    format: ClassVar[OutputFormat]
    columns: ClassVar[tuple[pa.Field, ...]] = ()
    """Of the metadata, beside those of the records."""
    is_one_file: ClassVar[bool] = True
    """Whether a shard is a file; loaders share out their work by such files."""

    def __init__(
        self,
        output: Folder,
        name: str,
        schema: pa.Schema,
        *,
        labels: Sequence[str] = (),
        shares_inputs: bool = False,
    ) -> None:
        self.output, self.name, self.schema, self.labels = output, name, schema, tuple(labels)
        self.shares_inputs = shares_inputs
        self.rows: list[Row] = []
        self._aside: Aside | None = None

    def keep_aside(self) -> None:
        """From now on keep pictures of samples that are no part of the dataset."""
        self._aside = Aside(self.output, self.name, self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._aside is not None:
            self._aside.file.leave(kind, error, trace)
        return self._leave(kind, error, trace)

    def write(self, record: Record) -> None:
        """Append a sample's row, and its files when it succeeded or is to be kept aside."""
        row = self._row(record)
        if record.ok:
            passing("before payload")
            self._add(record, row)
            passing("after payload")
        elif record.files and self._aside is not None:
            self._aside.add(record)
        self.rows.append(row)

    def commit(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Make the shard durable: payload, then metadata, then stats with `facts`; returns the stats."""
        payload = self._close()
        aside = {} if self._aside is None else self._aside.close()
        metadata = as_parquet(self.rows, pa.schema([*self.schema, *self.columns]))
        passing("before metadata")
        self.output.write(metadata_file(self.name), metadata)
        passing("after metadata")
        num_success = sum(row["status"] == "success" for row in self.rows)
        num_rejected = sum(row["status"] == "rejected" for row in self.rows)
        stats = {
            "num_samples": len(self.rows),
            "num_success": num_success,
            "num_failed": len(self.rows) - num_success - num_rejected,
            **({"num_rejected": num_rejected} if num_rejected else {}),
            "sha256": payload.sha256,
            "bytes": payload.size_bytes,
            "metadata_sha256": hashlib.sha256(metadata).hexdigest(),
            **self._facts(payload),
            **({"num_files": payload.num_files + 1, **aside} if aside else {}),
            **facts,
        }
        passing("before marker")
        self.output.write(marker(self.name), json.dumps(masked_values(stats), indent=1).encode())
        passing("after marker")
        return stats

    def _facts(self, payload: Payload) -> dict[str, Any]:
        """What the stats tell of the format. Outputs of tars are those of versions that knew no other."""
        is_tar = self.format == "webdataset"
        told = {} if is_tar else {"format": self.format, "num_files": payload.num_files}
        if not payload.inputs_sha256:
            return told
        inputs = {"inputs_sha256": payload.inputs_sha256, "inputs_bytes": payload.inputs_bytes}
        return {**told, "num_files": payload.num_files, **inputs}

    # a format writes by these four

    def _row(self, record: Record) -> Row:
        """The row of the metadata."""
        return record.row

    @abstractmethod
    def _add(self, record: Record, row: Row) -> None:
        """Write the files of a sample that succeeded, and tell `row` of them."""

    @abstractmethod
    def _close(self) -> Payload:
        """Make what was added durable. A payload that an earlier attempt left and this one has not is removed."""

    @abstractmethod
    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Remove what was added, unless it was committed."""

    # and is read by these

    @classmethod
    @abstractmethod
    def walk(cls, output: Folder) -> Iterator[str]:
        """Names of all that is where loaders look for the payload, also of what is no file of ours."""

    @classmethod
    @abstractmethod
    def owner(cls, record: RunRecord, file: str) -> str | None:
        """Name of the shard that a payload file of this name belongs to, None where it is none of the run's."""

    @classmethod
    @abstractmethod
    def files(cls, output: Folder, name: str) -> list[str]:
        """Payload files of a committed shard."""

    @classmethod
    @abstractmethod
    def is_there(cls, output: Folder, name: str, stats: ShardStats, metadata: bytes) -> bool:
        """Whether the payload seems to be what was committed, by a quick look. `metadata`: of the shard, as committed."""

    @classmethod
    def sizes(cls, name: str, counts: ShardCounts) -> dict[str, int]:
        """Bytes of the files of a committed shard that its marker tells the size of, by name."""
        return {aside_file(name): counts.rejected_bytes} if counts.rejected_sha256 else {}

    @classmethod
    @abstractmethod
    def samples(
        cls, output: Folder, name: str, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        """Key and pictures of these samples of a shard, whose rows in the metadata are given by key.

        Raises OSError or ValueError for damaged files.
        """

    @classmethod
    def spans(cls, output: Folder, name: str) -> Spans | None:
        """Where the pictures of a shard lie; None for a format whose pictures are no stretches of its files.

        Raises OSError or ValueError for damaged files.
        """
        return None

    @classmethod
    @abstractmethod
    def problems(
        cls, output: Folder, name: str, success: list[Row], stats: ShardStats
    ) -> Iterator[tuple[str, str]]:
        """Each file that is not as it was committed, with what is wrong. `success`: rows of samples that succeeded."""

    @classmethod
    def payload(cls, name: str) -> str:
        """The file or folder that an error names when a shard's payload cannot be used."""
        return f"data/{name}"

    @classmethod
    def temporaries(cls, output: Folder) -> Iterator[str]:
        """Files that a writer may have left under temporary names."""
        return (file for file in cls.walk(output) if TEMPORARY in file)

    @classmethod
    def is_derived(cls, file: str) -> bool:
        """Whether `finishing` writes a file of this name."""
        return False

    @classmethod
    def derived(cls, output: Folder) -> list[str]:
        """What `finishing` wrote."""
        return []

    @classmethod
    def finishing(cls, output: Folder) -> AbstractContextManager[Callable[[pa.Table], None]]:
        """Writes what readers need beside the shards, whose metadata it is given one after another."""
        return nullcontext(lambda metadata: None)

    @classmethod
    def unfinished(cls, output: Folder, shards: Iterable[str]) -> Iterator[tuple[str, str]]:
        """File and fault where what `finishing` writes is not there or other than it should be."""
        yield from ()

    # and is described on the card by these

    @classmethod
    @abstractmethod
    def data_files(cls, split: str) -> str:
        """Pattern of the files of a split, for `datasets`."""

    @classmethod
    def further_configs(cls, shape: Shape, splits: Iterable[str]) -> list[dict[str, Any]]:
        """Of the card, for what `datasets` can load beside the samples; `splits`: those that have samples."""
        return []

    @classmethod
    @abstractmethod
    def features(cls, shape: Shape) -> list[dict[str, Any]]:
        """Features as the card of a dataset has them."""

    @classmethod
    @abstractmethod
    def members(cls, shape: Shape) -> list[tuple[list[str], str]]:
        """Names of what a sample holds, and what it is."""

    @classmethod
    @abstractmethod
    def loading(cls, shape: Shape) -> str:
        """Python that reads the dataset at PATH_OF_THIS_FOLDER, beside `datasets`."""

    records_are_in: ClassVar[str] = "columns"
    """Where a loaded sample has the columns of its record."""
