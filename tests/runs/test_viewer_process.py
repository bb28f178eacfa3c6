"""`stylebatch view` as people start and end it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.outputs import Pair, write_output
from tests.support.runs import environment

PAIRS = [Pair("cat/a.png", "s.jpg"), Pair("cat/b.png", "s.jpg", "decode")]


def _started(output: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "stylebatch", "view", str(output), *options]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        cwd=output.parent,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline()


def test_the_command_ends_by_an_interrupt_and_leaves_nothing(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [PAIRS])
    (tmp_path / "keys.txt").write_text("mine\n")
    before = sorted(path.name for path in output.rglob("*"))
    process, line = _started(output)
    url = line.partition(": ")[2].strip()
    assert url.startswith("http://127.0.0.1:")
    port = int(url.split(":")[2].split("/")[0])
    # a second one beside it, on a port that is taken and on another
    taken = subprocess.run(
        [sys.executable, "-m", "stylebatch", "view", str(output), "--port", str(port)],
        capture_output=True, text=True, env=environment(), timeout=120, check=False,
    )  # fmt: skip
    assert (taken.returncode, "--port" in taken.stderr, taken.stdout) == (2, True, "")
    to = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    to.request("GET", "/" + url.split("/", 3)[3])
    cookie = (to.getresponse().headers["Set-Cookie"] or "").partition(";")[0]
    to.close()
    to.request("GET", "/api/state", headers={"Cookie": cookie})
    state = json.loads(to.getresponse().read())
    # somebody's keys.txt lies here: the output is shown, and nothing can be marked
    assert (state["marks"], "keys.txt" in state["unmarked"]) == (None, True)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    with process:
        assert process.stderr is not None
        assert process.stderr.read() == ""
    to.close()
    assert (tmp_path / "keys.txt").read_text() == "mine\n"
    assert sorted(path.name for path in output.rglob("*")) == before
    foreign = subprocess.run(
        [sys.executable, "-m", "stylebatch", "view", str(output), "--keys", "keys.txt"],
        capture_output=True, text=True, env=environment(), timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (foreign.returncode, "did not write" in foreign.stderr) == (2, True)
