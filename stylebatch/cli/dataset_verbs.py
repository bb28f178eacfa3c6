"""Verbs that make datasets; each returns the exit code.

Here and in the modules beside this one, verbs import heavy libraries inside, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from stylebatch.cli.arguments import (
    AsJson,
    DryRun,
    JsonLogs,
    Manifest,
    OutputInstead,
    Overrides,
    Workers,
    number,
    size_in_bytes,
    whole_number,
)
from stylebatch.cli.messages import end_of_dry_run, naming, print_result, progress
from stylebatch.words import counted


def _engines() -> list[str]:
    return ["auto", "local", "ray", "accelerate"]


def _trackers() -> list[str]:
    return ["tensorboard", "wandb"]


def run(
    manifest: Manifest,
    *,
    overrides: Overrides,
    output: OutputInstead = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="E", help=", ".join(_engines()), autocompletion=_engines),
    ] = None,
    workers: Workers = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="A", help="Ray cluster to join: auto, HOST:PORT, ray://HOST:PORT"),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="log progress to tensorboard or wandb too",
            autocompletion=_trackers,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            parser=whole_number,
            metavar="N",
            help="serve the run's status to Prometheus there; 0: on a free port",
        ),
    ] = None,
    json_logs: JsonLogs = False,
    limit: Annotated[
        int | None,
        typer.Option(
            parser=whole_number,
            metavar="N",
            help="preview: N samples spread over classes and inputs, in OUTPUT-preview-N",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="render shards with failed samples again")
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """render a manifest into its output directory, or continue an interrupted run"""
    from stylebatch.manifest import load_spec

    settings = {
        "name": engine,
        "workers": workers,
        "address": address,
        "tracker": tracker,
        "metrics_port": metrics_port,
    }
    given = [f"engine.{key}={value}" for key, value in settings.items() if value is not None]
    with naming(manifest):
        spec = load_spec(manifest, [*overrides, *given], output=output)
        main_process = os.environ.get("RANK", "0") == "0"
        if dry_run:
            from stylebatch.cli.planned import foretell

            if main_process:
                foretell(spec, limit=limit, retry_failed=retry_failed)
            return end_of_dry_run() if main_process else 0

        # after the manifest is read: a bad one is refused before torch is imported
        from stylebatch.engine.run import run

        # under `accelerate launch` or torchrun every rank runs this; the first reports
        result = run(
            spec,
            limit=limit,
            progress=progress(as_json=json_logs) if main_process else None,
            redo="failed" if retry_failed else "nothing",
        )
    return print_result(result, as_json=json_logs) if main_process else result.exit_code


def plan(
    manifest: Manifest,
    *,
    overrides: Overrides,
    output: OutputInstead = None,
    price: Annotated[
        float | None,
        typer.Option(
            parser=number, metavar="P", help="of a device's hour, to tell the cost of the run"
        ),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(parser=number, metavar="H", help="refuse (exit 2) a run that takes longer"),
    ] = None,
    max_bytes: Annotated[
        float | None,
        typer.Option(
            parser=size_in_bytes,
            metavar="B",
            help="refuse (exit 2) a run that writes more, such as 20GB",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """what a run would do: pairs, shards, network evaluations, hours and bytes"""
    from stylebatch.manifest import load_spec

    with naming(manifest):
        spec = load_spec(manifest, overrides, output=output)

        # after the manifest is read: a bad one is refused before anything slow is imported
        from stylebatch.cli.planned import Bounds, tell

        tell(spec, Bounds(price, max_hours, max_bytes), as_json=as_json)
    return 0


def precompute(
    manifest: Manifest,
    *,
    overrides: Overrides,
    output: OutputInstead = None,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """invert the styles of a manifest into its style cache (features.cache)"""
    from stylebatch.manifest import load_spec

    with naming(manifest, kept="styles that are written are kept, nothing partial was written"):
        spec = load_spec(manifest, overrides, output=output)

        from stylebatch.engine.precompute import precompute
        from stylebatch.progress import clock

        done = precompute(spec, progress=progress(as_json=json_logs), dry_run=dry_run)
    failed = f", {counted(done.num_failed, 'image')} cannot be used" if done.num_failed else ""
    if dry_run:
        missing = counted(done.num_built, "style")
        print(f"{done.cache}: would write {missing}, {done.num_found} are there{failed}")
        return end_of_dry_run()
    built = f"{counted(done.num_built, 'style')} written in {clock(done.seconds)}"
    print(f"{done.cache}: {built}, {done.num_found} were there{failed}")
    return 0


def submit(
    manifest: Manifest,
    *,
    overrides: Overrides,
    address: Annotated[
        str, typer.Option(metavar="URL", help="http://HEAD:8265, the head's dashboard")
    ],
    output: OutputInstead = None,
    workers: Workers = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="the cluster's Python (default: this one if the head has it, else `python`)",
        ),
    ] = None,
    json_logs: JsonLogs = False,
    dry_run: DryRun = False,
) -> int:
    """run a manifest as a job of a Ray cluster, and follow it to its exit code"""
    from stylebatch.cli.submit import Submission, command_of, submit

    with naming(manifest):
        job = Submission(manifest, overrides, output, workers, json_logs=json_logs)
        if dry_run:
            print(f"Would submit to {address}: {command_of(job)}")
            return end_of_dry_run()
        return submit(job, address, python)


def schema() -> int:
    """print the JSON schema of manifests"""
    from stylebatch.spec import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0
