"""Exports between stores: an output on S3 goes to S3 and back, and the same command on a half-done one makes the same bytes."""

from __future__ import annotations

from pathlib import Path

from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions
from stylebatch.folder import Folder
from stylebatch.store.verify import verify
from tests.support.exported import rendered
from tests.support.runs import digests
from tests.support.s3 import BUCKET, s3_server

OPTIONS = ExportOptions(format="parquet", where="structure > 0.3", originals=0.5, shard_size=6)


def test_an_export_is_the_same_in_a_store(tmp_path: Path) -> None:
    source = rendered(tmp_path / "source")
    export([source], tmp_path / "here", OPTIONS)
    there = f"s3://{BUCKET}/out"
    with s3_server():
        export([source], there, OPTIONS)
        stored = Folder.at(there)
        assert list(verify(there)) == []
        whole = {name: stored.read(name) for name in digests(tmp_path / "here")}
        assert whole == {name: (tmp_path / "here" / name).read_bytes() for name in whole}
        stored.remove("metadata/train-00001_stats.json")
        assert export([source], there, OPTIONS).num_resumed_shards == 2
        assert {name: stored.read(name) for name in whole} == whole
        export([there], tmp_path / "back", ExportOptions(format="files"))
    assert list(verify(tmp_path / "back")) == []
