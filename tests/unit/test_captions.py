"""Images with several captions: all are found, each sample has one of them, whatever holds them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.captions import told, with_captions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.data.sources.source import NOWHERE, Item
from stylebatch.manifest import load_spec
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from tests.support.packed import encoded, tar

THREE = ["a cat", "a pet", "an animal"]
DRAWN = SourceOptions(captions="drawn")


def _tar(folder: Path) -> Path:
    return tar(folder / "a.tar", {"0.png": encoded(1), "0.json": {"caption": THREE}})


def _lines(folder: Path) -> Path:
    (folder / "0.png").write_bytes(encoded(1))
    (folder / "0.txt").write_text("\n".join([*THREE, "", "  a cat "]))
    return folder


def _parquet(folder: Path) -> Path:
    rows = [{"bytes": encoded(1), "path": "0.png"}]
    pq.write_table(pa.table({"image": rows, "caption": [THREE]}), folder / "a.parquet")
    return folder / "a.parquet"


def _coco(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images/0.png").write_bytes(encoded(1))
    annotations = [{"image_id": 1, "caption": f" {text}"} for text in THREE]
    document = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": annotations}
    (folder / "captions.json").write_text(json.dumps(document))
    return folder / "images"


@pytest.mark.parametrize("make", [_tar, _lines, _parquet, _coco])
def test_every_kind_finds_all_captions(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path)
    annotations = str(tmp_path / "captions.json") if make is _coco else None
    options = SourceOptions(captions="drawn", annotations=annotations)
    (item,) = list_images(open_source(str(path), "contents", options)).items
    assert (item.caption, item.captions) == (THREE[0], tuple(THREE))
    usual = SourceOptions(annotations=annotations)
    (item,) = list_images(open_source(str(path), "contents", usual)).items
    assert item.captions == ()
    assert item.caption.startswith(THREE[0])
    assert (item.caption == THREE[0]) is (make is not _lines)  # a .txt is one caption


@given(st.lists(st.none() | st.text(max_size=8), max_size=6))
def test_what_a_source_tells_comes_back(captions: list[str | None]) -> None:
    kept = list(dict.fromkeys(t for c in captions if c and (t := c.replace("\0", "").strip())))
    item = with_captions(Item("x", NOWHERE, caption=told(captions, DRAWN)))
    assert item.caption == (kept[0] if kept else "")
    assert item.captions == (tuple(kept) if len(kept) > 1 else ())
    assert told(captions, SourceOptions()) == item.caption


def _plan(folder: Path, model: Path, **sections: Any) -> Plan:
    document = {
        "contents": {"path": "a.tar", "captions": "drawn"}, "styles": {"path": "styles.csv"},
        "method": {"name": "styleid", "steps": 2}, "model": {"path": str(model)},
        "image": {"size": 64}, "output": {"path": "out"},
    } | sections  # fmt: skip
    kept = {name: value for name, value in document.items() if value is not None}
    (folder / "run.yaml").write_text(yaml.safe_dump(kept))
    return plan(load_spec(folder / "run.yaml"))


def test_samples_draw_by_their_seeds(tmp_path: Path, eps_folder: Path) -> None:
    members: dict[str, Any] = {}
    for i in range(20):
        members |= {f"{i}.png": encoded(1), f"{i}.json": {"caption": [f"{i} {c}" for c in THREE]}}
    tar(tmp_path / "a.tar", members)
    (tmp_path / "styles.csv").write_text("path\n" + "".join(f"s{i}.jpg\n" for i in range(15)))
    resolved = _plan(tmp_path, eps_folder)
    crossings = [(row, column) for row in range(20) for column in range(15)]
    captions = [resolved.request(*crossing).caption for crossing in crossings]
    for (row, _), caption in zip(crossings, captions, strict=True):
        assert caption in resolved.captions_of(row)
        assert caption.startswith(f"{resolved.images(0)[row].id.partition('.')[0]} ")
    counts = Counter(caption.partition(" ")[2] for caption in captions)
    assert set(counts) == set(THREE)
    assert min(counts.values()) > 70  # of 100 each, with a deviation of 8
    assert resolved.input_columns == ("captions",)
    again = _plan(tmp_path, eps_folder, seed=1)
    assert [again.request(*crossing).caption for crossing in crossings] != captions
    usual = _plan(tmp_path, eps_folder, contents={"path": "a.tar"})
    assert usual.input_columns == ()
    assert usual.request(0, 0).caption == usual.request(0, 1).caption
    prompts = _plan(
        tmp_path, eps_folder, styles=None, method={"name": "img2img", "steps": 2},
        prompts={"template": "{caption}, painted {look}", "values": {"look": ["flat", "thick"]}},
    )  # fmt: skip
    asked = [prompts.request(row, column) for row in range(20) for column in range(2)]
    texts = {one.prompt.prompt.split(",")[0].partition(" ")[2] for one in asked if one.prompt}
    assert texts == set(THREE)
