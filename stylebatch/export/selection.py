"""Which samples of an output are exported, in which order: a few bytes per sample, whatever their number.

1. Records of the splits that are meant are read shard by shard; those that succeeded, fulfil the condition and are not to be
   dropped stay. Of outputs that are joined a sample that several have is taken once.
2. To balance, in each split of each value of a column as many stay as the rarest has: those whose hash of seed and key is lowest.
3. Contents that are added stand behind a sample that was made of them: in a split each content once before any comes twice.
4. Splits follow one another, in the order in which they first appear; in each, the order of the output stays.
A sample's place in this does not depend on the others' number, so that a slightly other condition keeps most of what there was.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from stylebatch.errors import ManifestError
from stylebatch.export.export_options import Balance, ExportOptions
from stylebatch.export.expressions import Expression
from stylebatch.export.joining import Joined
from stylebatch.export.rendered import Rendered
from stylebatch.methods.input_kinds import CONTENT, GROUPS, IMAGE
from stylebatch.reports.committed import CommittedShard
from stylebatch.spec.splits import in_order, usual_name
from stylebatch.store.records import IS_ORIGINAL
from stylebatch.words import counted

KEPT = (CONTENT, IMAGE)
"""Kinds of inputs that may be samples themselves."""
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Samples in order: the number of their output, of their shard in it, of their row in that; and whether the content is meant.

    `splits`: how many are of each, in order; `labels`, `has_captions`: of all samples that succeeded; `told`: of the choice, for
    people.
    """

    output: Numbers
    shard: Numbers
    row: Numbers
    is_original: NDArray[np.bool_]
    splits: Mapping[str, int]
    labels: frozenset[str]
    has_captions: bool
    told: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for column in (self.output, self.shard, self.row, self.is_original.astype(np.int64)):
            digest.update(column.astype("<i8").tobytes())
        return digest.hexdigest()

    def part(self, places: slice) -> Selection:
        """A stretch of it."""
        return replace(
            self,
            output=self.output[places],
            shard=self.shard[places],
            row=self.row[places],
            is_original=self.is_original[places],
        )


def select(given: Sequence[Rendered], options: ExportOptions) -> Selection:
    """The samples that `options` take. Raises ManifestError where they leave none, or ask for what is not there."""
    schema = given[0].schema
    found = _Found(
        Expression(options.where, schema) if options.where else None,
        pa.array(options.drop, pa.string()),
        _column_of(options.balance, schema),
        _column_of_contents(given) if options.originals else None,
        options.seed,
        Joined(schema.names, [one.folder for one in given]) if len(given) > 1 else None,
        any(one.run.export is not None and len(one.run.export.outputs) > 1 for one in given),
    )
    wanted = _wanted_splits(options.splits, given)
    for number, output in enumerate(given):
        for place, shard in enumerate(output.shards):
            split = _split_of(shard)
            if split in wanted:
                found.add(number, place, split, output.rows(shard))
            elif options.drop:
                found.keys_to_drop(output.rows(shard))
    found.require_dropped(options.drop)
    if found.joined is not None:
        found.joined.require_one_split()
    return found.selection(options)


@dataclass
class _Found:
    """Collects what stays of each shard."""

    where: Expression | None
    drop: pa.Array
    group: str | None
    content: str | None
    seed: int
    joined: Joined | None
    of_joined: bool
    num_success: int = 0
    num_fulfilled: int = 0
    num_unknown: int = 0
    has_captions: bool = False
    labels: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._columns: list[tuple[Numbers, ...]] = []
        self._codes: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._splits: dict[str, int] = {}

    def add(self, output: int, shard: int, split: str, table: pa.Table) -> None:
        # failed rows have no picture that could be copied
        stays = np.asarray(pc.equal(table["status"], "success").combine_chunks(), dtype=np.bool_)
        succeeded = table.filter(pa.array(stays))
        self.num_success += len(succeeded)
        self.labels.update(succeeded["label"].unique().to_pylist())
        self.has_captions |= any(succeeded["caption"].unique().to_pylist())
        if self.where is not None:
            holds, is_unknown = self.where.of(table)
            self.num_unknown += int((stays & is_unknown).sum())
            stays &= holds
        self.num_fulfilled += int(stays.sum())
        if len(self.drop):
            stays &= ~self.keys_to_drop(table)
        rows = np.flatnonzero(stays)
        chosen = table.take(pa.array(rows))
        if self.joined is not None:
            is_new = self.joined.new(output, split, chosen)
            rows, chosen = rows[is_new], chosen.filter(pa.array(is_new))
        self._columns.append(
            (
                np.full(len(rows), output),
                np.full(len(rows), shard),
                np.full(len(rows), self._splits.setdefault(split, len(self._splits))),
                rows,
                self._coded(chosen, self.group, 0),
                self._coded(chosen, self.content, 1, output),
                self._hashes(chosen),
            )
        )

    def keys_to_drop(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which samples are left out by a list of keys."""
        is_named = np.asarray(
            pc.is_in(table["key"], value_set=self.drop).combine_chunks(), dtype=np.bool_
        )
        self.dropped.update(table.filter(pa.array(is_named))["key"].to_pylist())
        return is_named

    def _coded(
        self, table: pa.Table, column: str | None, which: int, output: int | None = None
    ) -> Numbers:
        """Values of a column as numbers, by first appearance; `output`: of contents, which several outputs may call alike."""
        if column is None:
            return np.zeros(len(table), np.int64)
        codes, values = self._codes[which], table[column].to_pylist()
        if self.joined is not None and output is not None:
            named = {value: self.joined.contents.named(output, value) for value in set(values)}
            values = [named[value] for value in values]
        numbers = (codes.setdefault(value, len(codes)) for value in values)
        return np.fromiter(numbers, np.int64, len(table))

    def _hashes(self, table: pa.Table) -> Numbers:
        if self.group is None and self.content is None:
            return np.zeros(len(table), np.int64)
        hashes = (
            # one bit less: these numbers are signed
            xxhash.xxh3_64_intdigest(f"{self.seed}\0{key}".encode()) >> 1
            for key in table["key"].to_pylist()
        )
        return np.fromiter(hashes, np.int64, len(table))

    def require_dropped(self, drop: Sequence[str]) -> None:
        """Raise ManifestError for keys that no record has: a misspelt one would leave a bad picture in."""
        unknown = [key for key in drop if key not in self.dropped]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ManifestError(
                f"--drop: found the key {unknown[0]!r}{more}, which no record has; accepted: keys of this output"
            )

    def selection(self, options: ExportOptions) -> Selection:
        output, shard, split, row, group, content, hashes = map(
            np.concatenate, zip(*self._columns, strict=True)
        )
        told = self._words_of_choice(options)
        kept = np.arange(len(row))
        if self.group is not None and len(row):
            kept = self._balanced(split, group, hashes)
            told.append(self._words_of_balance(options.balance, split, group, kept))
        if not len(kept):
            raise ManifestError(
                f"no sample is left to export ({'; '.join(told)}); accepted: a choice that leaves one at least"
            )
        is_added = np.zeros(len(kept), np.bool_)
        if options.originals:
            for one in np.unique(split[kept]):
                of_split = split[kept] == one
                places = kept[of_split]
                is_added[of_split] = _donors(content[places], hashes[places], options.originals)
            told.append(_words_of_originals(content[kept], is_added, self.of_joined))
        # stable: within a split the order stays
        order = np.argsort(split[kept], kind="stable")
        # a sample, and behind it the content that it gives
        places = np.repeat(kept[order], 1 + is_added[order])
        is_original = np.zeros(len(places), np.bool_)
        is_original[1:] = places[1:] == places[:-1]
        counts = np.bincount(split[places], minlength=len(self._splits)).tolist()
        return Selection(
            output[places],
            shard[places],
            row[places],
            is_original,
            {name: count for name, count in zip(self._splits, counts, strict=True) if count},
            frozenset(self.labels),
            self.has_captions,
            tuple(told),
        )

    def _words_of_choice(self, options: ExportOptions) -> list[str]:
        told = []
        if options.splits:
            told.append(f"{' and '.join(self._splits)} alone, of all splits")
        if self.where is not None:
            told.append(
                f"{self.num_fulfilled:,} of {counted(self.num_success, 'sample')} fulfil {options.where}"
            )
        if self.num_unknown:
            told.append(
                f"{counted(self.num_unknown, 'sample')} left out, since a value that is asked for is missing (null) there"
            )
        if options.drop:
            told.append(f"{counted(len(options.drop), 'key')} left out by a list")
        return told + (self.joined.told() if self.joined is not None else [])

    def _balanced(self, split: Numbers, group: Numbers, hashes: Numbers) -> Numbers:
        """Places that stay, ascending; samples without a value of the column are of no group."""
        has_value = group != self._codes[0].get("", -1)
        counts = Counter(zip(split[has_value].tolist(), group[has_value].tolist(), strict=True))
        if not counts:
            raise ManifestError(
                f"--balance: found no value in the column {self.group}; accepted: a column that samples have a value in"
            )
        fewest = np.zeros(len(self._splits), np.int64)
        for (number, _), count in counts.items():
            fewest[number] = min(fewest[number] or count, count)
        rank = _rank_within(split * (1 + int(group.max())) + group, hashes)
        return np.flatnonzero((rank < fewest[split]) & has_value)

    def _words_of_balance(
        self, balance: Balance, split: Numbers, group: Numbers, kept: Numbers
    ) -> str:
        found = []
        for number, name in enumerate(self._splits):
            of_split = kept[split[kept] == number]
            groups = len(np.unique(group[of_split]))
            each = (
                f"{len(of_split) // max(1, groups):,} of each {balance}, {counted(groups, balance)}"
            )
            found.append(each if len(self._splits) == 1 else f"{name} {each}")
        without = int((group == self._codes[0].get("", -1)).sum())
        rest = f"; {without:,} without one left out" if without else ""
        return f"balanced: {'; '.join(found)}{rest}"


def _rank_within(group: Numbers, hashes: Numbers) -> Numbers:
    """Of each sample, how many of its group have a lower hash."""
    order = np.lexsort((hashes, group))
    ordered = group[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(is_first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return rank


def _donors(content: Numbers, hashes: Numbers, share: float) -> NDArray[np.bool_]:
    """Which samples give their content: a share of all, every content once before one comes twice."""
    rank = _rank_within(content, hashes)
    # half a sample counts as one, so that a share of few samples is not none
    count = min(len(rank), int(share * len(rank) + 0.5))
    is_added = np.zeros(len(rank), np.bool_)
    is_added[np.lexsort((hashes, rank))[:count]] = True
    return is_added


def _words_of_originals(content: Numbers, is_added: NDArray[np.bool_], of_joined: bool) -> str:
    """`of_joined`: contents of one name may be different ones, which the records do not tell."""
    counts = Counter(content[is_added].tolist())
    most = max(counts.values(), default=0)
    contents, often = counted(len(counts), "content"), f", up to {most} times each"
    if of_joined and most > 1:
        contents = f"contents of {counted(len(counts), 'name')}"
        often = f", up to {most} of one name (outputs were joined: they may be different contents)"
    return f"{counted(int(is_added.sum()), 'original')} added, of {contents}{often if most > 1 else ''}"


def _split_of(shard: CommittedShard) -> str:
    # the last dash: names of splits may have dashes themselves
    return shard.name.rpartition("-")[0]


def _wanted_splits(asked: Sequence[str], given: Sequence[Rendered]) -> Collection[str]:
    """The splits that are meant, all where none is named. Raises ManifestError for one that is not there."""
    known = in_order({_split_of(shard) for one in given for shard in one.shards})
    meant = [name if name in known else usual_name(name) for name in asked]
    for name in meant:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ManifestError(f"--split: found {name!r}; {hint}accepted: {', '.join(known)}")
    return meant or known


def _column_of(balance: Balance, schema: pa.Schema) -> str | None:
    if not balance:
        return None
    names = GROUPS if balance == "style" else ("label",)
    column = next((name for name in names if name in schema.names), None)
    if column is None:
        raise ManifestError(
            f"--balance {balance}: the records have no column {' or '.join(names)}; accepted: a column that they have"
        )
    return column


def _column_of_contents(given: Sequence[Rendered]) -> str:
    if IS_ORIGINAL in given[0].schema.names:
        raise ManifestError(
            f"--with-originals: {given[0].folder} has originals already; accepted: an output without"
        )
    for kind in KEPT:
        if kind.column in given[0].schema.names:
            if kind.member in given[0].inputs:
                return kind.column
            raise ManifestError(
                f"--with-originals: {given[0].folder} stores no inputs; accepted: an output that was rendered with output.inputs: true"
            )
    raise ManifestError(
        f"--with-originals: {given[0].folder} was made of no contents; accepted: an output of a method that takes images"
    )
