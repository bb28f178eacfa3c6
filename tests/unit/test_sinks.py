"""Each sink: the same bytes for the same samples, the marker last, nothing left behind, damage named, pictures given back."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylebatch.errors import DamagedError, ManifestError, StorageError
from stylebatch.folder import Folder
from stylebatch.reports.committed import read_samples
from stylebatch.spec import canonical_json
from stylebatch.spec.output import OutputFormat
from stylebatch.store.ledger import Ledger
from stylebatch.store.output_record import read_run
from stylebatch.store.records import Record
from stylebatch.store.sinks import SINKS, Sink, sink_of
from stylebatch.store.verify import verify
from tests.support.sink_records import CONTENTS, LABELS, SCHEMA, facts_of, record, records, run_of

FORMATS = tuple(SINKS)
NAME = "train-00000"


def _write(folder: Path | str, kind: OutputFormat, samples: Sequence[Record]) -> dict[str, Any]:
    """An output of one shard, as a run leaves it; the stats."""
    run, output = run_of(kind), Folder.at(folder)
    output.write("run.json", json.dumps(run.model_dump(exclude_unset=True)).encode())
    with sink_of(kind)(output, NAME, SCHEMA, labels=LABELS) as sink:
        for sample in samples:
            sink.write(sample)
        stats = sink.commit(facts_of(kind))
    _finish(output, kind)
    return stats


def _finish(output: Folder, kind: OutputFormat) -> None:
    with output.open(f"metadata/{NAME}.parquet") as file, sink_of(kind).finishing(output) as add:
        add(pq.read_table(file))


def _rows(output: Folder, *keys: str) -> dict[str, dict[str, Any]]:
    """Rows of the shard's metadata by key."""
    with output.open(f"metadata/{NAME}.parquet") as file:
        rows = pq.read_table(file).to_pylist()
    return {row["key"]: row for row in rows if row["key"] in keys}


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_format_of_the_manifest_has_a_sink_of_that_name() -> None:
    assert get_args(OutputFormat) == FORMATS
    assert all(sink.format == kind for kind, sink in SINKS.items())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_shard_is_the_same_bytes_again_and_gives_its_pictures_back(
    kind: OutputFormat, tmp_path: Path
) -> None:
    samples = records()
    for name in ("one", "two"):
        stats = _write(tmp_path / name, kind, samples)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    assert (stats["num_success"], stats["num_failed"]) == (6, 1)
    assert list(verify(tmp_path / "one")) == []
    output = Folder.at(tmp_path / "one")
    assert Ledger(output).stats(NAME, stats["plan_digest"]) is not None
    wanted = _rows(output, *(samples[i].row["key"] for i in (5, 0)))
    found = dict(read_samples(output, {NAME: wanted}))
    assert list(found) == [samples[i].row["key"] for i in (0, 5)]
    for sample in (samples[0], samples[5]):
        members = found[sample.row["key"]]
        for member in ("jpg", "content.jpg", "style.jpg"):
            assert members[member] == sample.files[member]


def test_stats_of_tars_tell_no_more_than_they_did(tmp_path: Path) -> None:
    told = {kind: set(_write(tmp_path / kind, kind, records())) for kind in FORMATS}
    assert told["webdataset"] == {
        "num_samples", "num_success", "num_failed", "sha256", "bytes", "metadata_sha256", "shard",
        "plan_digest",
    }  # fmt: skip
    assert told["parquet"] == told["files"] == told["webdataset"] | {"format", "num_files"}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_shard_without_success_has_no_payload(kind: OutputFormat, tmp_path: Path) -> None:
    _write(tmp_path, kind, records())
    stats = _write(tmp_path, kind, records(failed=range(7)))
    assert (stats["num_success"], stats["sha256"], stats["bytes"]) == (0, "", 0)
    assert list(SINKS[kind].walk(Folder.at(tmp_path))) in ([], ["images/train/metadata.jsonl"])
    assert [p.line() for p in verify(tmp_path) if "metadata.jsonl" not in p.path] == []


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, None])
def test_an_abandoned_shard_leaves_nothing_and_says_nothing(
    kind: OutputFormat, error: type[BaseException] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    shard = sink_of(kind)(Folder.at(tmp_path), NAME, SCHEMA, labels=LABELS)
    if error is None:
        _leave(shard, None)
    else:
        with pytest.raises((error, StorageError)):
            _leave(shard, error("in the midst"))
    del shard
    gc.collect()
    assert not complaints
    assert _files(tmp_path) == {}


def _leave(shard: Sink, error: BaseException | None) -> None:
    with shard:
        for sample in records(12, failed=()):
            shard.write(sample)
        if error is not None:
            raise error


def _pictures(folder: Path) -> list[Path]:
    return sorted((folder / "images").rglob("*.jpg"))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _swap(folder: Path) -> None:
    one, other = _pictures(folder)[:2]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


FILES_DAMAGE = {
    "flipped": (lambda f: _flip(_pictures(f)[0]), "its bytes changed"),
    "input flipped": (lambda f: _flip(min((f / "input_images").rglob("*.jpg"))), "its bytes changed"),
    "swapped": (_swap, "its bytes changed since the commit (sha256), and so 1 more"),
    "gone": (lambda f: _pictures(f)[0].unlink(), "missing"),
    "pipe": (lambda f: _pipe(_pictures(f)[0]), "not a regular file"),
    "renamed": (lambda f: _pictures(f)[0].rename(_pictures(f)[0].with_name("x--y--000000000.jpg")), "missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES_DAMAGE)
def test_damage_of_a_picture_is_found_by_its_name(case: str, tmp_path: Path) -> None:
    damage, text = FILES_DAMAGE[case]
    stats = _write(tmp_path, "files", records())
    damage(tmp_path)
    problems = list(verify(tmp_path))
    assert {problem.shard for problem in problems} == {0}
    assert text in problems[0].text
    assert "images/" in problems[0].path
    if case in ("gone", "pipe", "renamed"):  # what a resume looks at: names and sizes
        assert Ledger(Folder.at(tmp_path)).stats(NAME, stats["plan_digest"]) is None


STRANGERS = (
    "images/train/cat/mine.jpg",
    "images/train/cat/mine--000000003.jpg",
    "images/train/cat/a--5--000990000.jpg",
    "images/validation/metadata.csv",
    "images/train/notes.txt",
    "input_images/content/train/cat/deep/er/one.png",
)


@pytest.mark.parametrize("name", STRANGERS)
def test_what_no_shard_owns_is_found_in_the_tree(name: str, tmp_path: Path) -> None:
    _write(tmp_path, "files", records())
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    (problem,) = verify(tmp_path)
    assert problem.shard is None
    assert problem.path.endswith(name)


def test_files_beside_the_pictures_are_checked_and_swept(tmp_path: Path) -> None:
    _write(tmp_path, "files", records())
    sidecar, output = tmp_path / "images/train/metadata.jsonl", Folder.at(tmp_path)
    whole = sidecar.read_bytes()
    sidecar.write_bytes(whole[: len(whole) // 2])
    (problem,) = verify(tmp_path)
    assert "does not list the committed pictures" in problem.text
    run = read_run(output)
    _finish(output, "files")
    assert sidecar.read_bytes() == whole
    left = [
        tmp_path / "images/train/Cat/.tmp-a--0--000000000.jpg-0123abcd",
        tmp_path / "images/train/.tmp-metadata.jsonl-0123abcd",
    ]
    kept = tmp_path / "images/train/.tmp-notes-0123abcd"
    for path in (*left, kept):
        path.write_bytes(b"half")
    assert {problem.path for problem in verify(tmp_path)} == set(map(str, (*left, kept)))
    Ledger(output).sweep(run)
    assert [path.exists() for path in (*left, kept)] == [False, False, True]


@pytest.mark.parametrize("name", ["../x--000000000.jpg", "/etc/x--000000000.jpg", "data/x--000000000.jpg",
                                  "images/../../x--000000000.jpg", "images/x.jpg"])  # fmt: skip
def test_names_in_tampered_metadata_lead_nowhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "x--000000000.jpg").write_bytes(b"mine")
    out = tmp_path / "out"
    stats = _write(out, "files", records())
    path = out / f"metadata/{NAME}.parquet"
    table = pq.read_table(path)
    rows = [row | {"file_name": name} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    marker = out / f"metadata/{NAME}_stats.json"
    forged = stats | {"metadata_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    marker.write_text(json.dumps(forged))
    assert "found a file" in next(verify(out)).text
    with pytest.raises(DamagedError, match="found a file"):
        list(read_samples(Folder.at(out), {NAME: _rows(Folder.at(out), "000000000")}))
    _write(out, "files", records())
    assert (tmp_path / "x--000000000.jpg").read_bytes() == b"mine"
    assert list(verify(out)) == []


def test_pictures_that_a_new_attempt_does_not_make_go(tmp_path: Path) -> None:
    _write(tmp_path, "files", records(failed=()))
    before = len(_pictures(tmp_path))
    _write(tmp_path, "files", records(failed=(1,)))
    assert len(_pictures(tmp_path)) == before - 1
    assert list(verify(tmp_path)) == []


def test_a_format_that_nobody_knows_is_refused_by_name(tmp_path: Path) -> None:
    _write(tmp_path, "parquet", records())
    run = json.loads((tmp_path / "run.json").read_text())
    run["identity"]["output"]["format"] = "zip"
    run["digest"] = hashlib.sha256(canonical_json(run["identity"]).encode()).hexdigest()
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(
        ManifestError, match=r"identity\.output\.format: found zip; accepted: webdataset"
    ):
        list(verify(tmp_path))


def test_parquet_holds_records_images_and_features(tmp_path: Path) -> None:
    samples = records(230, failed=(2,))
    _write(tmp_path, "parquet", samples)
    file = pq.ParquetFile(tmp_path / f"data/{NAME}.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [
        100,
        100,
        29,
    ]
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": list(LABELS), "_type": "ClassLabel"}
    assert list(features) == file.schema_arrow.names
    assert [n for n, f in features.items() if f["_type"] == "Image"] == [
        "image",
        "content",
        "style",
    ]
    row = file.read_row_group(0).to_pylist()[0]
    assert (row["label"], row["content_id"], row["sites"]) == (0, CONTENTS[0], [6, 7])
    assert row["image"]["path"] == "000000000.jpg"
    assert Image.open(io.BytesIO(row["style"]["bytes"])).size == (24, 16)


def test_a_small_marker_of_another_format_is_not_believed(tmp_path: Path) -> None:
    stats = _write(tmp_path, "files", records(1))
    (tmp_path / f"metadata/{NAME}_stats.json").write_text(
        json.dumps(stats | {"format": "parquet", "num_files": 1})
    )
    assert Ledger(Folder.at(tmp_path)).stats(NAME, stats["plan_digest"]) is None
    assert [problem.shard for problem in verify(tmp_path)][:1] == [0]


def test_a_remote_output_keeps_the_same_promises() -> None:
    for kind in FORMATS:
        place = f"memory://sinks-{kind}"
        stats = _write(place, kind, records())
        output = Folder.at(place)
        assert list(verify(output)) == []
        assert Ledger(output).stats(NAME, stats["plan_digest"]) is not None
        wanted = _rows(output, "000000000", "000000005")
        assert len(dict(read_samples(output, {NAME: wanted}))) == 2
        output.remove(SINKS[kind].files(output, NAME)[0])
        assert [problem.text for problem in verify(output)] == ["missing"]
        assert Ledger(output).stats(NAME, stats["plan_digest"]) is None


def test_columns_that_pictures_have_the_name_of_get_another(tmp_path: Path) -> None:
    import pyarrow as pa

    schema = pa.schema([*SCHEMA, pa.field("image", pa.string()), pa.field("style", pa.string()),
                        pa.field("image_id", pa.string())])  # fmt: skip
    sample = record(0)
    row = sample.row | {"image": "a.png", "style": "set", "image_id": "taken"}
    files = {"jpg": sample.files["jpg"], "image.jpg": b"1", "style.jpg": b"2"}
    with sink_of("parquet")(Folder.at(tmp_path), NAME, schema) as sink:
        sink.write(Record(row, files))
        sink.commit({"plan_digest": "0" * 64})
    (found,) = pq.read_table(tmp_path / f"data/{NAME}.parquet").to_pylist()
    assert (found["image_id_"], found["style_id_"], found["image_id"]) == ("a.png", "set", "taken")
    assert (found["input_image"]["bytes"], found["style"]["bytes"]) == (b"1", b"2")
