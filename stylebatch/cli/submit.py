"""`stylebatch submit`: checks a manifest here, runs it as a job of a Ray cluster, and returns the exit code of the run.

Manifest, inputs, output and caches must lie at the same absolute paths on all machines. The same command resumes.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stylebatch.cli.json_lines import FLAG, as_line, line
from stylebatch.cli.messages import print_problem
from stylebatch.engine.submission import Job
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.masking import safe_text


@dataclass(frozen=True)
class Submission:
    """The arguments of the run on the cluster."""

    manifest: str
    overrides: Sequence[str]
    output: str | None
    workers: int | None
    json_logs: bool


def submit(submission: Submission, address: str, python: str | None) -> int:
    """Submit, follow, and return the exit code."""
    job = Job(address)
    words = _words(submission)
    try:
        job.submit(_entrypoint(words, python))
        _say_submitted(job.name, shlex.join(words), as_json=submission.json_logs)
        with _shown(as_json=submission.json_logs) as show:
            code, reason = job.follow(show)
    except KeyboardInterrupt:
        if job.name:
            hint = f"--address {job.address} {job.name}`"
            # Ctrl-C stops following, not the job
            text = f"{job.name} goes on. Follow: `ray job logs --follow {hint}; stop: `ray job stop {hint}"
            print_problem(text, as_json=submission.json_logs)
        return 130
    if reason:
        print_problem(reason, as_json=submission.json_logs, exit_code=code)
    return code


def command_of(submission: Submission) -> str:
    """What the cluster would run. Raises ManifestError for a manifest that is refused here."""
    return shlex.join(_words(submission))


def _words(submission: Submission) -> list[str]:
    """The command for the cluster, with absolute paths. Raises ManifestError for a manifest that is refused here."""
    try:
        spec = load_spec(submission.manifest, submission.overrides, output=submission.output)
    except ManifestError as error:
        raise ManifestError(
            f"{error}\nThe manifest and its inputs must be visible here and on all nodes, at the same absolute paths "
            "(shared storage)."
        ) from error
    manifest, output = Path(submission.manifest).absolute(), _absolute(spec.output.path)
    words = ["stylebatch", "run", str(manifest), "--output", output]
    words += ["--engine", "ray", "--address", "auto"]
    words += ["--workers", str(submission.workers)] if submission.workers else []
    cache = [f"features.cache={_absolute(spec.features.cache)}"] if spec.features.cache else []
    words += [word for text in (*submission.overrides, *cache) for word in ("--set", text)]
    return [*words, FLAG] if submission.json_logs else words


def _entrypoint(words: list[str], python: str | None) -> str:
    """The shell command. Without `python`, this interpreter's path if it exists on the head, else `python` there."""
    module = f"-m {shlex.join(words)}"
    if python is not None:
        return f"exec {shlex.quote(python)} {module}"
    return f'exec "$(command -v {shlex.quote(sys.executable)} || echo python)" {module}'


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _say_submitted(job: str, command: str, *, as_json: bool) -> None:
    text = f"Submitted {job}: {command}"
    said = line("submitted", safe_text(text), job=job) if as_json else text
    print(said, file=sys.stderr, flush=True)


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[str], None]]:
    """Prints what the job writes, both of its streams: as it comes, or each line as a JSON object.

    The cluster passes on pieces, which may end anywhere in a line.
    """
    if not as_json:
        yield lambda text: print(text, end="", flush=True)
        return
    rest = ""

    def show(text: str) -> None:
        nonlocal rest
        *whole, rest = re.split(r"[\r\n]", rest + text)
        for one in whole:
            if said := as_line(one):
                print(said, flush=True)

    try:
        yield show
    finally:
        show("\n")
