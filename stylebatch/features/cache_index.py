"""The index of one cached style: a row per tensor, made while the tar is written, or rebuilt from the tar.

A tar holds `<timestep>.safetensors` with tensors `<site>.<tensor>` for each timestep, then `style.safetensors` (latents and
their levels) and `style.json` (the ingredients of the key, and labels). Each safetensors header has the checksums of its
tensors, `style.json` those of all headers and its own, so that rebuilding an index verifies every byte. The index has a
checksum of itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.errors import StorageError
from stylebatch.features.codecs import Array, Codec
from stylebatch.features.seal import BLANK, is_sealed, seal
from stylebatch.local_files import Advice

FORMAT = 3
_TOLD_FORMAT = re.compile(rb'"format": ([0-9])\b')
TRAJECTORY = "style.safetensors"
METADATA = b"stylebatch"
LARGEST_INDEX_BYTES = 64 << 20
"""A larger index is not read: one of 1,000 timesteps and 12 sites has under 1 MB."""


CacheError = StorageError
"""The style cache cannot be read or written; names the file and the next step (`ADVICE`)."""
ADVICE = Advice(
    *[
        "Next: free space (`stylebatch cache gc CACHE --max-bytes N`), make the folder accessible, or choose another cache folder."
    ]
    * 2
)


StyleFault = Literal["damaged", "old format"]


class MissingStyleError(CacheError):
    """The style is not in the cache."""


class DamagedStyleError(CacheError):
    """A cached style's bytes are not those that were written; `what` is the fault without place and next step."""

    kind: StyleFault = "damaged"
    what = ""


class OldStyleError(DamagedStyleError):
    """A style of a format before this one. No run asks for it: the format is part of the key."""

    kind: StyleFault = "old format"


class TensorRow(NamedTuple):
    """The place of one stored tensor; `offset` and `length` in bytes of the tar.

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
        with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({"stylebatch.xxh3": BLANK})
        return seal(buffer.getvalue())

    @classmethod
    def from_parquet(cls, file: IO[bytes], where: str) -> StyleIndex:
        """The index in a file. Raises DamagedStyleError if it is none of this format."""
        data = file.read(LARGEST_INDEX_BYTES)
        # before pyarrow sees it: its parser of Parquet is not made for damaged files
        if not is_sealed(data):
            raise unsealed(where, data)
        try:
            # without threads: the file is small, and pyarrow's pool can abort the process at exit
            table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
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
    """The copy of `style.json` in the index, without reading the rows; its `format` alone, if that is an old one.

    Empty if it cannot be read.
    """
    data = file.read(LARGEST_INDEX_BYTES)
    if not is_sealed(data):
        old = _old_format(data)
        return {} if old is None else {"format": old}
    try:
        entry: dict[str, Any] = json.loads(pq.read_schema(pa.BufferReader(data)).metadata[METADATA])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return {}
    return {name: entry[name] for name in ("key", "labels") if name in entry}


def unsealed(
    where: str, data: bytes, what: str = "does not match its checksum"
) -> DamagedStyleError:
    """The error for a file that lacks its checksum: those of older formats had none."""
    old = _old_format(data)
    if old is None:
        return damaged(where, what)
    return damaged(
        where, f"is of a style of format {old}; accepted: format {FORMAT}", OldStyleError
    )


def _old_format(data: bytes) -> int | None:
    # searched for, not parsed: the parser of Parquet is not made for damaged files
    found = _TOLD_FORMAT.search(data)
    return int(found[1]) if found is not None and int(found[1]) < FORMAT else None


def damaged(
    where: str, what: str, kind: type[DamagedStyleError] = DamagedStyleError
) -> DamagedStyleError:
    """The error for the file `where`, with the next step."""
    error = kind(
        f"{where}: {what}. Next: `stylebatch cache verify CACHE --repair` sets it aside or rebuilds its "
        "index; a style set aside is made again by the next run that needs it."
    )
    error.what = what
    return error


def key_of(ingredients: Mapping[str, Any]) -> str:
    """The key of the style with these `ingredients` (JSON values): 32 hexadecimal digits."""
    text = json.dumps(ingredients, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def array_at(buffer: Any, row: TensorRow) -> Array:
    """A view of a tensor in the mapped tar."""
    count = row.length // np.dtype(row.dtype).itemsize
    return np.frombuffer(buffer, row.dtype, count, row.offset).reshape(row.shape)
