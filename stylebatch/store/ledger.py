"""What an output directory holds: run.json, commits, poisoned shards. Only files that its plan names are touched."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from stylebatch.errors import ManifestError, PlanChangedError, StorageError, UnansweredError
from stylebatch.folder import Folder
from stylebatch.local_files import TEMPORARY, remove_empty
from stylebatch.masking import masked_values, safe_text
from stylebatch.planning.shard_names import parsed_name
from stylebatch.planning.ways_out import ways_out, with_defaults
from stylebatch.store.measured_columns import commits
from stylebatch.store.names import (
    MOST_METADATA_BYTES,
    POISON,
    RECORDS,
    STATS,
    marker,
    metadata_file,
    poison_file,
)
from stylebatch.store.output_record import (
    RUN,
    RunRecord,
    ShardStats,
    find_run,
    read_stats,
)
from stylebatch.store.sinks import sink_of
from stylebatch.store.stored_json import MOST_BYTES

Answer = TypeVar("Answer")
ASKED_AT_ONCE = 16
_HASHED = {
    "model_fingerprint": "the model's files",
    "fingerprint_without_prompts": "the model's files, those for prompts apart,",
    "method.source": "the code of the method",
    "export.outputs": "the shards that are exported",
    "export.samples": "the samples that are taken of them",
}
"""What those digests of an identity are of that are not of inputs."""
_FOLLOWING = ("former.", "feature_bytes:", "style_bytes:")
"""Of an identity, what differs where something else does that people know by its name."""
_NOT_OF_FILES = {"dtype", "offload", "compile"}
"""Fields of the section `model` that its fingerprint does not cover."""
FINGERPRINTS = "inputs/files.parquet"
AXES = ("content", "style", "image", "prompt", "set")
"""Names of axes, whose inputs an output remembers."""
CELLS = "inputs/cells.parquet"
IN_FLIGHT = 64
"""Shards that a killed run may have left between their tar and their commit."""
_LEFT = re.compile(
    rf"{re.escape(TEMPORARY)}(?:(?P<name>.+)-[0-9a-f]{{8}}|\.run\.lock\.[0-9a-f]{{16}})"
)
OTHER_OUTPUT = "give it a directory of its own with --output DIR, or remove the old one"
DERIVED = {
    "": ("run.json", "README.md", "gallery.html", "contact_sheet.png", ".run.lock"),
    "metadata": ("errors.parquet",),
    "inputs": ("cells.parquet", "files.parquet", *(f"{name}s.parquet" for name in AXES)),
}
"""Files of an output that belong to no shard, by folder. What a sink derives beside its payload, the sink knows."""
OF_SHARDS = (STATS, POISON, RECORDS)
"""Endings of a shard's files in `metadata/`, in the order in which they are removed: the commit first."""


def axis_file(name: str) -> str:
    """What an output remembers of the inputs along an axis."""
    return f"inputs/{name}s.parquet"


@dataclass(frozen=True)
class Ledger:
    """Records of one output directory."""

    output: Folder

    def former(self) -> RunRecord | None:
        """The record of an earlier start, None in a new or empty directory.

        Raises ManifestError for a directory that is not ours: it holds files, but no run.json that we can read.
        """
        record = find_run(self.output)
        # dot files are the lock, temporary names, and what file systems and editors leave
        strangers = [name for name in self.output.names() if not name.startswith(".")]
        if record is None and strangers:
            raise ManifestError(
                f"output.path: {self.output} holds no run.json, but other files ({', '.join(strangers[:5])}"
                f"{', ...' * (len(strangers) > 5)}); accepted: a new or empty directory, or one of an earlier run. Next: choose "
                "another with --output DIR"
            )
        return record

    def admit(self, run: RunRecord, *, mending: bool = False) -> RunRecord:
        """The record to go on with: `run`, with what was resolved before where shards are committed. Writes nothing.

        A preview takes the place of an earlier one, and of nothing else. `mending`: commits that are missing altogether are
        to be made again. Raises PlanChangedError, with a readable diff
        where the directory holds another plan, and where a copy lost its commits.
        """
        former = self.former()
        if former is None or is_replaced(former, run):
            return run
        if not self.has_commits:
            if not (mending and former.digest == run.digest):
                self._require_no_loss(former, run)
            return run
        if former.digest not in {part.digest for part in run.parts}:
            lines = diff(with_defaults(former.identity), with_defaults(masked_values(run.identity)))
            if models := _diff_of_models(former, run):
                # that the fingerprints differ says less
                lines = [line for line in lines if "fingerprint" not in line.split(":")[0]] + models
            told = [line for line in lines if not line.startswith(_FOLLOWING)] or lines
            changes = "\n".join(f"  {line}" for line in told)
            error = PlanChangedError(
                f"{self.output} holds shards of another plan; these differ:\n"
                f"{changes or '  (unknown: run.json is of another version)'}"
            )
            if run.export is not None or former.export is not None or former.limit is not None:
                raise error.offering(OTHER_OUTPUT)
            raise error.offering(*ways_out(self.output, former.spec, run.spec))
        if former.digest == run.digest:
            return former
        # grown: a new plan, on what was chosen for the old, since the old shards stay
        kept: dict[str, Any] = {"resolved": former.resolved}
        if former.measured is not None:
            kept["measured"] = former.measured
        return run.model_copy(update=kept)

    def write(self, run: RunRecord) -> None:
        """Make `run`, which was admitted, the directory's record.

        Shards of a former plan that never got a commit, or of an earlier preview, are removed: this plan may not have such. So
        is what was known of the bytes of its inputs.
        """
        former = self.former()
        if (
            former is not None
            and former.digest != run.digest
            and (not self.has_commits or is_replaced(former, run))
        ):
            # markers go first (`OF_SHARDS`): killed here, no commit is left without its files
            for file in self.shard_files(former):
                self._remove(file)
                if self.output.local is not None:  # readers take an empty folder for a class
                    remove_empty((self.output.local / file).parent, self.output.local)
            self._remove(FINGERPRINTS)
        if former is None or former != run:
            self.sign(run)

    def sign(self, run: RunRecord) -> None:
        """Write run.json, whatever is there."""
        self.output.write(RUN, _pretty(run.model_dump(exclude_unset=True)))

    @property
    def has_commits(self) -> bool:
        """Whether a shard was ever committed and its marker is there, whatever it says."""
        return bool(self.shards_with(STATS))

    def _require_no_loss(self, former: RunRecord, run: RunRecord) -> None:
        """Raise PlanChangedError for shards without any commit marker: a killed run leaves a few at most, a copy many.

        Where `run` is the same plan and the records of the shards are there, it makes the same bytes again, and nothing is lost.
        """
        found = {shard for _, shard in _payload(self.output, former) if shard is not None}
        recorded = set(self.shards_with(RECORDS))
        if former.digest == run.digest and found <= recorded:
            return
        # README.md is written at the end of a run: there, no shard lacked its marker
        if found and (self.output.facts("README.md") or len(found) > IN_FLIGHT):
            raise PlanChangedError(
                f"{self.output}: found {len(found)} shards in {_folder_of(former)}, but no commit marker in metadata/ (*{STATS}), as in a "
                "copy that left them out; accepted: whole outputs.\nNext: copy metadata/ again; or render all of it again with "
                f"`stylebatch repair {self.output}`, or into a directory of its own with --output DIR."
            )

    def shard_files(self, record: RunRecord) -> Iterator[str]:
        """Files of shards that `record` names, and what was derived from them beside the payload."""
        for ending in OF_SHARDS:
            for name in self.shards_with(ending):
                if record.names_shard(name):
                    yield f"metadata/{name}{ending}"
        yield from sink_of(record.output_format).derived(self.output)
        for file, shard in _payload(self.output, record):
            if shard is not None:
                yield file

    def shards_with(self, ending: str) -> list[str]:
        """Names of shards that have a file in `metadata/` with this ending, sorted, of whatever plan."""
        names = (path.rpartition("/")[2] for path in self.output.names("metadata/"))
        stems = (name.removesuffix(ending) for name in names if name.endswith(ending))
        # `_stats.json` and `_poison.json` end no stem of a shard, nor does errors.parquet
        return [stem for stem in stems if parsed_name(stem)]

    def _remove(self, name: str) -> None:
        """Remove a file, where that is allowed."""
        with suppress(StorageError):
            self.output.remove(name)

    def recorded(self, name: str) -> ShardStats | None:
        """What a shard's marker says, None where it is missing or damaged."""
        try:
            return read_stats(self.output, marker(name))
        except ManifestError:
            return None

    def of_marked(
        self, ask: Callable[[str], Answer], names: Iterable[str]
    ) -> Iterator[tuple[str, Answer]]:
        """(name, answer) of each shard that has a marker, in order; a store is asked about several at once."""
        marked = set(self.shards_with(STATS))
        chosen = (name for name in names if name in marked)
        if self.output.local is not None:
            yield from ((name, ask(name)) for name in chosen)
            return
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            asked: deque[tuple[str, Future[Answer]]] = deque()
            for name in chosen:
                asked.append((name, pool.submit(ask, name)))
                if len(asked) > 2 * ASKED_AT_ONCE:
                    first, answer = asked.popleft()
                    yield first, answer.result()
            yield from ((name, answer.result()) for name, answer in asked)

    def stats(self, name: str, plan_digest: str) -> ShardStats | None:
        """Stats of a committed shard of this plan, or None."""
        stats = self.recorded(name)
        if stats is None or stats.plan_digest != plan_digest or stats.revoked:
            return None
        return None if self.metadata(name, stats) is None else stats

    def metadata(self, name: str, stats: ShardStats) -> bytes | None:
        """Rows of a shard as they were committed with these stats, None where its files are not those."""
        try:
            metadata = self.output.read(metadata_file(name), MOST_METADATA_BYTES)
        except UnansweredError:
            raise
        except OSError:
            return None
        if not commits(stats, metadata):
            return None
        is_there = sink_of(stats.format).is_there(self.output, name, stats, metadata)
        return metadata if is_there else None

    def unfinished(self, record: RunRecord, shards: Iterable[str]) -> Iterator[tuple[str, str]]:
        """File and fault where what a report writes beside the shards is not there or other than it should be."""
        yield from sink_of(record.output_format).unfinished(self.output, self._committed(shards))

    def _committed(self, shards: Iterable[str]) -> Iterator[str]:
        for name in shards:
            stats = self.recorded(name)
            if stats is not None and not stats.revoked:
                yield name

    def revoke(self, name: str, *, executed: list[list[int]]) -> None:
        """Take a shard's commit back: its files stay until they are rendered again, at the rungs `executed`.

        The marker stays and says so; a run that is killed here is continued as it was meant.
        """
        stats = self.recorded(name)
        if stats is None:
            self._remove(marker(name))
            return
        taken = stats.model_copy(update={"revoked": True, "executed": executed})
        self.output.write(marker(name), _pretty(taken.model_dump()))

    def poison(self, name: str, facts: dict[str, Any]) -> None:
        """Record that a shard failed too often; its commit, or a new start of the run, removes the record."""
        shown = {
            key: safe_text(value) if isinstance(value, str) else value
            for key, value in facts.items()
        }
        self.output.write(poison_file(name), _pretty(shown))

    def poisoned(self) -> dict[str, dict[str, Any]]:
        """What is recorded of this run's shards that failed too often, by name."""
        record = find_run(self.output)
        found: dict[str, dict[str, Any]] = {}
        for name in self.shards_with(POISON):
            if record is not None and record.names_shard(name):
                facts: Any = None
                try:
                    facts = json.loads(self.output.read(poison_file(name), MOST_BYTES))
                except UnansweredError:
                    raise
                except (OSError, ValueError, RecursionError):
                    pass
                found[name] = {"attempts": 0, "reason": "its record is damaged"} | (
                    facts if isinstance(facts, dict) else {}
                )
        return found

    def forgive(self) -> None:
        """Give poisoned shards new attempts."""
        for name in self.poisoned():
            self._remove(poison_file(name))

    def poison_path(self, name: str) -> str:
        """Where a shard that was left out is recorded, with the trace, for people."""
        return self.output.where(poison_file(name))

    def sweep(self, record: RunRecord) -> None:
        """Remove what writers that were killed left under temporary names; nobody may be writing."""
        for path in self.leftovers(record):
            self._remove(path)
        with suppress(StorageError):  # the right to list uploads is one of its own
            self.output.drop_unfinished(lambda name: is_of_shard(record, name))

    def leftovers(self, record: RunRecord) -> list[str]:
        """Files under temporary names, of writers that were killed or write now."""
        prefixes = [f"{folder}/{TEMPORARY}".removeprefix("/") for folder in DERIVED]
        found = [path for prefix in prefixes for path in self.output.names(prefix)]
        found += sink_of(record.output_format).temporaries(self.output)
        return [path for path in found if is_leftover(record, path)]


def is_replaced(former: RunRecord, run: RunRecord) -> bool:
    """Whether both are previews, of different plans: `run` takes the former's place."""
    return None not in (run.limit, former.limit) and run.digest != former.digest


def is_of_shard(record: RunRecord, path: str) -> bool:
    """Whether `path` is the name of a file of a shard that `record` names."""
    folder, _, name = path.rpartition("/")
    is_record = folder == "metadata" and any(
        name.endswith(ending) and record.names_shard(name.removesuffix(ending))
        for ending in OF_SHARDS
    )
    return is_record or sink_of(record.output_format).owner(record, path) is not None


def is_leftover(record: RunRecord, path: str) -> bool:
    """Whether `path` is the temporary name of a file that this output may have."""
    folder, _, name = path.rpartition("/")
    found = _LEFT.fullmatch(name)
    if found is None:
        return False
    final = found["name"]
    if final is None:
        return folder == ""
    sink, file = sink_of(record.output_format), f"{folder}/{final}"
    return final in DERIVED.get(folder, ()) or is_of_shard(record, file) or sink.is_derived(file)


def _payload(output: Folder, record: RunRecord) -> Iterator[tuple[str, str | None]]:
    """Each file where loaders look for the payload, with the shard that owns it."""
    sink = sink_of(record.output_format)
    return ((file, sink.owner(record, file)) for file in sink.walk(output))


def _folder_of(record: RunRecord) -> str:
    return f"{sink_of(record.output_format).payload('').partition('/')[0]}/"


def diff(old: Any, new: Any, path: str = "") -> list[str]:
    """Readable differences of two JSON values: `method.gamma: 0.75 -> 0.5`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += diff(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return lines
    if old == new:
        return []
    # two sha256 digests, which say nothing to people
    if isinstance(old, str) and isinstance(new, str) and len(old) == len(new) == 64:
        return [f"{path}: {_HASHED.get(path, 'file names, labels or captions')} changed"]
    return [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]


def _diff_of_models(former: RunRecord, run: RunRecord) -> list[str]:
    """What of the section `model` made its fingerprint another; none where files of the same names changed."""
    if former.identity.get("model_fingerprint") == run.identity.get("model_fingerprint"):
        return []
    old, new = (dict(one.spec.get("model") or {}) for one in (former, run))
    # a field that an older output lacks has its default, which is empty
    names = [
        name
        for name in sorted((old.keys() | new.keys()) - _NOT_OF_FILES)
        if (old.get(name) or None) != (new.get(name) or None)
    ]
    return [line for name in names for line in diff(old.get(name), new.get(name), f"model.{name}")]


def _pretty(value: dict[str, Any]) -> bytes:
    """JSON without credentials: such a file goes where the dataset goes."""
    return (json.dumps(masked_values(value), indent=1, ensure_ascii=False) + "\n").encode()
