"""Folders that `datasets` saved: what it wrote is read back without it, and what is damaged is named."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError, SampleError
from tests.support.packed import encoded


def listed(path: object, **options: Any) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))


def dataset(rows: int, first: int = 0) -> datasets.Dataset:
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
            "width": datasets.Value("int32"),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "img": [{"bytes": encoded(first + i), "path": None} for i in range(rows)],
            "fine_label": [i % 2 for i in range(rows)],
            "text": [f"caption {i}" for i in range(rows)],
            "width": [48] * rows,
        },
        features=features,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits `train` of two files and `test` of one."""
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved") / "set"
    both = datasets.DatasetDict({"train": dataset(5), "test": dataset(2, 7)})
    both.save_to_disk(str(folder), num_shards={"train": 2, "test": 1})
    return folder


def test_a_split_is_read_with_class_names(saved: Path) -> None:
    found = listed(saved, split="train", label="fine_label", caption="text")
    assert found.notes == ("contents: read as saved",)
    assert [(i.id, i.label, i.caption) for i in found.items] == [
        ("train/data-00000-of-00002.arrow/1", "cat", "caption 0"),
        ("train/data-00000-of-00002.arrow/2", "dog", "caption 1"),
        ("train/data-00000-of-00002.arrow/3", "cat", "caption 2"),
        ("train/data-00001-of-00002.arrow/1", "dog", "caption 3"),
        ("train/data-00001-of-00002.arrow/2", "cat", "caption 4"),
    ]
    source, items = pickle.loads(pickle.dumps((found.sources, found.items)))
    assert [source.read(item.ref) for item in reversed(items)] == [encoded(i) for i in (4, 3, 2, 1, 0)]  # fmt: skip
    assert source.by_field["contents"].further(items[3]) == {"width": 48}
    one = listed(saved / "test", label="fine_label")
    assert [i.id for i in one.items] == ["data-00000-of-00001.arrow/1", "data-00000-of-00001.arrow/2"]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "options", "told"),
    [
        ("", {}, r"contents\.split: .*splits train, test.*`split: train`"),
        ("", {"split": "val"}, r"contents\.split: .*'val'; accepted: train, test"),
        ("test", {"split": "val"}, r"contents\.split: .*'val'; accepted: "),
        ("test", {"label": "fine_lable"}, r"contents\.label: .*'fine_lable'; did you mean 'fine_label'"),
        ("test", {"image": "image"}, r"contents\.image: .*'image', which it lacks"),
    ],
)  # fmt: skip
def test_splits_and_columns_that_are_not_there_are_named(
    saved: Path, folder: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ManifestError, match=told):
        listed(saved / folder, **options)


def _batches(path: Path, count: int, *, end: bool = True) -> Path:
    """A saved dataset of `count` record batches of two rows, by hand."""
    path.mkdir(parents=True)
    schema = pa.schema([("image", pa.binary()), ("label", pa.string())])
    with pa.OSFile(str(path / "d.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for i in range(count):
            stream.write_batch(pa.record_batch([[encoded(i), None], ["a", "b"]], schema=schema))
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
    (path / "dataset_info.json").write_text("{}")
    return path / "d.arrow"


def test_cut_files_are_named_or_counted(tmp_path: Path) -> None:
    file = _batches(tmp_path / "s", 3)
    whole = file.read_bytes()
    found = listed(tmp_path / "s")
    assert [i.id for i in found.items] == [f"d.arrow/{i}" for i in (1, 3, 5)]
    assert "3 passed over: 3 row without an image" in " ".join(found.notes)
    for length in (len(whole) - 8, len(whole) - 300, len(whole) // 2, 300, 1, 0):
        file.write_bytes(whole[:length])
        with pytest.raises(ManifestError, match=r"contents\.path: .*d\.arrow: cannot be read"):
            listed(tmp_path / "s")
        try:
            kept = listed(tmp_path / "s", damaged="pass_over")
        except ManifestError:
            continue
        assert "1 damaged file" in " ".join(kept.notes)
        for number, item in enumerate(kept.items):
            assert kept.sources.read(item.ref) == encoded(number)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SampleError):
        found.sources.read(found.items[-1].ref)


def test_a_flipped_bit_that_leads_outside_is_named_and_ends_no_process(tmp_path: Path) -> None:
    file = _batches(tmp_path / "s", 1)
    found, whole = listed(tmp_path / "s"), file.read_bytes()
    sizes = b"".join(n.to_bytes(4, "little") for n in (0, len(encoded(0)), len(encoded(0))))
    for ends, place in ((sizes, 7), (b"\0\0\0\0\1\0\0\0\2\0\0\0", 11)):
        assert whole.count(ends) == 1
        odd = bytearray(whole)
        odd[whole.index(ends) + place] ^= 0x40
        file.write_bytes(odd)
        with pytest.raises(ManifestError, match=r"contents\.path: .*d\.arrow: cannot be read"):
            listed(tmp_path / "s")
        if ends == sizes:
            with pytest.raises(SampleError, match="cannot be read"):
                found.sources.read(found.items[0].ref)


@pytest.mark.parametrize(
    "state", ["", "[]", "{}", '{"_data_files": [{"filename": "../x.arrow"}]}', '{"_data_files": 3}']
)
def test_a_state_that_is_damaged_is_named(tmp_path: Path, state: str) -> None:
    _batches(tmp_path / "s", 1)
    (tmp_path / "s/state.json").write_text(state)
    with pytest.raises(ManifestError, match=r"contents\.path: .*state\.json: "):
        listed(tmp_path / "s")
