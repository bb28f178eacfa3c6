"""One contact sheet for every method: its form follows from the columns and pairs that the records have."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylebatch.folder import Folder
from stylebatch.methods.method import PromptMethod
from stylebatch.methods.plain.options import Img2ImgOptions, InpaintOptions, Text2ImgOptions
from stylebatch.methods.stylealigned.options import StyleAlignedOptions
from stylebatch.reports.canvas import SheetLayout
from stylebatch.reports.committed import Committed
from stylebatch.reports.contact_sheet import Limits, SheetRows, contact_sheet
from stylebatch.reports.gallery import gallery
from stylebatch.reports.pair_grid import PairGrid, grid_layout
from stylebatch.reports.sample_lines import Lines
from stylebatch.store.records import Record, schema_of
from stylebatch.store.sinks import WebDatasetShard
from tests.support.outputs import DIGEST, IDENTITY
from tests.support.pages import held

COLORS = [(230, 30, 30), (30, 200, 30), (40, 40, 230), (200, 200, 20), (20, 200, 200), (120, 60, 20)]  # fmt: skip
Given = dict[str, str]


def _png(number: int, width: int = 32, height: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), COLORS[number % len(COLORS)]).save(buffer, "PNG")
    return buffer.getvalue()


def _sheet(output: Path) -> Path:
    return Path(contact_sheet(output))


def write_rows(
    output: Path, method: PromptMethod, rows: Sequence[Given], *, width: int = 32
) -> Path:
    """An output of one shard whose row n shows colour n; its inputs show the last colour."""
    schema = schema_of(method)
    run = {
        "format": "stylebatch", "version": 3, "name": "rows", "axes": ["prompt"],
        "plan": {"num_samples": len(rows), "num_shards": 1}, "spec": {}, "model": "tiny", "digest": DIGEST,
        "identity": IDENTITY, "resolved": {"threads": 1, "device": "cpu", "dtype": "float32"},
    }  # fmt: skip
    output.mkdir(parents=True)
    (output / "run.json").write_text(json.dumps(run))
    with WebDatasetShard(Folder.at(output), "train-00000", schema) as sink:
        for number, given in enumerate(rows):
            blank: dict[str, Any] = {
                field.name: {"string": "", "bool": False}.get(str(field.type), 0)
                for field in schema
            }
            row = blank | {
                "key": f"{number:09d}", "id": f"{number}", "method": method.name, "seed": 1, "width": width, "height": 32,
                "status": "success",
            } | given  # fmt: skip
            members = ("image", "mask", "reference")
            files = {f"{name}.jpg": _png(-1) for name in members if given.get(name)}
            sink.write(Record(row, {"png": _png(number, width), **files}))
        sink.commit({"shard": 0, "plan_digest": DIGEST, "seconds": 1.0, "evaluations": 1})
    return output


def _form(output: Path) -> PairGrid | Lines:
    committed = Committed(Folder.at(output))
    rows = SheetRows(committed.num_samples, Limits())
    for shard in committed.read():
        rows.add(shard)
    sheet = rows.sheet()
    assert isinstance(sheet, PairGrid | Lines)
    return sheet


def _crossed(images: int, prompts: int, share: float = 1.0) -> list[Given]:
    rows = [{"image": f"{i}.png", "prompt": f"a prompt {p}"} for i in range(images) for p in range(prompts)]  # fmt: skip
    return rows[:: round(1 / share)]


def _at(path: Path, x: int, y: int) -> tuple[int, ...]:
    with Image.open(path) as sheet:
        return tuple(np.asarray(sheet)[y, x].tolist())


def test_images_crossed_with_prompts_are_a_grid_with_the_prompts_as_heads(tmp_path: Path) -> None:
    output = write_rows(tmp_path / "out", Img2ImgOptions(), _crossed(2, 3))
    assert isinstance(_form(output), PairGrid)
    path = _sheet(output)
    layout = grid_layout(128, ["0.png", "1.png"])
    for place, color in enumerate(COLORS):
        x, y = layout.origin(place // 3 + 1, place % 3 + 1)
        assert _at(path, x + 64, y + 64) == color
    x, y = layout.origin(0, 1)
    with Image.open(path) as sheet:
        head = np.asarray(sheet.crop((x, y, x + 128, y + 128)).convert("L"))
    assert head.max() == 255
    assert head.min() < 100, "the prompt is written above its column"


@pytest.mark.parametrize(
    ("method", "rows", "form"),
    [
        (Img2ImgOptions(), _crossed(4, 4, share=0.25), Lines),
        (Img2ImgOptions(), _crossed(5, 1), Lines),
        (Img2ImgOptions(), _crossed(1, 5), Lines),
        (Img2ImgOptions(), _crossed(2, 2) * 3, Lines),
        (Text2ImgOptions(), [{"prompt": f"{n}"} for n in range(5)], Lines),
        (InpaintOptions(), [row | {"mask": "m.png"} for row in _crossed(2, 2)], Lines),
        (StyleAlignedOptions(), [{"prompt": "a", "style": "s", "reference": "0"}] * 3, Lines),
    ],
)
def test_other_records_are_lines_of_inputs_and_results(
    tmp_path: Path, method: PromptMethod, rows: list[Given], form: type
) -> None:
    output = write_rows(tmp_path / "out", method, rows)
    assert isinstance(_form(output), form)
    path = _sheet(output)
    layout = SheetLayout(128)
    x, y = layout.margin, layout.margin
    inputs = [name for name in ("image", "mask", "reference") if name in rows[0]]
    for _ in inputs:
        assert np.abs(np.array(_at(path, x + 64, y + 64)) - COLORS[-1]).max() <= 3
        x += layout.cell + layout.gutter
    shown = COLORS[1] if "style" in rows[0] else COLORS[0]  # the first of a set is its reference
    assert _at(path, x + 64, y + 64) == shown
    assert _sheet(output).read_bytes() == path.read_bytes()


def test_wide_pictures_of_a_set_are_broken_into_lines(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "style": "s", "reference": "r.png"} for n in range(12)]
    path = _sheet(write_rows(tmp_path / "out", StyleAlignedOptions(), rows, width=160))
    with Image.open(path) as sheet:
        assert sheet.width <= 2048 + 640
        assert sheet.height > 4 * 128


def test_what_all_samples_have_in_common_is_said_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [row | {"seed": 5 + n} for n, row in enumerate(_crossed(1, 3))]
    page = held(gallery(write_rows(tmp_path / "out", Img2ImgOptions(), rows)))
    (made,) = (text for word, text in page["state"]["facts"] if word == "made with")
    assert made.startswith("img2img, ")
    assert "seed" not in made
    assert page["lineage"] == [[["made with", f"seed {5 + n}"]] for n in range(3)]
    assert page["rows"][0]["prompt"] == "a prompt 0"
    assert "3 of 3 samples rendered" in page["state"]["summary"]
    alone = held(gallery(write_rows(tmp_path / "one", Img2ImgOptions(), rows[:1])))["state"][
        "summary"
    ]
    assert "1 of 1 sample rendered" in alone


def test_names_of_many_scripts_give_the_same_sheet_each_time(tmp_path: Path) -> None:
    names = [
        "кошка",
        "قطة صغيرة",
        "חתול",
        "बिल्ली",
        "แมวน้ำ",
        "猫",
        "고양이",
        "🐱",
        "a\u202eb",
        "\ue000",
    ]
    output = write_rows(tmp_path / "out", Text2ImgOptions(), [{"prompt": name} for name in names])
    before = _sheet(output).read_bytes()
    assert _sheet(output).read_bytes() == before
