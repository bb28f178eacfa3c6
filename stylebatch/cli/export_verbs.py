"""Verbs that make outputs of outputs; each returns the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stylebatch.cli.arguments import DryRun, JsonLogs, Output, place, whole_number
from stylebatch.cli.messages import end_of_dry_run, progress
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.words import counted

if TYPE_CHECKING:
    from stylebatch.export.export import ExportResult
    from stylebatch.spec.output import OutputFormat


def _formats() -> list[str]:
    return ["webdataset", "parquet", "files"]


def _targets() -> list[str]:
    return [*_formats(), "hub"]


def _columns() -> list[str]:
    return ["style", "label"]


def _forms() -> list[str]:
    return ["coco", "voc", "yolo"]


def share(text: str) -> float:
    """As `float`; typer's own message for a bad number does not show what is accepted."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"found {text!r}; accepted: a share from 0 to 1") from None


Into = Annotated[
    str, typer.Option("--output", metavar="DIR", help="output directory, or a place in a store")
]
ShardSize = Annotated[
    int | None,
    typer.Option(
        parser=whole_number,
        metavar="N",
        help="samples per shard (up to 256, in four shards at least)",
    ),
]


Splits = Annotated[
    list[str] | None,
    typer.Option("--split", metavar="NAME", help="take this split alone; may stand several times"),
]


def export(
    output: Output,
    *,
    to: Annotated[
        str,
        typer.Option(metavar="FORMAT", help=", ".join(_targets()), autocompletion=_targets),
    ],
    into: Annotated[
        str,
        typer.Option(
            "--output",
            metavar="DIR",
            help="output directory, place in a store, or OWNER/NAME of the hub",
        ),
    ],
    where: Annotated[
        str,
        typer.Option(
            metavar="EXPR", help='samples that fulfil it, such as "structure > 0.4" (SQL)'
        ),
    ] = "",
    drop: Annotated[
        str | None, typer.Option(metavar="FILE", help="leave out these keys, one a line")
    ] = None,
    with_originals: Annotated[
        float,
        typer.Option(
            parser=share,
            metavar="SHARE",
            show_default=False,
            help="add contents as samples, 0.5: one for two stylised",
        ),
    ] = 0.0,
    balance: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="leave as many of each style, or label, as the rarest has",
            autocompletion=_columns,
        ),
    ] = "",
    seed: Annotated[
        int,
        typer.Option(
            parser=whole_number, metavar="N", help="of what is left out and added for that"
        ),
    ] = 0,
    split: Splits = None,
    annotations: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            help="of objects with --to files: coco, voc, yolo (that of the contents)",
            autocompletion=_forms,
        ),
    ] = "",
    shard_size: ShardSize = None,
    hub_format: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="with --to hub", autocompletion=_formats),
    ] = "parquet",
    staging: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="with --to hub: where the export is made first (OUTPUT-hub)"
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="with --to hub: make a new repository private")
    ] = False,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """copy an output in another form, in part, balanced or with its contents"""
    from stylebatch.export.export import export, foresee_export
    from stylebatch.export.export_options import ExportOptions, read_keys

    is_hub = to == "hub"
    options = ExportOptions(
        format=_format(hub_format, "--hub-format") if is_hub else _format(to, "--to"),
        where=where,
        drop=read_keys(drop) if drop is not None else (),
        originals=with_originals,
        balance=balance,  # type: ignore[arg-type]  # checked there
        seed=seed,
        shard_size=shard_size,
        splits=tuple(split or ()),
        annotations=annotations,  # type: ignore[arg-type]  # checked there
    )
    shown = progress(as_json=json_logs)
    if dry_run:
        target = _staging(output, into, staging) if is_hub else place(into)
        if is_hub:
            print(f"Would upload to the hub: {into}, out of {target}")
        print("\n".join(foresee_export([place(output)], target, options, progress=shown)))
        return end_of_dry_run()
    if not is_hub:
        return print_export(export([place(output)], place(into), options, progress=shown))
    from stylebatch.export.upload import repository_of, staging_folder, upload

    repository, folder = repository_of(into), staging_folder(place(output), staging)
    print_export(export([place(output)], folder, options, progress=shown))
    uploaded = upload(folder, repository, private=private)
    print(f"{uploaded.url}: holds the export, {counted(uploaded.num_files, 'new file')}")
    return 0


def merge(
    outputs: Annotated[
        list[str], typer.Argument(metavar="OUTPUT...", help="output directories of runs")
    ],
    *,
    into: Into,
    to: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="if not that of the first", autocompletion=_formats),
    ] = None,
    split: Splits = None,
    shard_size: ShardSize = None,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """join outputs of the same columns into one"""
    from stylebatch.export.export import export, foresee_export
    from stylebatch.export.export_options import ExportOptions

    if len(outputs) < 2:
        raise ManifestError(f"merge: found {len(outputs)} output; accepted: two or more")
    options = ExportOptions(
        format=_format(to, "--to") if to is not None else None,
        shard_size=shard_size,
        splits=tuple(split or ()),
    )
    shown, given = progress(as_json=json_logs), [*map(place, outputs)]
    if dry_run:
        print("\n".join(foresee_export(given, place(into), options, progress=shown)))
        return end_of_dry_run()
    return print_export(export(given, place(into), options, progress=shown))


def _staging(output: str, into: str, staging: str | None) -> Folder:
    """Where an export for the hub is made first. Raises ManifestError for what names no repository."""
    from stylebatch.export.upload import repository_of, staging_folder

    repository_of(into)
    return Folder.at(staging_folder(place(output), staging))


def print_export(result: ExportResult) -> int:
    """Print what an export made; returns its exit code."""
    for line in result.told:
        print(f"{line[0].upper()}{line[1:]}")
    print("\n".join(result.report.lines()))
    return 0


def _format(text: str, option: str) -> OutputFormat:
    if text in _formats():
        return text  # type: ignore[return-value]
    accepted = _targets() if option == "--to" else _formats()
    hint = f". Next: `--to files --annotations {text.lower()}` writes these beside the pictures"
    raise ManifestError(
        f"{option}: found {text!r}; accepted: {', '.join(accepted)}{hint if text.lower() in _forms() else ''}"
    )
