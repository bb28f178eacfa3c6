"""Sinks whose shard is one file in `data/`: opened by the first sample that succeeded, hashed while it is written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar

import pyarrow as pa

from stylebatch.folder import Folder
from stylebatch.store.output_record import RunRecord, ShardStats
from stylebatch.store.records import Record
from stylebatch.store.shard_counts import ShardCounts
from stylebatch.store.sinks.aside import ASIDE, aside_file, aside_name
from stylebatch.store.sinks.columns import Shape
from stylebatch.store.sinks.shared_inputs import (
    INPUT_FOLDER,
    INPUT_SCHEMA,
    Named,
    divided,
    joined,
    names_of,
)
from stylebatch.store.sinks.sink import Members, Payload, Row, Sink
from stylebatch.store.sinks.whole_files import WholeFile, file_faults
from stylebatch.words import counted

FOLDER = "data"


class OneFile(Sink):
    """Base of such sinks."""

    suffix: ClassVar[str]

    def __init__(
        self,
        output: Folder,
        name: str,
        schema: pa.Schema,
        *,
        labels: Sequence[str] = (),
        shares_inputs: bool = False,
    ) -> None:
        super().__init__(output, name, schema, labels=labels, shares_inputs=shares_inputs)
        self._file = WholeFile(output, self.payload(name))
        self._known: set[tuple[str, str, str]] = set()
        self._inputs: OneFile | None = None
        if shares_inputs:
            self._inputs = type(self)(output, name, INPUT_SCHEMA)
            self._inputs._file = WholeFile(output, self.inputs_file(name))

    @abstractmethod
    def _begin(self, file: Any, record: Record) -> None:
        """Start the file with what its first sample tells."""

    @abstractmethod
    def _append(self, record: Record) -> None:
        """Append a sample."""

    @abstractmethod
    def _end(self) -> None:
        """Write what the format has at its end."""

    def _add(self, record: Record, row: Row) -> None:
        if self._inputs is not None:
            record, new = divided(record, self._known)
            for one in new:
                self._inputs._add(one, one.row)
        if not self._file.is_open:
            self._begin(self._file.open(), record)
        self._append(record)

    def _close(self) -> Payload:
        # readers choke on a file without samples, so there is none
        inputs = Payload() if self._inputs is None else self._inputs._close()
        if not self._file.is_open:
            self._file.remove()
            return Payload()
        self._end()
        sha256, size_bytes = self._file.close()
        return Payload(sha256, size_bytes, 1 + inputs.num_files, inputs.sha256, inputs.size_bytes)

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._inputs is not None:
            self._inputs._leave(kind, error, trace)
        return self._file.leave(kind, error, trace)

    @classmethod
    def payload(cls, name: str) -> str:
        return f"{FOLDER}/{name}{cls.suffix}"

    @classmethod
    def inputs_file(cls, name: str) -> str:
        """Where a shard has the inputs that its samples share, if they do."""
        return f"{INPUT_FOLDER}/{name}{cls.suffix}"

    @classmethod
    def walk(cls, output: Folder) -> Iterator[str]:
        for folder in (FOLDER, INPUT_FOLDER, ASIDE):
            yield from output.names(f"{folder}/")

    @classmethod
    def owner(cls, record: RunRecord, file: str) -> str | None:
        name = aside_name(file) or file.rpartition("/")[2].removesuffix(cls.suffix)
        is_ours = file in (cls.payload(name), cls.inputs_file(name), aside_file(name))
        return name if is_ours and record.names_shard(name) else None

    @classmethod
    def files(cls, output: Folder, name: str) -> list[str]:
        return [cls.payload(name), cls.inputs_file(name), aside_file(name)]

    @classmethod
    def samples(
        cls, output: Folder, name: str, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        found = cls._samples(output, name, rows)
        if output.facts(cls.inputs_file(name)) is None:
            return found
        named = {key: names_of(row) for key, row in rows.items()}
        wanted = {one for names in named.values() for one in names}
        try:
            kept = {one: data for one, data in cls._shared(output, name) if one in wanted}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{cls.inputs_file(name)}: found no input: {error}") from None
        return joined(found, named, kept)

    @classmethod
    def further_configs(cls, shape: Shape, splits: Iterable[str]) -> list[dict[str, Any]]:
        files = [
            {"split": split, "path": f"{INPUT_FOLDER}/{split}-*{cls.suffix}"} for split in splits
        ]
        return (
            [{"config_name": "inputs", "data_files": files}]
            if shape.shared and shape.inputs
            else []
        )

    @classmethod
    @abstractmethod
    def _samples(
        cls, output: Folder, name: str, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        """As `samples`, with what the payload itself holds."""

    @classmethod
    @abstractmethod
    def _shared(cls, output: Folder, name: str) -> Iterator[tuple[Named, bytes]]:
        """The inputs that a shard's samples share. Raises OSError, ValueError, KeyError or TypeError for damaged files."""

    @classmethod
    def sizes(cls, name: str, counts: ShardCounts) -> dict[str, int]:
        found = super().sizes(name, counts)
        if counts.num_success:
            found[cls.payload(name)] = counts.bytes
        if counts.num_success and counts.inputs_sha256:
            found[cls.inputs_file(name)] = counts.inputs_bytes
        return found

    @classmethod
    def is_there(cls, output: Folder, name: str, stats: ShardStats, metadata: bytes) -> bool:
        sizes = cls.sizes(name, stats)
        found = {file: output.facts(file) for file in sizes}
        return all(
            facts is not None and facts.is_file and facts.size_bytes == sizes[file]
            for file, facts in found.items()
        )

    @classmethod
    def problems(
        cls, output: Folder, name: str, success: list[Row], stats: ShardStats
    ) -> Iterator[tuple[str, str]]:
        if stats.inputs_sha256:
            yield from file_faults(output, cls.inputs_file(name), stats.inputs_sha256)
        file = cls.payload(name)
        facts = output.facts(file)
        # sizes first: hashing a file of the wrong size tells nothing more
        if not success:
            if facts is not None:
                yield file, f"found a {cls.suffix[1:]} where no sample succeeded"
        elif facts is None or not facts.is_file:
            yield file, "missing" if facts is None else "not a file"
        elif facts.size_bytes != stats.bytes:
            yield file, f"{facts.size_bytes} bytes, {stats.bytes} were committed"
        else:
            yield from ((file, text) for text in cls._faults(output, file, success, stats.sha256))

    @classmethod
    @abstractmethod
    def _faults(cls, output: Folder, file: str, success: list[Row], sha256: str) -> Iterator[str]:
        """What is wrong with the samples of a file of the right size, or else with its bytes."""


def sample_faults(success: list[Row], found: dict[str, set[str]]) -> Iterator[str]:
    """What is wrong with the samples `found`: sha256 of the results (and what may pass for one) by key."""
    keys = [row["key"] for row in success]
    if list(found) != keys:
        missing = [key for key in keys if key not in found]
        what = (
            f"lacks {counted(len(missing), 'sample')}, first {missing[0]}"
            if missing
            else "other samples"
        )
        yield f"holds {counted(len(found), 'sample')} where {len(keys):,} were committed: {what}"
    wrong = [
        row["key"]
        for row in success
        if row["key"] in found and row["sha256"] not in found[row["key"]]
    ]
    if wrong:
        yield f"the image of {wrong[0]} changed (sha256)" + (
            f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        )
