"""The verb that adds measures by a network to a finished output; it returns the exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from stylebatch.cli.arguments import DryRun, JsonLogs, Output, place
from stylebatch.cli.messages import end_of_dry_run, progress
from stylebatch.errors import ManifestError


def measure(
    output: Output,
    *,
    add: Annotated[
        list[str],
        typer.Option(
            metavar="NAME,...", help="measures: agreement, feature_content, feature_style"
        ),
    ],
    classifier: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="a transformers classifier's folder or FILE.py:FUNCTION, in place of EfficientNet-Lite0",
        ),
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=CLASS",
            help="class of the classifier that a label stands for; may stand several times",
        ),
    ] = None,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """add measures by a network to the records of a finished output; its pictures are not touched"""
    names = [name.strip() for text in add for name in text.split(",") if name.strip()]
    labels = dict(map(_label, label or ()))

    from stylebatch.engine.measure_output import foresee, measure_output

    if dry_run:
        print(foresee(place(output), names, classifier=classifier, labels=labels))
        return end_of_dry_run()
    done = measure_output(
        place(output),
        names,
        classifier=classifier,
        labels=labels,
        progress=progress(as_json=json_logs),
    )
    print("\n".join(done.lines()))
    return done.exit_code


def _label(text: str) -> tuple[str, str | int]:
    """`cat=tabby`, or `cat=281`."""
    name, equals, value = text.rpartition("=")
    if not equals or not name or not value:
        raise ManifestError(f"--label: found {text!r}; accepted: LABEL=CLASS, such as dog=beagle")
    return name, int(value) if value.isdecimal() else value
