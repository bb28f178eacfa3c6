"""Verbs about models; each returns the exit code."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from stylebatch.cli.arguments import AsJson, DryRun, OutputInstead, Overrides, whole_number
from stylebatch.cli.messages import end_of_dry_run, naming
from stylebatch.errors import ManifestError


def _models() -> list[str]:
    return ["tiny", "sd14", "sd15", "sd21-base", "sd21", "sdxl"]


def _dtypes() -> list[str]:
    return ["auto", "float32", "float16", "bfloat16"]


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="a known name, a pipeline folder, a .safetensors file, a hub id, or a manifest with its `model`; without it, this "
            "machine is checked",
            autocompletion=_models,
        ),
    ] = None,
    *,
    config: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="folder with the configs and tokenizers of a single file"),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="V", help="variant of the weights, such as fp16")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="auto, float32, float16 or bfloat16", autocompletion=_dtypes
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            parser=whole_number,
            metavar="PX",
            help="pixels per side for which memory and speed are given",
        ),
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="read files only: load nothing, measure no speed")
    ] = False,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> int:
    """check a checkpoint, or this machine"""
    from stylebatch.doctor.model import Measure
    from stylebatch.doctor.printing import doctor_machine, doctor_model

    if model is None:
        return doctor_machine(os.environ, as_json=as_json)
    given = {"config": config, "variant": variant, "dtype": dtype}
    options = {key: value for key, value in given.items() if value is not None}
    measure: Measure = "no" if no_measure else "unkept" if dry_run else "kept"
    return doctor_model(model, options, size=size, measure=measure, as_json=as_json)


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML training config")],
    *,
    overrides: Overrides,
    output: OutputInstead = None,
    dry_run: DryRun = False,
) -> int:
    """train or fine-tune a UNet or an autoencoder, or continue an interrupted run"""
    # checked before anything is imported: an ImportError would not name the extra
    missing = [name for name in ("datasets", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ManifestError(
            f"training needs {', '.join(missing)}; next: pip install 'stylebatch[train]'"
        )
    from stylebatch.manifest import load_document
    from stylebatch.progress import Progress, for_terminal
    from stylebatch.training import trainer
    from stylebatch.training.spec import TrainSpec, join_inputs

    main_process = os.environ.get("RANK", "0") == "0"  # the other ranks print nothing
    with naming(config, kept="a checkpoint was written"):
        spec = load_document(config, overrides, TrainSpec, join_inputs, output=output)
        if dry_run:
            if main_process:
                print(trainer.foresee(spec))
            return end_of_dry_run() if main_process else 0
        result = trainer.train(spec, for_terminal() if main_process else Progress())
    if main_process:
        measures = ", ".join(f"{name} {value:.4g}" for name, value in result.measures.items())
        # none where the last step was taken before
        print(
            f"Trained {spec.stage} for {result.steps} steps"
            + (f" ({measures})" if measures else "")
        )
        print(f"{result.model}: use it as `model: {{path: {result.model}}}`")
    return 0


def conformance(
    cases: Annotated[list[Path], typer.Argument(metavar="CASE_DIR", help="folders of cases")],
) -> int:
    """run reference cases; exit 0 only if every tensor holds"""
    from stylebatch.conformance import run_cases

    failed = compared = 0
    for folder in cases:
        found = 0
        for comparison in run_cases(folder):
            print(f"{folder.resolve().name}/{comparison.line()}", flush=True)
            found += 1
            failed += not comparison.ok
        if not found:  # or a case whose tolerances match nothing would pass
            raise ManifestError(
                f"{folder}: no expected tensor has a tolerance in options.json; nothing was compared"
            )
        compared += found
    print(f"{compared - failed} of {compared} tensors within tolerance")
    return 1 if failed else 0
