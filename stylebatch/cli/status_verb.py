"""`stylebatch status`: how far a run is, once or again and again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from stylebatch.cli.arguments import AsJson, Output, place
from stylebatch.cli.messages import print_problem
from stylebatch.errors import ManifestError, NoRunError
from stylebatch.masking import safe_text

if TYPE_CHECKING:
    from stylebatch.monitoring.status import Status, StatusReader

EVERY_S, REMOTE_EVERY_S = 2.0, 10.0
"""Between two looks; a store takes a request for every thousand names."""
MOST_OF_THE_TIME = 10
"""A look may take one part in so many of the time."""
BEGINS_WITHIN_S = 60
"""How long a watch waits where nothing is there: a run plans before it writes anything."""


def status(
    output: Output,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="look again every few seconds until nobody writes it")
    ] = False,
    as_json: AsJson = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="print as metrics of Prometheus")
    ] = False,
) -> int:
    """how far a run is, and whether it lives; exit 0 finished, 4 live, 3 interrupted, dead, damaged or with too many failures"""
    from stylebatch.monitoring.status import StatusReader

    if prometheus and (as_json or watch):
        other = "--json" if as_json else "--watch"
        raise ManifestError(f"--prometheus: found {other} too; accepted: one of them")
    reader = StatusReader(place(output), partial(print_problem, as_json=False))
    if watch:
        every_s = EVERY_S if reader.output.local is not None else REMOTE_EVERY_S
        _await_run(reader)
        return _watch(reader.look, every_s, as_json=as_json)
    found = reader.look()
    if prometheus:
        from stylebatch.monitoring.metrics import exposition

        print(exposition(found), end="")
    elif as_json:
        from stylebatch.monitoring.wording import as_dict

        print(json.dumps(as_dict(found), indent=1))
    else:
        from stylebatch.monitoring.wording import lines

        print("\n".join(lines(found)))
    return found.exit_code


def _await_run(reader: StatusReader) -> None:
    """Wait for a run that is about to begin, where nothing is there as yet. Raises NoRunError where none does."""
    from stylebatch.survey.no_output import is_awaited

    until, is_told = time.monotonic() + BEGINS_WITHIN_S, False
    while True:
        try:
            reader.look()
            return
        except NoRunError:
            if time.monotonic() > until or not is_awaited(reader.output.shown):
                raise
        if not is_told:
            text = f"{reader.output}: nothing is there yet; waiting up to {BEGINS_WITHIN_S} s for a run to begin"
            print_problem(text, as_json=False)
            is_told = True
        time.sleep(EVERY_S)


def _watch(look: Callable[[], Status], every_s: float, *, as_json: bool) -> int:
    """Show each look until nobody writes; the exit code of the last one. Ctrl-C ends it with 130."""
    try:
        with _shown(as_json=as_json) as show:
            while True:
                began = time.monotonic()
                found = look()
                show(found)
                if found.state != "live":
                    return found.exit_code
                time.sleep(max(every_s, MOST_OF_THE_TIME * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return 130


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[Status], None]]:
    """Shows a status in place of the one before on a terminal, as a line of its own elsewhere."""
    from stylebatch.monitoring.wording import as_dict, lines, one_line

    if as_json:
        yield lambda found: print(json.dumps(as_dict(found)), flush=True)
    elif not sys.stdout.isatty():
        last = ""

        def print_line(found: Status) -> None:
            nonlocal last
            if (text := one_line(found)) != last:
                print(text, flush=True)
            last = text

        yield print_line
    else:
        # imported here: it takes long, and only a terminal needs it
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=getattr(sys.stdout, "bare", sys.stdout))
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as screen:
            yield lambda found: screen.update(
                Text("\n".join(map(safe_text, lines(found)))), refresh=True
            )
