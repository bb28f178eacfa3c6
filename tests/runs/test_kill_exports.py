"""An export that is killed at any point of writing: the same command makes the bytes of an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stylebatch.export.export import export
from stylebatch.store.sinks import SINKS
from stylebatch.store.verify import verify
from tests.support.exported import rendered
from tests.support.killed_exports import CASES, options_of
from tests.support.runs import digests, environment, leftovers


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_an_export_killed_at_every_point_is_continued(every: int, tmp_path: Path) -> None:
    source = rendered(tmp_path / "source")
    words = [
        sys.executable,
        "-m",
        "tests.support.killed_exports",
        str(source),
        str(tmp_path),
        str(every),
    ]
    subprocess.run(words, env=environment(), check=True, timeout=600)
    whole = {}
    for kind in SINKS:
        export([source], tmp_path / kind, options_of(kind))
        whole[kind] = digests(tmp_path / kind)
    killed = 0
    cases = list(enumerate(CASES))[::every]
    for number, (kind, point) in cases:
        output = tmp_path / str(number)
        killed += int((tmp_path / f"{number}.status").read_text()) == -signal.SIGKILL
        done = export([source], output, options_of(kind))
        assert digests(output) == whole[kind], point
        assert (leftovers(output), list(verify(output))) == ([], []), point
        assert done.num_resumed_shards < done.report.num_shards or "marker" in point
    assert killed > len(cases) / 2
