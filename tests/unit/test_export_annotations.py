"""Annotated objects go into an export, in the form that the contents had or in the one that is asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from stylebatch.cli import main
from stylebatch.data.image_section import ContentSpec, SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_contents, list_images
from stylebatch.data.sources.splitting import SplitBy
from stylebatch.errors import ManifestError
from stylebatch.export.export import export, repair_export
from stylebatch.export.export_options import ExportOptions, Form
from stylebatch.store.label_columns import NO_OBJECTS
from stylebatch.store.verify import verify
from tests.support.exported import box, rendered, rows_of
from tests.support.generations import generation

FILES: dict[Form, str] = {
    "coco": "annotations/*.json",
    "voc": "annotations/**/*.xml",
    "yolo": "labels/**/*.txt",
}
BOX = (2.0, 3.0, 8.0, 6.0)


@pytest.mark.parametrize("form", FILES)
def test_objects_are_written_in_the_form_that_is_asked_for(form: Form, tmp_path: Path) -> None:
    source, output = rendered(tmp_path / "source", annotations="coco"), tmp_path / "out"
    export([source], output, ExportOptions(format="files", annotations=form))
    repair_export(output)
    assert list(verify(output)) == []
    assert [one for one, files in FILES.items() if any(output.glob(files))] == [form]
    options = SourceOptions(annotations=str(output / FILES[form].partition("/")[0]))
    # COCO's names begin below the folder of the split
    images = output / ("images/train" if form == "coco" else "images")
    items = list_images(open_source(str(images), "contents", options)).items
    row = rows_of(output)[0]
    sides = (row["width"], row["height"]) * 2 if form == "yolo" else (1, 1, 1, 1)
    assert len(items) == 18
    for (region,) in (item.regions for item in items):
        found = [n * side for n, side in zip(region.box or (), sides, strict=True)]
        assert found == pytest.approx(BOX, abs=1e-3)


def _described(folder: Path, *splits: str) -> tuple[Path, dict[str, Any]]:
    """An export of two pictures with objects in each of `splits`, and its `data.yaml`."""
    objects = NO_OBJECTS | box("cat", ["cat"])
    rows = [{"content_id": f"{n}.png", "objects": objects} for n in range(2 * len(splits))]
    source = generation(folder / "source", rows, splits=[*splits, *splits])
    export([source], folder / "out", ExportOptions(format="files", annotations="yolo"))
    assert list(verify(folder / "out")) == []
    return folder / "out", yaml.safe_load((folder / "out/data.yaml").read_text())


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        (("t", "v"), {"train": "t", "val": "t", "splits": ["t", "v"]}),
        (("train", "names", "test"), {"train": "train", "val": "train", "test": "test", "splits": ["train", "test", "names"]}),
        (("validation",), {"train": "validation", "val": "validation", "splits": ["validation"]}),
        (("train",), {"train": "train", "val": "train"}),
        (("train", "validation", "test"), {"train": "train", "val": "validation", "test": "test"}),
    ],
)  # fmt: skip
def test_yolo_keeps_every_split_under_its_name(
    splits: tuple[str, ...], told: dict[str, Any], tmp_path: Path
) -> None:
    output, found = _described(tmp_path, *splits)
    assert found.pop("names")
    own = found.pop("splits", {})
    assert own == {name: f"images/{name}" for name in told.pop("splits", [])}
    assert found == {key: f"images/{name}" for key, name in told.items()}
    card = (output / "README.md").read_text()
    assert ("In data.yaml" in card) == (found["train"] == found["val"])
    given = ContentSpec(path=str(output), annotations=str(output / "data.yaml"))
    listed = list_contents(given, SplitBy(source=True)).items
    expected = {name.replace("validation", "val") if not own else name for name in splits}
    assert Counter(item.split for item in listed) == dict.fromkeys(expected, 2)


def test_a_form_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = rendered(tmp_path / "source", annotations="coco")
    with pytest.raises(ManifestError, match="--annotations: found yolo with the format parquet"):
        export([source], tmp_path / "x", ExportOptions(format="parquet", annotations="yolo"))
    plain = rendered(tmp_path / "plain")
    with pytest.raises(ManifestError, match="--annotations: found voc, and no sample"):
        export([plain], tmp_path / "x", ExportOptions(format="files", annotations="voc"))
    words = ["export", str(source), "--to", "files", "--output", str(tmp_path / "x")]
    assert main([*words, "--annotations", "yolov8"]) == 2
    assert "--annotations: found 'yolov8'; accepted: coco, voc, yolo" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
