"""Outputs of pictures in trees as sources: what their records say, by committed shards alone, here and in a store."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import kind_of, open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from tests.support.files_outputs import written
from tests.support.s3 import BUCKET, s3_server, short_pauses
from tests.support.sink_records import record, run_of


def listed(path: Path | str, **options: Any) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))


def told(found: Listing) -> list[tuple[Any, ...]]:
    source = found.sources.by_field["contents"]
    return [
        (i.id, i.label, i.caption, found.sources.read(i.ref), dict(source.further(i)))
        for i in found.items
    ]


def test_samples_are_listed_with_what_their_records_say(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train", "train")
    found = listed(output)
    assert len(found.items) == 8
    assert [item.label for item in found.items[:4]] == ["Cat", "a/b", "test", "ünter"]
    assert "2 failed sample" in " ".join(found.notes)
    types = found.sources.by_field["contents"].types
    # those of failed samples have gaps: of the others the type stays
    assert (types["structure"], types["seed"], types["sites"]) == ("double", "int64", "list<int64>")
    assert not {"label", "file_name", "input_files", "input_sha256", "shard"} & types.keys()
    for item, index in zip(found.items[:4], (0, 1, 3, 4), strict=True):
        assert found.sources.read(item.ref) == record(index).files["jpg"]
        assert found.sources.by_field["contents"].further(item)["seed"] == index
    again = pickle.loads(pickle.dumps(found.sources))
    assert again.by_field["contents"].further(found.items[5])["key"] == "000010001"
    assert found.items[0].id == listed(output / "images/train").items[0].id
    assert [i.id for i in listed(output / "images").items] == [i.id for i in found.items]


def test_ids_stay_while_an_output_grows(tmp_path: Path) -> None:
    whole = listed(written(tmp_path / "out", "train", "train")).items
    first = listed(written(tmp_path / "half", "train", planned=2))
    assert [item.id for item in first.items] == [item.id for item in whole[:4]]
    assert "contents: 1 of 2 shards of this output are committed" in " ".join(first.notes)


def test_what_is_not_committed_is_not_read_and_told(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train", "train", "train")
    (output / "metadata/train-00001_stats.json").unlink()
    (output / "images/train/Cat/stray.jpg").write_bytes(b"x")
    found = listed(output)
    assert {item.id.rpartition("--")[2][:5] for item in found.items} == {"00000", "00002"}
    assert "2 of 3 shards of this output are committed" in " ".join(found.notes)
    (output / "run.json").unlink()
    assert "1 shard of this output passed over, since not committed" in " ".join(
        listed(output).notes
    )
    for marker in output.glob("metadata/*_stats.json"):
        marker.unlink()
    (output / "run.json").write_text(run_of("files").model_dump_json())
    with pytest.raises(ManifestError, match=r"once a shard of it is committed.*run it to its end"):
        listed(output)


def test_splits_are_not_mixed_whatever_their_names(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train", "fold_2")
    with pytest.raises(ManifestError, match=r"splits fold_2, train; .*`split: fold_2`"):
        listed(output)
    assert len(listed(output, split="Fold_2").items) == 4
    assert [i.id for i in listed(output / "images/fold_2").items] == [
        i.id for i in listed(output, split="fold_2").items
    ]
    assert open_source(str(output), "contents").splits() == ["fold_2", "train"]
    with pytest.raises(ManifestError, match=r"contents\.split: .*found 'val'; accepted: fold_2, "):
        listed(output, split="val")


def test_inputs_are_read_in_place_of_results(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train")
    found = listed(output, image="style.jpg")
    assert [found.sources.read(i.ref) for i in found.items] == [
        record(i).files["style.jpg"] for i in (0, 1, 3, 4)
    ]
    with pytest.raises(ManifestError, match=r"'styel'; accepted: image, content, style"):
        listed(output, image="styel")


@pytest.mark.parametrize("name", ["images/../../x.jpg", "/etc/x.jpg", "data/train/x.jpg", "images/x.jpg"])  # fmt: skip
def test_tampered_records_lead_nowhere(tmp_path: Path, name: str) -> None:
    output = written(tmp_path / "out", "train")
    path = output / "metadata/train-00000.parquet"
    table = pq.read_table(path)
    files = [name, *table["file_name"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("file_name"), "file_name", pa.array(files)), path)  # fmt: skip
    with pytest.raises(ManifestError, match=r"train-00000\.parquet: found the file"):
        listed(output)


def test_damaged_records_stop_the_plan_or_are_passed_over(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train", "train")
    path = output / "metadata/train-00000.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ManifestError, match=r"train-00000\.parquet: cannot be read as Parquet"):
        listed(output)
    found = listed(output, damaged="pass_over")
    assert [item.id[-8:-6] for item in found.items] == ["00", "00", "00", "00"]
    assert "1 damaged file" in " ".join(found.notes)


def test_a_forced_kind_is_told_the_way(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train")
    with pytest.raises(ManifestError, match=r"Next: give .*out, without `kind`"):
        listed(output, kind="folder")
    for inside in ("metadata", "inputs"):
        (output / inside).mkdir(exist_ok=True)
        assert kind_of(str(output / inside)) == "folder"  # which says what is wrong
        with pytest.raises(ManifestError, match=r"belongs to out, an output"):
            listed(output / inside)


@pytest.mark.slow
def test_an_output_in_a_store_is_the_same(tmp_path: Path) -> None:
    output = written(tmp_path / "out", "train", "test")
    with s3_server(), short_pauses():
        store = Folder.at(f"s3://{BUCKET}/mine/out")
        for path in sorted(output.rglob("*")):
            if path.is_file():
                store.write(path.relative_to(output).as_posix(), path.read_bytes())
        for path in ("", "/images", "/images/test"):
            options = {} if path.endswith("test") else {"split": "test"}
            here = told(listed(f"{output}{path}", **options))
            assert told(listed(f"s3://{BUCKET}/mine/out{path}", **options)) == here
            assert here


def test_a_moved_output_keeps_its_ids(tmp_path: Path) -> None:
    before = listed(written(tmp_path / "out", "train")).items
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    after = listed(tmp_path / "elsewhere").items
    assert [item.id for item in before] == [item.id for item in after]
    assert json.dumps([item.ref.member for item in before]) == json.dumps([i.ref.member for i in after])  # fmt: skip
