"""The command line. Heavy libraries are imported inside the verbs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stylebatch.doctor.arguments import add_doctor_arguments
from stylebatch.errors import Interrupted, LeaderFailedError, ManifestError, StylebatchError

if TYPE_CHECKING:
    from stylebatch.engine.run import RunResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0 complete, 1 a check failed, 2 bad input, 3 too many failed samples,
    4 locked or changed plan, 5 storage, 130 or 143 interrupted)."""
    args = _parser().parse_args(argv)
    _configure_libraries()
    try:
        code: int = args.verb(args)
        sys.stdout.flush()
        return code
    except LeaderFailedError as error:
        return error.exit_code
    except StylebatchError as error:
        manifest = getattr(args, "manifest", None)
        named = (
            manifest is None or not isinstance(error, ManifestError) or str(manifest) in str(error)
        )
        print(f"stylebatch: {'' if named else f'{manifest}: '}{error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as error:
        kept = {
            _train: "a checkpoint was written",
            _precompute: "styles that are written are kept, nothing partial was written",
        }.get(args.verb, "committed shards are kept, nothing partial was written")
        print(
            f"stylebatch: interrupted; {kept}. Run the same command again to continue.",
            file=sys.stderr,
        )
        return error.exit_code
    except KeyboardInterrupt:
        print("stylebatch: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stylebatch",
        description="Turn image datasets into stylised training datasets with diffusion models.",
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    run = verbs.add_parser(
        "run", help="render a manifest into its output directory, or continue an interrupted run"
    )
    _add_manifest(run)
    run.add_argument("--engine", metavar="E", help="auto, local, ray or accelerate")
    run.add_argument("--workers", type=int, metavar="N", help="Ray workers")
    run.add_argument(
        "--address", metavar="A", help="Ray cluster to join: auto, HOST:PORT, ray://HOST:PORT"
    )
    run.add_argument("--tracker", metavar="T", help="log progress to tensorboard or wandb too")
    run.add_argument(
        "--json-logs", action="store_true", help="a JSON object per line on standard error"
    )
    run.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="preview: N pairs spread over contents and styles, in OUTPUT-preview-N",
    )
    run.add_argument(
        "--retry-failed", action="store_true", help="render shards with failed samples again"
    )
    run.set_defaults(verb=_run)

    plan = verbs.add_parser("plan", help="what a run would do: pairs, shards, network evaluations")
    _add_manifest(plan)
    plan.add_argument("--json", action="store_true", help="print as JSON")
    plan.set_defaults(verb=_plan)

    precompute = verbs.add_parser(
        "precompute", help="invert the styles of a manifest into its style cache (features.cache)"
    )
    _add_manifest(precompute)
    precompute.set_defaults(verb=_precompute)

    verify = verbs.add_parser(
        "verify", help="read a whole output directory; exit 0 only if every sample is as committed"
    )
    verify.add_argument("output", type=Path, metavar="OUTPUT")
    verify.add_argument("--json", action="store_true", help="print as JSON")
    verify.set_defaults(verb=_verify)

    repair = verbs.add_parser(
        "repair", help="render again what is damaged or missing in an output directory"
    )
    repair.add_argument("output", type=Path, metavar="OUTPUT")
    repair.set_defaults(verb=_repair)

    report = verbs.add_parser(
        "report", help="totals, contact sheet and gallery of an output directory"
    )
    report.add_argument("output", type=Path, metavar="OUTPUT")
    report.set_defaults(verb=_report)

    doctor = verbs.add_parser("doctor", help="check a checkpoint, or this machine")
    add_doctor_arguments(doctor)
    doctor.set_defaults(verb=_doctor)

    conformance = verbs.add_parser(
        "conformance", help="run reference cases; exit 0 only if every tensor holds"
    )
    conformance.add_argument("cases", type=Path, nargs="+", metavar="CASE_DIR")
    conformance.set_defaults(verb=_conformance)

    cache = verbs.add_parser("cache", help="list, check or shrink a cache of inverted styles")
    _add_cache_verbs(cache)

    train = verbs.add_parser(
        "train", help="train or fine-tune a UNet or an autoencoder, or continue an interrupted run"
    )
    train.add_argument("manifest", metavar="CONFIG", help="YAML training config")
    _add_overrides(train)
    train.set_defaults(verb=_train)

    schema = verbs.add_parser("schema", help="print the JSON schema of manifests")
    schema.set_defaults(verb=_schema)
    return parser


def _add_cache_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    ls = verbs.add_parser("ls", help="its styles: size, last use, and what they were made of")
    ls.add_argument("--json", action="store_true", help="print as JSON")
    ls.set_defaults(verb=_cache_ls)

    verify = verbs.add_parser("verify", help="read all of it; exit 0 only if every style is whole")
    verify.add_argument(
        "--repair",
        action="store_true",
        help="set damaged styles aside, rebuild indexes, remove files of writers that stopped a day ago",
    )
    verify.set_defaults(verb=_cache_verify)

    gc = verbs.add_parser("gc", help="remove the least recently used styles that nobody reads")
    gc.add_argument(
        "--max-bytes", required=True, metavar="N", help="what may remain: 500MB, 20GiB, or bytes"
    )
    gc.set_defaults(verb=_cache_gc)

    for verb in (ls, verify, gc):
        verb.add_argument("cache", metavar="CACHE", help="its folder, or any fsspec URL")


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifest",
        metavar="MANIFEST",
        help="YAML run specification, or CSV/TSV/JSONL/Parquet rows of content,style",
    )
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="DIR", help="output directory in place of the manifest's"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value, such as method.gamma=0.5",
    )


def _run(args: argparse.Namespace) -> int:
    from stylebatch.manifest import load_spec

    engine = {
        "name": args.engine,
        "workers": args.workers,
        "address": args.address,
        "tracker": args.tracker,
    }
    given = [f"engine.{key}={value}" for key, value in engine.items() if value is not None]
    overrides = [*args.overrides, *given]
    spec = load_spec(args.manifest, overrides, output=args.output)

    from stylebatch.engine.run import run
    from stylebatch.progress import JsonProgress, for_terminal

    progress = JsonProgress(sys.stderr) if args.json_logs else for_terminal()
    main_process = os.environ.get("RANK", "0") == "0"
    result = run(
        spec,
        limit=args.limit,
        progress=progress if main_process else None,
        redo="failed" if args.retry_failed else "nothing",
    )
    return _conclude(result) if main_process else result.exit_code


def _conclude(result: RunResult) -> int:
    """Print what a run came to."""
    from stylebatch.progress import clock

    rate = (
        f", {result.num_attempted / result.seconds:.2f} samples/s" if result.num_attempted else ""
    )
    print(
        f"Went through {result.num_attempted} of {result.num_pairs} samples in {clock(result.seconds)}{rate}"
    )
    print("\n".join(result.report.lines()))
    for problem in result.problems():
        print(f"stylebatch: {problem}", file=sys.stderr)
    return result.exit_code


def _plan(args: argparse.Namespace) -> int:
    from stylebatch.data.generations import plan_generations
    from stylebatch.manifest import load_spec
    from stylebatch.store.inputs_record import history

    spec = load_spec(args.manifest, args.overrides, output=args.output)
    resolved = plan_generations(spec, history(Path(spec.output.path)))[-1]
    summary = resolved.summary() | {"output": resolved.spec.output.path, "model": resolved.model}
    if args.json:
        print(json.dumps(summary, indent=1))
        return 0
    if resolved.first_shard:
        print(
            f"{summary['output']} has {resolved.first_shard} shards of earlier inputs, which stay; of those added since:"
        )
    print("\n".join(resolved.lines()))
    print(f"output: {summary['output']} (plan {summary['digest'][:16]})")
    return 0


def _precompute(args: argparse.Namespace) -> int:
    from stylebatch.manifest import load_spec

    spec = load_spec(args.manifest, args.overrides, output=args.output)

    from stylebatch.engine.precompute import precompute
    from stylebatch.progress import clock, for_terminal

    done = precompute(spec, progress=for_terminal())
    failed = f", {done.num_failed} images cannot be used" if done.num_failed else ""
    print(
        f"{done.cache}: {done.num_built} styles written in {clock(done.seconds)}, {done.num_found} were there{failed}"
    )
    return 0


def _verify(args: argparse.Namespace) -> int:
    from stylebatch.store.verify import as_json, verify

    problems = list(verify(args.output))
    if args.json:
        print(as_json(problems))
        return 3 if problems else 0
    for problem in problems:
        print(problem.line())
    damaged = len({problem.shard for problem in problems} - {None})
    print(
        f"{args.output}: {damaged} shards are damaged or missing; next: stylebatch repair {args.output}"
        if damaged
        else f"{args.output}: {'every shard is as committed' if not problems else 'shards are sound'}"
    )
    return 3 if problems else 0


def _repair(args: argparse.Namespace) -> int:
    from stylebatch.engine.repair import repair
    from stylebatch.progress import for_terminal

    return _conclude(repair(args.output, progress=for_terminal()))


def _report(args: argparse.Namespace) -> int:
    from stylebatch.reports.report import report

    print("\n".join(report(args.output).lines()))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from stylebatch.doctor.verb import doctor

    return doctor(args, os.environ)


def _conformance(args: argparse.Namespace) -> int:
    from stylebatch.conformance import run_cases

    failed = compared = 0
    for folder in args.cases:
        found = 0
        for comparison in run_cases(folder):
            print(f"{folder.resolve().name}/{comparison.line()}", flush=True)
            found += 1
            failed += not comparison.ok
        if not found:
            raise ManifestError(
                f"{folder}: no expected tensor has a tolerance in options.json; nothing was compared"
            )
        compared += found
    print(f"{compared - failed} of {compared} tensors within tolerance")
    return 1 if failed else 0


def _cache_ls(args: argparse.Namespace) -> int:
    from stylebatch.cache_verbs import ls

    return ls(args.cache, as_json=args.json)


def _cache_verify(args: argparse.Namespace) -> int:
    from stylebatch.cache_verbs import verify

    return verify(args.cache, repair=args.repair)


def _cache_gc(args: argparse.Namespace) -> int:
    from stylebatch.cache_verbs import gc

    return gc(args.cache, args.max_bytes)


def _train(args: argparse.Namespace) -> int:
    missing = [name for name in ("datasets", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ManifestError(
            f"training needs {', '.join(missing)}; next: pip install 'stylebatch[train]'"
        )
    from stylebatch.training.verb import train

    return train(args, os.environ)


def _schema(args: argparse.Namespace) -> int:
    from stylebatch.spec import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0


def _configure_libraries() -> None:
    """Settings that libraries read from the environment when they load; what the user set stays."""
    for name, value in (
        ("TOKENIZERS_PARALLELISM", "false"),
        ("OMP_WAIT_POLICY", "PASSIVE"),  # spinning threads starve each other on a busy machine
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DIFFUSERS_VERBOSITY", "error"),
    ):
        os.environ.setdefault(name, value)
    if fault := os.environ.get("STYLEBATCH_FAULT"):
        from stylebatch.store.faults import arm

        arm(fault)
