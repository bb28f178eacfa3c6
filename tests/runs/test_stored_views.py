"""An output in a store is looked through like one on this machine, picture by picture."""

from __future__ import annotations

from pathlib import Path

from stylebatch.export.export_options import read_keys
from stylebatch.folder import Folder
from stylebatch.viewer.answers import Answers, Request
from tests.support.outputs import Pair, write_output
from tests.support.s3 import BUCKET, s3_server
from tests.support.viewers import answering, columns_of


def _picture(answers: Answers, kind: str) -> bytes:
    return answers.get(Request("/picture", {"row": "4", "kind": kind, "side": "0"})).data


def test_an_output_in_a_store_is_read_by_stretches(tmp_path: Path) -> None:
    shards = [[Pair(f"cat/{n}.png", f"{s}.jpg") for n in range(3)] for s in range(2)]
    local = write_output(tmp_path / "out", shards, shares_inputs=True)
    with s3_server():
        folder = Folder.at(f"s3://{BUCKET}/out")
        for path in sorted(local.rglob("*")):
            if path.is_file():
                folder.write(str(path.relative_to(local)), path.read_bytes())
        with answering(local) as here, answering(folder, tmp_path / "keys.txt") as there:
            assert columns_of(there) == columns_of(here)
            for kind in ("result", "content", "style"):
                assert _picture(there, kind) == _picture(here, kind)
            there.post(Request("/api/marks", body=b'{"rows": [4], "marked": true}'))
            assert read_keys(str(tmp_path / "keys.txt")) == ("000010001",)
