"""Arguments that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

from stylebatch.cli.json_lines import FLAG
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.paths import require_place
from stylebatch.section import parse_bytes


def whole_number(text: str) -> int:
    """As `int`; typer's own message for a bad number does not show what is accepted."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"found {text!r}; accepted: a whole number") from None


def place(text: str) -> Folder:
    """The folder at a path or address. Raises ManifestError for an address that is no place in a store, as the manifest does."""
    try:
        return Folder.at(require_place(text))
    except ValueError as error:
        raise ManifestError(f"{text}: {error}") from None


def number(text: str) -> float:
    """As `float`, above 0 and finite."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < float("inf"):
        raise ValueError(f"found {text!r}; accepted: a number above 0")
    return found


def size_in_bytes(text: str) -> float:
    """As `parse_bytes`, above 0."""
    found = parse_bytes(text)
    if not found:
        raise ValueError(f"found {text!r}; accepted: a number of bytes above 0, such as 500MB")
    return found


Manifest = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST",
        help="YAML run specification, or CSV/TSV/JSONL/Parquet rows of content,style",
    ),
]
Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="output directory of a run")]
OutputInstead = Annotated[
    str | None,
    typer.Option("--output", metavar="DIR", help="output directory in place of the manifest's"),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="override a value, such as method.gamma=0.5",
        default_factory=list,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        parser=whole_number, metavar="N", help="Ray workers (as many as the cluster has room for)"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print as JSON")]
JsonLogs = Annotated[bool, typer.Option(FLAG, help="a JSON object per line on standard error")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="say what it would do; write and remove nothing")
]
