"""The members of a cached style's tar: safetensors with checksums in their headers, and the entry that lists them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
import xxhash

from stylebatch.features.cache_index import (
    TRAJECTORY,
    StyleIndex,
    TensorRow,
    damaged,
    key_of,
    unsealed,
)
from stylebatch.features.codecs import SCALE_SUFFIX, Array
from stylebatch.features.seal import BLANK, is_sealed, seal

ENTRY = "style.json"
CHECKSUM = "xxh3"
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)
TYPES = {"F16": "float16", "F32": "float32", "I8": "int8", "I64": "int64"}
TYPE_NAMES = {np.dtype(numpy_name).str: name for name, numpy_name in TYPES.items()}


def build_member(
    name: str, tensors: Mapping[str, Array], offset: int
) -> tuple[list[bytes | memoryview], list[TensorRow]]:
    """A safetensors file of C-contiguous arrays, in parts that share their memory, and its rows.

    `offset`: position of its first byte in the tar. The header contains the checksums.
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
    # safetensors allows text alone as metadata
    checksums = json.dumps({stored: f"{checksum:016x}" for stored, checksum in sums.items()})
    header = json.dumps({"__metadata__": {"xxh3": checksums}, **facts}).encode()
    header += b" " * (-len(header) % 8)
    parts = [len(header).to_bytes(8, "little") + header]
    rows = _rows(name, facts, sums, offset + len(parts[0]))
    return [*parts, *(array.data.cast("B") for array in ordered.values())], rows


def member_rows(name: str, data: bytes, offset: int, where: str) -> list[TensorRow]:
    """Rows of a safetensors member at `offset` of the tar, after verifying its checksums.

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
    end = _header_end(data)
    try:
        header: dict[str, Any] = json.loads(data[8:end])
        checksums: dict[str, str] = json.loads(header.pop("__metadata__")["xxh3"])
        sums = {stored: int(checksum, 16) for stored, checksum in checksums.items()}
        is_complete = sums.keys() == header.keys()
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise damaged(where, f"{name} has no readable header") from error
    if not is_complete:
        raise damaged(where, f"the checksums of {name} are not those of its tensors")
    return end, header, sums


def _header_end(data: bytes) -> int:
    """Position of the first tensor byte of a safetensors file."""
    return 8 + int.from_bytes(data[:8], "little")


def header_sum(parts: Sequence[bytes | memoryview]) -> str:
    """Checksum of a member's header, as `style.json` lists it."""
    # of the header alone: it contains the checksums of the tensors
    return xxhash.xxh3_64_hexdigest(parts[0])


def entry_bytes(entry: Mapping[str, Any], members: Mapping[str, str]) -> bytes:
    """`style.json`: key, labels, the checksum of each member's header, and its own."""
    content = {**entry, "members": members, CHECKSUM: BLANK}
    return seal(json.dumps(content, indent=1, sort_keys=True).encode())


def read_tar(file: IO[bytes], key: str, where: str) -> StyleIndex:
    """The index of a complete, undamaged tar of style `key`; one member at a time is in memory.

    Raises DamagedStyleError.
    """
    rows: list[TensorRow] = []
    members: dict[str, str] = {}
    entry: dict[str, Any] | None = None
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                content = tar.extractfile(info)
                data = b"" if content is None else content.read()
                if len(data) != info.size or entry is not None or info.name in members:
                    raise damaged(where, f"ends within {info.name}, or holds it twice")
                if info.name == ENTRY:
                    entry = _entry(data, members, where)
                else:
                    rows += member_rows(info.name, data, info.offset_data, where)
                    members[info.name] = header_sum([data[: _header_end(data)]])
    except (tarfile.TarError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise damaged(where, f"cannot be read as a tar of a style ({error})") from error
    if entry is None:
        raise damaged(where, f"has no {ENTRY}; it ends early")
    if key_of(entry["key"]) != key:
        raise damaged(where, f"its {ENTRY} describes another style")
    # one byte more than the end: anything behind it is not ours
    file.seek(end)
    if file.read(len(END_OF_TAR) + 1) != END_OF_TAR:
        raise damaged(where, "does not end as it was written")
    return StyleIndex(tuple(rows), end + len(END_OF_TAR), entry)


def _entry(data: bytes, members: Mapping[str, str], where: str) -> dict[str, Any]:
    """`style.json` without its checksums, after comparing them with the members before it."""
    if not is_sealed(data):
        raise unsealed(where, data, f"{ENTRY} does not match its checksum")
    entry: dict[str, Any] = json.loads(data)
    if entry.pop("members") != members:
        raise damaged(where, f"its members are not those that {ENTRY} lists")
    del entry[CHECKSUM]
    return entry
