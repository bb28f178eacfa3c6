"""Walks over the headers of a tar, and says where each member's bytes lie. Nothing is extracted.

A tar is a row of members: a header of 512 bytes, then the data, filled up to 512. Two empty blocks end it; a tar without
them was cut short, even where it stops at a member's border.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from zlib import adler32

BLOCK = 512
WINDOW = 1 << 14
"""Bytes that are read at once: a header, and often small members and the next headers."""
MAX_NAME = 1 << 16
MAX_EXTENDED = 1 << 20
_EMPTY = bytes(BLOCK)
_HEADER = struct.Struct("100s24x12s12x8sB100x6s82xB166x")
"""Name, size, checksum, kind, magic, first byte of the prefix."""
_PREFIX = slice(345, 500)
_FILES = frozenset(b"07\0")
_FILE = ord("0")
_WITHOUT_DATA = frozenset(b"123456")
_EXTENDING = frozenset(b"LKxgV")
_KINDS = {
    **dict.fromkeys(b"12", "link"),
    **dict.fromkeys(b"346", "device"),
    ord("5"): "folder",
    ord("S"): "sparse file",
}


Member = tuple[str, int, int, str]
"""A member's name, offset and bytes of its data, and "" for a file, else what it is in place of one, such as `folder` or `link`."""


class DamagedTar(Exception):
    """Why a tar cannot be read further, and behind which member."""

    def __init__(self, what: str, after: str) -> None:
        super().__init__(f"{what}, {f'behind the member {after}' if after else 'at its beginning'}")


class Window:
    """Reads a file of `length` at any place; small neighbouring reads cost one call of `part` (offset, count), of `at_once` bytes."""

    def __init__(self, part: Callable[[int, int], bytes], length: int, at_once: int) -> None:
        self._part, self.length, self._at_once = part, length, at_once
        self._start = self._stop = 0
        self._held = b""

    @classmethod
    def on(cls, descriptor: int) -> Window:
        """Of an open file of this machine."""

        def part(offset: int, count: int) -> bytes:
            return os.pread(descriptor, count, offset)

        return cls(part, os.fstat(descriptor).st_size, WINDOW)

    def read(self, offset: int, count: int) -> bytes:
        """Fewer bytes than `count` only at the end of the file."""
        start = self._start
        if start <= offset and offset + count <= self._stop:
            return self._held[offset - start : offset - start + count]
        count = max(0, min(count, self.length - offset))
        if count > self._at_once:
            return self._part(offset, count)
        if offset < start or offset + count > self._stop:
            self._held = self._part(offset, max(0, min(self._at_once, self.length - offset)))
            self._start = start = offset
            self._stop = offset + len(self._held)
        return self._held[offset - start : offset - start + count]


def members(file: Window) -> Iterator[Member]:
    """Every member in the order of the file. Raises DamagedTar where it is cut short or no tar."""
    at, last, extended = 0, "", _Extended()
    while True:
        block = file.read(at, BLOCK)
        if len(block) < BLOCK:
            raise DamagedTar("it is cut short: its end is missing", last)
        name, digits, checksum, kind, magic, has_prefix = _HEADER.unpack(block)
        # the short way first, which is that of nearly all headers
        if adler32(block) & 0xFFFF != _WANTED.get(checksum) and not _agrees(block, checksum):
            if block == _EMPTY:
                return _require_end(file, at, last)
            raise DamagedTar("found no tar header" if last else _why_no_tar(block), last)
        try:
            size = int(digits.rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            size = _number(digits)
        if kind in _WITHOUT_DATA:
            # Links and folders may state a size, and yet no data follow.
            size = 0
        # A PAX size replaces the header's, whose octal digits end at 8 GiB.
        elif extended.size >= 0 and kind not in _EXTENDING:
            size = extended.size
        data = at + BLOCK
        # This comes before the skip, behind which only the end would seem to be missing.
        if size < 0 or data + size > file.length:
            named = extended.name or _name(name, magic, block)
            raise DamagedTar(f"it is cut short within the member {named[:200]}", last)
        at = data + (size + BLOCK - 1) // BLOCK * BLOCK
        if kind in _EXTENDING:
            extended.read(file, kind, data, size, last)
            continue
        if not extended.is_used:
            last = _name(name, magic, block) if has_prefix else _text(name.partition(b"\0")[0])
            yield last, data, size, _kind(kind, last) if kind != _FILE or last[-1:] == "/" else ""
            continue
        last = extended.name or _name(name, magic, block)
        what = "sparse file" if extended.is_sparse else _kind(kind, last)
        # Extended headers are about one member alone.
        extended = _Extended()
        yield last, data, size, what


def _kind(kind: int, name: str) -> str:
    if kind in _FILES:
        # Old tars tell a folder by its slash alone.
        return "folder" if name.endswith("/") else ""
    return _KINDS.get(kind, "unknown kind of member")


def _require_end(file: Window, at: int, last: str) -> None:
    """Behind the end there is nothing but filling."""
    while rest := file.read(at, WINDOW):
        if rest.count(0) != len(rest):
            raise DamagedTar("more follows behind its end, as where several tars were joined", last)
        at += len(rest)


def _agrees(block: bytes, checksum: bytes) -> bool:
    """Whether the checksum is that of the header: of all bytes, those of the checksum itself counted as spaces."""
    wanted = _WANTED.get(checksum)
    if wanted is None:
        wanted = _wanted(checksum)
    if adler32(block) & 0xFFFF == wanted:
        return True
    stated = _number(checksum)
    # Some old programs summed signed bytes.
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
    return signed == stated


_WANTED: dict[bytes, int] = {}
"""By the field of the checksum, of which tars have few thousands: to read it costs as much as all the rest of a header."""


def _wanted(checksum: bytes) -> int:
    """The low half of the Adler checksum of a header that has this checksum; -1 for a field without any.

    It is 1 and the sum of the bytes modulo 65521, and made thirty times as fast as `sum`.
    """
    stated = _number(checksum)
    wanted = (1 + stated + sum(checksum) - 256) % 65521 if stated > 0 else -1
    if len(_WANTED) < 1 << 14:
        _WANTED[checksum] = wanted
    return wanted


def _why_no_tar(block: bytes) -> str:
    if block.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "it is compressed, so that its members cannot be read one by one; unpack it to a plain .tar"
    if block.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file; fetch it with `git lfs pull`"
    return "it is no tar"


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set; -1 for neither."""
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        pass
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _name(name: bytes, magic: bytes, block: bytes) -> str:
    """With the prefix that POSIX headers may have; old GNU ones keep times there."""
    short, prefix = name.partition(b"\0")[0], block[_PREFIX].partition(b"\0")[0]
    return _text(prefix + b"/" + short if prefix and magic == b"ustar\0" else short)


class _Extended:
    """What headers of their own say about the next member: a long name, a large size."""

    def __init__(self) -> None:
        self.name, self.size, self.is_sparse, self.is_used = "", -1, False, False

    def read(self, file: Window, kind: int, data: int, size: int, last: str) -> None:
        self.is_used = True
        if size > (MAX_NAME if kind == ord("L") else MAX_EXTENDED):
            raise DamagedTar(f"found a name or record of {size:,} bytes", last)
        # Kinds but L and x (long links, global records, volume labels) say nothing of use.
        if kind == ord("L"):
            self.name = _text(file.read(data, size).split(b"\0", 1)[0])
        elif kind == ord("x"):
            self._records(file.read(data, size), last)

    def _records(self, text: bytes, last: str) -> None:
        """`LENGTH KEY=VALUE` and a line end, each."""
        at = 0
        while at < len(text):
            digits, mark, _ = text[at : at + 20].partition(b" ")
            if not mark or not digits.isdigit() or not 0 < int(digits) <= len(text) - at:
                raise DamagedTar("found an extended header that cannot be read", last)
            key, _, value = text[at + len(digits) + 1 : at + int(digits) - 1].partition(b"=")
            at += int(digits)
            if key == b"path":
                self.name = _text(value)
            elif key == b"size" and value.isdigit() and len(value) < 20:
                self.size = int(value)
            elif key.startswith(b"GNU.sparse"):
                self.is_sparse = True


def _text(name: bytes) -> str:
    # Tars hold names as bytes of any encoding.
    return name.decode("utf-8", "surrogateescape")
