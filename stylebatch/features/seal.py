"""Files that contain their own checksum, so that no damaged byte reaches the library that parses them.

The file is written with BLANK in it; `seal` replaces the zeros of the blank by the xxh3 of those bytes.
"""

from __future__ import annotations

import xxhash

MARK = "stylebatch-xxh3-"
BLANK = MARK + 32 * "0"


def seal(data: bytes) -> bytes:
    """`data` with its checksum in its last BLANK."""
    start, stop = _place(data)
    return data[:start] + xxhash.xxh3_128_hexdigest(data).encode() + data[stop:]


def is_sealed(data: bytes) -> bool:
    """Whether `data` is unchanged since `seal`."""
    start, stop = _place(data)
    blank = data[:start] + 32 * b"0" + data[stop:]
    return start > 0 and xxhash.xxh3_128_hexdigest(blank).encode() == data[start:stop]


def _place(data: bytes) -> tuple[int, int]:
    """First byte of the checksum and the first after it; (0, 0) if there is none."""
    # the last one: a label could contain the mark
    found = data.rfind(MARK.encode())
    return (0, 0) if found < 0 else (found + len(MARK), found + len(BLANK))
