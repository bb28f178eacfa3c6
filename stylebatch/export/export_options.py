"""What of an output is exported, and in what form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stylebatch.data.tables.text_lines import lines_of, open_text
from stylebatch.errors import ManifestError
from stylebatch.spec.output import OutputFormat

Balance = Literal["", "style", "label"]
Form = Literal["", "coco", "voc", "yolo"]
MOST_IN_A_SHARD = 9999
MOST_SHARD_SIZE = 256


@dataclass(frozen=True)
class ExportOptions:
    """Defaults take every sample. `format`: None keeps that of the first output.

    `where`: an expression over the columns of a record; `drop`: keys that are left out; `originals`: contents that are added,
    as a share of the stylised samples; `balance`: column of which every value becomes equally frequent; `seed` decides what
    is left out and added for that. `shard_size`: samples per shard, None for up to 256 in four shards at least. `splits`: those
    that are taken, all where none is named. `annotations`: their form in files, "" for that of the contents.
    """

    format: OutputFormat | None = None
    where: str = ""
    drop: tuple[str, ...] = ()
    originals: float = 0.0
    balance: Balance = ""
    seed: int = 0
    shard_size: int | None = None
    splits: tuple[str, ...] = ()
    annotations: Form = ""

    def __post_init__(self) -> None:
        # not `0 <= share <= 1` negated, which NaN would pass
        if not 0 <= self.originals <= 1:
            raise ManifestError(
                f"--with-originals: found {self.originals:g}; accepted: a share from 0 to 1"
            )
        if not 0 <= self.seed < 2**63:
            raise ManifestError(f"--seed: found {self.seed}; accepted: 0 to 2^63 - 1")
        if self.balance not in ("", "style", "label"):
            raise ManifestError(f"--balance: found {self.balance!r}; accepted: style, label")
        if self.annotations not in get_args(Form):
            raise ManifestError(
                f"--annotations: found {self.annotations!r}; accepted: coco, voc, yolo"
            )
        if self.shard_size is not None and not 1 <= self.shard_size <= MOST_IN_A_SHARD:
            raise ManifestError(
                f"--shard-size: found {self.shard_size}; accepted: 1 to {MOST_IN_A_SHARD:,}"
            )


def read_keys(path: str) -> tuple[str, ...]:
    """The keys in a text file, one a line; empty lines and those that begin with `#` mean nothing.

    Raises ManifestError for a file that cannot be read.
    """
    keys: list[str] = []
    try:
        if not Path(path).is_file():
            raise ManifestError(
                f"--drop: {path}: found no such file; accepted: a text file with a key a line"
            )
        with open_text(path) as file:
            for number, line in enumerate(lines_of(file, path), 1):
                key = "" if line.startswith("#") else line.strip()
                if key and not key.isalnum():
                    raise ManifestError(
                        f"--drop: {path}: line {number}: found {key[:60]!r}; accepted: a key, such as 000000003"
                    )
                if key:
                    keys.append(key)
    except OSError as error:
        raise ManifestError(f"--drop: {path}: {error.strerror}; accepted: a text file") from None
    return tuple(dict.fromkeys(keys))
