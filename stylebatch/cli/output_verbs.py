"""Verbs about output directories; each returns the exit code."""

from __future__ import annotations

import webbrowser
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from stylebatch.cli.arguments import AsJson, DryRun, JsonLogs, Output, place, whole_number
from stylebatch.cli.export_verbs import print_export
from stylebatch.cli.messages import end_of_dry_run, print_problem, print_result, progress
from stylebatch.folder import Folder
from stylebatch.words import counted

if TYPE_CHECKING:
    from stylebatch.store.output_record import RunRecord


def verify(output: Output, *, as_json: AsJson = False) -> int:
    """read a whole output directory; exit 0 only if every sample is as committed"""
    from stylebatch.store import verify as checks  # the verb has the module's name
    from stylebatch.store.previews import mending

    folder = place(output)
    is_live, record = _run_state(folder)
    if is_live and record is None:  # a run has just begun: nothing to read yet
        return 0
    problems = list(checks.verify(folder, is_live=is_live))
    if as_json:
        print(checks.as_json(problems))
        return 3 if problems else 0
    for problem in problems:
        print(problem.line())
    damaged = checks.num_damaged(problems)
    next_step = "when the run has ended, " * is_live + mending(
        str(folder), record.limit if record else None
    )
    sound = "every committed shard" if is_live else "every shard"
    print(
        f"{folder}: {counted(damaged, 'shard')} damaged or missing; next: {next_step}"
        if damaged
        else f"{folder}: {f'{sound} is as committed' if not problems else 'shards are sound'}"
    )
    return 3 if problems else 0


def repair(output: Output, *, json_logs: JsonLogs = False, dry_run: DryRun = False) -> int:
    """render (or export) again what is damaged or missing in an output"""
    from stylebatch.store.output_record import read_run

    folder, shown = place(output), progress(as_json=json_logs)
    is_export = read_run(folder).export is not None
    if dry_run:
        return _foretell_repair(folder, is_export=is_export)
    if is_export:
        from stylebatch.export.export import repair_export

        return print_export(repair_export(folder, progress=shown))
    from stylebatch.engine.repair import repair

    return print_result(repair(folder, progress=shown), as_json=json_logs)


def _foretell_repair(folder: Folder, *, is_export: bool) -> int:
    from stylebatch.engine.repair import require_repairable
    from stylebatch.store.verify import num_damaged, verify

    if not is_export:
        require_repairable(folder)
    problems = list(verify(folder))
    for problem in problems:
        print(problem.line())
    verb = "copy" if is_export else "render"
    print(f"{folder}: would {verb} {counted(num_damaged(problems), 'shard')} again")
    return end_of_dry_run()


def report(output: Output, *, dry_run: DryRun = False) -> int:
    """totals, contact sheet and gallery of an output directory"""
    from stylebatch.reports.committed import NothingCommittedError
    from stylebatch.reports.report import WRITTEN, foresee, report

    folder = place(output)
    if dry_run:
        print(f"{foresee(folder)}: would write {', '.join(map(folder.where, WRITTEN))}")
        return end_of_dry_run()
    is_live, record = _run_state(folder)
    if is_live and record is None:  # a run has just begun: nothing to read yet
        return 0
    try:
        print("\n".join(report(folder).lines(is_live=is_live)))
    except NothingCommittedError:
        if not is_live:
            raise
    return 0


def view(
    output: Output,
    *,
    port: Annotated[
        int,
        typer.Option(parser=whole_number, metavar="N", show_default="any", help="of 127.0.0.1"),
    ] = 0,
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="where marked samples are written, for `export --drop` (keys.txt here)",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="open it in a browser")] = False,
) -> int:
    """look through an output in a browser of this machine, also while a run writes it; Ctrl-C ends it"""
    from stylebatch.viewer.serving import serve

    def ready(url: str) -> None:
        print(f"{output}: {url}", flush=True)
        if browser:
            webbrowser.open(url)

    return serve(place(output), port=port, keys=keys, ready=ready)


def _run_state(output: Folder) -> tuple[bool, RunRecord | None]:
    """Whether a run writes there now, and its record, None before that is written; prints who holds the lock, if anybody."""
    from stylebatch.monitoring.pulse import Pulse
    from stylebatch.store.lock_owner import activity
    from stylebatch.store.output_record import find_run

    record = find_run(output)
    pulse = Pulse(output, partial(print_problem, as_json=False))
    lock = activity(output, record, pulse.is_live)
    if lock is not None:
        print_problem(f"{output}: {lock.text}", as_json=False)
    return lock is not None and lock.is_live, record
