"""Runs that store each input once per shard: the same pictures, readable by name, repaired to the same bytes; and runs out of a store."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylebatch import folder as folders
from stylebatch.engine.repair import repair
from stylebatch.engine.run import run
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.reports.committed import read_samples
from stylebatch.spec.output import OutputFormat
from stylebatch.store.ledger import Ledger
from stylebatch.store.names import STATS
from stylebatch.store.verify import verify
from tests.support.packed import tar
from tests.support.runs import digests, small_manifest
from tests.support.s3 import BUCKET, s3_server, short_pauses

FORMATS: tuple[OutputFormat, ...] = ("webdataset", "parquet", "files")
MEMBERS = ("jpg", "content.jpg", "style.jpg")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each format one with inputs once; tars with inputs beside samples; 3 x 2 pairs in two shards."""
    folder = tmp_path_factory.mktemp("inputs")
    manifest = small_manifest(folder, contents=3, styles=2)
    for kind, inputs in (("webdataset", "true"), *((kind, "reference") for kind in FORMATS)):
        changes = [f"output.format={kind}", f"output.inputs={inputs}", "output.shard_size=4"]
        spec = load_spec(manifest, changes, output=str(folder / f"{kind}-{inputs}"))
        assert run(spec).exit_code == 0
    return folder


def _samples(output: Path) -> dict[str, dict[str, bytes]]:
    shards = {name: _rows(output, name) for name in Ledger(Folder.at(output)).shards_with(STATS)}
    found = read_samples(Folder.at(output), shards)
    return {key: {member: members[member] for member in MEMBERS} for key, members in found}


def _rows(output: Path, shard: str) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(output / f"metadata/{shard}.parquet").to_pylist()
    return {row["key"]: row for row in rows}


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_are_those_of_copies(outputs: Path, kind: str) -> None:
    beside, once = outputs / "webdataset-true", outputs / f"{kind}-reference"
    assert _samples(once) == _samples(beside)
    assert list(verify(once)) == []
    assert (once / "contact_sheet.png").read_bytes() == (beside / "contact_sheet.png").read_bytes()
    assert "input_images/" in (once / "README.md").read_text()


@pytest.mark.parametrize("kind", FORMATS)
def test_repair_gives_lost_inputs_back(outputs: Path, kind: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(outputs / f"{kind}-reference", output)
    before = digests(output)
    lost = next(path for path in sorted((output / "input_images").rglob("*")) if path.is_file())
    lost.unlink()
    assert [problem.text for problem in verify(output)] == ["missing"]
    assert repair(output).exit_code == 0
    assert digests(output) == before


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_datasets_loads_samples_and_inputs_of_the_card(
    outputs: Path, kind: str, tmp_path: Path
) -> None:
    output = str(outputs / f"{kind}-reference")
    samples = datasets.load_dataset(output, split="train", cache_dir=str(tmp_path))
    stored = datasets.load_dataset(output, "inputs", split="train", cache_dir=str(tmp_path))
    is_tar = kind == "webdataset"
    assert len(samples) == 6
    pictures: dict[tuple[str, str], Image.Image] = {}
    for row in stored:
        told = row["json"] if is_tar else row
        pictures[told["kind"], told["id"]] = row["jpg" if is_tar else "image"]
    assert len(pictures) == 5
    assert {image.size for image in pictures.values()} == {(32, 32)}
    for row in samples:
        told = row["json"] if is_tar else row
        assert ("content", told["content_id"]) in pictures
        assert ("style", told["style_id"]) in pictures
        assert not {"content.jpg", "content"} & row.keys()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int]]:
    """Where temporary files go, and how many bytes lay there at each upload."""
    place, sizes = tmp_path / "scratch", list[int]()
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def measured(point: str) -> None:
        if point == "before upload":
            files = [path for path in place.rglob("*") if path.is_file()]
            sizes.append(sum(path.stat().st_size for path in files))

    monkeypatch.setattr(folders, "passing", measured)
    return place, sizes


def _packed(folder: Path) -> None:
    """The inputs of a small manifest as a tar and as Parquet."""
    members: dict[str, Any] = {}
    for path in sorted((folder / "contents").iterdir()):
        members |= {path.name: path.read_bytes(), f"{path.stem}.cls": str(int(path.stem) % 2)}
    tar(folder / "packed/contents/0.tar", members)
    rows = [
        {"bytes": p.read_bytes(), "path": p.name} for p in sorted((folder / "styles").iterdir())
    ]
    (folder / "packed/styles").mkdir()
    pq.write_table(pa.table({"image": rows}), folder / "packed/styles/0.parquet", row_group_size=1)


def test_a_run_out_of_a_store_into_one_needs_the_room_of_one_shard(
    tmp_path: Path, scratch: tuple[Path, list[int]]
) -> None:
    manifest = small_manifest(tmp_path / "in", contents=3, styles=1)
    _packed(tmp_path / "in")
    here = tmp_path / "out"
    changes = [f"{of}.path=packed/{of}" for of in ("contents", "styles")]
    run(load_spec(manifest, [*changes, "output.inputs=reference"], output=str(here)))
    place, sizes = scratch
    with s3_server(), short_pauses():
        inputs = Folder.at(f"s3://{BUCKET}/in")
        for path in (tmp_path / "in/packed").rglob("*.*"):
            inputs.put(path.relative_to(tmp_path / "in/packed").as_posix(), path)
        changes = [f"{of}.path={inputs.shown}/{of}" for of in ("contents", "styles")]
        sizes.clear()
        there = Folder.at(f"s3://{BUCKET}/out")
        spec = load_spec(manifest, [*changes, "output.inputs=reference"], output=there.shown)
        assert run(spec).exit_code == 0
        assert list(verify(there)) == []
        for name in Folder.at(here).names("data/") + Folder.at(here).names("input_images/"):
            assert there.read(name) == (here / name).read_bytes(), name
    payload = [
        (here / "data" / path.name).stat().st_size + path.stat().st_size
        for path in (here / "input_images").iterdir()
    ]
    assert len(payload) >= 3
    # More shards than one were never there at a time, and nothing stays.
    assert max(sizes) <= max(payload)
    assert list(place.iterdir()) == []
    assert not list((tmp_path / "home").rglob("*.tar"))
    assert Image.open(io.BytesIO((here / "contact_sheet.png").read_bytes())).size[0] > 0
    assert json.loads((here / "run.json").read_text())["digest"]
