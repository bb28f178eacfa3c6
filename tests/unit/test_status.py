"""What `status` says of an output by its lock and records, whatever state they are in, and that a watch reads each marker once."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import stylebatch
from stylebatch.cli import main
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.local_files import write_bytes
from stylebatch.monitoring import marked_shards, pulse
from stylebatch.monitoring.metrics import METRICS, exposition
from stylebatch.monitoring.status import STATES, Status, StatusReader, status
from stylebatch.monitoring.wording import as_dict, lines, one_line
from stylebatch.store.underway import MOST_PLACES, Underway, WorkersAt
from tests.support.outputs import Pair, write_output
from tests.support.s3 import BUCKET, s3_server

SHARDS = [
    [Pair("cat/a.png", "s.jpg"), Pair("cat/b.png", "s.jpg", "decode")],
    [Pair("cat/c.png", "s.jpg"), Pair("dog/d.png", "s.jpg", "gate")],
    [Pair("dog/e.png", "s.jpg"), Pair("dog/f.png", "s.jpg", "decode")],
    [Pair("dog/g.png", "s.jpg", "missing"), Pair("dog/h.png", "s.jpg", "decode")],
]
"""The last one has no payload: all of it failed."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_output(tmp_path_factory.mktemp("status") / "whole", SHARDS)


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "out")


def _lock(folder: Path, **changes: Any) -> None:
    owner = {"host": "elsewhere", "machine": "m", "pid": 7, "started": "1", "token": "t",
             "heartbeat": time.time()}  # fmt: skip
    write_bytes(folder / ".run.lock", json.dumps(owner | changes).encode())


def _underway(**changes: Any) -> dict[str, Any]:
    workers = [
        WorkersAt(host="a", device="cuda", count=8),
        WorkersAt(host="b", device="cpu", count=1),
    ]
    facts = {"phase": "rendering", "run_s": 20.0, "rendering_s": 10.0, "samples_before": 2,
             "evaluations": 10, "evaluations_planned": 100, "workers": workers}  # fmt: skip
    return Underway(**(facts | changes)).model_dump()


def _marker(output: Path, shard: int) -> Path:
    return output / f"metadata/train-{shard:05d}_stats.json"


def test_a_finished_run_adds_up_what_its_markers_say(output: Path) -> None:
    found = stylebatch.status(output)
    assert (found.state, found.exit_code) == ("finished", 0)
    assert (found.success, found.failed, found.rejected) == (3, 4, 1)
    assert (found.shards_committed, found.shards_planned) == (4, 4)
    assert found.failures == {"decode": 3, "missing": 1}
    assert found.rejections == {"other rules": 1}
    assert found.bytes == sum(path.stat().st_size for path in output.glob("data/*.tar"))
    assert (found.evaluations, found.worker_s) == (400, 10.0)


def test_too_many_failures_of_a_finished_run_are_exit_code_3(output: Path) -> None:
    record = json.loads((output / "run.json").read_text())
    record["spec"] = {"max_failed_fraction": 0.1}
    (output / "run.json").write_text(json.dumps(record))
    assert (status(output).state, status(output).exit_code) == ("finished", 3)
    text = "\n".join(lines(status(output)))
    assert "max_failed_fraction 0.1" in text
    assert "--retry-failed" in text


def test_reasons_of_an_earlier_version_are_read_from_the_rows(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((output / "run.json").read_text())
    assert "failures" not in json.loads(_marker(output, 0).read_text())
    expected = status(output).failures
    for shard, failures in (
        (0, {"decode": 1}),
        (2, {"decode": 1}),
        (3, {"missing": 1, "decode": 1}),
    ):
        marker = _marker(output, shard)
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"failures": failures}))
    for path in output.glob("metadata/train-0000[023].parquet"):
        path.write_bytes(b"")  # not read any more
    assert status(output).failures == expected
    assert record["name"] == status(output).name


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (lambda output: _marker(output, 1).unlink(), "interrupted"),
        (lambda output: _marker(output, 1).write_text('{"num_samples": 2, "num_'), "damaged"),
        (lambda output: _marker(output, 1).write_text(""), "damaged"),
        (lambda output: (output / "data/train-00001.tar").write_bytes(b"cut"), "damaged"),
        (lambda output: (output / "data/train-00001.tar").unlink(), "damaged"),
        (lambda output: (output / "metadata/train-00001.parquet").unlink(), "damaged"),
        (lambda output: _lock(output, heartbeat=0.0), "dead"),
        (lambda output: (output / ".run.lock").mkdir(), "dead"),
        (lambda output: (output / ".run.lock").write_text('{"host'), "live"),
        (lambda output: _lock(output), "live"),
        (lambda output: shutil.copy(_marker(output, 1), _marker(output, 9)), "finished"),
    ],
)
def test_states(output: Path, spoil: Any, state: str) -> None:
    spoil(output)
    found = status(output)
    assert found.state == state
    assert found.exit_code == {"live": 4, "finished": 0}.get(state, 3)
    assert bool(found.problems) is (state == "damaged")
    assert found.shards_committed == (
        3 if "train-00001_stats" in str(found.problems) or state == "interrupted" else 4
    )


def test_shards_that_were_left_out_make_an_output_incomplete(output: Path) -> None:
    _marker(output, 2).unlink()
    poison = output / "metadata/train-00002_poison.json"
    poison.write_text(json.dumps({"attempts": 3, "reason": "ValueError:\n\x1b[31mno"}))
    found = status(output)
    assert (found.state, found.exit_code) == ("incomplete", 3)
    assert list(found.left_out) == ["train-00002"]
    _marker(output, 1).unlink()
    assert status(output).state == "interrupted"


def test_what_is_no_output_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"run\.json: missing"):
        status(tmp_path)
    _lock(tmp_path)
    found = status(tmp_path)
    assert (found.state, found.samples_planned, found.owner) == (
        "live",
        0,
        "process 7 on elsewhere",
    )
    assert "nothing is planned yet" in "\n".join(lines(found))
    assert one_line(found)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ManifestError, match="is damaged"):
        status(tmp_path)


def test_a_live_run_tells_rate_and_remaining_time(output: Path) -> None:
    for shard in (2, 3):
        _marker(output, shard).unlink()
    _lock(output, underway=_underway())
    found = status(output)
    assert (found.samples_done, found.num_workers) == (4, 9)
    # 2 of the 6 that were left, in 10 s
    assert found.fraction == pytest.approx(1 / 3)
    assert found.samples_per_s == pytest.approx(0.2)
    assert found.remaining_s == pytest.approx(20.0)
    _lock(output, underway=_underway(evaluations=50))
    assert status(output).remaining_s == pytest.approx(10.0)
    # gates made more than was planned: commits tell
    _lock(output, underway=_underway(evaluations=1000))
    assert status(output).remaining_s == pytest.approx(20.0)
    for changes in (
        {"samples_before": 4, "evaluations": 0},
        {"phase": "reporting"},
        {"rendering_s": 0.0},
    ):
        _lock(output, underway=_underway(**changes))
        assert status(output).samples_per_s is None
    text = "\n".join(lines(status(output)))
    assert "9: 8 on a (cuda), 1 on b (cpu)" in text


@pytest.mark.parametrize("odd", [3, [], {"phase": "dancing", "run_s": 1.0}, {"phase": "rendering"},
                                 {"phase": "rendering", "run_s": -1.0}, {"phase": "rendering", "run_s": 1e400}])  # fmt: skip
def test_odd_facts_in_a_lock_cost_the_rate_alone(output: Path, odd: Any) -> None:
    _lock(output, underway=odd)
    found = status(output)
    assert (found.state, found.underway) == ("live", None)


@contextmanager
def _beating(folder: Path, clock_ahead_s: float) -> Iterator[threading.Event]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            _lock(folder, heartbeat=time.time() + clock_ahead_s)

    _lock(folder, heartbeat=time.time() + clock_ahead_s)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("clock_ahead_s", [-600.0, 600.0])
def test_an_owner_elsewhere_whose_clock_is_wrong_is_seen_to_live_and_to_die(
    output: Path, monkeypatch: pytest.MonkeyPatch, clock_ahead_s: float
) -> None:
    for name, seconds in (("WATCHED_S", 1.0), ("STALE_AFTER_S", 0.5), ("LOOK_EVERY_S", 0.02)):
        monkeypatch.setattr(pulse, name, seconds)
    said: list[str] = []
    reader = StatusReader(Folder.at(output), said.append)
    with _beating(output, clock_ahead_s) as stop:
        assert reader.look().state == "live"
        assert len(said) == 1
        assert "watching" in said[0]
        assert reader.look().state == "live"
        stop.set()
        time.sleep(0.2)
        reader.look()
        time.sleep(0.6)
        assert reader.look().state == "dead"
    said.clear()
    # months old: nobody waits for that
    _lock(output, heartbeat=time.time() - 1e7)
    assert StatusReader(Folder.at(output), said.append).look().state == "dead"
    assert said == []


@pytest.mark.parametrize("verb", ["verify", "report"])
def test_other_verbs_know_a_live_owner_whose_clock_is_wrong(
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    monkeypatch.setattr(pulse, "LOOK_EVERY_S", 0.02)
    _marker(output, 3).unlink()
    with _beating(output, -600.0):
        assert main([verb, str(output)]) == 0
    shown = capsys.readouterr()
    assert "process 7 on elsewhere is writing it" in shown.err
    assert "missing:" not in shown.out


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["commit", "revoke", "cut", "remove", "other", "restore", "poison"]),
    ),
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(STEPS, min_size=1, max_size=4))
def test_a_watch_says_what_a_first_look_says(whole: Path, rounds: Any) -> None:
    """Whatever became of the markers in between, in whatever order."""
    output = whole.parent / "watched"
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(whole, output)
    reader = StatusReader(Folder.at(output))
    for steps in rounds:
        for number, (shard, step) in enumerate(steps):
            marker, sound = _marker(output, shard), json.loads(_marker(whole, shard).read_text())
            text = {
                "commit": json.dumps(sound | {"seconds": 1.0 + number}),
                "revoke": json.dumps(sound | {"revoked": True}),
                "cut": json.dumps(sound)[:-9],
                "other": json.dumps(sound | {"plan_digest": "0" * 64}),
                "restore": json.dumps(sound),
            }.get(step)
            if step == "poison":
                Path(str(marker).replace("_stats", "_poison")).write_text('{"reason": "x"}')
            elif text is None:
                marker.unlink(missing_ok=True)
            else:
                marker.write_text(text)
        assert reader.look() == StatusReader(Folder.at(output)).look()


def test_a_watch_reads_each_marker_once(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    really = marked_shards.read_counts

    def counting(folder: Folder, shard: str) -> Any:
        read.append(shard)
        return really(folder, shard)

    monkeypatch.setattr(marked_shards, "read_counts", counting)
    reader = StatusReader(Folder.at(output))
    reader.look()
    assert sorted(read) == [f"train-{shard:05d}" for shard in range(4)]
    read.clear()
    reader.look()
    assert read == []
    marker = _marker(output, 1)
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"evaluations": 7}))
    assert reader.look().evaluations == 307
    assert read == ["train-00001"]


def test_an_output_in_a_store_has_the_same_status(output: Path) -> None:
    _marker(output, 3).unlink()
    _lock(output, underway=_underway())
    with s3_server():
        folder = Folder.at(f"s3://{BUCKET}/out")
        for path in sorted(output.rglob("*")):
            if path.is_file():
                folder.write(str(path.relative_to(output)), path.read_bytes())
        here, there = as_dict(status(output)), as_dict(status(folder))
        assert there.pop("output") == f"s3://{BUCKET}/out"
        for name in ("output", "last_commit"):
            here.pop(name, None)
        assert there.pop("last_commit") == pytest.approx(time.time(), abs=600)
        assert there == here
        folder.remove("data/train-00001.tar")
        folder.remove(".run.lock")
        found = status(folder)
        assert (found.state, found.problems) == (
            "damaged",
            (f"s3://{BUCKET}/out/data/train-00001.tar: missing",),
        )


def test_text_for_prometheus_can_be_parsed_whatever_the_reasons_are_called() -> None:
    reasons = {'a "quoted"\nrule \\ < 0.3 {x="y"}': 2, "Maß < ½": 1}
    found = Status("out", "live", name='n"\n', samples_planned=9, failed=3, failures=reasons)
    families = {one.name: one for one in text_string_to_metric_families(exposition(found))}
    failures = {s.labels["reason"]: s.value for s in families["stylebatch_failures"].samples}
    assert failures == reasons
    assert families["stylebatch_samples_planned"].samples[0].value == 9
    assert {s.labels["state"] for s in families["stylebatch_state"].samples if s.value} == {"live"}
    assert not families["stylebatch_remaining_seconds"].samples


def test_thousands_of_hosts_fit_in_a_lock() -> None:
    from stylebatch.engine.live import Live
    from stylebatch.progress import Event, Progress

    live = Live(Progress())
    for number in range(3000):
        facts = {"host": f"node-{number // 4:04d}.some.long.domain", "device": f"cuda:{number % 4}"}
        live.event(Event("joined", worker=f"worker-{number}", facts=facts))
    live.event(Event("lost", worker="worker-2999"))
    told = live.underway()
    assert sum(place.count for place in told.workers) == 2999
    assert (len(told.workers), told.workers[-1].host) == (MOST_PLACES + 1, "")
    assert len(told.model_dump_json()) < 1 << 15
    assert Underway.of(json.loads(told.model_dump_json())) == told


def test_options_that_exclude_each_other_are_refused(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in ("--json", "--watch"):
        assert main(["status", str(output), "--prometheus", other]) == 2
        assert f"found {other} too" in capsys.readouterr().err


def test_outputs_of_the_command_agree(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == as_dict(status(output)) | {"heartbeat": found["heartbeat"]}
    assert main(["status", str(output), "--watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["status", str(output), "--watch"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["status", os.path.relpath(output), "--prometheus"]) == 0
    assert f'output="{output}"' in capsys.readouterr().out


def test_the_page_names_every_metric_and_state() -> None:
    page = (Path(__file__).parents[2] / "docs/monitoring.md").read_text("utf-8")
    metrics = {f"stylebatch_{metric.name}" for metric in METRICS}
    assert set(re.findall(r"stylebatch_\w+", page)) == metrics
    assert set(re.findall(r"^\| `(\w+)` \|.*\|.*\|.*\|$", page, re.MULTILINE)) == set(STATES)
