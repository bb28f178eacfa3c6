"""Labels of contents in whole outputs: boxes, polygons, keypoints, label images and further columns, in every format, and read back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import datasets
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import form_of, open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.engine.run import run
from stylebatch.errors import InputChangedError, PlanChangedError
from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.spec.output import OutputFormat
from stylebatch.store.sinks import sink_of
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.labelled import (
    CATEGORIES,
    write_coco,
    write_images,
    write_segmentation,
    write_voc,
    write_yolo,
)
from tests.support.packed import tar
from tests.support.runs import digests

FORMATS: tuple[OutputFormat, ...] = ("webdataset", "parquet", "files")
# of the 80 x 48 pictures the middle 48 columns, from 16 on, become 32 x 32
BOX_A, BOX_C = [9.333, 6.667, 16.0, 13.333], [16.0, 10.667, 10.667, 16.0]


def manifest(folder: Path, *, masks: bool = False, **changes: Any) -> Path:
    write_images(folder / "images")
    write_coco(folder / "coco.json", masks=masks)
    write_segmentation(folder / "labels")
    (folder / "styles").mkdir()
    picture(9, 40, 40).save(folder / "styles/s.png")
    data = {
        "contents": {"path": "images", "annotations": "coco.json", "segmentation": "labels"}, "styles": {"path": "styles"},
        "classes": list(CATEGORIES), "method": {"name": "styleid", "steps": 2}, "image": {"size": 32},
        "engine": {"threads": 1}, "output": {"path": str(folder / "out"), "shard_size": 2},
    } | changes  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(data))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labelled")
    path = manifest(folder)
    for kind in FORMATS:
        spec = load_spec(path, [f"output.format={kind}"], output=str(folder / kind))
        assert run(spec).exit_code == 0
        assert list(verify(folder / kind)) == []
    return {kind: folder / kind for kind in FORMATS}


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    """Records by content."""
    found = [
        row
        for file in sorted(output.glob("metadata/train-*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    return {row["content_id"]: row for row in found}


@pytest.mark.parametrize("kind", FORMATS)
def test_records_have_the_objects_where_the_pixels_are(
    kind: OutputFormat, outputs: dict[str, Path]
) -> None:
    rows = rows_of(outputs[kind])
    a, b, c = (rows[name] for name in ("a.png", "sub/b.png", "c.jpg"))
    assert (a["objects"]["bbox"], c["objects"]["bbox"]) == ([BOX_A], [BOX_C])
    assert a["objects"]["category"] == ["dog"]
    assert a["objects"]["category_id"] == [1]
    assert a["objects"]["iscrowd"] == [0]
    assert a["objects"]["keypoints"] == [[17.333, 13.333, 2.0]]
    assert a["objects"]["area"][0] == pytest.approx(16 * 13.333, rel=1e-3)
    assert set(a["objects"]["segmentation"][0][0]) == {9.333, 25.333, 6.667, 20.0}
    assert b["objects"] == {name: [] for name in b["objects"]}
    assert (b["label"], c["label"]) == ("cat", "dog")
    assert a["transform"] == {
        "crop": [16.0, 0.0, 48.0, 48.0],
        "scale": [32 / 48, 32 / 48],
        "offset": [0, 0],
        "orientation": 1,
    }
    assert (c["transform"]["orientation"], c["transform"]["crop"]) == (6, [16.0, 0.0, 48.0, 48.0])
    assert (a["year"], c["year"], c["content_width"], c["original_width"]) == (2001, 2003, 48, 80)


@pytest.mark.parametrize("kind", FORMATS)
def test_samples_have_the_label_image_of_their_pixels(
    kind: OutputFormat, outputs: dict[str, Path]
) -> None:
    output = Folder.at(outputs[kind])
    rows = {row["key"]: row for row in rows_of(outputs[kind]).values()}
    seen = 0
    for shard in ("train-00000", "train-00001"):
        of_shard = {key: row for key, row in rows.items() if key.startswith(shard[-5:])}
        for key, members in sink_of(kind).samples(output, shard, of_shard):
            seen += 1
            with Image.open(io.BytesIO(members["segmentation.png"])) as opened:
                labels = np.asarray(opened)
                assert opened.mode == "P"
            with Image.open(io.BytesIO(members["content.jpg"])) as opened:
                content = np.asarray(opened).astype(int).mean(axis=2)
            boxes = rows[key]["objects"]["bbox"]
            assert set(np.unique(labels)) == ({7, 255} if boxes else {255})
            for x, y, wide, tall in boxes:
                at = np.nonzero(labels == 7)
                assert abs(at[1].min() - x) <= 1
                assert abs(at[0].max() + 1 - y - tall) <= 1
                assert content[labels == 7].mean() > 200 > 120 > content[labels == 255].mean()
                assert wide > 0
    assert seen == 3


@pytest.mark.parametrize("kind", FORMATS)
def test_datasets_loads_objects_with_their_types(
    kind: OutputFormat, outputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    loaded = datasets.load_dataset(str(outputs[kind]), split="train")
    datasets.disable_progress_bars()
    records = [row["json"] if kind == "webdataset" else row for row in loaded]
    features = loaded.features["json"] if kind == "webdataset" else loaded.features
    if kind != "files":  # there numbers stay numbers, as of labels
        assert features["objects"]["category_id"].feature.names == list(CATEGORIES)
    boxes = sorted(str(row["objects"]["bbox"]) for row in records)
    assert boxes == sorted(map(str, ([BOX_A], [], [BOX_C])))
    assert {row["year"] for row in records} == {2001, 2002, 2003}
    assert all(
        set(row["transform"]) == {"crop", "scale", "offset", "orientation"} for row in records
    )
    if kind != "files":
        assert loaded[0]["segmentation.png" if kind == "webdataset" else "segmentation"].size == (
            32,
            32,
        )


def test_duckdb_asks_for_objects(outputs: dict[str, Path]) -> None:
    found = duckdb.sql(
        f"SELECT content_id FROM '{outputs['webdataset']}/metadata/train-*.parquet' WHERE list_contains(objects.category, 'dog') ORDER BY 1"
    ).fetchall()
    assert found == [("a.png",), ("c.jpg",)]


def test_a_second_generation_has_all_that_the_first_had(outputs: dict[str, Path]) -> None:
    """Objects, label images and further columns, from each format alike."""
    told = []
    for kind in FORMATS:
        found = list_images(open_source(str(outputs[kind]), "contents"))
        assert found.notes[0] == f"contents: read as {kind}"
        source = found.sources.by_field["contents"]
        rows = {source.further(item)["content_id"]: (item, source.further(item)) for item in found.items}  # fmt: skip
        boxes = {name: [list(r.box or ()) for r in item.regions] for name, (item, _) in rows.items()}  # fmt: skip
        assert boxes == {"a.png": [BOX_A], "sub/b.png": [], "c.jpg": [BOX_C]}
        assert {r.label for item in found.items for r in item.regions} == {"dog"}
        labels = [found.sources.read(i.segmentation) for i in found.items if i.segmentation]
        assert [Image.open(io.BytesIO(data)).size for data in labels] == [(32, 32)] * 3
        assert {name: item.label for name, (item, _) in rows.items()} == {
            "a.png": "dog", "sub/b.png": "cat", "c.jpg": "dog"
        }  # fmt: skip
        told.append((source.types, {name: row for name, (_, row) in rows.items()}))
    assert told[0] == told[2]
    assert told[0][0].keys() == told[1][0].keys()


def test_a_run_over_an_output_of_files_keeps_its_labels(
    outputs: dict[str, Path], tmp_path: Path
) -> None:
    data = {
        "contents": {"path": str(outputs["files"]), "carry": ["year", "style_id"]},
        "styles": {"path": str(outputs["files"]), "image": "style", "carry": []},
        "method": {"name": "styleid", "steps": 2}, "image": {"size": 32}, "engine": {"threads": 1},
        "output": {"path": str(tmp_path / "second"), "format": "files"},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    assert run(load_spec(tmp_path / "run.yaml")).exit_code == 0
    assert list(verify(tmp_path / "second")) == []
    rows = rows_of(tmp_path / "second")
    assert rows["dog/a--s--000000000.jpg"]["objects"]["bbox"] == [BOX_A]
    assert {name: row["year"] for name, row in rows.items()} == {
        "dog/a--s--000000000.jpg": 2001, "cat/sub/b--s--000010000.jpg": 2002, "dog/c--s--000010001.jpg": 2003,
    }  # fmt: skip
    assert {row["content_style_id"] for row in rows.values()} == {"s.png"}
    assert len(list((tmp_path / "second/images/train").rglob("*.jpg"))) == 9
    assert len(list((tmp_path / "second/input_images/segmentation").rglob("*.png"))) == 9


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_coco_of_an_output_is_read_by_its_own_library_and_by_us(outputs: dict[str, Path]) -> None:
    output = outputs["files"]
    path = output / "annotations/instances_train.json"
    found = list_images(
        open_source(str(output / "images/train"), "contents", SourceOptions(annotations=str(path)))
    )
    boxes = {
        item.id.rpartition("/")[2][0]: [list(r.box or ()) for r in item.regions]
        for item in found.items
    }
    assert boxes == {"a": [BOX_A], "b": [], "c": [BOX_C]}
    read = COCO(str(path))
    assert [read.cats[i]["name"] for i in sorted(read.cats)] == list(CATEGORIES)
    for image in read.imgs.values():
        with Image.open(output / "images/train" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
    ids = read.getAnnIds(catIds=read.getCatIds(["dog"]))
    assert [read.annToMask(one).sum() > 100 for one in read.loadAnns(ids)] == [True, True]
    results = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"], "score": 0.9} for one in read.loadAnns(ids)
    ]  # fmt: skip
    evaluation = COCOeval(read, read.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of COCO's library
def test_masks_are_where_the_label_images_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = manifest(tmp_path, masks=True)
    for kind in FORMATS:
        output = tmp_path / kind
        assert run(load_spec(path, [f"output.format={kind}"], output=str(output))).exit_code == 0
        assert list(verify(output)) == []
        rows = {row["key"]: row for row in rows_of(output).values()}
        for shard in ("train-00000", "train-00001"):
            of_shard = {key: row for key, row in rows.items() if key.startswith(shard[-5:])}
            for key, members in sink_of(kind).samples(Folder.at(output), shard, of_shard):
                labels = np.asarray(Image.open(io.BytesIO(members["segmentation.png"])))
                found = rows[key]["objects"]
                assert found["segmentation"] == [[] for _ in found["bbox"]]
                for counts, size in zip(found["counts"], found["size"], strict=True):
                    mask = coco_masks.decode({"counts": counts.encode(), "size": size})
                    assert np.array_equal(mask == 1, labels == 7)
                    assert found["area"] == [mask.sum()]
        loaded = datasets.load_dataset(str(output), split="train")
        records = [row["json"] if kind == "webdataset" else row for row in loaded]
        assert sorted(len(row["objects"]["size"]) for row in records) == [0, 1, 1]
        if kind != "files":
            options = SourceOptions(image="image") if kind == "parquet" else SourceOptions()
            again = list_images(open_source(str(output), "contents", options)).items
            assert sorted(r.mask is not None for i in again for r in i.regions) == [True, True]
    read = COCO(str(tmp_path / "files/annotations/instances_train.json"))
    assert sorted(one["iscrowd"] for one in read.loadAnns(read.getAnnIds())) == [0, 1]
    assert all(read.annToMask(one).sum() == one["area"] > 100 for one in read.loadAnns(read.getAnnIds()))  # fmt: skip


def test_voc_comes_out_in_the_numbers_that_it_came_in(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    write_voc(tmp_path / "voc")
    data = json.loads(path.read_text())
    data["image"] = {"size": 64, "mode": "keep"}
    data["contents"] = {"path": "images", "annotations": "voc"}
    data["output"] = {"path": str(tmp_path / "out"), "format": "files"}
    # of a multiple of the model's, so that nothing is scaled
    for name in ("a.png", "sub/b.png", "c.jpg"):
        made = Image.fromarray(np.asarray(picture(3, 96, 64)))
        made.save(tmp_path / "images" / name)
        xml = (tmp_path / "voc" / name).with_suffix(".xml")
        xml.write_text(xml.read_text().replace(">80<", ">96<").replace(">48<", ">64<"))
    path.write_text(json.dumps(data))
    assert run(load_spec(path)).exit_code == 0
    assert list(verify(tmp_path / "out")) == []
    for before in (tmp_path / "voc").rglob("*.xml"):
        (after,) = (tmp_path / "out/annotations").rglob(f"{before.stem}--*.xml")
        pair = [ElementTree.parse(file).getroot() for file in (before, after)]
        for tag in ("xmin", "ymin", "xmax", "ymax", "difficult", "name", "width"):
            was, now = ([e.text for e in root.iter(tag)] for root in pair)
            assert was == now


def read_again(output: Path, kind: str) -> list[tuple[Path, str]]:
    """Further ways to name the annotations of an output."""
    above = output / ("annotations" if kind == "voc" else "labels")
    described = [(output, str(output / "data.yaml"))] if kind == "yolo" else []
    return [(output / "images", str(above)), *described]


@pytest.mark.parametrize(
    ("kind", "form"), [("voc", "files"), ("voc", "parquet"), ("yolo", "webdataset")]
)
def test_an_output_keeps_the_form_of_annotations(
    kind: str, form: OutputFormat, tmp_path: Path
) -> None:
    """Whatever its own format: an export to files writes them."""
    path = manifest(tmp_path)
    folder = tmp_path / kind
    write_voc(folder) if kind == "voc" else write_yolo(folder)
    contents = {"path": "images", "annotations": kind}
    data = json.loads(path.read_text()) | {"contents": contents}
    data["output"] = {"path": str(tmp_path / form), "format": form}
    path.write_text(json.dumps(data))
    assert run(load_spec(path)).exit_code == 0
    output = tmp_path / "files"
    if form != "files":
        assert form_of(open_source(str(tmp_path / form), "contents")) == kind
        export([tmp_path / form], output, ExportOptions(format="files"))
    assert list(verify(output)) == []
    annotations = output / ("annotations" if kind == "voc" else "labels") / "train"
    options = SourceOptions(annotations=str(annotations))
    found = list_images(open_source(str(output / "images/train"), "contents", options))
    for images, others in read_again(output, kind):
        again = list_images(open_source(str(images), "contents", SourceOptions(annotations=others)))
        assert [item.regions for item in again.items] == [item.regions for item in found.items]
    boxes = {item.id.rpartition("/")[2][0]: item.regions for item in found.items}
    scale = 1 if kind == "voc" else 32
    for name, expected in (("a", BOX_A), ("c", BOX_C)):
        (region,) = boxes[name]
        assert region.label == "dog"
        # VOC has whole pixels: each edge is off by a half at most, a side by one
        off = 1.0 if kind == "voc" else 2e-3
        assert [n * scale for n in region.box or ()] == pytest.approx(expected, abs=off)
    assert boxes["b"] == ()
    victim = next(annotations.rglob("a--*"))
    victim.write_text("")
    (problem,) = verify(output)
    assert victim.name in problem.path


def test_a_resume_notices_other_columns_of_the_same_pictures(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    members: dict[str, Any] = {}
    for i in range(3):
        members |= {
            f"{i}.png": (tmp_path / "labels/a.png").read_bytes(),
            f"{i}.json": {"year": 2000 + i},
        }
    tar(tmp_path / "c.tar", members)
    data = json.loads(path.read_text()) | {"contents": {"path": "c.tar"}}
    data["output"] |= {"shard_size": 1}
    path.write_text(json.dumps(data))
    spec = load_spec(path, ["engine.feature_gb=0.0003"])
    assert run(spec).exit_code == 0
    output = tmp_path / "out"
    before = digests(output)
    last = sorted(output.glob("metadata/*_stats.json"))[-1]
    last.unlink()
    assert run(spec).exit_code == 0
    assert digests(output) == before
    last.unlink()
    tar(tmp_path / "c.tar", members | {f"{i}.json": {"year": 3000 + i} for i in range(3)})
    with pytest.raises(InputChangedError, match=r"carried columns of content \d\.png changed"):
        run(spec)
    tar(tmp_path / "c.tar", members | {"1.json": {"year": "early"}})
    with pytest.raises(PlanChangedError, match="carried"):
        run(spec)
