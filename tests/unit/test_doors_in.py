"""Every example of docs/data.md, over small files of the kind that it names."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stylebatch.data.images import load_image
from stylebatch.data.sources.kinds import KINDS
from stylebatch.data.sources.listing import list_contents
from stylebatch.manifest import load_spec
from tests.support.files_outputs import written
from tests.support.packed import encoded, tar

TEXT = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
EXAMPLES = [
    found
    for found in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    if "s3://" not in found  # tests/unit/test_stored_sources.py
]
CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def _image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(seed))


def _table(image: str, label: str, caption: str) -> pa.Table:
    rows = [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(4)]
    features = {image: {"_type": "Image"}, label: CLASSES}
    table = pa.table(
        {image: rows, label: [0, 1, 0, 1], caption: [f"caption {i}" for i in range(4)]}
    )
    return table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def _folders(folder: Path) -> None:
    for seed, name in enumerate(("cat/1.png", "dog/2.png")):
        _image(folder / "photos" / name, seed)
        _image(folder / "splits/train" / name, seed)
        _image(folder / "splits/val" / name, seed)
        _image(folder / "captioned" / name, seed)
        _image(folder / "images" / name, seed)
        _image(folder / "label_images" / name, seed)
    (folder / "captioned/metadata.csv").write_text("file_name,text\ncat/1.png,a cat\ndog/2.png,x\n")
    (folder / "photos.csv").write_text("path,label\nphotos/cat/1.png,cat\n")


def _containers(folder: Path) -> None:
    for shard in range(3):
        members: dict[str, Any] = {}
        for i, label in enumerate(("cat", "dog", "fox")):
            told = {"label": label, "label_source": "hand"}
            members |= {f"{shard}{i}.png": encoded(i), f"{shard}{i}.json": told}
        tar(folder / f"shards/{shard:05d}.tar", members)
    objects = {"bbox": [[0, 0, 9, 9]], "category": ["cat"]}
    tar(
        folder / "detection.tar",
        {"0.png": encoded(1), "0.json": {"label": "cat", "objects": objects}},
    )
    sample = {"0.jpg": encoded(1), "0.style.jpg": encoded(2), "0.json": {"label": "cat"}}
    tar(folder / "outputs/first/data/train-00000.tar", sample)
    (folder / "outputs/first/metadata").mkdir()
    (folder / "outputs/first/metadata/train-00000_stats.json").write_text("{}")
    (folder / "hub/data").mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(_table("image", "label", "caption"), folder / f"hub/data/{split}-00000-of-00001.parquet")  # fmt: skip
    pq.write_table(_table("img", "fine_label", "text"), folder / "fine.parquet")
    labelled = _table("image", "label", "caption")
    labelled = labelled.append_column("segmentation", labelled.column("image"))
    pq.write_table(labelled, folder / "labelled.parquet")
    written(folder / "outputs/second", "train")
    saved = folder / "saved/train"
    saved.mkdir(parents=True)
    table = _table("img", "fine_label", "text")
    with pa.OSFile(str(saved / "d.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:  # fmt: skip
        stream.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
    (folder / "saved/dataset_dict.json").write_text('{"splits": ["train", "test"]}')


def _annotations(folder: Path) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "cat/1.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    (folder / "instances.json").write_text(json.dumps(coco))
    for name in ("voc/cat", "labels/cat"):
        (folder / name).mkdir(parents=True)
    (folder / "voc/cat/1.xml").write_text("<annotation/>")
    (folder / "labels/cat/1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "labels/classes.txt").write_text("cat\ndog\n")
    (folder / "coco/annotations").mkdir(parents=True)
    for family, split in itertools.product(("instances", "captions"), ("train", "val")):
        _image(folder / f"coco/{split}2017/cat/1.png", 1)
        (folder / f"coco/annotations/{family}_{split}2017.json").write_text(json.dumps(coco))
    for root in (folder / "roboflow", folder / "outputs/yolo"):
        _image(root / "train/images/1.png", 1)
        (root / "train/labels").mkdir()
        (root / "train/labels/1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        (root / "data.yaml").write_text("train: ../train/images\nnames: [cat]\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the examples name."""
    folder = tmp_path_factory.mktemp("doors")
    _folders(folder)
    _containers(folder)
    _annotations(folder)
    return folder


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_lists_images_as_the_kind_that_it_says(folder: Path, example: str) -> None:
    """And each is a picture, read by its source."""
    manifest = folder / "run.yaml"
    manifest.write_text(
        example + "styles: {path: photos}\noutput: {path: out}\nname: x\n", encoding="utf-8"
    )
    assert yaml.safe_load(manifest.read_text())["contents"]
    contents = load_spec(manifest).contents
    assert contents is not None
    found = list_contents(contents)
    kind = re.search(r"# read as (\w+)", example)
    assert kind is not None
    assert found.notes[0] == f"contents: read as {kind[1]}"
    for item in found.items:
        assert load_image(item.ref, found.sources, 32, name=item.id).pixels.shape == (32, 32, 3)
    if kind[1] != "voc":
        assert any(item.label or item.caption for item in found.items)


def test_every_kind_has_an_example() -> None:
    kinds = set(re.findall(r"^\| (.*?) \| .*\|$", TEXT, re.MULTILINE))
    named = {name for cell in kinds for name in re.findall(r"`(\w+)`", cell)}
    shown = {found for text in EXAMPLES for found in re.findall(r"# read as (\w+)", text)}
    assert named == set(KINDS)
    assert shown == named - {"store"}  # a store has an address
