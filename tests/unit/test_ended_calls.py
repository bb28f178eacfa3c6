"""The driver hears of all that has ended at once, however many calls there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stylebatch.engine.drive import POLL_S, ActorSetup, Cluster, Drive
from stylebatch.progress import Progress


class Waits:
    """Ray's `wait` over numbers: those in `ended` are ready."""

    def __init__(self, ended: set[int]) -> None:
        self.ended, self.asked = ended, []  # type: tuple[set[int], list[tuple[int, float]]]

    def wait(
        self, calls: list[int], *, num_returns: int, timeout: float
    ) -> tuple[list[int], list[int]]:
        self.asked.append((num_returns, timeout))
        ready = [call for call in calls if call in self.ended][:num_returns]
        return ready, [call for call in calls if call not in ready]


def _ended(ended: set[int]) -> tuple[list[Any], Waits]:
    waits = Waits(ended)
    cluster = Cluster(waits, Progress(), {"num_cpus": 1, "num_gpus": 0})
    drive = Drive(cluster, ActorSetup(object, lambda _: (), 1), drain_s=0.0)
    drive.calls = dict.fromkeys(range(5000), (SimpleNamespace(), None))  # type: ignore[arg-type]
    return drive._ended(), waits


def test_thousands_of_answers_are_heard_in_two_waits() -> None:
    found, waits = _ended(set(range(0, 5000, 2)))
    assert found == list(range(0, 5000, 2))
    assert waits.asked == [(1, POLL_S), (5000, 0)]


def test_without_an_answer_there_is_one_wait() -> None:
    found, waits = _ended(set())
    assert (found, waits.asked) == ([], [(1, POLL_S)])
