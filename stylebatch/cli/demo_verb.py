"""`stylebatch demo`: the first run, from nothing but the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from stylebatch.cli.arguments import DryRun, JsonLogs, OutputInstead, Overrides
from stylebatch.cli.dataset_verbs import run
from stylebatch.cli.messages import end_of_dry_run
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.words import counted

MANIFEST = "demo.yaml"


def demo(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="where the manifest and its pictures go")
    ] = "manifests",
    *,
    overrides: Overrides,
    output: OutputInstead = None,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """copy the demo's manifest and 12 pictures into FOLDER, and render them: 6 x 6 pairs on the embedded model"""
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise ManifestError(f"{folder}: found a file; accepted: a folder, new or not")
    missing = _missing(Folder.at(place))
    if dry_run:
        print(
            f"{place}: would write {counted(len(missing), 'file')}, and render {place / MANIFEST}"
        )
        return end_of_dry_run()
    for name, data in missing.items():
        Folder.at(place).write(name, data)
    if copied := len(missing):
        print(
            f"{place / MANIFEST}, {place / 'demo'}: {counted(copied, 'file')} written; yours to change"
        )
    return run(str(place / MANIFEST), overrides=overrides, output=output, json_logs=json_logs)


def _missing(place: Folder) -> dict[str, bytes]:
    """Files that are not there yet. Raises ManifestError where another file has a name of the demo's."""
    examples = dict(_files(files("stylebatch") / "examples"))
    present = {name: place.read(name) for name in examples if place.facts(name) is not None}
    for name, data in present.items():
        if data != examples[name]:
            raise ManifestError(
                f"{place.where(name)}: found a file that is not the demo's, which stays as it is. "
                f"Next: `stylebatch run {place.where(MANIFEST)}` for a demo that you changed, or name another folder"
            )
    return {name: data for name, data in examples.items() if name not in present}


def _files(folder: Traversable, before: str = "") -> Iterator[tuple[str, bytes]]:
    """Names below `folder`, and what the files hold."""
    for one in folder.iterdir():
        if one.is_dir():
            yield from _files(one, f"{before}{one.name}/")
        else:
            yield before + one.name, one.read_bytes()
