"""What every plan has: samples with stable keys, blocks, shards with fixed ids, an identity that decides about resuming."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stylebatch.data.choice import Choice, Conditions
from stylebatch.data.grid import Block, Grid
from stylebatch.errors import ManifestError
from stylebatch.spec import RunSpec, Section, canonical_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One planned output row. In a run of prompts `content` is the row's index and `style` that of its set."""

    key: str
    content: int
    style: int
    label: str
    caption: str
    seed: int


@dataclass(frozen=True)
class Shard:
    """Unit of scheduling and commit: a whole number of blocks."""

    id: int
    blocks: tuple[Block, ...]

    @property
    def num_samples(self) -> int:
        return sum(len(block.pairs) for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """What a run does. `identity` is all that affects pixels or names; `digest` is its hash.

    `batch`: rows of one network evaluation at most, and `batches_at_once` how many batches memory for activations allows;
    `pictures`: those that the autoencoder takes at once at most.
    """

    spec: RunSpec
    batch: int
    pictures: int
    labels: tuple[str, ...]
    has_captions: bool
    model: str
    identity: dict[str, Any]
    first_shard: int = 0
    batches_at_once: int = 1

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The blocks."""

    @property
    @abstractmethod
    def totals(self) -> tuple[int, int]:
        """Contents and styles, or rows and sets."""

    @property
    @abstractmethod
    def samples_per_block(self) -> int:
        """Of whole blocks."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Width and height of the rendered images, in pixels."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Network rows of the whole run."""

    @property
    @abstractmethod
    def method(self) -> Section:
        """The options of the method; a user's method itself."""

    @property
    @abstractmethod
    def conditions(self) -> Conditions:
        """What was measured before."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Counts and cost as plain values, for `plan --json` and run.json."""

    @abstractmethod
    def lines(self) -> list[str]:
        """Counts and cost for a terminal."""

    @abstractmethod
    def anchored(self) -> Plan:
        """The plan with absolute paths, for workers with working directories of their own."""

    @abstractmethod
    def seed(self, content: int, style: int) -> int:
        """Seed of a sample."""

    @abstractmethod
    def told(self, content: int) -> tuple[str, str]:
        """Label and caption of a content or row."""

    @property
    @abstractmethod
    def input_members(self) -> tuple[str, ...]:
        """Names of the members that hold a sample's inputs."""

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns of the records beyond those that every run of this kind of method has."""
        return ()

    @property
    def choice(self) -> Choice | None:
        """Where features come from, in a run of pairs."""
        return None

    @property
    def reasons(self) -> list[str]:
        """Why features come from there, where there was a choice."""
        return []

    @property
    def cached_styles(self) -> range:
        """Styles that are written to a cache before the run."""
        return range(0)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @property
    def blocks_per_shard(self) -> int:
        return max(1, self.spec.output.shard_size // self.samples_per_block)

    @property
    def num_shards(self) -> int:
        return math.ceil(self.grid.num_blocks / self.blocks_per_shard)

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(self.first_shard, self.first_shard + self.num_shards)

    def shard(self, shard_id: int) -> Shard:
        first = (shard_id - self.first_shard) * self.blocks_per_shard
        numbers = range(first, min(first + self.blocks_per_shard, self.grid.num_blocks))
        return Shard(shard_id, tuple(self.grid.block(number) for number in numbers))

    def shard_size(self, shard_id: int) -> int:
        """Samples of a shard, without listing them."""
        first = (shard_id - self.first_shard) * self.blocks_per_shard
        stop = min(first + self.blocks_per_shard, self.grid.num_blocks)
        return self.grid.num_pairs_before(stop) - self.grid.num_pairs_before(first)

    @cached_property
    def shard_digits(self) -> int:
        return max(5, len(str(self.shards[-1])))

    def shard_name(self, shard_id: int) -> str:
        """`train-00000`: stem of the shard's files."""
        return f"train-{shard_id:0{self.shard_digits}d}"

    def samples(self, shard: Shard) -> Iterator[tuple[Block, list[Sample]]]:
        """Each block of `shard` with its samples in key order."""
        digits = max(4, len(str(shard.num_samples - 1)))
        index = 0
        for block in shard.blocks:
            samples = []
            for position, (content, style) in enumerate(block.pairs):
                label, caption = self.told(content)
                samples.append(
                    Sample(
                        key=f"{shard.id:0{self.shard_digits}d}{index:0{digits}d}",
                        content=content,
                        style=style,
                        label=(block.labels[position] if block.labels else "") or label,
                        caption=(block.captions[position] if block.captions else "") or caption,
                        seed=self.seed(content, style),
                    )
                )
                index += 1
            yield block, samples


def sample_seed(run_seed: int, content_id: str, style_id: str) -> int:
    """Seed of one sample: 63 bits of sha256 over run seed and ids, independent of order and batch."""
    text = f"{run_seed}\0{content_id}\0{style_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rows_digest(rows: Iterable[tuple[str, ...]]) -> str:
    """sha256 of rows of texts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\0".join(row) + "\n").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def output_path(spec: RunSpec, limit: int | None) -> Path:
    """Where a run writes; a preview of `limit` samples has a directory of its own, beside that of the run."""
    output = Path(spec.output.path)
    if limit is None:
        return output
    output = output if output.name else output.resolve()
    return output.with_name(f"{output.name}-preview-{limit}")


def previewed(spec: RunSpec, limit: int) -> RunSpec:
    """`spec` with an output of its own for a preview of `limit` samples."""
    if limit < 1:
        raise ManifestError(f"--limit: found {limit}; accepted: 1 or more")
    path = str(output_path(spec, limit))
    return spec.model_copy(update={"output": spec.output.model_copy(update={"path": path})})


def class_names(used: set[str], before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Labels in class order: those `before`, then by number when all are whole numbers, else by name."""
    used = used - {"", *before}
    numeric = all(label.removeprefix("-").isdecimal() for label in used)
    new = sorted(used, key=lambda label: (int(label) if numeric else 0, label))
    return (*before, *new)


def absolute(path: str | None) -> str | None:
    """A local path made absolute; URLs as they are."""
    return path if path is None or "://" in path else str(Path(path).absolute())


def anchored_spec(spec: RunSpec) -> RunSpec:
    """`spec` with absolute paths of model, cache and the file of a user's method."""
    model, features, method = spec.model, spec.features, spec.method
    changes: dict[str, Any] = {
        "model": model.model_copy(
            update={
                "path": absolute(model.path),
                "config": absolute(model.config),
                "lora": tuple(
                    lora.model_copy(update={"path": absolute(lora.path)}) for lora in model.lora
                ),
            }
        ),
        "features": features.model_copy(update={"cache": absolute(features.cache)}),
    }
    if ".py:" in (path := getattr(method, "path", "")):
        changes["method"] = method.model_copy(update={"path": absolute(path)})
    return spec.model_copy(update=changes)
