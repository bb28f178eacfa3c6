"""A process that is killed at any point of writing a shard, of any format: the next attempt makes the bytes of an undisturbed one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stylebatch.folder import Folder
from stylebatch.spec.output import OutputFormat
from stylebatch.store.ledger import Ledger
from stylebatch.store.names import marker
from stylebatch.store.sinks import SINKS
from tests.support.killed_sinks import CASES, case_folder, write
from tests.support.runs import digests, environment, leftovers
from tests.support.sink_records import run_of

NAME = "train-00000"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    words = [sys.executable, "-m", "tests.support.killed_sinks", str(folder)]
    subprocess.run(words, env=environment(), check=True, timeout=600)
    return folder


@pytest.mark.parametrize("kind", SINKS)
def test_a_shard_killed_at_every_point_is_made_again(
    kind: OutputFormat, killed: Path, tmp_path: Path
) -> None:
    write(tmp_path, kind)
    whole, run, uncommitted = digests(tmp_path), run_of(kind), 0
    for folder in (case_folder(killed, *case) for case in CASES if case[0] == kind):
        output = Folder.at(folder)
        ledger = Ledger(output)
        stats = ledger.stats(NAME, run.digest)
        if stats is not None:  # committed: whole, whatever came after
            assert digests(folder) == whole
            continue
        uncommitted += 1
        assert not (folder / marker(NAME)).exists()
        ledger.sweep(run)
        assert leftovers(folder) == []
        write(folder, kind)
        assert digests(folder) == whole, folder
        assert ledger.stats(NAME, run.digest) is not None
    assert uncommitted >= 10
