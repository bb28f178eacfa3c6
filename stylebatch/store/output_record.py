"""What an output records of itself: run.json, and the stats file that commits a shard. Read with types and bounds.

Files of an output may be cut, edited, or another program's: nothing of them is used before it is checked, and every
fault is a ManifestError that names file and field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stylebatch.errors import ManifestError, NoRunError
from stylebatch.folder import Folder
from stylebatch.masking import MASK
from stylebatch.planning.shard_names import (
    FEWEST_DIGITS,
    ShardName,
    parsed_name,
    split_of_number,
)
from stylebatch.spec import METHOD_OPTIONS, canonical_json
from stylebatch.spec.output import OutputFormat
from stylebatch.spec.splits import REST, in_order, name_fault
from stylebatch.store.shard_counts import MOST_SAMPLES, Count, ShardCounts
from stylebatch.store.stored_json import read_document

FORMAT = "stylebatch"
VERSION = 3
"""Of run.json. Earlier ones knew pairs alone, and are refused; the first had no mark and is known by its fields."""
RUN = "run.json"
MOST_SHARDS = 10**9

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rungs = Annotated[list[Annotated[list[Count], Field(min_length=3, max_length=3)]], Field()]


class _Record(BaseModel):
    """Strict types; fields that are not named here are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class SplitShards(_Record):
    """How many shards in a row are of a split."""

    name: str
    num_shards: int = Field(ge=1, le=MOST_SHARDS)

    @model_validator(mode="after")
    def _names_a_split(self) -> SplitShards:
        # it stands in names of files
        if fault := name_fault(self.name):
            raise ValueError(f"splits: {fault}")
        return self


class Generation(_Record):
    """Shards that one plan made. `splits`: of which they are, in order; none: all are of `train`.
    `num_classes`: how many of the output's classes it knew; None in older outputs, whose classes are numbered by name."""

    first_shard: int = Field(ge=0, lt=MOST_SHARDS)
    num_shards: int = Field(ge=1, le=MOST_SHARDS)
    num_rows: Count = 0
    num_columns: Count = 0
    num_cells: Count = 0
    num_classes: Count | None = None
    digest: Sha256
    splits: list[SplitShards] = []

    @model_validator(mode="after")
    def _splits_add_up(self) -> Generation:
        if self.splits and sum(split.num_shards for split in self.splits) != self.num_shards:
            raise ValueError(f"splits: found shards that do not add up to {self.num_shards}")
        return self

    @property
    def shards(self) -> range:
        return range(self.first_shard, self.first_shard + self.num_shards)

    @property
    def digits(self) -> int:
        """Of a shard's number in its name."""
        return max(FEWEST_DIGITS, len(str(self.shards[-1])))

    def shard_name(self, number: int) -> str:
        """`train-00000`: stem of the shard's files."""
        split = REST
        if self.splits:
            by_split = [(split.name, split.num_shards) for split in self.splits]
            split = split_of_number(by_split, number - self.first_shard)
        return str(ShardName(split, number, self.digits))


class PlanSummary(_Record):
    """Counts of the whole output."""

    num_samples: int = Field(ge=1, le=MOST_SAMPLES)
    num_shards: int = Field(ge=1, le=MOST_SHARDS)
    evaluations: int = Field(0, ge=0)
    num_contents: Count | None = None
    num_styles: Count | None = None
    num_images: Count | None = None
    num_prompts: Count | None = None
    num_sets: Count | None = None


class Resolved(_Record):
    """What was chosen when the output was begun."""

    engine: str = ""
    threads: int = Field(ge=1, le=4096)
    device: str
    dtype: str
    batch_gb: float | None = Field(None, gt=0, le=1e6)
    features: dict[str, Any] | None = None
    forecast_s: float | None = Field(None, ge=0, le=1e12)
    """Worker time that was expected of the whole run, where the device had a profile of the model."""


class Origin(_Record):
    """Where inputs of one kind came from. `origin`: "" where the manifest itself holds them; `licences`: "" of prompts."""

    what: str
    origin: str = ""
    licences: str = ""


class ExportedOutput(_Record):
    """An output that another was made from, as it was then."""

    name: str
    path: str
    digest: Sha256


class ExportRecord(_Record):
    """What of which outputs was exported; defaults take everything. `drop`: keys that were left out."""

    outputs: list[ExportedOutput] = Field(min_length=1)
    where: str = ""
    drop: list[str] = []
    originals: float = Field(0.0, ge=0, le=1)
    balance: Literal["", "style", "label"] = ""
    seed: int = Field(0, ge=0, lt=2**63)
    shard_size: int | None = Field(None, ge=1, le=9999)
    splits: list[str] = []
    annotations: str = ""


class MeasuredBy(_Record):
    """Measures by a network that `stylebatch measure` added, with what looked at the pictures."""

    measures: list[str]
    classifier: str
    labels: dict[str, str | int] = {}


class RunRecord(_Record):
    """run.json. `identity` and `digest` decide about resuming; `resolved` is kept on resume; `limit`: of a preview.

    `labels`: names of the classes by number, None in older outputs; `export`: of an output that was made from others;
    `annotations`: the form that those of the contents had, "" where nothing is annotated.
    """

    format: str | None = None
    version: int = VERSION
    name: str
    digest: Sha256
    identity: dict[str, Any]
    axes: list[Literal["content", "style", "image", "prompt", "set"]] = Field(max_length=2)
    plan: PlanSummary
    generations: list[Generation] = []
    spec: dict[str, Any]
    model: str
    resolved: Resolved
    limit: int | None = Field(None, ge=1)
    labels: list[str] | None = None
    lineage: list[Origin] = []
    annotations: str = ""
    export: ExportRecord | None = None
    measured: MeasuredBy | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> RunRecord:
        text = canonical_json(self.identity)
        is_masked = MASK in text  # it was written without credentials
        if not is_masked and hashlib.sha256(text.encode()).hexdigest() != self.digest:
            raise ValueError("digest: is not that of identity; one of the two was edited")
        if self.output_format not in get_args(OutputFormat):
            raise ValueError(
                f"identity.output.format: found {self.output_format}; accepted: {', '.join(get_args(OutputFormat))}"
            )
        parts = self.parts
        if parts[0].first_shard != 0 or any(
            after.first_shard != before.shards.stop for before, after in pairwise(parts)
        ):
            raise ValueError("generations: found shards that do not follow one another")
        # the last generation is the plan that a resume compares with
        if parts[-1].digest != self.digest:
            raise ValueError("generations: found a last one whose digest is not the run's")
        if parts[-1].shards.stop != self.plan.num_shards or (
            self.plan.num_shards > self.plan.num_samples
        ):
            raise ValueError(
                f"plan.num_shards: found {self.plan.num_shards} beside {self.plan.num_samples} samples and generations of "
                f"{parts[-1].shards.stop} shards"
            )
        return self

    @property
    def output_format(self) -> OutputFormat:
        """The sink that wrote the shards."""
        output = self.identity.get("output")
        found: OutputFormat = (output if isinstance(output, dict) else {}).get(
            "format", "webdataset"
        )
        return found

    @property
    def option_names(self) -> frozenset[str]:
        """Names of the method's options. Those of a user's are read from the identity, since a report runs no code of theirs."""
        method = self.identity.get("method")
        given: dict[str, Any] = method if isinstance(method, dict) else {}
        # options beyond a paper are no part of the identity while they have their defaults
        built_in = None if "source" in given else METHOD_OPTIONS.get(str(given.get("name")))
        return frozenset(given if built_in is None else built_in.model_fields) - {"name"}

    @property
    def parts(self) -> list[Generation]:
        """The generations; one where none are listed."""
        whole = Generation(first_shard=0, num_shards=self.plan.num_shards, digest=self.digest)
        return self.generations or [whole]

    def names_shard(self, stem: str) -> bool:
        """Whether `stem` (train-00000) is the name of a shard of this output."""
        return self.number_of(stem) is not None

    def number_of(self, stem: str) -> int | None:
        """The number of a shard of this output, None where `stem` is the name of none."""
        found = parsed_name(stem)
        if found is None:
            return None
        is_ours = any(
            found.number in part.shards and part.shard_name(found.number) == stem
            for part in self.parts
        )
        return found.number if is_ours else None

    @property
    def splits(self) -> list[str]:
        """Names of the splits of all shards, in order."""
        found = {split.name for part in self.parts for split in part.splits}
        return in_order(found or {REST})


class LooksFacts(_Record):
    """What the pictures of a shard look like (`quality/looks.py`): its successful samples in a row, and contents by id."""

    samples: str = Field("", pattern=r"^([0-9a-f]{40})*$")
    contents: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]] = {}


class ShardStats(ShardCounts):
    """The commit marker of a shard.

    `executed`: the rungs that memory allowed, block by block, where they were not the plan's; `inputs`: xxh3 of the files
    that it was made of, by name; `sha256` and `bytes` are those of its payload, which the sink `format` wrote as `num_files`;
    `inputs_sha256` and `inputs_bytes` of a further file with the inputs that its samples share, `rejected_*` of one with pictures
    that are kept aside. `looks`: None in outputs of earlier versions, and in exports. `pending_sha256`, `measured`: of records that
    measures were added to (`measured_columns.py`).
    One that was `revoked` commits nothing: the shard is to be rendered again.
    """

    model_config = ConfigDict(extra="allow")

    shard: int = Field(0, ge=0, lt=MOST_SHARDS)
    sha256: str = Field(pattern=r"^([0-9a-f]{64})?$")
    metadata_sha256: Sha256
    pending_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    measured: str = ""
    format: OutputFormat = "webdataset"
    num_files: Count = 1
    executed: Rungs = Field([])
    inputs: dict[str, str] = Field({})
    looks: LooksFacts | None = None


Kind = TypeVar("Kind", bound=BaseModel)


def find_run(output: Folder) -> RunRecord | None:
    """The record in `output`, None where there is no run.json.

    Raises ManifestError for one that is damaged, or of another program.
    """
    path = output.where(RUN)
    value = read_document(output, RUN, NEXT_FOR_RUN)
    if value is None:
        return None
    if not isinstance(value, dict) or not _is_ours(value):
        raise ManifestError(
            f"{path}: found a run.json that `stylebatch run` did not write; accepted: a new or empty directory, or the output "
            "of an earlier run. Next: choose another directory with --output DIR"
        )
    version = value.get("version", 1)
    # before the fields are checked: another version's would fail with a misleading message
    if type(version) is int and version != VERSION:
        raise ManifestError(
            f"{path}: version: found {version}; accepted: {VERSION}. Next: go on with the stylebatch that wrote it (what is "
            "committed loads anywhere), or render into another directory with --output DIR"
        )
    return _checked(path, value, RunRecord, NEXT_FOR_RUN)


def read_run(output: Folder) -> RunRecord:
    """The record in `output`. Raises NoRunError where there is none, and as `find_run`."""
    record = find_run(output)
    if record is None:
        raise NoRunError.at(
            output.shown,
            f"{output.where(RUN)}: missing; accepted: the output directory of a run. Next: start the run first, or render by "
            "the manifest into another directory with --output DIR",
        )
    return record


def read_stats(output: Folder, name: str) -> ShardStats | None:
    """The commit marker in the file `name`, None where there is none. Raises ManifestError for one that is damaged."""
    value = read_document(output, name, NEXT_FOR_STATS)
    if value is None:
        return None
    return _checked(output.where(name), value, ShardStats, NEXT_FOR_STATS)


NEXT_FOR_RUN = "Next: restore it, or choose another directory with --output DIR"
NEXT_FOR_STATS = "Next: stylebatch repair OUTPUT renders the shard again"


def _is_ours(value: dict[str, Any]) -> bool:
    if "format" in value:
        return bool(value["format"] == FORMAT)
    # the first version had no mark
    return {"digest", "identity", "plan", "spec"} <= value.keys()


def _checked(path: str, value: Any, kind: type[Kind], next_step: str) -> Kind:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ManifestError(f"{path}: is damaged: {_fault(error.errors())}. {next_step}") from None
    except (RecursionError, UnicodeEncodeError) as error:
        raise ManifestError(f"{path}: is damaged: {error}. {next_step}") from None


def _fault(faults: Iterable[Any]) -> str:
    """`field: found VALUE; what is accepted`, of the first fault."""
    first = next(iter(faults))
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    field = ".".join(str(part) for part in first["loc"]) or "the document"
    if first["type"] == "missing":
        return f"{field}: missing"
    found = json.dumps(first["input"], default=str)
    found = found if len(found) <= 60 else found[:57] + "..."
    return f"{field}: found {found}; {message[0].lower()}{message[1:]}"
