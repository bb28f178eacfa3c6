"""A run whose inputs, style cache and output lie in S3 gives the bytes of a run on this machine, whatever the network does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.engine.run import run
from stylebatch.errors import Interrupted, ManifestError, StorageError
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.progress import Event, Progress
from stylebatch.spec import RunSpec
from stylebatch.store.verify import verify
from tests.support.runs import small_manifest
from tests.support.s3 import (
    BUCKET,
    contents,
    proxied,
    s3_server,
    short_pauses,
    unreliable,
    without_damaged_uploads,
)

SECRET = "hunter2Xq"


class _StopsAfter(Progress):
    """Interrupts a run when a number of shards is committed."""

    def __init__(self, count: int) -> None:
        self.left = count

    def event(self, event: Event) -> None:
        self.left -= event.kind == "committed"
        if not self.left:
            raise Interrupted(15)


def _spec(manifest: Path, inputs: str, cache: str, output: str) -> RunSpec:
    return load_spec(
        manifest,
        [
            *(f"{field}.path={inputs}/{field}" for field in ("contents", "styles")),
            f"features={{cache: '{cache}', source: cached}}",
        ],
        output=output,
    )


def test_a_store_gets_what_a_local_folder_gets_also_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where copies of the cache lie
    manifest = small_manifest(tmp_path / "in", contents=2, styles=2)
    here = Folder.at(tmp_path / "out")
    run(_spec(manifest, str(tmp_path / "in"), str(tmp_path / "cache"), here.shown))
    with s3_server() as url, short_pauses(), proxied(url) as proxy:
        inputs = Folder.at(f"s3://{BUCKET}/in")
        for path in (tmp_path / "in").rglob("*.png"):
            inputs.put(path.relative_to(tmp_path / "in").as_posix(), path)
        address = f"s3://{BUCKET}/out"
        spec = _spec(manifest, inputs.shown, f"s3://{BUCKET}/cache", address)
        there = Folder.at(address)
        # what an interrupted run was sending may arrive after the next run's; damaged, it would stand there, as no real store lets it
        proxy.fault = without_damaged_uploads
        with pytest.raises(Interrupted):
            run(spec, progress=_StopsAfter(2))
        assert there.facts(".run.lock") is None
        assert len(there.names("data/")) == 2
        proxy.fault = unreliable
        before = len(proxy.seen)
        done = run(spec)
        assert (done.exit_code, done.num_resumed_shards) == (0, 2)
        asked = [path for _, path, _ in proxy.seen[before:] if ".run.lock" not in path]
        assert len(asked) < 260
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
        proxy.fault = lambda _: "pass"
        assert main(["verify", address]) == 3
        assert main(["repair", address]) == 0
        assert there.read("data/train-00001.tar") == here.read("data/train-00001.tar")
        assert main(["report", address]) == 0
        assert main(["cache", "ls", f"s3://{BUCKET}/cache"]) == 0
        stored = b"".join(contents(f"s3://{BUCKET}").values())
    text = capsys.readouterr()
    assert f"{address}: 1 shard damaged or missing; next: stylebatch repair {address}" in text.out
    assert SECRET not in text.out + text.err
    assert SECRET.encode() not in stored


def test_what_cannot_be_reached_is_told_before_anything_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = small_manifest(tmp_path / "in", contents=1, styles=1)
    with s3_server(), short_pauses():
        for output, error, what in (
            ("s3://buckett/x", StorageError, "there is no bucket buckett"),
            (f"s3://user:{SECRET}@{BUCKET}/x", ManifestError, "output.path: holds credentials"),
            ("nosuch://x/y", ManifestError, "output.path: .*Protocol not known"),
        ):
            with pytest.raises(error, match=what) as caught:
                run(load_spec(manifest, output=output))
            assert SECRET not in str(caught.value)
        with pytest.raises(
            ManifestError, match=r"contents.path: found 's3://bucket/no', which does not"
        ):
            load_spec(manifest, [f"contents.path=s3://{BUCKET}/no"])
        Folder.at(f"s3://{BUCKET}/in").put("a.png", tmp_path / "in/contents/00.png")
        with pytest.raises(ManifestError, match=r"lies inside contents\.path"):
            load_spec(manifest, [f"contents.path=s3://{BUCKET}/in"], output=f"s3://{BUCKET}/in/out")
    assert json.loads(manifest.read_text())["output"]["path"] == str(tmp_path / "in/out")
    assert not (tmp_path / "in/out").exists()
