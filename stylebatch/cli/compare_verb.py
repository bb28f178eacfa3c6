"""The verb that renders variants of a manifest side by side; it returns the exit code."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from stylebatch.cli.arguments import AsJson, DryRun, JsonLogs, Manifest, Overrides, whole_number
from stylebatch.cli.messages import end_of_dry_run, naming, print_problem, progress
from stylebatch.errors import ManifestError


def compare(
    manifest: Manifest,
    *,
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=A,B,C",
            help="values of a field, such as method.gamma=0.3,0.6,0.9; of several fields all combinations",
        ),
    ],
    overrides: Overrides,
    limit: Annotated[
        int,
        typer.Option(
            parser=whole_number,
            metavar="N",
            help="samples of each variant, spread over classes and inputs",
        ),
    ] = 8,
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="where the comparison goes (OUTPUT-compare)"),
    ] = None,
    as_json: AsJson = False,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """render variants of a manifest on the same few samples, as one picture and a table of measures"""
    from stylebatch.engine.cleaning import COMPARED
    from stylebatch.engine.variants import variants_of

    with naming(manifest, kept="variants that are rendered are kept"):
        variants, notes = variants_of(manifest, vary, overrides)
        if limit < 1:
            raise ManifestError(f"--limit: found {limit}; accepted: 1 or more")
        shown = progress(as_json=json_logs or as_json)
        for note in notes:
            print_problem(note, as_json=json_logs or as_json)

        # after the manifest is read: a bad one is refused before torch is imported
        from stylebatch.engine.compare import compare as render
        from stylebatch.engine.compare import foresee

        place = output or f"{variants[0].spec.output.path.rstrip('/')}{COMPARED}"
        if dry_run:
            print("\n".join(foresee(variants, place, limit=limit, progress=shown)))
            return end_of_dry_run()
        made = render(variants, place, limit=limit, progress=shown)
    if as_json:
        print(json.dumps(made.table.document(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(made.table.lines()))
        print(f"picture: {made.picture}\nsamples: {made.output.where('comparison.csv')}")
    return made.exit_code
