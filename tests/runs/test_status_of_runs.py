"""`status` beside real runs: while one renders, after it was killed, and when it is finished; the same for Prometheus."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.monitoring.status import status
from stylebatch.planning.resolve import plan
from stylebatch.reports.report import report
from tests.support.runs import command, environment, small_manifest

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana.json"


IMPATIENT = """
import sys
from stylebatch.store import run_lock
run_lock.HEARTBEAT_S = 0.3
from stylebatch.cli import main, status_verb
status_verb.EVERY_S = 0.3
sys.exit(main())
"""
"""The command line, which tells how far it is and looks more often."""


@contextmanager
def _live(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path, str]]:
    """A run that has committed a shard and will go on for long, its output, and where its metrics are."""
    manifest, output = (
        small_manifest(folder / "in", contents=20, styles=10, steps=20),
        folder / "out",
    )
    port = ("--metrics-port", "0", "--set", "engine.metrics_host=127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *command(manifest, output, *port)[3:]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().rpartition(" ")[2].strip()
    try:
        while not list(output.glob("metadata/*_stats.json")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.1)
        yield process, output, url
    finally:
        process.kill()
        process.communicate()


def _scraped(url: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def _names(text: str) -> set[str]:
    return {one.name for one in text_string_to_metric_families(text)}


def _values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    samples = (sample for one in families for sample in one.samples)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def _queries(node: Any) -> Iterator[str]:
    """Of panels and of variables."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition", "query") and isinstance(value, str):
                yield value
            yield from _queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from _queries(value)


class _Terminal:
    """A command on a wide terminal."""

    def __init__(self, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *words],
            stdin=slave, stdout=slave, stderr=slave, env=environment(TERM="xterm", COLUMNS="200"),
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def read_until(self, text: str, within_s: float = 120.0) -> None:
        until = time.monotonic() + within_s
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self.master], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self.master, 1 << 16).decode()
                except OSError:  # the program ended
                    break
        assert text in self.seen

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_a_run_is_live_until_it_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        _live(tmp_path) as (process, output, url),
        _Terminal("status", str(output), "--watch") as screen,
    ):
        # its owner tells how far it is with the next heartbeat
        while (found := status(output)).fraction is None:
            time.sleep(0.2)
        assert (found.state, found.exit_code) == ("live", 4)
        assert found.owner == f"process {process.pid} on {socket.gethostname()}"
        assert found.num_workers == 1
        assert found.remaining_s is not None
        assert found.remaining_s > 0
        while not (text := _scraped(url)):
            time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)  # nothing changes while it is looked at
        assert main(["status", str(output), "--prometheus"]) == 4
        here = capsys.readouterr().out
        assert _names(text) == _names(here)
        fixed = {
            key: value
            for key, value in _values(text).items()
            if key[0].endswith(("planned", "state"))
        }
        assert fixed.items() <= _values(here).items()
        _check_dashboard(here)
        for verb in ("verify", "report"):
            assert main([verb, str(output)]) == 0
            shown = capsys.readouterr()
            assert f"process {process.pid}" in shown.err
            assert "is writing it" in shown.err
            assert not re.search("damaged|missing:|never", shown.out)
        screen.read_until("live, rendering")
        process.kill()
        process.wait()
        screen.read_until("dead")
        assert screen.process.wait(120) == 3
        # in the place of the first picture, not below it
        assert re.search(r"\x1b\[\d*A", screen.seen)
    found = status(output)
    assert (found.state, found.exit_code) == ("dead", 3)
    assert main(["status", str(output)]) == 3
    assert "run the same command again to continue" in capsys.readouterr().out


def _check_dashboard(served: str) -> None:
    """Every query of the dashboard names metrics and labels that are served, and every metric is shown."""
    families = {one.name: one for one in text_string_to_metric_families(served)}
    labels = {name: {"output"} for name in families} | {
        name: {label for sample in one.samples for label in sample.labels}
        for name, one in families.items()
        if one.samples
    }
    queries = list(_queries(json.loads(DASHBOARD.read_text())))
    named = {name for query in queries for name in re.findall(r"stylebatch_\w+", query)}
    assert named == set(families)
    for query in queries:
        for name, selected in re.findall(r"(stylebatch_\w+)\{(.*?)\}", query):
            assert set(re.findall(r"(\w+)=~?", selected)) <= labels[name], query


def test_openmetrics_is_served_too(tmp_path: Path) -> None:
    from stylebatch.monitoring.metrics import served
    from tests.support.outputs import Pair, write_output

    output = write_output(
        tmp_path / "out", [[Pair("a.png", "s.png", "decode"), Pair("b.png", "s.png")]]
    )
    said: list[str] = []
    with served(Folder.at(output), 0, "127.0.0.1", said.append):
        url = said[0].rpartition(" ")[2]
        text = _scraped(url, "application/openmetrics-text; version=1.0.0")
    found = {one.name: one for one in openmetrics.text_string_to_metric_families(text)}
    assert found["stylebatch_failures"].samples[0].labels["reason"] == "decode"
    with pytest.raises(OSError, match="refused"):
        _scraped(url)


def test_the_first_answer_waits_for_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylebatch.monitoring.metrics import served
    from stylebatch.monitoring.status import Status, StatusReader
    from tests.support.outputs import Pair, write_output

    at_once = StatusReader.look

    def slow(self: StatusReader) -> Status:
        time.sleep(0.5)
        return at_once(self)

    monkeypatch.setattr(StatusReader, "look", slow)
    output = write_output(tmp_path / "out", [[Pair("a.png", "s.png")]])
    said: list[str] = []
    with served(Folder.at(output), 0, "127.0.0.1", said.append):
        assert "stylebatch_state" in _scraped(said[0].rpartition(" ")[2])


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "http://127.0.0.1"), ("0.0.0.0", "http://localhost"), ("::1", "http://[::1]")],
)
def test_the_address_of_metrics_can_be_opened(tmp_path: Path, host: str, shown: str) -> None:
    from stylebatch.monitoring.metrics import served
    from tests.support.outputs import Pair, write_output

    output = write_output(tmp_path / "out", [[Pair("a.png", "s.png")]])
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    said: list[str] = []
    with served(Folder.at(output), 0, host, said.append):
        first, _, others = said[0].removeprefix("Metrics are at ").partition(";")
        assert first.startswith(f"{shown}:")
        assert "stylebatch_state" in _scraped(first)
        assert (f"http://{socket.gethostname()}:" in others) == (host == "0.0.0.0")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_finished_run_says_what_its_report_says(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path / "in", contents=4, styles=2)
    (tmp_path / "in/contents/01.png").write_bytes(b"no picture")
    gates = ["gates.reject={default: 'structure < 2 and style_id = \"00.png\"', other: 'false'}"]
    with pytest.raises(Exception, match="other"):  # no class of that name
        run(load_spec(manifest, gates))
    rule = "contrast > -1 and style_id = '00.png'"
    done = run(load_spec(manifest, [f'gates.reject="{rule}"', "engine.metrics_port=0"]))
    told = report(done.output)
    found = status(done.output)
    assert (found.state, found.exit_code, done.exit_code) == ("finished", 3, 3)
    assert found.failures == told.failures == {"decode": 2}
    assert found.rejections == {rule: told.num_rejected}
    assert told.num_rejected == 3
    assert (found.success, found.bytes, found.evaluations) == (
        told.num_success,
        told.bytes,
        told.evaluations,
    )
    for marker in done.output.glob("metadata/*_stats.json"):  # as earlier versions wrote them
        value = json.loads(marker.read_text())
        value.pop("failures", None), value.pop("rejections", None)
        marker.write_text(json.dumps(value))
    assert status(done.output).failures == found.failures
    assert status(done.output).rejections == found.rejections


def test_metrics_are_no_part_of_a_plan(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path / "in", contents=2, styles=2)
    options = ["engine.metrics_port=9400", "engine.metrics_host=127.0.0.1"]
    assert plan(load_spec(manifest, options)).digest == plan(load_spec(manifest)).digest


@pytest.mark.parametrize("absent", [False, True])
def test_a_port_that_cannot_be_had_is_refused_before_any_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    absent: bool,
) -> None:
    manifest = small_manifest(tmp_path / "in", contents=1, styles=1)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        if absent:
            monkeypatch.setitem(sys.modules, "prometheus_client", None)
        assert main(["run", str(manifest), "--metrics-port", port]) == 2
    shown = capsys.readouterr()
    expected = (
        "pip install prometheus_client" if absent else f"found {port} (Address already in use"
    )
    assert expected in shown.err
    assert not (tmp_path / "in/out").exists()


def test_a_watch_ends_by_an_interrupt_and_says_nothing(tmp_path: Path) -> None:
    from tests.support.outputs import Pair, write_output

    output = write_output(tmp_path / "out", [[Pair("a.png", "s.png")]], planned=(2, 2))
    (output / ".run.lock").write_text("")  # as if a run began
    words = [sys.executable, "-m", "stylebatch", "status", str(output), "--watch"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert "live, 1 of 2 samples" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
