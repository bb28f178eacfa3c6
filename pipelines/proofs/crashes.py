"""Kills runs at random times and compares what resuming gives with an undisturbed run.

A round: start the run on one output, wait a random time, kill -9 the driver, a worker or a raylet; repeat until there were
`kills` on the same output; then let it finish. The data tars and metadata must be those of the undisturbed run, nothing else left.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FAST = (
    "image.size=32",
    "method.steps=2",
    "engine.threads=1",
    "engine.feature_gb=0.0005",
    "output.shard_size=1",
)
"""Overrides with which a sample takes a fraction of a second: the test is about files, not pictures."""
MOST_TRIES = 3
"""Tries per kill: a run may end before its time comes."""
WORKERS = {"driver": "", "worker": "ray::ShardActor", "raylet": "raylet/raylet"}


@dataclass
class Round:
    """Who was killed after how many seconds, and whether the result equals that of an undisturbed run."""

    engine: str
    kills: list[tuple[str, float]] = field(default_factory=list)
    same: bool = False
    seconds: float = 0.0
    detail: str = ""


def command(manifest: Path, output: Path, options: Sequence[str]) -> list[str]:
    """A fast run of `manifest` into `output`."""
    changes = [part for text in FAST for part in ("--set", text)]
    run = [sys.executable, "-m", "stylebatch", "run", str(manifest), "--output", str(output)]
    return [*run, *changes, *options]


def digests(output: Path) -> dict[str, str]:
    """sha256 of every file that a plan promises byte for byte, and the names of stray hidden files."""
    files = [*output.glob("data/*"), *output.glob("metadata/*.parquet")]
    found = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }
    return found | {str(path.relative_to(output)): "hidden" for path in output.rglob(".*")}


@dataclass(frozen=True)
class Setup:
    """What is run into `output`, and what its files are when nobody kills it.

    `options`: of the engine; `setting`: of every start; `victims`: of driver, worker, raylet, killed within `at_most_s` of being
    there.
    """

    manifest: Path
    output: Path
    expected: dict[str, str]
    options: Sequence[str]
    victims: Sequence[str]
    at_most_s: float
    setting: Sequence[str] = ()


def kill_and_resume(setup: Setup, draw: random.Random, kills: int) -> Round:
    """One round.

    A run whose worker was killed goes on and may lose more; the last start is a local one, whatever the engine of the others.
    """
    manifest, output, options = setup.manifest, setup.output, setup.options
    started, done = time.monotonic(), Round(" ".join(options) or "local")
    shutil.rmtree(output, ignore_errors=True)
    run: subprocess.Popen[bytes] | None = None
    for _ in range(MOST_TRIES * kills):
        if len(done.kills) == kills:
            break
        if run is None or run.poll() is not None:
            run = subprocess.Popen(
                command(manifest, output, [*setup.setting, *options]),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        victim, delay = draw.choice(list(setup.victims)), draw.uniform(0.0, setup.at_most_s)
        # half of the kills wait for a worker, so that they fall into rendering and not into starting Ray
        rendering = victim == "worker" or (bool(options) and draw.random() < 0.5)
        while run.poll() is None and not _is_there(run.pid, rendering, output):
            time.sleep(0.1)
        time.sleep(delay / 4 if rendering else delay)
        if run.poll() is None and _kill(run.pid, victim, draw):
            done.kills.append((victim, round(delay, 2)))
        if victim != "worker":
            run.wait()
    if run is not None:
        run.wait()
    last = subprocess.run(
        command(manifest, output, [*setup.setting, "--engine", "local"]),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    done.same = last.returncode == 0 and digests(output) == setup.expected
    done.detail = "" if done.same else f"exit {last.returncode}: {last.stderr[-2000:]}"
    done.seconds = round(time.monotonic() - started, 1)
    return done


def _is_there(driver: int, rendering: bool, output: Path) -> bool:
    """Whether the output exists, or, if `rendering`, whether a worker runs."""
    if not rendering:
        return output.exists()
    return any(WORKERS["worker"] in named(pid) for pid in descendants(driver))


def _kill(driver: int, victim: str, draw: random.Random) -> bool:
    """kill -9 one process of a run: the driver, or one of its descendants by command line."""
    name = WORKERS[victim]
    targets = [driver] if not name else [pid for pid in descendants(driver) if name in named(pid)]
    if not targets:
        return False
    try:
        os.kill(draw.choice(targets), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def named(pid: int) -> str:
    """Command line of a process, or "" (Linux)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, ValueError):
        return ""


def descendants(pid: int) -> list[int]:
    """Processes below `pid` (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return sorted(found)
