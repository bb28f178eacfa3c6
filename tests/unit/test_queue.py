"""The queue of shards: each rendered once, whoever joins, leaves or fails; neighbours stay together; a short tail."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.engine.queue import TAIL, ShardQueue


def take(queue: ShardQueue, worker: str) -> list[int]:
    """All that `worker` is given now."""
    return list(iter(lambda: queue.next(worker), None))


def with_workers(queue: ShardQueue, *workers: str) -> ShardQueue:
    for worker in workers:
        queue.join(worker)
    return queue


class Crew:
    """Workers in random order over a queue, and an account of their own of what they hold, did and failed."""

    def __init__(self, queue: ShardQueue, rng: random.Random) -> None:
        self.queue, self.rng = queue, rng
        self.held: dict[str, list[int]] = {}
        self.done: Counter[int] = Counter()
        self.failed: Counter[int] = Counter()
        self.names = map(str, itertools.count())

    def join(self) -> None:
        name = next(self.names)
        self.queue.join(name)
        self.held[name] = []

    def hand_out(self) -> None:
        """As the driver does, with every promise of the queue checked."""
        for name, held in self.held.items():
            while (shard := self.queue.next(name)) is not None:
                assert all(shard not in other for other in self.held.values())
                assert shard not in self.done
                assert shard not in self.queue.poisoned
                held.append(shard)
                assert len(held) <= self.queue.in_flight

    def step(self, *, failing: float, leaving: float) -> None:
        """Somebody finishes or fails its oldest shard, or leaves."""
        name = self.rng.choice(list(self.held))
        if self.rng.random() < leaving:
            held = self.held.pop(name)
            assert self.queue.leave(name, "gone") == held
            self.failed.update(held[:1])
            return
        if not self.held[name]:
            return
        shard = self.held[name].pop(0)
        if self.rng.random() < failing:
            self.queue.fail(name, shard, "failed")
            self.failed[shard] += 1
        else:
            self.queue.done(name, shard)
            self.done[shard] += 1

    def check(self) -> None:
        """The queue's numbers are those of the account."""
        queue, held = self.queue, sum(map(len, self.held.values()))
        gone = len(self.done) + len(queue.poisoned)
        assert queue.num_done == len(self.done)
        assert queue.num_waiting == len(queue.shards) - gone - held
        assert queue.is_finished == (gone == len(queue.shards))
        assert all(queue.attempts(shard) == count for shard, count in self.failed.items())
        assert set(queue.poisoned) == {s for s, n in self.failed.items() if n >= queue.max_attempts}


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 1000), max_size=150, unique=True),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.3, 0.1), (0.9, 0.3)]),
    st.integers(1, 9),
    st.integers(0, 2**32),
)
def test_every_shard_is_done_once_or_poisoned(
    shards: list[int],
    in_flight: int,
    max_attempts: int,
    rates: tuple[float, float],
    most: int,
    seed: int,
) -> None:
    rng, count, (failing, leaving) = random.Random(seed), len(shards), rates
    queue = ShardQueue(shards, in_flight=in_flight, max_attempts=max_attempts)
    crew = Crew(queue, rng)
    for _ in range(200 + 400 * count):
        if queue.is_finished:
            break
        if not crew.held or (len(crew.held) < most and rng.random() < 0.2):
            crew.join()
        crew.hand_out()
        assert any(crew.held.values()), "shards wait, and nobody is given one"
        crew.step(failing=failing, leaving=leaving)
        crew.check()
    assert queue.is_finished
    assert queue.num_waiting == 0
    assert set(crew.done) | set(queue.poisoned) == set(shards)
    assert set(crew.done.values()) <= {1}
    if (failing, leaving) == (0.0, 0.0):
        assert not queue.poisoned


def test_in_flight_until_the_tail() -> None:
    queue = with_workers(ShardQueue(range(100)), "a", "b")
    assert len(take(queue, "a")) == len(take(queue, "b")) == 2
    while queue.num_waiting > 2 * TAIL:
        queue.done("a", queue._workers["a"].given[0])
        assert len(queue._workers["a"].given) + len(take(queue, "a")) == 2
    given = list(queue._workers["a"].given)
    queue.done("a", given[0])
    assert take(queue, "a") == []
    queue.done("a", given[1])
    assert len(take(queue, "a")) == 1


def test_few_shards_are_not_hoarded_by_the_first_worker() -> None:
    queue = with_workers(ShardQueue(range(3)), "early")
    assert len(take(queue, "early")) == 1
    with_workers(queue, "late", "later")
    assert len(take(queue, "late")) == len(take(queue, "later")) == 1


def test_neighbours_stay_with_a_worker() -> None:
    queue = with_workers(ShardQueue(range(1000), in_flight=1), "a", "b", "c", "d")
    runs: dict[str, list[int]] = {name: [] for name in "abcd"}
    while not queue.is_finished:
        for name, seen in runs.items():
            if (shard := queue.next(name)) is not None:
                seen.append(shard)
                queue.done(name, shard)
    for seen in runs.values():
        leaps = sum(after != before + 1 for before, after in itertools.pairwise(seen))
        assert len(seen) == 250
        assert leaps <= 10  # halves of halves: log2 of a span


def test_who_has_nothing_left_takes_the_later_half_of_the_longest_span() -> None:
    queue = with_workers(ShardQueue(range(100), in_flight=1), "a", "b", "c")
    assert (queue.next("a"), queue.next("b"), queue.next("c")) == (0, 50, 25)
    queue.done("a", 0)
    assert queue.next("a") == 1


def test_a_span_of_one_is_taken_whole() -> None:
    queue = with_workers(ShardQueue(range(2), in_flight=1), "a", "b")
    assert (queue.next("a"), queue.next("b"), queue.next("b")) == (0, 1, None)


def test_numbers_are_those_of_the_shards() -> None:
    queue = with_workers(ShardQueue([9, 4, 7], in_flight=1), "a")
    for shard in (9, 4, 7):
        assert queue.next("a") == shard
        queue.done("a", shard)
    assert queue.is_finished
    assert queue.next("a") is None


def test_of_a_worker_that_leaves_only_the_oldest_shard_has_failed() -> None:
    queue = with_workers(ShardQueue(range(30), in_flight=3), "a")
    assert take(queue, "a") == [0, 1, 2]
    assert queue.num_waiting == 27
    assert queue.leave("a", "gone") == [0, 1, 2]
    assert [queue.attempts(shard) for shard in range(4)] == [1, 0, 0, 0]
    assert queue.num_waiting == 30
    assert queue.leave("a", "gone") == []  # heard of twice
    with_workers(queue, "b")
    order = []
    while (shard := queue.next("b")) is not None:
        order.append(shard)
        queue.done("b", shard)
    assert order == [*range(3, 30), 1, 2, 0]  # its span, what it had not begun, what failed
    assert queue.is_finished


def test_a_shard_that_fails_is_tried_after_the_others() -> None:
    queue = with_workers(ShardQueue(range(20), in_flight=1), "a")
    order = []
    while (shard := queue.next("a")) is not None:
        order.append(shard)
        if shard in (0, 5) and not queue.attempts(shard):
            queue.fail("a", shard, "once")
        else:
            queue.done("a", shard)
    assert order == [*range(20), 0, 5]


def test_a_failed_shard_waits_until_the_spans_of_others_are_used_up() -> None:
    queue = with_workers(ShardQueue(range(40), in_flight=1), "a", "b")
    assert (queue.next("a"), queue.next("b")) == (0, 20)
    queue.fail("a", 0, "once")
    order = []
    while (shard := queue.next("a")) is not None:
        order.append(shard)
        queue.done("a", shard)
    assert sorted(order) == [s for s in range(1, 40) if s != 20]
    queue.done("b", 20)
    assert queue.next("b") == 0


def test_poisoned_after_max_attempts() -> None:
    queue = with_workers(ShardQueue(range(2), in_flight=1, max_attempts=3), "a")
    assert queue.next("a") == 0
    queue.done("a", 0)
    for attempt in (1, 2, 3):
        assert queue.next("a") == 1
        queue.fail("a", 1, f"reason {attempt}")
        assert queue.attempts(1) == attempt
    assert queue.poisoned == {1: "reason 3"}
    assert queue.next("a") is None
    assert queue.is_finished
    assert not queue.is_hopeless  # one was done


def test_deaths_and_failures_count_together() -> None:
    queue = with_workers(ShardQueue([8], max_attempts=2), "a")
    assert queue.next("a") == 8
    queue.leave("a", "died")
    with_workers(queue, "b")
    assert queue.next("b") == 8
    queue.fail("b", 8, "failed")
    assert queue.poisoned == {8: "failed"}
    assert queue.is_finished


def test_hopeless_when_shard_after_shard_fails() -> None:
    queue = with_workers(ShardQueue(range(10), in_flight=1, max_attempts=2), "a")
    told = []
    while (shard := queue.next("a")) is not None:
        queue.fail("a", shard, "always")
        told.append((len(queue.poisoned), queue.is_hopeless))
    assert dict(told) == {n: n >= 2 for n in range(11)}


def test_a_bad_worker_poisons_nothing() -> None:
    """It fails every shard at once, while the others take their time."""
    queue = with_workers(ShardQueue(range(200), max_attempts=3), "bad", "good", "better")
    rng = random.Random(0)
    while not queue.is_finished:
        for shard in take(queue, "bad"):
            queue.fail("bad", shard, "broken device")
        name = rng.choice(["good", "better"])
        if given := queue._workers[name].given + take(queue, name):
            queue.done(name, given[0])
    assert not queue.poisoned
    assert queue.num_done == 200


def test_two_bad_workers_poison_nothing_either() -> None:
    queue = with_workers(ShardQueue(range(50), in_flight=1, max_attempts=3), "x", "y", "good")
    while not queue.is_finished:
        for name in ("x", "y", "x", "y"):
            for shard in take(queue, name):
                queue.fail(name, shard, "broken device")
        if (last := queue.next("good")) is not None:
            queue.done("good", last)
    assert not queue.poisoned


def test_a_shard_that_fails_everywhere_is_poisoned_by_whoever_is_there() -> None:
    queue = with_workers(ShardQueue([5], max_attempts=4), "a", "b")
    assert queue.next("a") == 5
    queue.fail("a", 5, "1")
    assert queue.next("a") is None
    assert queue.next("b") == 5
    queue.fail("b", 5, "2")
    assert queue.next("a") == 5  # nobody is left at whom it did not fail
    queue.fail("a", 5, "3")
    queue.leave("b", "gone")
    assert queue.next("a") == 5
    queue.fail("a", 5, "4")
    assert queue.poisoned == {5: "4"}


def test_a_name_is_used_once() -> None:
    queue = with_workers(ShardQueue(range(3)), "a")
    with pytest.raises(ValueError, match="worker a is there already"):
        queue.join("a")


def efficiency(
    num_workers: int, per_worker: int, seed: int, *, slow: float = 0.5, latency: float = 0.005
) -> float:
    """Of a run in virtual time: work over what the workers, the first one slow, could have done while there."""
    rng = random.Random(seed)
    count = num_workers * per_worker
    work = [rng.randint(834, 1784) / 1309 * rng.lognormvariate(0, 0.1) for _ in range(count)]
    speed = {str(n): slow if n == 0 else 1.0 for n in range(num_workers)}
    joined = {name: 0.0 if name == "0" else rng.uniform(0, 6) for name in speed}
    now = 0.0
    queue = ShardQueue(range(count), clock=lambda: now)
    # time, worker, shard it is done with (None: joins); `busy` is when a worker is through with what it has
    events: list[tuple[float, str, int | None]] = [(t, name, None) for name, t in joined.items()]
    busy = dict(joined)
    heapq.heapify(events)
    while not queue.is_finished:
        now, name, shard = heapq.heappop(events)
        queue.join(name) if shard is None else queue.done(name, shard)
        for other in list(queue._workers):
            while (given := queue.next(other)) is not None:
                busy[other] = max(busy[other], now + latency) + work[given] / speed[other]
                heapq.heappush(events, (busy[other], other, given))
    return sum(work) / sum(speed[name] * max(0.0, now - joined[name]) for name in speed)


@pytest.mark.parametrize("num_workers", [2, 8, 64])
def test_uneven_workers_are_kept_busy(num_workers: int) -> None:
    found = [efficiency(num_workers, 30, seed) for seed in range(20)]
    assert min(found) >= 0.95


def test_a_worker_three_times_slower_is_not_left_with_two_at_the_end() -> None:
    found = [efficiency(8, 20, seed, slow=1 / 3) for seed in range(20)]
    assert sum(found) / len(found) >= 0.92


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), shards=st.integers(0, 60))
def test_the_speed_of_all_is_the_sum_over_those_that_are_at_a_shard(seed: int, shards: int) -> None:
    rng, clock = random.Random(seed), itertools.count(1)
    queue = ShardQueue(range(shards), clock=lambda: float(next(clock)))
    crew = Crew(queue, rng)
    for _ in range(rng.randint(1, 6)):
        crew.join()
    for _ in range(200):
        crew.hand_out()
        if crew.held:
            crew.step(failing=0.1, leaving=0.02)
        paces = [one.pace for one in queue._workers.values() if one.given and one.pace]
        assert queue._num_paced == len(paces)
        assert queue._speed == pytest.approx(sum(1 / pace for pace in paces))
