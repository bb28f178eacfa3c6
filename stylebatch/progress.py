"""Shows the progress of a run: a bar on a terminal, plain lines every few seconds elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import secrets
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from stylebatch.masking import CleanedStream, masked_values, safe_text


@dataclass(frozen=True)
class Event:
    """Something that happened to a shard or a worker. `kind`: committed, noted, failed, poisoned, retry,
    joined, lost, waiting.

    `facts`: plain values for machines; `text`: the same for people, empty if it does not concern them.
    """

    kind: str
    text: str = ""
    shard: str = ""
    worker: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """`worker-1 train-00003: text`."""
        who = " ".join(name for name in (self.worker, self.shard) if name)
        return f"{who}: {self.text}" if who else self.text


class Progress:
    """What a run reports: work in network evaluations, results in samples. This base shows nothing."""

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None: ...
    def enter_shard(self, name: str) -> None: ...
    def advance(self, evaluations: int) -> None: ...
    def add_samples(self, count: int) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, event: Event) -> None: ...
    def end(self) -> None: ...


class PassedOn(Progress):
    """Passes everything on to `shown`, for those that listen beside it."""

    def __init__(self, shown: Progress) -> None:
        self.shown = shown

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None:
        self.shown.begin(
            evaluations=evaluations, samples=samples, samples_done=samples_done, unit=unit
        )

    def enter_shard(self, name: str) -> None:
        self.shown.enter_shard(name)

    def advance(self, evaluations: int) -> None:
        self.shown.advance(evaluations)

    def add_samples(self, count: int) -> None:
        self.shown.add_samples(count)

    def note(self, text: str) -> None:
        self.shown.note(text)

    def event(self, event: Event) -> None:
        self.shown.event(event)

    def end(self) -> None:
        self.shown.end()


class _Counts(Progress):
    """Counters that both visible forms share."""

    def __init__(self) -> None:
        self.evaluations = self.evaluations_total = 0
        self.samples = self.samples_total = self.samples_before = 0
        self.shard = ""
        self.unit = "samples"
        self.started = time.monotonic()

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None:
        self.unit = unit
        self.evaluations_total = max(1, evaluations)
        self.samples_total, self.samples, self.samples_before = samples, samples_done, samples_done
        self.started = time.monotonic()

    def count(self, evaluations: int) -> None:
        """Add to the work done; a training step is work and result in one."""
        self.evaluations += evaluations
        if self.unit == "steps":
            self.samples += evaluations

    def event(self, event: Event) -> None:
        """Note an event that has a text for people."""
        if event.text:
            self.note(event.line())

    def eta(self) -> str:
        """Remaining time as m:ss, from the evaluations done so far."""
        if not self.evaluations:
            return "--:--"
        left = (time.monotonic() - self.started) * (self.evaluations_total / self.evaluations - 1.0)
        return clock(max(0.0, left))

    def rate(self) -> str:
        """Samples per second, estimated from evaluations while a block is under way."""
        # Samples arrive a block at a time, evaluations continuously: their share of the work gives a steadier rate.
        elapsed = max(1e-9, time.monotonic() - self.started)
        pending = self.samples_total - self.samples_before
        return f"{pending * min(1.0, self.evaluations / self.evaluations_total) / elapsed:.2f} {self.unit}/s"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class PlainProgress(_Counts):
    """A line every few seconds, for logs."""

    def __init__(self, stream: TextIO, every_s: float = 5.0) -> None:
        super().__init__()
        self.stream = stream
        self.every_s = every_s
        self._last = time.monotonic()

    def enter_shard(self, name: str) -> None:
        self.shard = name

    def advance(self, evaluations: int) -> None:
        self.count(evaluations)
        if time.monotonic() - self._last >= self.every_s:
            self._print()

    def add_samples(self, count: int) -> None:
        self.samples += count
        self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        percent = 100 * min(1.0, self.evaluations / self.evaluations_total)
        place = f", {'shard ' if self.unit == 'samples' else ''}{self.shard}" if self.shard else ""
        self.note(
            f"{self.samples}/{self.samples_total} {self.unit}, {percent:.0f} % of the work, {self.rate()}, "
            f"{self.eta()} left{place}"
        )

    def note(self, text: str) -> None:
        self.stream.write(safe_text(text) + "\n")
        self.stream.flush()


class BarProgress(_Counts):
    """A bar with samples done, rate, remaining time and the current shard."""

    def __init__(self) -> None:
        super().__init__()
        # imported here: it takes long, and only a terminal needs it
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.fields[samples]}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("{task.fields[eta]} left"),
            TextColumn("{task.fields[shard]}", style="dim", markup=False),
            console=Console(file=getattr(sys.stdout, "bare", sys.stdout)),
            refresh_per_second=4,
        )
        self.line = self.bar.add_task("", total=1, samples="0", rate="", eta="--:--", shard="")

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None:
        super().begin(
            evaluations=evaluations, samples=samples, samples_done=samples_done, unit=unit
        )
        self.bar.start()
        # rich has put its own streams in place until `stop`; what passes them must be cleaned too.
        for name in ("stdout", "stderr"):
            setattr(sys, name, CleanedStream(getattr(sys, name)))
        self._draw()

    def enter_shard(self, name: str) -> None:
        self.shard = name
        self._draw()

    def advance(self, evaluations: int) -> None:
        self.count(evaluations)
        self._draw()

    def add_samples(self, count: int) -> None:
        self.samples += count
        self._draw()

    def _draw(self) -> None:
        self.bar.update(
            self.line,
            completed=min(self.evaluations, self.evaluations_total),
            total=self.evaluations_total,
            samples=f"{self.samples}/{self.samples_total} {self.unit}",
            rate=self.rate(),
            eta=self.eta(),
            shard=safe_text(self.shard),
        )

    def note(self, text: str) -> None:
        # without markup: rich would read `[/path]` in a message as a tag
        self.bar.console.print(safe_text(text), markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        self.bar.stop()


class JsonProgress(Progress):
    """A JSON object per line for machines: time (UTC), run, event, shard, worker, text, facts."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.run = secrets.token_hex(4)

    def begin(
        self, *, evaluations: int, samples: int, samples_done: int, unit: str = "samples"
    ) -> None:
        facts = {"evaluations": evaluations, unit: samples, f"{unit}_done": samples_done}
        self.event(Event("begin", facts=facts))

    def note(self, text: str) -> None:
        self.event(Event("note", text))

    def event(self, event: Event) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": self.run,
            "event": event.kind,
            "shard": event.shard,
            "worker": event.worker,
            "text": safe_text(event.text),
            **masked_values(event.facts),
        }
        self.stream.write(json.dumps(line) + "\n")
        self.stream.flush()

    def end(self) -> None:
        self.event(Event("end"))


def for_terminal(stream: TextIO | None = None) -> Progress:
    """A bar when standard output is a terminal, plain lines otherwise."""
    stream = stream or sys.stdout
    return BarProgress() if stream.isatty() else PlainProgress(stream)
