"""Finds a few samples in a large tar without decoding the headers of all others, which is what takes the time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import IO

from stylebatch.folder import Folder
from stylebatch.store.sinks.spans import Span

BLOCK = 512
FILE, EXTENSION = b"0\0", b"xg"
"""Types of members: files, and headers that extend the one after them."""


def read_members(
    file: IO[bytes], wanted: Collection[str] | None
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members (`jpg`, `json`, `content.jpg`, ...) of the wanted samples, None for all; the members of a sample lie together.

    Raises OSError, and ValueError for what is no tar of samples.
    """
    left, current, members = set(wanted or ()), "", dict[str, bytes]()
    for name, start, size in walk_members(file):
        key, _, extension = name.partition(".")
        if key != current and members:
            yield current, members
            members = {}
            left.discard(current)
            # the rest of the archive is not even walked
            if not left and wanted is not None:
                return
        current = key
        if wanted is None or key in left:
            members[extension] = _read(file, start, size)
    if members:
        yield current, members


def sample_spans(output: Folder, file: str) -> dict[str, dict[str, Span]]:
    """Where the members of each sample of a tar lie, by key and member. Raises as `read_members`."""
    found: dict[str, dict[str, Span]] = {}
    with output.open(file) as opened:
        for member, start, size in walk_members(opened):
            key, _, extension = member.partition(".")
            found.setdefault(key, {})[extension] = Span(file, start, size)
    return found


def walk_members(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each file; no contents are read.

    Names of samples are shorter than the 100 bytes that a header has for them. Raises OSError, and ValueError for what is no
    tar of samples.
    """
    place = 0
    while True:
        header = _read(file, place, BLOCK)
        # a block of zeros ends the archive
        if not header.strip(b"\0"):
            return
        name, size, kind = header[:100].rstrip(b"\0"), header[124:136], header[156:157]
        # octal; the base-256 form of members beyond 8 GiB is none that a run writes
        length = int(size.rstrip(b"\0 "), 8)
        if length < 0 or header[257:262] != b"ustar":
            raise ValueError(f"found no header at byte {place}")
        if kind in FILE:
            yield name.decode(), place + BLOCK, length
        elif kind not in EXTENSION:
            raise ValueError(f"found a member of type {kind!r} at byte {place}; accepted: files")
        # contents are padded to whole blocks
        place += BLOCK * (1 + -(-length // BLOCK))


def _read(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"ends before byte {start + size}")
    return data
