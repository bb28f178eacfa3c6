"""Messages of the command line: results on standard output, each problem as one message (or JSON object) on standard error."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stylebatch.cli.json_lines import line
from stylebatch.errors import Interrupted, ManifestError
from stylebatch.masking import safe_text
from stylebatch.words import counted

if TYPE_CHECKING:
    from stylebatch.engine.run import RunResult
    from stylebatch.progress import Progress

_LONGEST = 1000


def print_problem(text: str, *, as_json: bool, exit_code: int | None = None) -> None:
    """Print a problem on standard error; with an `exit_code`, the error that ends the command."""
    if as_json:
        facts = {} if exit_code is None else {"exit_code": exit_code}
        print(
            line("problem" if exit_code is None else "error", safe_text(text), **facts),
            file=sys.stderr,
        )
    else:
        print(f"stylebatch: {text}", file=sys.stderr)  # a cleaned stream


def progress(*, as_json: bool) -> Progress:
    """The progress display of a verb."""
    from stylebatch.progress import JsonProgress, for_terminal

    return JsonProgress(sys.stderr) if as_json else for_terminal()


def print_result(result: RunResult, *, as_json: bool) -> int:
    """Print the result of a run; returns its exit code."""
    from stylebatch.progress import clock

    rate = (
        f", {result.num_attempted / result.seconds:.2f} samples/s" if result.num_attempted else ""
    )
    print(
        f"Went through {result.num_attempted:,} of {counted(result.num_samples, 'sample')} in {clock(result.seconds)}{rate}"
    )
    print("\n".join(result.report.lines()))
    for problem in result.problems():
        print_problem(problem, as_json=as_json)
    return result.exit_code


def end_of_dry_run() -> int:
    """Say that nothing was done; returns the exit code."""
    print("Dry run: nothing was written")
    return 0


@contextmanager
def naming(manifest: str, kept: str | None = None) -> Iterator[None]:
    """Inside, errors of a manifest name its file. `kept`: what an interruption leaves, if not committed shards."""
    try:
        yield
    except ManifestError as error:
        if manifest in str(error):  # errors of reading name it already
            raise
        raise ManifestError(f"{manifest}: {error}") from error
    except Interrupted as end:
        end.kept = kept or end.kept
        raise


def unexpected(error: BaseException) -> str:
    """The message of an unforeseen error: its kind, text and place, and the file with the traceback."""
    explained = traceback.TracebackException.from_exception(error)
    text = f"{type(error).__name__}: {explained}".strip(": \n")
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    place = ""
    if explained.stack:
        last = explained.stack[-1]
        place = f" ({last.filename}:{last.lineno})"
    return (
        f"unexpected {text}{place}\n{saved('full trace', ''.join(explained.format()))}. "
        "Next: report it with that trace; the same command continues the work"
    )


def saved(what: str, trace: str) -> str:
    """Save a traceback to a file. Returns `The WHAT is in FILE`, or the traceback if no file can be written."""
    try:
        # mkstemp makes it readable by its owner alone: a traceback may show paths and values
        handle, path = tempfile.mkstemp(prefix="stylebatch-trace-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(safe_text(trace))
    except OSError as error:
        return f"The {what} (no file can be written for it: {error.strerror}):\n{trace}"
    return f"The {what} is in {path}"
