"""Where the pictures of a shard lie in its files, so that one of them is read without the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from stylebatch.folder import Folder, RemoteFolder


class Span(NamedTuple):
    """A stretch of a file of an output."""

    file: str
    start: int
    size_bytes: int


@dataclass(frozen=True)
class Spans:
    """The pictures of a shard: of samples by key and member, of inputs that samples share by kind and id."""

    samples: Mapping[str, Mapping[str, Span]]
    inputs: Mapping[tuple[str, str], Span]

    @property
    def count(self) -> int:
        return sum(map(len, self.samples.values())) + len(self.inputs)


def read_span(output: Folder, span: Span) -> bytes:
    """The bytes of a stretch, by one request of a store. Raises OSError, and ValueError where the file ends before."""
    if isinstance(output, RemoteFolder):
        data = output.part(span.file, span.start, span.size_bytes)
    else:
        with output.open(span.file) as file:
            file.seek(span.start)
            data = file.read(span.size_bytes)
    if len(data) != span.size_bytes:
        raise ValueError(f"{span.file}: ends before byte {span.start + span.size_bytes}")
    return data
