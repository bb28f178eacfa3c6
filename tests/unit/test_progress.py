"""What a person sees while a run goes on, with and without a terminal."""

from __future__ import annotations

import io

from stylebatch.progress import PlainProgress, clock, for_terminal


def test_plain_lines_tell_samples_rate_remaining_time_and_shard() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=0.0)
    progress.begin(evaluations=100, samples=12, samples_done=4)
    progress.enter_shard("train-00001")
    progress.advance(50)
    progress.add_samples(4)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("4/12 samples, 50 % of the work")
    assert second.startswith("8/12 samples")
    assert "samples/s" in second
    assert "left, shard train-00001" in second


def test_plain_lines_name_what_is_counted_and_no_shard_where_there_is_none() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=0.0)
    progress.begin(evaluations=100, samples=2, samples_done=0, unit="styles")
    progress.advance(50)
    assert stream.getvalue().startswith("0/2 styles, 50 % of the work")
    assert stream.getvalue().endswith(" left\n")


def test_plain_lines_come_at_most_every_few_seconds() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, every_s=60.0)
    progress.begin(evaluations=100, samples=12, samples_done=0)
    for _ in range(100):
        progress.advance(1)
    assert stream.getvalue() == ""


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(for_terminal(io.StringIO()), PlainProgress)


def test_clock_reads_as_minutes_and_hours() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
