"""Reads an output for its evaluation: each result with the pictures it was made from, one sample at a time.

Inputs come from the samples where the output stores them, else from the sources that run.json names, fitted as the run fitted them.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from stylebatch.data.image_section import SourceSpec
from stylebatch.data.sources.listing import Listing, list_styles
from stylebatch.engine.axis_inputs import PictureLoader
from stylebatch.errors import DamagedError, ManifestError, SampleError, StylebatchError
from stylebatch.folder import Folder
from stylebatch.manifest import recorded_spec
from stylebatch.methods.input_kinds import INPUT_KINDS
from stylebatch.pixel_memory import Pixels
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.resolve import plan as resolve
from stylebatch.reports.committed import Committed, Row, damaged, read_samples, result_member
from stylebatch.reports.pictures import UNDECODABLE, decoded
from stylebatch.spec import RunSpec
from stylebatch.store.output_record import RUN, read_run
from stylebatch.store.records import IS_ORIGINAL

KEPT = 64
"""Inputs that are kept decoded."""
SHOWN_KINDS = ("content", "style", "image", "reference")


@dataclass(frozen=True)
class Made:
    """A result with its row, and the pictures of its inputs by kind; the same input is the same array."""

    row: Row
    result: Pixels
    inputs: dict[str, Pixels]


@dataclass
class OutputPictures:
    """The successful samples of an output, where there are more than `limit` some drawn at random, always the same.

    `faults`: what could not be read so far, a line each; the rest counts. Raises ManifestError where there is no run.
    """

    output: Folder
    limit: int | None = None
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = read_run(self.output)
        self._kept: OrderedDict[tuple[str, str], Pixels] = OrderedDict()
        self._unreadable: set[str] = set()

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of the samples. Raises NothingCommittedError where no shard is committed."""
        committed = Committed(self.output)
        chosen = self._chosen(committed.num_success)
        names = {shard.name for shard in committed.shards}
        rows: list[Row] = []
        for shard in committed.read():
            names.discard(shard.shard.name)
            places, start = shard.places(succeeded=True), shard.shard.place_of_success
            rows += shard.rows(p for i, p in enumerate(places, start) if i in chosen)
        self.faults += [
            f"{self.output}: {name} is left out: its files are not those of its commit. Next: `stylebatch verify {self.output}` says which"
            for name in sorted(names)
        ]
        return [row for row in rows if not row.get(IS_ORIGINAL)]

    def _chosen(self, count: int) -> Container[int]:
        """Numbers of the samples that are looked at. Of samples at even distances many have one style."""
        if self.limit is None or self.limit >= count:
            return range(count)
        return set(random.Random(0).sample(range(count), self.limit))

    @property
    def num_missing_shards(self) -> int:
        return max(0, self.run.plan.num_shards - len(Committed(self.output).shards))

    def made(self) -> Iterator[Made]:
        """Every sample, shard by shard. What is damaged is noted in `faults`."""
        shards: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            shards.setdefault(row["shard"], {})[row["key"]] = row
        for name, rows in shards.items():
            try:
                yield from self._of_shard(name, rows)
            except DamagedError as error:
                self.faults.append(str(error))

    def _of_shard(self, name: str, rows: dict[str, Row]) -> Iterator[Made]:
        found = 0
        for key, members in read_samples(self.output, {name: rows}):
            found += 1
            try:
                data = result_member(members)
                if hashlib.sha256(data).hexdigest() != rows[key]["sha256"]:
                    raise ValueError("found other bytes than were committed")
                result = decoded(data)
                inputs = {
                    kind.name: picture
                    for kind in INPUT_KINDS
                    if kind.name in SHOWN_KINDS and rows[key].get(kind.column)
                    if (picture := self._input(kind.name, rows[key][kind.column], members.get(kind.member))) is not None
                }  # fmt: skip
            except UNDECODABLE as error:
                self.faults.append(str(damaged(self.output, f"data/sample {key}", str(error))))
                continue
            yield Made(rows[key], result, inputs)
        if found < len(rows):
            self.faults.append(f"{self.output}: {name} lacks {len(rows) - found} of its samples")

    def _input(self, kind: str, name: str, data: bytes | None) -> Pixels | None:
        # a reference that was rendered has the id of a sample, of each output its own
        if (kind, name) in self._kept:
            self._kept.move_to_end((kind, name))
            return self._kept[kind, name]
        found = decoded(data) if data is not None else self._from_source(kind, name)
        if found is not None:
            self._kept[kind, name] = found
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _from_source(self, kind: str, name: str) -> Pixels | None:
        """An input that the output does not store; None, with a line in `faults`, where its source does not give it either."""
        try:
            loader, places = self._sources.get(kind, (None, {}))
            if loader is None or name not in places:
                return None
            return loader.require(places[name]).pixels
        except (SampleError, StylebatchError) as error:
            if name not in self._unreadable:
                self._unreadable.add(name)
                self.faults.append(f"{name}: {error}")
            return None

    @cached_property
    def spec(self) -> RunSpec:
        return recorded_spec(self.run.spec, self.output.where(RUN))

    @cached_property
    def _sources(self) -> dict[str, tuple[PictureLoader, dict[str, int]]]:
        """What reads the inputs of each kind, and their places by id; nothing where the sources are gone."""
        try:
            plan = resolve(self.spec)
        except StylebatchError as error:
            self.faults.append(
                f"{self.output}: stores no inputs, and its sources cannot be read: {error}"
            )
            return {}
        found = {}
        for axis, one in enumerate(plan.axes):
            if isinstance(one, ImageAxis):
                kind, items = plan.inputs_of(axis)
                loader = PictureLoader.of(plan, axis)
                found[kind] = (loader, {item.id: place for place, item in enumerate(items)})
        return found

    def reference(self, place: str) -> Iterator[Pixels]:
        """The pictures of a folder or other source, fitted as the run fits its styles, to the size of the results."""
        listing = listed_reference(place)
        items = tuple(listing.items)
        size = (self.rows[0]["width"], self.rows[0]["height"])
        image = self.spec.image.of_looks
        loader = PictureLoader("style", items, listing.sources, size, image)
        for index, item in enumerate(items):
            try:
                yield loader.require(index).pixels
            except SampleError as error:
                self.faults.append(f"{item.id}: {error}")


def listed_reference(place: str) -> Listing:
    """The pictures that `--against` names, none of them read. Raises ManifestError where there are none."""
    try:
        return list_styles(SourceSpec(path=place))
    except ManifestError as error:
        raise ManifestError(f"--against: {str(error).removeprefix('styles.path: ')}") from None


def require_place(place: str) -> str:
    """`place`. Raises ManifestError for an empty one."""
    if not place:
        raise ManifestError(
            "--against: found nothing; accepted: a folder or another source of pictures"
        )
    return place
