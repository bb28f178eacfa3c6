"""Standard error as JSON: while `json_lines` is open, each line written there becomes a JSON object.

Libraries, warnings, C++ and a crashing interpreter write to the file descriptor, not to `sys.stderr`. So the descriptor leads
to a small process, this file run as a script, which also survives a crash. Lines that are JSON objects already stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

FLAG = "--json-logs"
_LONGEST = 1 << 20
_MARK = b"\0all before this is written?"
"""A line that the process answers with a dot once it has written everything before it."""
_ANSWER_S = 10.0


@contextmanager
def json_lines(*, until_exit: bool) -> Iterator[None]:
    """`until_exit`: lines written after the block become JSON too, until the process ends."""
    former = os.dup(2)
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],  # -S: without site-packages it starts in milliseconds
        # a session of its own: Ctrl-C would end it before the messages that the interrupted run writes
        stdin=readable, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    os.close(readable)
    sys.stderr.flush()
    os.dup2(writable, 2)
    os.close(writable)
    try:
        yield
    finally:
        sys.stderr.flush()
        _await(process)
        if not until_exit:
            os.dup2(former, 2)
            process.communicate()
        os.close(former)


def line(event: str, text: str, **facts: object) -> str:
    """A JSON line with the time, an event and its text."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "event": event, "text": text, **facts})


def as_line(text: str) -> str:
    """A line of other programs as a JSON line, "" where it is empty; one that is a JSON object already stays as it is."""
    text = text.strip()
    if not text:
        return ""
    try:
        is_event = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_event = False
    return text if is_event else line("log", text)


def _await(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has written every line so far: whoever waits for us to end reads them next."""
    with suppress(OSError):
        os.write(2, b"\n" + _MARK + b"\n")
        assert process.stdout is not None
        if select.select([process.stdout], [], [], _ANSWER_S)[0]:
            os.read(process.stdout.fileno(), 1)


def _pass_on(raw: bytes) -> None:
    if raw == _MARK:
        os.write(1, b".")
        return
    text = as_line(raw.decode("utf-8", "replace"))
    left = memoryview(f"{text}\n".encode() if text else b"")
    while left:
        left = left[os.write(2, left) :]


def _main() -> None:
    """Read standard input to its end. Signals are ignored: the writing process handles them and may still report."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = re.split(rb"[\r\n]", rest + data)
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], b""
        for raw in lines:
            with suppress(OSError):  # nobody reads; go on, or the writer would block on a full pipe
                _pass_on(raw)
    with suppress(OSError):
        _pass_on(rest)


if __name__ == "__main__":
    _main()
