"""Reading images and licences out of Debian packages.

Three small readers, none of which needs the package to be installed: a Debian machine-readable
copyright file (which licence covers which path), a binary Qt resource file (a directory tree of
compressed files), and the decision whether a licence is free enough to train on.
"""

from __future__ import annotations

import fnmatch
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLEAN = re.compile(r"^(public-domain|PD.*|CC0.*|CC-BY-[1234]\.[0-9])$", re.IGNORECASE)
"""Licences accepted for training: public domain, CC0 and attribution only."""


@dataclass(frozen=True)
class Stanza:
    """One ``Files:`` paragraph of a copyright file."""

    patterns: tuple[str, ...]
    licence: str
    author: str
    comment: str


def is_clean(licence: str) -> bool:
    """True for a single accepted licence; ``A and B`` and ``A or B`` are refused."""
    return CLEAN.match(licence.strip()) is not None


def read_copyright(path: Path) -> list[Stanza]:
    """Parse the ``Files:`` paragraphs, in the order of the file (the last match counts)."""
    stanzas = []
    for paragraph in re.split(r"\n\s*\n", path.read_text(errors="replace")):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if match := re.match(r"^([A-Za-z-]+):\s*(.*)$", line):
                name = match.group(1).lower()
                fields[name] = match.group(2)
            elif name and line.startswith((" ", "\t")):
                fields[name] += "\n" + line.strip()
        if "files" not in fields:
            continue
        stanzas.append(
            Stanza(
                patterns=tuple(fields["files"].split()),
                licence=fields.get("license", "").splitlines()[0] if fields.get("license") else "",
                author=" / ".join(fields.get("copyright", "").split("\n")).strip(" /"),
                comment=" ".join(fields.get("comment", "").split()),
            )
        )
    return stanzas


def licence_of(stanzas: list[Stanza], path: str) -> Stanza | None:
    """The last stanza with a pattern that matches ``path``."""
    found = None
    for stanza in stanzas:  # fnmatch's `*` crosses slashes, as Debian's does
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in stanza.patterns):
            found = stanza
    return found


def read_qt_resource(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of every file in a binary Qt resource file, in tree order."""
    raw = path.read_bytes()
    if raw[:4] != b"qres":
        raise ValueError(f"{path} is not a Qt resource file")
    version, tree, data, names = struct.unpack(">IIII", raw[4:20])
    entry_size = 14 if version == 1 else 22  # later versions add a time of change

    def name_at(offset: int) -> str:
        (length,) = struct.unpack(">H", raw[names + offset : names + offset + 2])
        start = names + offset + 6  # after the length and a hash
        return raw[start : start + 2 * length].decode("utf-16-be")

    def content_at(offset: int, flags: int) -> bytes:
        start = data + offset
        (length,) = struct.unpack(">I", raw[start : start + 4])
        body = raw[start + 4 : start + 4 + length]
        if flags & 1:
            return zlib.decompress(body[4:])  # Qt puts the size before the data
        if flags & 4:
            raise ValueError(f"{path}: zstd-compressed entries are not supported")
        return body

    def walk(index: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * entry_size
        name_offset, flags = struct.unpack(">IH", raw[at : at + 6])
        here = prefix if index == 0 else f"{prefix}/{name_at(name_offset)}".lstrip("/")
        if flags & 2:
            count, first = struct.unpack(">II", raw[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, here)
        else:
            (offset,) = struct.unpack(">I", raw[at + 10 : at + 14])
            yield here, content_at(offset, flags)

    yield from walk(0, "")


def read_notes(text: str) -> dict[str, Stanza]:
    """Parse blocks of ``Copyright / Source / License / Files``, the form notes beside images take."""
    notes: dict[str, Stanza] = {}
    for block in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(Copyright|Source|License|Comment):[ \t]*(.*)$", block, re.M))
        files = tuple(re.findall(r"^\s*(\S+\.(?:webp|jpg|jpeg|png))\s*$", block, re.M))
        comment = " ".join(x for x in (fields.get("Source", ""), fields.get("Comment", "")) if x)
        licence = re.sub(r"^public domain$", "public-domain", fields.get("License", ""), flags=re.I)
        licence = licence.replace("CC-BY 4.0", "CC-BY-4.0")
        for name in files:
            notes[name] = Stanza((name,), licence, fields.get("Copyright", ""), comment)
    return notes
