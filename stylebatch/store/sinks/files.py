"""Plain pictures: `images/train/CLASS/NAME--STYLE--KEY.jpg`, and `metadata.jsonl` beside the classes; inputs in like trees.

A picture gets its name whole, before its shard is committed; until then it counts for nothing, and the next attempt
writes the same bytes under the same name. The shard's metadata names its files with their sha256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import StorageError, UnansweredError
from stylebatch.folder import Folder
from stylebatch.local_files import make_durable
from stylebatch.spec.output import OutputFormat
from stylebatch.store.names import MOST_METADATA_BYTES, metadata_file
from stylebatch.store.output_record import RunRecord, ShardStats
from stylebatch.store.records import Record
from stylebatch.store.sinks.annotations import (
    ANNOTATIONS,
    LABELS,
    annotation_faults,
    annotation_files,
    is_annotation,
    writing_annotations,
)
from stylebatch.store.sinks.aside import ASIDE, aside_file, aside_name, is_aside_there
from stylebatch.store.sinks.columns import RESULT, Column, Shape, card_features, columns_of
from stylebatch.store.sinks.sidecar import (
    SIDECAR,
    is_sidecar,
    metadata_of,
    sidecar_faults,
    sidecars,
    writing_sidecars,
)
from stylebatch.store.sinks.sink import RECORD_FILES, Members, Payload, Row, Sink
from stylebatch.store.sinks.tree import (
    FILE,
    FOLDERS,
    IMAGES,
    INPUT_IMAGES,
    INPUT_SHA256,
    INPUTS,
    below,
    key_of,
    member_of,
    place,
)

LOADING = """\
from datasets import load_dataset

dataset = load_dataset("imagefolder", data_dir="PATH_OF_THIS_FOLDER/images", split="SPLIT")
# or any reader of class folders: PATH_OF_THIS_FOLDER/images/SPLIT/CLASS/*
"""


class FilesShard(Sink):
    """Files in trees that any program shows."""

    format: ClassVar[OutputFormat] = "files"
    columns = (
        pa.field(FILE, pa.string()),
        pa.field(INPUTS, pa.list_(pa.string())),
        pa.field(INPUT_SHA256, pa.list_(pa.string())),
    )
    is_one_file = False

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
        self._written: list[str] = []
        self._inputs: dict[tuple[str, str], str] = {}
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0

    def _row(self, record: Record) -> Row:
        return record.row | {FILE: "", INPUTS: [], INPUT_SHA256: []}

    def _add(self, record: Record, row: Row) -> None:
        where = place(row, has_classes="cls" in record.files)
        image, *inputs = [name for name in record.files if name not in RECORD_FILES]
        row[FILE] = f"{IMAGES}/{where}.{image}"
        self._write(row[FILE], record.files[image], row["sha256"])
        for member in inputs:
            kind, _, ending = member.rpartition(".")
            file = f"{INPUT_IMAGES}/{kind}/{where}.{ending}"
            sha256 = hashlib.sha256(record.files[member]).hexdigest()
            # of shared inputs the first sample that is made from one gives the file its name
            named = self._inputs.setdefault((member, sha256), file) if self.shares_inputs else file
            if named == file:
                self._write(file, record.files[member], sha256)
            row[INPUTS].append(named)
            row[INPUT_SHA256].append(sha256)

    def _write(self, file: str, data: bytes, sha256: str) -> None:
        self._written.append(file)
        with self.output.writing(file, is_last=False) as stream:
            stream.write(data)
        self._sha256.update(f"{file}\0{sha256}\n".encode())
        self._size_bytes += len(data)

    def _close(self) -> Payload:
        local = self.output.local
        # one sync for all files of the shard: one each would take longer than rendering
        if local is not None:
            make_durable((local / file for file in self._written), local)
        number = self.name.rpartition("-")[2]
        # an earlier rendering of the shard may have had other names, such as those of failed samples
        former = set(_files_of(self.output, self.name)) - set(self._written)
        _remove(self.output, (f for f in former if key_of(f).startswith(number)))
        count, self._written = len(self._written), []
        return Payload(self._sha256.hexdigest() if count else "", self._size_bytes, count)

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        written, self._written = self._written, []
        _remove(self.output, written)
        return None

    @classmethod
    def walk(cls, output: Folder) -> Iterator[str]:
        for folder in (*FOLDERS, ANNOTATIONS, LABELS):
            yield from below(output, f"{folder}/")
        yield from output.names(f"{ASIDE}/")

    @classmethod
    def owner(cls, record: RunRecord, file: str) -> str | None:
        if name := aside_name(file):
            return name if record.names_shard(name) else None
        key = key_of(file)
        is_below = file.startswith(tuple(f"{folder}/" for folder in FOLDERS))
        for part in record.parts if is_below else ():
            number = key[: part.digits]
            if len(key) > part.digits and int(number) in part.shards:
                return part.shard_name(int(number))
        return None

    @classmethod
    def files(cls, output: Folder, name: str) -> list[str]:
        return [*_files_of(output, name), aside_file(name)]

    @classmethod
    def is_there(cls, output: Folder, name: str, stats: ShardStats, metadata: bytes) -> bool:
        """On a remote store one file stands for all: asking for each takes a request."""
        try:
            files = list({file: None for row in _rows(metadata) for file in _named(row)})
        except ValueError:
            return False
        if not is_aside_there(output, name, stats):
            return False
        # a request for each of a thousand files would make a resume slower than a run
        if output.local is None:
            return all(output.facts(file) is not None for file in files[:1])
        found = [output.facts(file) for file in files]
        sizes = [facts.size_bytes for facts in found if facts is not None and facts.is_file]
        return (
            len(sizes) == stats.num_files - bool(stats.rejected_sha256)
            and sum(sizes) == stats.bytes
        )

    @classmethod
    def samples(
        cls, output: Folder, name: str, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        for key, row in sorted(rows.items()):
            if row[FILE]:
                yield key, {member_of(file): _read(output, file) for file in _named(row)}

    @classmethod
    def problems(
        cls, output: Folder, name: str, success: list[Row], stats: ShardStats
    ) -> Iterator[tuple[str, str]]:
        faults: dict[str, list[str]] = {}
        try:
            sums = {(file, sha256): None for row in success for file, sha256 in _sums(row)}
        except ValueError as error:
            yield metadata_file(name), str(error)
            return
        for file, sha256 in sums:
            fault = _fault(output, file, sha256)
            if fault:
                faults.setdefault(fault, []).append(file)
        for fault, files in faults.items():
            more = f", and so {len(files) - 1} more of this shard" if len(files) > 1 else ""
            yield files[0], fault + more

    @classmethod
    def payload(cls, name: str) -> str:
        return IMAGES

    @classmethod
    def is_derived(cls, file: str) -> bool:
        return is_sidecar(file) or is_annotation(file)

    @classmethod
    def derived(cls, output: Folder) -> list[str]:
        return [*sidecars(output), *annotation_files(output)]

    @classmethod
    @contextmanager
    def finishing(cls, output: Folder) -> Iterator[Callable[[pa.Table], None]]:
        with writing_sidecars(output) as lines, writing_annotations(output) as annotations:

            def add(metadata: pa.Table) -> None:
                lines(metadata)
                annotations(metadata)

            yield add

    @classmethod
    def unfinished(cls, output: Folder, shards: Iterable[str]) -> Iterator[tuple[str, str]]:
        shards = list(shards)
        yield from sidecar_faults(output, shards)
        yield from annotation_faults(output, metadata_of(output, shards))

    @classmethod
    def loading(cls, shape: Shape) -> str:
        return LOADING.replace("SPLIT", shape.split)

    @classmethod
    def data_files(cls, split: str) -> str:
        return f"{IMAGES}/{split}/**"

    @classmethod
    def features(cls, shape: Shape) -> list[dict[str, Any]]:
        """Inputs are beside the images, not among them, and told by the paths in `*_path`."""
        return card_features(_columns(shape), ())

    @classmethod
    def members(cls, shape: Shape) -> list[tuple[list[str], str]]:
        folders = [f"{INPUT_IMAGES}/{member.partition('.')[0]}/" for member in shape.inputs]
        found: list[tuple[list[str], str]] = [
            ([f"{IMAGES}/{shape.split}/.../NAME--STYLE--KEY.{shape.image}"], "the rendered image"),
            (
                [f"{IMAGES}/{shape.split}/{SIDECAR}"],
                "of each: label, caption, ids, parameters, measures",
            ),
        ]
        if "objects" in shape.schema.names:
            found.append(([f"{ANNOTATIONS}/", f"{LABELS}/"], "the objects, in the contents' form"))
        return [*found, (folders, "the inputs as fitted, in like trees")] if folders else found


def _columns(shape: Shape) -> list[Column]:
    columns = columns_of(shape.schema, shape.image, shape.inputs, has_classes=False)
    return [_from_json(column) for column in columns]


def _from_json(column: Column) -> Column:
    """As `datasets` reads it from the sidecar."""
    if column.kind == "picture":
        path = column._replace(name=f"{column.name}_path", kind="record", type=pa.string())
        return column if column.name == RESULT else path
    wide = {pa.int32(): pa.int64(), pa.list_(pa.int32()): pa.list_(pa.int64())}
    return column._replace(type=wide.get(column.type, column.type))


def _rows(metadata: bytes) -> list[Row]:
    """Key and files of each sample. Raises ValueError for what is no metadata of this sink."""
    wanted = ["key", "status", FILE, INPUTS]
    try:
        table = pq.read_table(pa.BufferReader(metadata), columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(str(error)) from None
    if table.column_names != wanted or table.schema.field(FILE).type != pa.string():
        raise ValueError(f"found the columns {table.column_names}; accepted: {wanted}")
    rows: list[Row] = table.to_pylist()
    return rows


def _named(row: Row) -> list[str]:
    """Files of a sample, that of the result first. Raises ValueError for a name that this sink does not give."""
    files = [row[FILE], *(row[INPUTS] or [])] if row[FILE] else []
    for file in files:
        folder, *rest = file.split("/")
        if folder not in FOLDERS or {"", ".", ".."} & set(rest) or not key_of(file):
            raise ValueError(f"found a file {file!r} among those of {row['key']}")
    return files


def _sums(row: Row) -> list[tuple[str, str]]:
    """Files of a sample with their sha256."""
    return list(zip(_named(row), [row["sha256"], *(row[INPUT_SHA256] or [])], strict=True))


def _fault(output: Folder, file: str, sha256: str) -> str:
    """What is wrong with a picture, "" for nothing."""
    try:
        is_same = hashlib.sha256(output.read(file)).hexdigest() == sha256
    except FileNotFoundError:
        return "missing"
    except UnansweredError:
        raise
    except OSError as error:
        return str(error.strerror or error)
    return "" if is_same else "its bytes changed since the commit (sha256)"


def _files_of(output: Folder, name: str) -> list[str]:
    """Files that a shard's metadata names, none where it cannot be read."""
    try:
        rows = _rows(output.read(metadata_file(name), MOST_METADATA_BYTES))
        return [file for row in rows for file in _named(row)]
    except UnansweredError:
        raise
    except (OSError, ValueError):
        return []


def _read(output: Folder, file: str) -> bytes:
    try:
        return output.read(file)
    except UnansweredError:
        raise
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from None


def _remove(output: Folder, files: Iterable[str]) -> None:
    """Remove pictures, not their folders: another worker may be about to write there."""
    for file in files:
        with suppress(StorageError):
            output.remove(file)
