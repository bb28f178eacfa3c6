"""Inputs that samples share are stored once per shard, in every format, and no reader or report misses them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from stylebatch.folder import Folder
from stylebatch.reports.committed import read_samples
from stylebatch.spec.output import OutputFormat
from stylebatch.store.ledger import Ledger
from stylebatch.store.records import Record
from stylebatch.store.sinks import SINKS, sink_of
from stylebatch.store.verify import verify
from tests.support.sink_records import CONTENTS, LABELS, SCHEMA, facts_of, jpeg, record, run_of

FORMATS = tuple(SINKS)
NAME = "train-00000"


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _written(
    folder: Path, kind: OutputFormat, samples: Sequence[Record], *, shares: bool = True
) -> dict[str, Any]:
    """An output of one shard; the stats."""
    run, output = run_of(kind), Folder.at(folder)
    output.write("run.json", json.dumps(run.model_dump(exclude_unset=True)).encode())
    with sink_of(kind)(output, NAME, SCHEMA, labels=LABELS, shares_inputs=shares) as sink:
        for sample in samples:
            sink.write(sample)
        stats = sink.commit(facts_of(kind))
    with output.open(f"metadata/{NAME}.parquet") as file, sink_of(kind).finishing(output) as add:
        add(pq.read_table(file))
    return stats


def _samples(output: Folder) -> dict[str, dict[str, bytes]]:
    """Members of the samples that succeeded, by key."""
    with output.open(f"metadata/{NAME}.parquet") as file:
        rows = {row["key"]: row for row in pq.read_table(file).to_pylist() if row["sha256"]}
    return dict(read_samples(output, {NAME: rows}))


def _crossed(count: int, contents: int) -> list[Record]:
    """Samples that share contents and one style; a failed one; ids that come twice with other pictures."""
    found = []
    for i in range(count):
        one = record(i, failed=i == 3)
        row = one.row | {"content_id": CONTENTS[i % contents], "style_id": "s/1.jpg"}
        files = one.files | {"content.jpg": jpeg(50 + i % contents), "style.jpg": jpeg(90)}
        found.append(Record(row, files if one.ok else {}))
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_shared_inputs_are_stored_once_and_given_back_with_each_sample(
    kind: OutputFormat, tmp_path: Path
) -> None:
    samples = _crossed(11, 4)
    for name in ("one", "two"):
        stats = _written(tmp_path / name, kind, samples)
    _written(tmp_path / "copies", kind, samples, shares=False)
    files = _files(tmp_path / "one")
    assert files == _files(tmp_path / "two")
    assert list(verify(tmp_path / "one")) == []
    output = Folder.at(tmp_path / "one")
    assert Ledger(output).stats(NAME, stats["plan_digest"]) is not None
    found, copied = (_samples(Folder.at(tmp_path / name)) for name in ("one", "copies"))
    pictures = {"jpg", "content.jpg", "style.jpg"}
    assert {key: {m: of[m] for m in pictures} for key, of in found.items()} == {
        key: {m: of[m] for m in pictures} for key, of in copied.items()
    }
    sizes = [sum(p.stat().st_size for p in (tmp_path / name).rglob("*.*")) for name in ("one", "copies")]  # fmt: skip
    assert sizes[0] < sizes[1]
    if kind == "files":
        assert len(list((tmp_path / "one/input_images").rglob("*.jpg"))) == 5
        return
    payload = next(name for name in files if name.startswith("data/"))
    assert all(jpeg(n) not in (tmp_path / "one" / payload).read_bytes() for n in (50, 51, 90))
    whole = (tmp_path / "one/input_images").joinpath(Path(payload).name).read_bytes()
    assert [whole.count(jpeg(n)) for n in (50, 51, 52, 53, 90)] == [1] * 5


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", ["flip", "remove", "stranger"])
def test_damage_to_shared_inputs_is_named(kind: OutputFormat, damage: str, tmp_path: Path) -> None:
    stats = _written(tmp_path, kind, _crossed(6, 3))
    file = next(p for p in sorted((tmp_path / "input_images").rglob("*")) if p.is_file())
    if damage == "flip":
        _flip(file)
    elif damage == "remove":
        file.unlink()
    else:
        (file.parent / f"{file.stem}x{file.suffix}").write_bytes(b"x")
    found = [problem.line() for problem in verify(tmp_path)]
    assert len(found) == 1
    assert {"flip": "its bytes changed", "remove": "missing", "stranger": "no shard of this plan"}[
        damage
    ] in found[0]
    if damage == "remove":
        assert Ledger(Folder.at(tmp_path)).stats(NAME, stats["plan_digest"]) is None


def _abandoned(folder: Path, kind: OutputFormat) -> None:
    with sink_of(kind)(Folder.at(folder), NAME, SCHEMA, shares_inputs=True) as sink:
        for sample in _crossed(6, 2):
            sink.write(sample)
        raise KeyboardInterrupt


def test_shared_inputs_of_an_abandoned_shard_are_gone(tmp_path: Path) -> None:
    for kind in FORMATS:
        with pytest.raises(KeyboardInterrupt):
            _abandoned(tmp_path, kind)
        assert _files(tmp_path) == {}


def test_readers_find_shared_inputs_by_the_names_in_the_records(tmp_path: Path) -> None:
    """As docs/formats.md says."""
    samples = _crossed(9, 4)
    _written(tmp_path / "tars", "webdataset", samples)
    inputs = {
        (one["json"]["kind"], one["json"]["id"]): one["jpg"]
        for one in webdataset.WebDataset(
            [str(tmp_path / f"tars/input_images/{NAME}.tar")], shardshuffle=False
        ).map(lambda one: one | {"json": json.loads(one["json"])})
    }
    pairs = webdataset.WebDataset([str(tmp_path / f"tars/data/{NAME}.tar")], shardshuffle=False)
    for pair, sample in zip(pairs, [s for s in samples if s.ok], strict=True):
        told = json.loads(pair["json"])
        assert inputs["content", told["content_id"]] == sample.files["content.jpg"]
        assert inputs["style", told["style_id"]] == sample.files["style.jpg"]
        assert "content.jpg" not in pair
    _written(tmp_path / "rows", "parquet", samples)
    stored = pq.read_table(tmp_path / f"rows/input_images/{NAME}.parquet").to_pylist()
    assert {(row["kind"], row["id"]): row["image"]["bytes"] for row in stored} == inputs
