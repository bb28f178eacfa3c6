"""The verb that evaluates whole outputs; it returns the exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from stylebatch.cli.arguments import AsJson, DryRun, place, whole_number
from stylebatch.cli.messages import end_of_dry_run, print_problem, progress
from stylebatch.errors import ManifestError
from stylebatch.words import counted


def evaluate(
    outputs: Annotated[
        list[str], typer.Argument(metavar="OUTPUT...", help="output directories of runs")
    ],
    *,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="pictures that results are compared with as a set, in place of the styles they were made from",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PLACE",
            help="weights of a measure: inception, art_inception, alexnet, lpips, vgg19 files; clip, dino folders",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(parser=whole_number, metavar="N", help="samples of each, drawn at random"),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(parser=whole_number, metavar="N", help="draws for intervals, 0 for none")
    ] = 200,
    device: Annotated[
        str, typer.Option(metavar="D", help="where networks run: cpu, cuda, cuda:1")
    ] = "cpu",
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="write evaluation.json, evaluation.md, pareto.png there"),
    ] = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> int:
    """ArtFID, FID, KID, LPIPS, CFSD and others of whole outputs, with intervals, and style against structure"""
    for name, number, least in (("--limit", limit, 1), ("--bootstrap", bootstrap, 0)):
        if number is not None and number < least:
            raise ManifestError(f"{name}: found {number}; accepted: {least} or more")
    given = _weights(weights or [])
    folders = [place(output) for output in outputs]

    from stylebatch.evaluation.evaluate import Request, evaluate, num_samples
    from stylebatch.evaluation.figure_tables import as_json as shown_as_json
    from stylebatch.evaluation.figure_tables import lines
    from stylebatch.evaluation.resampling import FEWEST_DRAWS
    from stylebatch.evaluation.written import FILES, require_free, write_evaluations

    if 0 < bootstrap < FEWEST_DRAWS:
        raise ManifestError(
            f"--bootstrap: found {bootstrap}, too few for an interval; accepted: 0 for none, or {FEWEST_DRAWS} or more"
        )
    target = None if to is None else place(to)
    if target is not None:  # before hours of work
        require_free(target)

    request = Request(given, against, limit, bootstrap, device)
    shown = progress(as_json=as_json)
    total = num_samples(folders, limit)
    if dry_run:
        print(f"Would look at {counted(total, 'picture')} of {', '.join(map(str, folders))}")
        if target is not None:
            print(f"Would write {', '.join(map(target.where, FILES))}")
        return end_of_dry_run()
    shown.begin(evaluations=total, samples=total, samples_done=0, unit="pictures")

    def on_picture() -> None:
        shown.advance(1)

    try:
        found = evaluate(folders, request, on_picture)
    finally:
        shown.end()
    # before anything is printed: a reader such as `head` may close the pipe
    notes = [] if target is None else write_evaluations(target, found)
    print(shown_as_json(found) if as_json else "\n".join(lines(found)))
    for note in notes:
        print_problem(note, as_json=as_json)
    if target is not None and not as_json:
        print(f"\nwritten: {target.where(FILES[1])}")
    faults = [fault for one in found for fault in one.faults]
    for fault in faults:
        print_problem(fault, as_json=as_json)
    return 3 if faults else 0


def _weights(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not file or name in found:
            raise ManifestError(
                f"--weights {text}: accepted: NAME=PLACE, each name once, such as vgg19=weights/vgg19.pth"
            )
        found[name] = file
    return found
