"""A column of label images in Parquet files and saved datasets goes the way of a folder of them."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylebatch.data.image_section import ContentSpec, ImageSpec
from stylebatch.data.inputs import load_labelled
from stylebatch.data.sources.listing import Listing, list_contents
from tests.support.packed import encoded


def labels(number: int) -> bytes:
    """A label image of 48 x 40: `number` in the left half."""
    pixels = np.zeros((40, 48), np.uint8)
    pixels[:, :24] = number
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, form: str, column: str, cells: list[bytes | None]) -> Path:
    count = len(cells)
    images = [{"bytes": encoded(i), "path": None} for i in range(count)]
    if form == "saved":
        rows: dict[str, Any] = {
            "image": images,
            column: [None if c is None else {"bytes": c, "path": None} for c in cells],
        }
        features = datasets.Features({"image": datasets.Image(), column: datasets.Image()})
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
        return folder
    folder.mkdir()
    found: list[Any] = list(cells)
    if form == "structs":
        found = [None if c is None else {"bytes": c, "path": "x"} for c in cells]
    table = pa.table({"image": images, column: found, "width": list(range(count))})
    pq.write_table(table, folder / "rows.parquet", row_group_size=2)
    return folder / "rows.parquet"


def listed(path: Path) -> Listing:
    return list_contents(ContentSpec(path=str(path)))


@pytest.mark.parametrize("form", ["structs", "bytes", "saved"])
def test_each_image_has_the_labels_of_its_row(tmp_path: Path, form: str) -> None:
    cells = [labels(i + 1) for i in range(5)]
    name = "Segmentation" if form == "bytes" else "segmentation"
    found = pickle.loads(pickle.dumps(listed(write(tmp_path / "in", form, name, list(cells)))))
    order = list(range(5))
    random.Random(3).shuffle(order)
    for i in order:
        item = found.items[i]
        assert found.sources.read(item.segmentation) == cells[i]
        assert found.sources.read(item.ref) == encoded(i)
        picture = load_labelled(item, found.sources, 32, ImageSpec(size=32))
        assert picture.segmentation is not None
        with Image.open(io.BytesIO(picture.segmentation)) as opened:
            fitted = np.asarray(opened)
        assert (fitted[:, :15] == i + 1).all()
        assert not fitted[:, 17:].any()
    source = found.sources.by_field["contents"]
    assert name not in source.types


@pytest.mark.parametrize("form", ["structs", "bytes", "saved"])
def test_where_some_rows_lack_labels_none_are_used_and_that_is_told(
    tmp_path: Path, form: str
) -> None:
    cells = [labels(1), None, labels(2)]
    found = listed(write(tmp_path / "in", form, "segmentation", cells))
    assert [item.segmentation for item in found.items] == [None] * 3
    assert "2 of 3 images have a label image, so that none is used" in " ".join(found.notes)


@pytest.mark.parametrize("form", ["structs", "saved"])
def test_other_columns_of_pictures_are_told(tmp_path: Path, form: str) -> None:
    found = listed(write(tmp_path / "in", form, "annotation", [labels(1)]))
    assert found.items[0].segmentation is None
    (note,) = (note for note in found.notes if "annotation" in note)
    assert "columns of images that are not read: annotation; label images are read from" in note
