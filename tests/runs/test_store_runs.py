"""A run needs of its output no more than a folder offers, wherever that is."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from stylebatch.engine.run import run
from stylebatch.errors import Interrupted
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.progress import Event, Progress
from stylebatch.reports.report import report
from stylebatch.spec import RunSpec
from stylebatch.store.verify import verify
from tests.support.runs import small_manifest


class _StopsAfter(Progress):
    """Interrupts a run when a number of shards is committed."""

    def __init__(self, count: int) -> None:
        self.left = count

    def event(self, event: Event) -> None:
        self.left -= event.kind == "committed"
        if not self.left:
            raise Interrupted(15)


def _into(spec: RunSpec, place: str) -> RunSpec:
    output = spec.output.model_copy(update={"path": place})
    return spec.model_copy(update={"output": output})


def test_a_store_gets_what_a_local_folder_gets_also_when_interrupted(tmp_path: Path) -> None:
    spec = load_spec(small_manifest(tmp_path / "in", contents=2, styles=2))
    here = Folder.at(tmp_path / "out")
    run(_into(spec, here.shown))
    address = f"memory://output-{uuid4().hex}"
    there = Folder.at(address)
    with pytest.raises(Interrupted):
        run(_into(spec, address), progress=_StopsAfter(2))
    assert there.facts(".run.lock") is None
    assert len(there.names("data/")) == 2
    done = run(_into(spec, address))
    assert (done.exit_code, done.num_resumed_shards) == (0, 2)
    assert list(verify(there)) == []
    for folder in ("", "data/", "metadata/", "inputs/"):
        assert there.names(folder) == here.names(folder)
    alike = [*here.names("data/"), *here.names("inputs/"), "contact_sheet.png"]
    alike += [name for name in here.names("metadata/") if name.endswith(".parquet")]
    for name in alike:
        assert there.read(name) == here.read(name), name
    damaged = bytearray(there.read("data/train-00001.tar"))
    damaged[1000] ^= 1
    there.write("data/train-00001.tar", bytes(damaged))
    assert {problem.shard for problem in verify(address)} == {1}
    run(_into(spec, address), redo="damaged")
    assert there.read("data/train-00001.tar") == here.read("data/train-00001.tar")
    assert report(address).num_success == 4
