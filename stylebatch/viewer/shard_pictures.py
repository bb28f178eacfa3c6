"""Reads single pictures of an output for the viewer, and makes small ones; what is kept in memory is bounded."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from PIL import Image

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.reports.committed import RESULT_FORMATS, Row
from stylebatch.reports.pictures import UNDECODABLE
from stylebatch.reports.verdicts import REJECTED
from stylebatch.spec.output import OutputFormat
from stylebatch.store.records import SEGMENTATION
from stylebatch.store.sinks import sink_of
from stylebatch.store.sinks.aside import aside_file
from stylebatch.store.sinks.shared_inputs import names_of
from stylebatch.store.sinks.sink import Members
from stylebatch.store.sinks.spans import Span, Spans, read_span
from stylebatch.store.sinks.tar_samples import sample_spans
from stylebatch.usable_cores import usable_cores

SIDES = (128, 256, 512)
"""Of small pictures; a wanted side becomes the next one of these, so that there are few to keep."""
RESULT = "result"
MEMBERS = {kind.name: kind.member for kind in INPUT_KINDS} | {"segmentation": SEGMENTATION}
SMALL_BYTES, WHOLE_BYTES = 64 << 20, 96 << 20
MOST_SPANS = 400_000
READ_AHEAD = 24
"""Samples that are read with one whose format keeps many pictures in one piece."""
TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "avif": "image/avif"}

Kept = TypeVar("Kept")


class UnreadableError(Exception):
    """A picture cannot be shown; the text says why."""


class Picture(NamedTuple):
    """A picture as a browser takes it."""

    data: bytes
    type: str


class Cache(Generic[Kept]):
    """Keeps what was used last, up to a total weight."""

    def __init__(self, most: int, weight: Callable[[Kept], int]) -> None:
        self.most, self._weight = most, weight
        self.total = 0
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Kept | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, value: Kept) -> None:
        with self._lock:
            former = self._kept.pop(key, None)
            self.total += self._weight(value) - (0 if former is None else self._weight(former))
            self._kept[key] = value
            while self.total > self.most and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self.total -= self._weight(oldest)


class ShardPictures:
    """Pictures of an output by row. `behind`: gives a row and those after it in its shard."""

    def __init__(self, output: Folder, format: OutputFormat) -> None:
        self.output, self._sink = output, sink_of(format)
        self._spans: Cache[Spans | None] = Cache(MOST_SPANS, lambda s: 1 if s is None else s.count)
        self._members: Cache[Members] = Cache(WHOLE_BYTES, lambda m: sum(map(len, m.values())))
        self._small: Cache[Picture] = Cache(SMALL_BYTES, lambda picture: len(picture.data))
        self._locks = tuple(threading.Lock() for _ in range(64))
        self._decoding = threading.BoundedSemaphore(usable_cores())

    def small(
        self,
        rows: Callable[[], Sequence[Row]],
        wanted: tuple[int, str],
        side: int,
        is_wanted: Callable[[], bool],
    ) -> Picture | None:
        """JPEG of at most `side` pixels, None where nobody wants it any more; `wanted`: number of the row, and kind. As `whole`."""
        side = next((one for one in SIDES if one >= side), SIDES[-1])
        found = self._small.get((wanted, side))
        if found is not None:
            return found
        # one decoder a core: more would only wait for each other, and those that nobody wants any more are left out
        with self._decoding:
            if not is_wanted():
                return None
            whole = self.whole(rows, wanted[1])
            made = Picture(_jpeg(whole.data, side), "image/jpeg")
        self._small.put((wanted, side), made)
        return made

    def whole(self, rows: Callable[[], Sequence[Row]], kind: str) -> Picture:
        """The stored bytes of a sample's picture; `rows`: the sample's, and others of its shard that may be read with it.

        Raises UnreadableError.
        """
        try:
            return self._whole(rows(), kind)
        except UnansweredError as error:
            raise UnreadableError(str(error)) from None
        except (OSError, ValueError, LookupError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreadableError(f"{reason}. Next: `stylebatch repair {self.output}`") from None

    def _whole(self, rows: Sequence[Row], kind: str) -> Picture:
        row = rows[0]
        spans = self._spans_of(row)
        if spans is None:
            members = self._members_of(rows)
            name = _member(members, kind)
            return Picture(members[name], _type(name))
        found = _of_sample(spans, row)
        name = _member(found, kind)
        return Picture(read_span(self.output, found[name]), _type(name))

    def kinds(self, rows: Sequence[Row]) -> list[str]:
        """Which pictures a sample has: `result`, `content`, ... Raises UnreadableError."""
        try:
            spans = self._spans_of(rows[0])
            found: Any = self._members_of(rows) if spans is None else _of_sample(spans, rows[0])
        except (OSError, ValueError, LookupError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreadableError(f"{reason}. Next: `stylebatch repair {self.output}`") from None
        result = [RESULT] if any(name in found for name in RESULT_FORMATS) else []
        return result + [kind for kind, member in MEMBERS.items() if member in found]

    def _spans_of(self, row: Row) -> Spans | None:
        """Where the pictures of the sample's shard lie; None for a format that does not say. Rejected ones lie in a tar of their own."""
        shard, is_rejected = str(row["shard"]), row["status"] == REJECTED
        # one thread walks a shard, others wait for what it finds
        with self._locks[hash(shard) % len(self._locks)]:
            found = self._spans.get((shard, is_rejected))
            if found is None:
                found = (
                    Spans(sample_spans(self.output, aside_file(shard)), {})
                    if is_rejected
                    else self._sink.spans(self.output, shard)
                )
                if found is not None:
                    self._spans.put((shard, is_rejected), found)
            return found

    def _members_of(self, rows: Sequence[Row]) -> Members:
        shard = str(rows[0]["shard"])
        with self._locks[hash(shard) % len(self._locks)]:
            found = self._members.get(rows[0]["key"])
            if found is not None:
                return found
            wanted = {row["key"]: row for row in rows if row["status"] == "success"}
            for key, members in self._sink.samples(self.output, shard, wanted):
                self._members.put(key, members)
            found = self._members.get(rows[0]["key"])
            if found is None:
                raise ValueError(f"found no files of sample {rows[0]['key']}")
            return found


def _of_sample(spans: Spans, row: Row) -> dict[str, Span]:
    if row["key"] not in spans.samples:
        raise ValueError(f"found no files of sample {row['key']}")
    named = dict(names_of(row))
    shared = {
        MEMBERS[kind]: spans.inputs[kind, name]
        for kind, name in named.items()
        if (kind, name) in spans.inputs
    }
    return {**shared, **spans.samples[row["key"]]}


def _member(members: Any, kind: str) -> str:
    names = RESULT_FORMATS if kind == RESULT else [MEMBERS.get(kind, "")]
    for name in names:
        if name in members:
            return name
    raise ValueError(f"found no picture of the {kind}")


def _type(member: str) -> str:
    return TYPES.get(member.rpartition(".")[2], "application/octet-stream")


def _jpeg(data: bytes, side: int) -> bytes:
    try:
        opened = Image.open(io.BytesIO(data))
        # JPEG alone: decoded at 1/2, 1/4 or 1/8, never below the side
        opened.draft("RGB", (side, side))
        image = opened.convert("RGB")
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
    except UNDECODABLE as error:
        raise UnreadableError(f"the picture cannot be decoded: {error}") from None
    return buffer.getvalue()
