"""`clean` in a store: previews go, whole outputs and what others put there stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.store.verify import verify
from tests.support.runs import small_manifest
from tests.support.s3 import BUCKET, s3_server


@pytest.mark.slow
def test_previews_in_a_store_are_removed(tmp_path: Path) -> None:
    there = f"s3://{BUCKET}/sets/out"
    with s3_server():
        spec = load_spec(small_manifest(tmp_path, contents=2, styles=2), [f"output.path={there}"])
        for limit in (None, 2, 3):
            run(spec, limit=limit)
        sets = Folder.at(f"s3://{BUCKET}/sets")
        sets.write("out-preview-2/mine.txt", b"mine")
        sets.write("out-preview-x/mine.txt", b"mine")
        before = dict(sets.find())
        assert main(["clean", "--dry-run", there]) == 0
        assert dict(sets.find()) == before
        assert main(["clean", there]) == 0
        kept = {name for name in before if name.startswith("out/") or name.endswith("mine.txt")}
        assert {name for name, _ in sets.find()} == kept
        assert list(verify(there)) == []
        run(spec, limit=3)
        for place in (f"s3://{BUCKET}", f"s3://{BUCKET}/sets/"):
            assert main(["clean", place]) == 0
        assert {name for name, _ in sets.find()} == kept
