"""Datasets as `datasets` saves them, in a store, and all that a listing tells of its images."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.folder import Folder
from tests.support.packed import encoded


def listed(place: str, **options: Any) -> Listing:
    return list_images(open_source(place, "contents", SourceOptions(**options)))


def told(found: Listing) -> list[Any]:
    """All that a run knows of the images, and their bytes as another process reads them."""
    sources, items = pickle.loads(pickle.dumps((found.sources, found.items)))
    further = sources.by_field["contents"].further
    rows = [(i.id, i.label, i.caption, i.license, dict(further(i))) for i in items]
    assert all(sources.size(item.ref) is not None for item in items)
    # Backwards first, so that nothing may count on the order.
    backwards = [sources.read(item.ref) for item in reversed(items)]
    assert [sources.read(item.ref) for item in items] == backwards[::-1]
    return [*rows, backwards]


def save_dataset(folder: Path, batches: int, rows: int, size: int) -> None:
    """As `datasets` saves it: pictures of `size` bytes between other columns, some in files beside it, some missing."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    schema = pa.schema(
        [("score", pa.float64()), ("image", picture), ("segmentation", pa.binary()), ("label", pa.int64()),
         ("caption", pa.list_(pa.string())), ("note", pa.string())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )  # fmt: skip
    (folder / "beside.png").write_bytes(encoded(1))
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in range(batches):
            numbers = range(batch * rows, (batch + 1) * rows)
            pictures: list[dict[str, Any]] = [
                {"bytes": encoded(i) + bytes([i]) * size, "path": None} for i in numbers
            ]
            pictures[:2] = [{"bytes": None, "path": "beside.png"}, {"bytes": None, "path": None}]
            columns = [
                [i / 2 for i in numbers], pictures, [encoded(i) for i in numbers], [i % 2 for i in numbers],
                [[f"é {i}", "x"] for i in numbers], [f"n{i}" for i in numbers],
            ]  # fmt: skip
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            stream.write_batch(pa.record_batch(arrays, schema=schema))
    state = {"_data_files": [{"filename": name}], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def upload(folder: Path, address: str) -> None:
    stored = Folder.at(address)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stored.put(path.relative_to(folder).as_posix(), path)
