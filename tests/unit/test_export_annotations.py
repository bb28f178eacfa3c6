"""Annotated objects go into an export, in the form that the contents had or in the one that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.errors import ManifestError
from stylebatch.export.export import export, repair_export
from stylebatch.export.export_options import ExportOptions, Form
from stylebatch.store.verify import verify
from tests.support.exported import rendered, rows_of

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
