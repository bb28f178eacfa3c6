"""What was found in a tar, kept for the next start: in the user's cache folder, where plans and runs of every output find it.

It holds for a tar of the same place, bytes and times (in a store: ETag), and for the same options; else the tar is walked again.
A file is a checksum, facts in JSON, and the compressed rows: name, spans, label, caption and license of each item.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import xxhash

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.places import Stamp
from stylebatch.data.sources.source import NOWHERE, Item, Ref
from stylebatch.data.sources.tar_walk import IMAGE_NAMES
from stylebatch.errors import StorageError
from stylebatch.local_files import write_bytes

VERSION = 4
"""Of the file and of what a walk finds: another one is not read."""
AFTERWARDS = frozenset(
    ("kind", "annotations", "split", "labels", "min_side", "aspect", "shuffle", "limit", "limit_per_class", "web_hosts", "carry")
)  # fmt: skip
"""Options that choose files before a walk, or among the items after it; any other decides what it finds."""
LEAST_ITEMS = 1000
"""Of a tar on this machine that is worth a file: a smaller one is walked as fast."""
SETTLED_S = 2.0
"""A file that was changed so lately may change again and keep its time."""
UNUSED_S = 30 * 24 * 3600
"""What no start used for a month is removed."""
ROWS_AT_ONCE = 512
CHUNK = 1 << 14
_FIELD, _ROW = "\x1f", "\x1e"


_KEPT = ("id", "ref", "label", "caption", "license")
_others = attrgetter(*(field.name for field in fields(Item) if field.name not in _KEPT))
_USUAL = _others(Item("", NOWHERE))
"""Values of the other fields, of which a file knows nothing."""


@dataclass(frozen=True)
class Index:
    """What a file holds. `facts`: the counts of the walk; `packed`: the rows."""

    facts: dict[str, Any]
    packed: bytes

    def items(self, path: str, prefix: str, field: str) -> Iterator[Item]:
        """The items of the tar, as the walk gave them."""
        texts: dict[str, str] = {}
        for row in self._rows():
            name, spans, label, caption, license = row.split(_FIELD)
            ref = Ref(path, f"{name}\0{spans}", field)
            label = texts.setdefault(label, label)
            yield Item(prefix + name, ref, label, caption, texts.setdefault(license, license))

    def _rows(self) -> Iterator[str]:
        inflate, rest = zlib.decompressobj(), b""
        for start in range(0, len(self.packed), CHUNK):
            text = rest + inflate.decompress(self.packed[start : start + CHUNK])
            # The last row may go on in what comes next.
            whole, _, rest = text.rpartition(_ROW.encode())
            if whole:
                yield from whole.decode("utf-8", "surrogateescape").split(_ROW)


class IndexWriter:
    """Collects the items of a walk. An item with more than the five texts, or with odd ones, makes the tar one that is not kept."""

    def __init__(self, path: str, stamp: Stamp, options: SourceOptions) -> None:
        self._file, self._stamp = _file_of(path, options), stamp
        self._deflate, self._packed = zlib.compressobj(1), list[bytes]()
        self._rows: list[str] = []
        self._count = 0
        self._is_plain = self._file is not None

    def add(self, item: Item, prefix: int) -> None:
        """Add an item, whose id begins with so many characters of prefix."""
        if not self._is_plain:
            return
        name, _, spans = item.ref.member.partition("\0")
        row = _FIELD.join((name, spans, item.label, item.caption, item.license))
        is_read_back = item.id[prefix:] == name and row.count(_FIELD) == 4 and _ROW not in row
        self._is_plain = is_read_back and _others(item) == _USUAL
        self._count += 1
        self._rows.append(row)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._pack()

    def _pack(self) -> None:
        text = "".join(f"{row}{_ROW}" for row in self._rows)
        self._rows.clear()
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a character, which no file can hold
            self._is_plain = False
            return
        self._packed.append(self._deflate.compress(data))

    def close(self, facts: dict[str, Any]) -> None:
        """Write the file, if the tar is worth one. A cache folder that cannot be written costs no run."""
        size, modified, _, version = self._stamp
        is_settled = bool(version) or time.time() - modified / 1e9 > SETTLED_S
        is_worth = bool(version) or self._count >= LEAST_ITEMS
        self._pack()
        if self._file is None or not (self._is_plain and is_settled and is_worth and size):
            return
        told = json.dumps({"stamp": self._stamp, **facts}).encode()
        body = b"".join([len(told).to_bytes(8, "big"), told, *self._packed, self._deflate.flush()])
        with suppress(StorageError, OSError):
            write_bytes(self._file, xxhash.xxh3_128_digest(body) + body)
            _remove_unused(str(self._file.parent))


def read_index(path: str, stamp: Stamp, options: SourceOptions) -> Index | None:
    """What is kept of a tar as it is now; None where nothing is, or nothing whole."""
    file = _file_of(path, options)
    try:
        data = b"" if file is None else file.read_bytes()
        body = memoryview(data)[16:]
        if file is None or xxhash.xxh3_128_digest(body) != data[:16]:
            return None
        start = 8 + int.from_bytes(body[:8], "big")
        facts = json.loads(bytes(body[8:start]))
        if facts.pop("stamp") != list(stamp):
            return None
        os.utime(file)
    except (OSError, ValueError, KeyError):
        return None
    return Index(facts, bytes(body[start:]))


def _file_of(path: str, options: SourceOptions) -> Path | None:
    """Where the index of a tar is; another one for other options, and where other pictures can be read."""
    names = SourceOptions.model_fields.keys() - AFTERWARDS
    meant = {name: getattr(options, name) for name in sorted(names)}
    carries = options.carry != ()
    key = json.dumps([VERSION, path, meant, carries, sorted(IMAGE_NAMES)])
    try:
        home = Path.home()
    except RuntimeError:  # nobody's process
        return None
    name = xxhash.xxh3_128_hexdigest(key.encode("utf-8", "surrogateescape"))
    return home / ".cache" / "stylebatch" / "tars" / name


def _remove_unused(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat().st_mtime < time.time() - UNUSED_S:
                os.unlink(entry.path)
