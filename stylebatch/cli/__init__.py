"""The command line: `main` runs a verb and turns any exception into a message and an exit code."""

from __future__ import annotations

import faulthandler
import os
import select
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress

import typer

from stylebatch.cli.app import NAME, command
from stylebatch.cli.json_lines import FLAG, json_lines
from stylebatch.cli.messages import print_problem, saved, unexpected
from stylebatch.cli.process_end import keeping_code
from stylebatch.cli.streams import cleaned_streams
from stylebatch.errors import (
    Interrupted,
    LeaderFailedError,
    ManifestError,
    NoRunError,
    PlanChangedError,
    StylebatchError,
)

COMPLETION = "_STYLEBATCH_COMPLETE"
"""Set by a shell that asks for completions."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: what shells report for a program that this signal ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0 complete, 1 a check failed or an unexpected error, 2 bad input, 3 too many
    failed samples, 4 locked or changed plan, 5 storage, 130 or 143 interrupted)."""
    if argv is not None:
        return _run(list(argv), owns_process=False)
    if os.environ.get(COMPLETION):
        command().main(prog_name=NAME)  # ends this process
    kept = keeping_code()  # before libraries register what they do at exit
    return kept(_run(sys.argv[1:], owns_process=True))


def _run(words: list[str], *, owns_process: bool) -> int:
    as_json = FLAG in words
    with ExitStack() as stack:
        if as_json:
            stack.enter_context(json_lines(until_exit=owns_process))
        stack.enter_context(cleaned_streams())
        if owns_process:
            faulthandler.enable(2, all_threads=False)
        _configure_libraries()  # before any verb imports them
        try:
            code = _invoked(words)
            sys.stdout.flush()  # here a closed pipe can still be handled, at exit it prints a traceback
            return code
        except BaseException as error:  # noqa: BLE001 - the one place that turns every error into a message
            code, text = _ending(error, words)
            if text:
                print_problem(text, as_json=as_json, exit_code=code)
            return code


def _invoked(words: list[str]) -> int:
    try:
        context = command().make_context(NAME, words)
    except SystemExit as end:  # typer's --install-completion and --show-completion exit
        raise typer.Exit(int(end.code or 0)) from end
    with context:
        code: int = context.command.invoke(context)
    return code


def _ending(error: BaseException, words: list[str]) -> tuple[int, str]:
    """Exit code and message for the exception that ended a verb; "" if nothing should be printed."""
    if isinstance(error, LeaderFailedError | typer.Exit):
        return error.exit_code, ""
    if isinstance(error, typer.TyperException):
        return error.exit_code, _misuse(error, words)
    if isinstance(error, NoRunError):
        from stylebatch.survey.no_output import found_instead  # imports pyarrow and more

        with suppress(OSError):
            error = ManifestError(found_instead(error.place, words))
    if isinstance(error, PlanChangedError) and words[0] in ("run", "plan"):
        error.command = shlex.join([NAME, "run", *_of_run(words)])  # later options win over these
    if isinstance(error, StylebatchError):
        text = str(error)
        return error.exit_code, f"{text}\n{saved('trace', error.trace)}" if error.trace else text
    if isinstance(error, Interrupted):
        return (
            error.exit_code,
            f"interrupted; {error.kept}. Run the same command again to continue.",
        )
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted; run the same command again to continue"
    if isinstance(error, BrokenPipeError) and _stdout_is_closed():
        return BROKEN_PIPE, ""
    return 1, unexpected(error)


def _of_run(words: list[str]) -> Iterator[str]:
    """What was typed after `run` or `plan`, as far as `run` takes it."""
    rest = iter(words[1:])
    for word in rest:
        if word in ("--price", "--max-hours", "--max-bytes"):
            next(rest, None)
        elif word not in ("--json", "--dry-run") and not word.startswith(("--price=", "--max-")):
            yield word


def _misuse(error: typer.TyperException, words: list[str]) -> str:
    """What is wrong with the arguments, and the `--help` to read."""
    text = error.format_message().replace(
        "Value error, ", ""
    )  # pydantic's prefix, which typer passes on
    context: typer.Context | None = getattr(error, "ctx", None)
    verb = [word for word in words[:1] if word in command().commands]
    path = context.command_path if context else " ".join([NAME, *verb])
    verbs: Iterable[str] = getattr(context and context.command, "commands", ())
    accepted = f"Accepted: {', '.join(verbs)}. " if verbs else ""
    return f"{text}\n{accepted}Next: `{path} --help`"


def _stdout_is_closed() -> bool:
    """Whether the reader of standard output is gone; if so, output goes to /dev/null from here on."""
    poll = select.poll()
    poll.register(1, 0)
    if not poll.poll(0):  # errors and hang-ups are always reported, also for an empty event mask
        return False
    # The interpreter flushes standard output at exit and would report the broken pipe then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True


def _configure_libraries() -> None:
    """Set environment variables that libraries read when they are imported; values of the user stay."""
    for name, value in (
        ("TOKENIZERS_PARALLELISM", "false"),
        ("OMP_WAIT_POLICY", "PASSIVE"),  # spinning threads starve each other on a busy machine
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DIFFUSERS_VERBOSITY", "error"),
    ):
        os.environ.setdefault(name, value)
    if fault := os.environ.get("STYLEBATCH_FAULT"):
        from stylebatch.faults import arm

        arm(fault)
