"""A run's status as lines for a terminal and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from stylebatch.monitoring.status import Status
from stylebatch.store.previews import mending
from stylebatch.words import counted, duration, size

MOST_REASONS = 5
_PHASES = {"preparing": "getting ready", "rendering": "rendering", "reporting": "writing reports"}


def lines(status: Status, *, now: float | None = None) -> list[str]:
    """One fact a line; `now`: seconds since the epoch."""
    return [_headline(status), *(f"  {name:<10}  {text}" for name, text in _facts(status, now))]


def one_line(status: Status) -> str:
    """All of it in short, for logs."""
    parts = [
        status.state,
        f"{status.samples_done:,} of {counted(status.samples_planned, 'sample')}",
        f"{status.shards_committed:,} of {counted(status.shards_planned, 'shard')}",
    ]
    parts += [f"{status.failed:,} failed"] if status.failed else []
    parts += [f"{status.rejected:,} rejected"] if status.rejected else []
    if speed := _speed(status):
        parts.append(speed)
    return f"{status.output}: {', '.join(parts)}"


def as_dict(status: Status) -> dict[str, Any]:
    """For machines: the names are those of `Status`."""
    found = {name: value for name, value in vars(status).items() if name != "underway"}
    run = status.underway if status.state == "live" else None
    return found | {
        "problems": list(status.problems),
        "exit_code": status.exit_code,
        "samples_done": status.samples_done,
        "fraction": status.fraction,
        "samples_per_s": status.samples_per_s,
        "remaining_s": status.remaining_s,
        "underway": None if run is None else run.model_dump(),
    }


def _headline(status: Status) -> str:
    said: str = status.state
    if status.state == "live" and status.underway is not None:
        said = f"live, {_PHASES[status.underway.phase]}"
    if status.owner and status.state == "live":
        said += f" ({status.owner}, last seen {status.seen_s:.0f} s ago)"
    elif status.owner:
        said += f" ({status.owner} is gone, last seen {duration(status.seen_s)} ago)"
    return f"{status.output}: {said}"


def _facts(status: Status, now: float | None) -> Iterator[tuple[str, str]]:
    if not status.samples_planned:
        yield "samples", "nothing is planned yet"
        return
    share = status.samples_done / status.samples_planned
    yield "samples", f"{status.samples_done:,} of {status.samples_planned:,} ({share:.1%})"
    past = (now or time.time()) - status.last_commit
    last = f", the last one {duration(max(0.0, past))} ago" if status.last_commit else ""
    yield (
        "shards",
        f"{status.shards_committed:,} of {status.shards_planned:,} committed, {size(status.bytes)}{last}",
    )
    run = status.underway if status.state == "live" else None
    if speed := _speed(status):
        yield "speed", speed
    if run is not None:
        yield "since", f"{duration(run.run_s)}{f', now at {run.shard}' if run.shard else ''}"
        yield from _of_workers(status)
    if status.evaluations:
        yield (
            "work",
            f"{counted(status.evaluations, 'network evaluation')} in {duration(status.worker_s)} of worker time",
        )
    if status.failed:
        yield "failed", _reasons(status.failed, status.failures)
    if status.rejected:
        yield "rejected", _reasons(status.rejected, status.rejections)
    for name, reason in list(status.left_out.items())[:MOST_REASONS]:
        yield "left out", f"{name}: {' '.join(reason.split())}"
    if len(status.left_out) > MOST_REASONS:
        yield "", f"and {counted(len(status.left_out) - MOST_REASONS, 'other shard')}"
    yield from (("damaged", text) for text in status.problems[:MOST_REASONS])
    if status.num_problems > MOST_REASONS:
        yield "", f"and {counted(status.num_problems - MOST_REASONS, 'other file')}"
    if step := next_step(status):
        yield "next", step


def _speed(status: Status) -> str:
    rate, left = status.samples_per_s, status.remaining_s
    if rate is None or left is None:
        return ""
    return f"{rate:.3g} samples/s, about {duration(left)} left"


def _of_workers(status: Status) -> Iterator[tuple[str, str]]:
    run = status.underway
    assert run is not None
    if run.workers:
        named = ", ".join(
            f"{place.count:,} on {place.host or 'other hosts'} ({place.device})"
            for place in run.workers[:MOST_REASONS]
        )
        more = len(run.workers) - MOST_REASONS
        hosts = f", and {counted(more, 'other host')}" if more > 0 else ""
        yield "workers", f"{status.num_workers:,}: {named}{hosts}"
    troubles = [
        f"{counted(run.workers_lost, 'worker')} lost" * (run.workers_lost > 0),
        f"{counted(run.retries, 'attempt')} at shards failed" * (run.retries > 0),
    ]
    if any(troubles):
        yield "trouble", ", ".join(filter(None, troubles))


def _reasons(total: int, reasons: Mapping[str, int]) -> str:
    """`12: decode 10, missing 2`."""
    named = [f"{' '.join(reason.split())} {count:,}" for reason, count in reasons.items()]
    more = sum(list(reasons.values())[MOST_REASONS:])
    named = named[:MOST_REASONS] + ([f"others {more:,}"] if more else [])
    return f"{total:,}{': ' if named else ''}{', '.join(named)}"


def next_step(status: Status) -> str:
    """What a person may do about it; "" where there is nothing."""
    output, again = quote(status.output), "run the same command again to continue"
    return {
        "interrupted": again,
        "dead": f"{again}; it takes the lock over",
        "incomplete": "mend the cause and run the same command again, which tries what was left out once more",
        "damaged": f"`stylebatch verify {output}` finds all that is damaged, `{mending(status.output, status.preview_of)}` makes it again",
        "finished": (
            f"more than max_failed_fraction {status.max_failed_fraction:g} of the samples failed; `stylebatch report {output}` says which. "
            "Mend their inputs and run the same command with --retry-failed, or allow more with a greater max_failed_fraction"
            if status.exit_code
            else ""
        ),
    }.get(status.state, "")
