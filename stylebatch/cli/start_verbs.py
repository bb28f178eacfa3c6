"""`stylebatch init` and `inspect`: a manifest of what lies there, and what it is. Each returns the exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, get_args

import typer

from stylebatch.cli.arguments import AsJson, DryRun, whole_number
from stylebatch.cli.messages import end_of_dry_run, print_problem
from stylebatch.data.fit_modes import FitMode
from stylebatch.errors import ManifestError

Place = str | None


def _pairings() -> list[str]:
    return ["product", "sample", "zip"]


def _fit_modes() -> list[str]:
    return [*get_args(FitMode)]


def _part(help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="X", help=help)
    return option


def init(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER...]",
            help="photos and paintings, or a table of prompts or pairs; default: what is in this folder",
        ),
    ] = None,
    *,
    contents: Annotated[Place, _part("images that keep their structure")] = None,
    styles: Annotated[Place, _part("images that lend their style")] = None,
    prompts: Annotated[Place, _part("table of prompts")] = None,
    pairs: Annotated[Place, _part("table of content, style")] = None,
    annotations: Annotated[Place, _part("of the contents: COCO, Pascal VOC, YOLO")] = None,
    masks: Annotated[Place, _part("masks of the contents")] = None,
    segmentation: Annotated[Place, _part("label images of the contents")] = None,
    manifest: Annotated[
        str, typer.Option("--manifest", "-m", metavar="FILE", help="the file that is written")
    ] = "manifest.yaml",
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="output of the run (outputs/NAME)")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="name of the dataset")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="M", help="tiny, sd15, ..., a folder, or OWNER/NAME on the hub"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="M", help="styleid, stylealigned, text2img, img2img, inpaint"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="pixels per side")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="M", help=", ".join(_fit_modes()), autocompletion=_fit_modes),
    ] = None,
    pairing: Annotated[
        str | None,
        typer.Option(metavar="P", help=", ".join(_pairings()), autocompletion=_pairings),
    ] = None,
    per_content: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="styles of each content")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="S", help="a share for validation such as 0.2, source, or none"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="write over a manifest")] = False,
    dry_run: DryRun = False,
) -> int:
    """write a manifest of what lies there, with comments, and show its plan"""
    from stylebatch.manifest import YAML_SUFFIXES

    if not manifest.lower().endswith(YAML_SUFFIXES):
        raise ManifestError(
            f"--manifest: found {manifest!r}; accepted: a name that ends in {' or '.join(YAML_SUFFIXES)}"
        )
    from stylebatch.survey.presence import require_there
    from stylebatch.survey.roles import Places, assigned
    from stylebatch.survey.wishes import Wishes

    parts = {
        "contents": contents, "styles": styles, "prompts": prompts, "pairs": pairs,
        "annotations": annotations, "masks": masks, "segmentation": segmentation,
    }  # fmt: skip
    given = Places({part: place for part, place in parts.items() if place is not None})
    for place in (*given.by_part.values(), *(places or [])):
        require_there(place)
    _require_free(manifest, force=force)
    found = assigned(given, places or [], _ask)
    wishes = Wishes(manifest, name, output, model, method, size, mode, pairing, per_content, split)
    from stylebatch.cli.started import write_manifest

    write_manifest(found, wishes, force=force, dry_run=dry_run)
    return end_of_dry_run() if dry_run else 0


def _require_free(manifest: str, *, force: bool) -> None:
    if os.path.lexists(manifest) and not (force and os.path.isfile(manifest)):
        what = "a folder" if os.path.isdir(manifest) else "a file"
        step = "name another one with --manifest FILE" + (
            "" if os.path.isdir(manifest) else ", or write over it with --force"
        )
        raise ManifestError(
            f"{manifest}: found {what} of that name, which is not written over; accepted: a new file. Next: {step}"
        )


def _ask(question: str, choices: Sequence[str]) -> str | None:
    """What a person at the terminal says, one of the choices where there are some; None where nobody is there, or says nothing."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    if not choices:
        text: str = typer.prompt(
            question, default="", show_default=False, prompt_suffix=" ", err=True
        )
        return text.strip() or None
    numbered = "".join(f"\n  {number}  {choice}" for number, choice in enumerate(choices, 1))

    def meant(text: str) -> str:
        if text in choices:
            return text
        if not text.isdecimal() or not 1 <= int(text) <= len(choices):
            raise typer.BadParameter(f"found {text!r}; accepted: 1 to {len(choices)}")
        return choices[int(text) - 1]

    chosen: str = typer.prompt(f"{question}{numbered}\nNumber", value_proc=meant, err=True)
    return chosen


def inspect(
    place: Annotated[
        str,
        typer.Argument(
            metavar="X",
            help="file, folder, pattern such as 'shards/{00..99}.tar', or address such as s3://bucket/photos",
        ),
    ],
    *,
    rows: Annotated[
        int, typer.Option(parser=whole_number, metavar="N", help="records that are shown")
    ] = 3,
    as_json: AsJson = False,
) -> int:
    """what a file, folder, table, shard, output, cache, model or manifest is"""
    from stylebatch.survey.inspection import inspect

    found = inspect(place, max(0, rows))
    if as_json:
        print(json.dumps(found.as_json(), indent=1, default=str))
    else:
        print("\n".join(found.lines()))
        for problem in found.problems:
            print_problem(problem, as_json=False)
    return 1 if found.problems else 0
