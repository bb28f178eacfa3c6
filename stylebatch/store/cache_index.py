"""The index of one cached style: a row per tensor, made while the tar is written or from the tar.

A tar holds, for each timestep, `<timestep>.safetensors` with tensors `<site>.<tensor>`; then
`style.json` (what the style was made of) and `style.safetensors` (its latents and their levels).
Each safetensors header carries the checksums of its tensors, so a rebuilt index trusts nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from stylebatch.errors import StorageError
from stylebatch.store.codecs import SCALE_SUFFIX, Array, Codec

FORMAT = 2
TRAJECTORY = "style.safetensors"
ENTRY = "style.json"
TYPES = {"F16": "float16", "F32": "float32", "I8": "int8", "I64": "int64"}
TYPE_NAMES = {np.dtype(numpy_name).str: name for name, numpy_name in TYPES.items()}
METADATA = b"stylebatch"


class CacheError(StorageError):
    """The style cache cannot be read or written; names the file and the next step."""


class MissingStyleError(CacheError):
    """The style is not in the cache."""


class DamagedStyleError(CacheError):
    """A cached style's bytes are not those that were written; `what` is the fault alone."""

    what = ""


class TensorRow(NamedTuple):
    """Where one stored tensor lies; `offset` and `length` are bytes of the tar.

    `timestep` and `site` are None for the latents, `scale_tensor` and `scale_axis` unless int8.
    """

    member: str
    timestep: int | None
    site: int | None
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    scale_tensor: str | None
    scale_axis: int | None
    offset: int
    length: int
    xxh3: int


SCHEMA = pa.schema(
    [
        ("member", pa.string()),
        ("timestep", pa.int32()),
        ("site", pa.int32()),
        ("tensor", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("scale_tensor", pa.string()),
        ("scale_axis", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("xxh3", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class StyleIndex:
    """All rows of a style, the size of its tar, and its `style.json`."""

    rows: tuple[TensorRow, ...]
    tar_bytes: int
    entry: dict[str, Any]

    @property
    def codec(self) -> Codec:
        return Codec(**self.entry["key"]["codec"])

    def to_parquet(self) -> bytes:
        """The index file; the same bytes for the same index and library version."""
        facts = json.dumps({"tar_bytes": self.tar_bytes, **self.entry}, sort_keys=True)
        columns = map(list, zip(*self.rows, strict=True))
        table = pa.Table.from_pydict(
            dict(zip(TensorRow._fields, columns, strict=True)),
            schema=SCHEMA.with_metadata({METADATA: facts}),
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, file: IO[bytes], where: str) -> StyleIndex:
        """Raises DamagedStyleError when the file is no index of this format."""
        try:
            # small, and a pool of threads left at exit can abort the process
            table = pq.ParquetFile(pa.BufferReader(file.read())).read(use_threads=False)
            entry = json.loads(table.schema.metadata[METADATA])
            tar_bytes = int(entry.pop("tar_bytes"))
            columns = {name: table.column(name).to_pylist() for name in TensorRow._fields}
            columns["shape"] = [tuple(shape) for shape in columns["shape"]]
            rows = tuple(map(TensorRow._make, zip(*columns.values(), strict=True)))
            index = cls(rows, tar_bytes, entry)
            _ = index.codec
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise damaged(where, f"is not an index of format {FORMAT} ({error})") from error
        return index


def read_entry(file: IO[bytes]) -> dict[str, Any]:
    """`style.json` as the index repeats it, without reading the rows; empty when it is unreadable."""
    try:
        entry: dict[str, Any] = json.loads(pq.read_schema(file).metadata[METADATA])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return {}
    return {name: entry[name] for name in ("key", "labels") if name in entry}


def damaged(where: str, what: str) -> DamagedStyleError:
    """The error for the file `where`, with the next step."""
    error = DamagedStyleError(
        f"{where}: {what}. Next: `stylebatch cache verify CACHE --repair` sets it aside or rebuilds its "
        "index; a style set aside is made again by the next run that needs it."
    )
    error.what = what
    return error


def key_of(ingredients: Mapping[str, Any]) -> str:
    """Name of the style that `ingredients` (JSON values) make: 32 hexadecimal digits."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def build_member(
    name: str, tensors: Mapping[str, Array], offset: int
) -> tuple[list[bytes | memoryview], list[TensorRow]]:
    """A safetensors file of C-contiguous arrays, in parts that share their memory, and its rows.

    Its first byte is to lie at `offset` of the tar; its header carries the checksums.
    """
    # wide types first and a header of whole words, so that every tensor is aligned in the mapped tar
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])))
    sums = {stored: xxhash.xxh3_64_intdigest(array.data) for stored, array in ordered.items()}
    facts: dict[str, Any] = {}
    position = 0
    for stored, array in ordered.items():
        stop = position + array.nbytes
        facts[stored] = {
            "dtype": TYPE_NAMES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    shown = json.dumps({stored: f"{checksum:016x}" for stored, checksum in sums.items()})
    header = json.dumps({"__metadata__": {"xxh3": shown}, **facts}).encode()
    header += b" " * (-len(header) % 8)
    parts = [len(header).to_bytes(8, "little") + header]
    rows = _rows(name, facts, sums, offset + len(parts[0]))
    return [*parts, *(array.data.cast("B") for array in ordered.values())], rows


def member_rows(name: str, data: bytes, offset: int, where: str) -> list[TensorRow]:
    """Rows of a safetensors member whose first byte lies at `offset` of the tar, checksums verified.

    Raises DamagedStyleError.
    """
    header_end, facts, sums = _header(name, data, where)
    rows = _rows(name, facts, sums, offset + header_end)
    view = memoryview(data)
    for row in rows:
        start = row.offset - offset
        if xxhash.xxh3_64_intdigest(view[start : start + row.length]) != row.xxh3:
            what = f"tensor {row.tensor} of site {row.site} in {name} does not match its checksum"
            raise damaged(where, what)
    return rows


def _rows(
    name: str, facts: Mapping[str, Any], sums: Mapping[str, int], data_offset: int
) -> list[TensorRow]:
    """Rows of a member, by tensor name; its first tensor byte lies at `data_offset` of the tar."""
    rows = []
    timestep = None if name == TRAJECTORY else int(name.removesuffix(".safetensors"))
    for stored, fact in sorted(facts.items()):
        start, stop = fact["data_offsets"]
        site, tensor = stored.split(".", 1) if timestep is not None else (None, stored)
        scaled = stored + SCALE_SUFFIX in facts
        rows.append(
            TensorRow(
                member=name,
                timestep=timestep,
                site=None if site is None else int(site),
                tensor=tensor,
                dtype=TYPES[fact["dtype"]],
                shape=tuple(fact["shape"]),
                scale_tensor=tensor + SCALE_SUFFIX if scaled else None,
                scale_axis=len(fact["shape"]) - 1 if scaled else None,
                offset=data_offset + start,
                length=stop - start,
                xxh3=sums[stored],
            )
        )
    return rows


def _header(name: str, data: bytes, where: str) -> tuple[int, dict[str, Any], dict[str, int]]:
    """(position of the first tensor byte, facts by tensor, checksum by tensor) of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8:end])
        shown: dict[str, str] = json.loads(header.pop("__metadata__")["xxh3"])
        sums = {stored: int(checksum, 16) for stored, checksum in shown.items()}
        whole = sums.keys() == header.keys()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(where, f"{name} has no readable header") from error
    if not whole:
        raise damaged(where, f"the checksums of {name} are not those of its tensors")
    return end, header, sums


def read_tar(file: IO[bytes], key: str, where: str) -> StyleIndex:
    """The index that a whole, undamaged tar of style `key` has; holds one member at a time.

    Raises DamagedStyleError.
    """
    rows: list[TensorRow] = []
    entry: dict[str, Any] | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                content = tar.extractfile(info)
                data = b"" if content is None else content.read()
                if len(data) != info.size:
                    raise damaged(where, f"ends within {info.name}")
                if info.name == ENTRY:
                    entry = json.loads(data)
                else:
                    rows += member_rows(info.name, data, info.offset_data, where)
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise damaged(where, f"cannot be read as a tar of a style ({error})") from error
    if entry is None or not any(row.member == TRAJECTORY for row in rows):
        raise damaged(where, f"has no {ENTRY} or no {TRAJECTORY}; it ends early")
    if key_of(entry["key"]) != key:
        raise damaged(where, f"its {ENTRY} describes another style")
    file.seek(0, io.SEEK_END)
    return StyleIndex(tuple(rows), file.tell(), entry)


def array_at(buffer: Any, row: TensorRow) -> Array:
    """View of a tensor in the mapped tar."""
    count = row.length // np.dtype(row.dtype).itemsize
    return np.frombuffer(buffer, row.dtype, count, row.offset).reshape(row.shape)
