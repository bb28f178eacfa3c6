"""Reports of small real output directories: totals, sheet, gallery, errors; partial, failed, sparse and hostile ones."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFont

from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.reports.canvas import SheetLayout, elide
from stylebatch.reports.chosen import spread_indices
from stylebatch.reports.committed import Committed, read_samples
from stylebatch.reports.contact_sheet import contact_sheet
from stylebatch.reports.gallery import gallery
from stylebatch.reports.pair_grid import grid_layout
from stylebatch.reports.parameters import parameters
from stylebatch.reports.pictures import short_names
from stylebatch.reports.report import report
from stylebatch.store.output_record import read_run
from tests.support.outputs import DIGEST, SCHEMA, Pair, color_of, write_output
from tests.support.pages import held, names_of, numbers_of, shown


def _product(
    num_contents: int, num_styles: int, failed: dict[int, str] | None = None
) -> list[Pair]:
    return [
        Pair(f"cat/{c}.png", f"paint-{s}.jpg", (failed or {}).get(c * num_styles + s, ""))
        for c in range(num_contents)
        for s in range(num_styles)
    ]


def _cell(path: str, origin: tuple[int, int], cell: int) -> np.ndarray[Any, Any]:
    with Image.open(path) as sheet:
        return np.asarray(sheet.crop((*origin, origin[0] + cell, origin[1] + cell)))


class _Page(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_totals_add_up_the_records(tmp_path: Path) -> None:
    pairs = _product(3, 4, {1: "decode", 5: "too_large", 6: "decode"})
    found = report(write_output(tmp_path / "out", [pairs[:8], pairs[8:]], planned=(20, 4)))
    assert (found.num_planned, found.num_shards, found.num_shards_committed) == (20, 4, 2)
    assert (found.num_success, found.num_failed) == (9, 3)
    assert list(found.failures.items()) == [("decode", 2), ("too_large", 1)]
    assert (found.evaluations, found.seconds) == (200, 5.0)
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "out/data").iterdir())
    places = [1, 3, 4, 5, 8, 1, 2, 3, 4]
    assert found.quality["contrast"] == pytest.approx(10 * sum(places) / 9)
    assert found.quality["structure"] == pytest.approx(0.1 * sum(places) / 9)
    text = "\n".join(found.lines())
    for fact in (
        "9 of 20 samples",
        "2 of 4 committed",
        "decode 2, too_large 1",
        "decode 2, such as cat/0.png: <broken>",
        "too_large 1, such as cat/1.png: <broken>",
        "missing     8",
        "200 network",
    ):
        assert fact in text


def test_errors_hold_the_failed_rows_in_key_order_and_the_same_schema(tmp_path: Path) -> None:
    pairs = _product(3, 4, {1: "decode", 10: "oom"})
    output = write_output(tmp_path / "out", [pairs[:6], pairs[6:]])
    report(output)
    errors = pq.read_table(output / "metadata/errors.parquet")
    assert errors.schema.equals(SCHEMA)
    assert errors["key"].to_pylist() == ["000000001", "000010004"]
    assert errors["error_message"].to_pylist() == ["cat/0.png: <broken>", "cat/2.png: <broken>"]
    report(output)
    assert pq.read_table(output / "metadata/errors.parquet").num_rows == 2
    assert not [path for path in output.rglob("*") if path.name.startswith(".")]


def test_errors_exist_without_failures(tmp_path: Path) -> None:
    found = report(write_output(tmp_path / "out", [_product(1, 2)]))
    errors = pq.read_table(tmp_path / "out/metadata/errors.parquet")
    assert errors.num_rows == 0
    assert errors.schema.equals(SCHEMA)
    assert (found.failures, found.num_failed) == ({}, 0)
    assert "failed" not in "\n".join(found.lines())


def test_uncommitted_and_foreign_shards_do_not_count(tmp_path: Path) -> None:
    pairs = _product(4, 2)
    output = write_output(tmp_path / "out", [pairs[:2], pairs[2:4], pairs[4:6], pairs[6:]])
    (output / "metadata/train-00001_stats.json").unlink()
    foreign = output / "metadata/train-00002_stats.json"
    foreign.write_text(foreign.read_text().replace(DIGEST, "e" * 64))
    shards = [rows.shard.name for rows in Committed(Folder.at(output)).read()]
    assert shards == ["train-00000", "train-00003"]
    found = report(output)
    assert (found.num_success, found.num_shards_committed, found.num_shards) == (4, 2, 4)
    assert "cat/1.png" not in Path(found.gallery).read_text(encoding="utf-8")


def test_samples_are_read_by_key(tmp_path: Path) -> None:
    pairs = _product(2, 4, {2: "decode"})
    output = write_output(tmp_path / "out", [pairs[:4], pairs[4:]])
    wanted = {"train-00000": ["000000003", "000000002"], "train-00001": ["000010001", "999999999"]}
    rows = {name: {key: {} for key in keys} for name, keys in wanted.items()}
    samples = dict(read_samples(Folder.at(output), rows))
    assert list(samples) == ["000000003", "000010001"]
    assert set(samples["000010001"]) == {"png", "json", "content.jpg", "style.jpg"}
    assert json.loads(samples["000010001"]["json"])["style_id"] == "paint-1.jpg"


def test_sheet_shows_each_pair_in_its_cell(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [_product(3, 4, {5: "decode"})])
    path = contact_sheet(output)
    layout = grid_layout(128, [f"cat/{c}.png" for c in range(3)])
    for content in range(3):
        head = _cell(path, layout.origin(content + 1, 0), 128)
        assert np.abs(head - np.array(color_of(content), float)).max() <= 3
        for style in range(4):
            found = _cell(path, layout.origin(content + 1, style + 1), 128)
            if (content, style) == (1, 1):
                assert tuple(found[0, 0]) == (0xEC,) * 3
                assert found.min() < 0xC0
            else:
                assert (found == color_of(content, style)).all()
    assert (_cell(path, layout.origin(0, 0), 128) == 255).all()
    right, bottom = layout.origin(3, 4)
    with Image.open(path) as sheet:
        assert sheet.size == (right + 128 + layout.margin, bottom + 128 + layout.margin)


def test_sheet_is_cut_to_its_limits_and_reproducible(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [_product(5, 6)])
    first = Path(contact_sheet(output, max_rows=2, max_columns=3, cell=64)).read_bytes()
    layout = grid_layout(64, ["cat/0.png", "cat/1.png"])
    right, bottom = layout.origin(2, 3)
    with Image.open(output / "contact_sheet.png") as sheet:
        assert sheet.size == (right + 64 + layout.margin, bottom + 64 + layout.margin)
    again = contact_sheet(output, max_rows=2, max_columns=3, cell=64)
    assert Path(again).read_bytes() == first


def test_large_images_get_larger_cells(tmp_path: Path) -> None:
    path = contact_sheet(write_output(tmp_path / "out", [_product(1, 2)], side=300))
    assert (_cell(path, grid_layout(256, ["cat/0.png"]).origin(1, 2), 256) == color_of(0, 1)).all()


def test_uncommitted_pairs_stay_blank(tmp_path: Path) -> None:
    path = contact_sheet(write_output(tmp_path / "out", [_product(2, 2)[:3]], planned=(4, 2)))
    layout = grid_layout(128, ["cat/0.png", "cat/1.png"])
    assert (_cell(path, layout.origin(2, 2), 128) == 255).all()


def _origin(sample: int, place: int) -> tuple[int, int]:
    """Of a picture in a sheet that shows two samples a line: three pictures each, with a caption below."""
    layout = SheetLayout(128)
    step = layout.cell + layout.gutter
    below = round(layout.font_size * 1.6) + layout.gutter
    x = layout.margin + sample % 2 * (3 * step - layout.gutter + layout.margin) + place * step
    return x, layout.margin + sample // 2 * (layout.cell + below)


def test_sparse_pairs_are_drawn_as_triplets(tmp_path: Path) -> None:
    pairs = [Pair(f"cat/{n}.png", f"{n}.jpg", "decode" if n == 4 else "") for n in range(7)]
    path = contact_sheet(write_output(tmp_path / "out", [pairs]))
    for n in range(7):
        content, style, result = (_cell(path, _origin(n, place), 128) for place in range(3))
        if n == 4:
            assert tuple(result[0, 0]) == tuple(content[0, 0]) == (0xEC,) * 3
        else:
            assert (result == color_of(n, n)).all()
            assert np.abs(content - np.array(color_of(n), float)).max() <= 3
            assert np.abs(style - np.array(color_of(0, 0, n), float)).max() <= 3


def test_many_sparse_pairs_are_thinned_evenly(tmp_path: Path) -> None:
    pairs = [Pair(f"cat/{n}.png", f"{n}.jpg") for n in range(40)]
    path = contact_sheet(write_output(tmp_path / "out", [pairs[:25], pairs[25:]]), max_rows=2)
    for place, n in enumerate(spread_indices(40, 8)):
        assert n == 5 * place
        assert (_cell(path, _origin(place, 2), 128) == color_of(n, n)).all()


def test_outputs_without_inputs_or_without_a_success_are_drawn(tmp_path: Path) -> None:
    bare = report(write_output(tmp_path / "bare", [_product(2, 2)], inputs=False))
    origin = grid_layout(128, ["cat/0.png", "cat/1.png"]).origin(1, 0)
    assert tuple(_cell(bare.contact_sheet, origin, 128)[0, 0]) == (0xEC,) * 3
    assert held(bare.gallery)["inputs"] == {"content": {}, "style": {}}
    failed = report(write_output(tmp_path / "failed", [_product(1, 2, {0: "decode", 1: "decode"})]))
    assert (failed.num_success, failed.quality) == (0, {})
    assert not list((tmp_path / "failed").glob("data/*"))
    page = held(failed.gallery)
    assert names_of(page, "error_code") == ["decode"] * 2
    assert shown(page) == []


def test_gallery_embeds_each_input_once_and_loads_nothing(tmp_path: Path) -> None:
    path = gallery(write_output(tmp_path / "out", [_product(3, 4)], side=300))
    page, found = _Page(path), held(path)
    assert {kind: len(of) for kind, of in found["inputs"].items()} == {"content": 3, "style": 4}
    assert page.source.count("data:image/jpeg;base64,") == 12 + 3 + 4
    assert len(shown(found)) == 12
    assert not [tag for _, tag in page.tags if "src" in tag or "href" in tag]
    assert "https:" not in page.source
    with Image.open(io.BytesIO(_picture(found["results"][0]))) as image:
        assert image.size == (256, 256)
        assert np.abs(np.asarray(image) - np.array(color_of(0, 0), float)).max() <= 3
    with Image.open(io.BytesIO(_picture(found["inputs"]["style"]["paint-1.jpg"]))) as image:
        assert np.abs(np.asarray(image) - np.array(color_of(0, 0, 1), float)).max() <= 3
    assert "12 of 12 samples rendered" in found["state"]["summary"]
    (made,) = (text for word, text in found["state"]["facts"] if word == "made with")
    assert "gamma 0.75" in made
    assert "sites 6 to 11" in made


def _picture(uri: str) -> bytes:
    return base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))


def test_only_options_and_what_inputs_were_made_of_are_told_as_parameters() -> None:
    row = {
        "key": "0", "method": "mine", "seed": 3, "share": 0.5, "objects": [{"class": "cat"}],
        "mask_id": "a.png", "late": True, "width": 32, "sha256": "0",
    }  # fmt: skip
    for columns in (list(row), list(reversed(row))):  # wherever a column stands
        shuffled = {column: row[column] for column in columns}
        common, rest = parameters([shuffled, shuffled | {"late": False}], {"share", "late"})
        assert set(common.split(", ")) == {"mine", "share 0.5", "mask id a.png", "seed 3"}
        assert rest == ["late", "no late"]


@pytest.mark.parametrize(
    ("method", "has", "lacks"),
    [
        ({"name": "styleid", "gamma": 0.75}, "site_gammas", "name"),
        ({"name": "styleid", "share": 0.5, "source": "0"}, "share", "site_gammas"),
        ({"name": "gone", "share": 0.5}, "share", "name"),
        ("styleid", "", "name"),
    ],
)
def test_names_of_options_need_no_code_of_users(
    tmp_path: Path, method: object, has: str, lacks: str
) -> None:
    output = write_output(tmp_path / "out", [_product(1, 1)])
    run = read_run(Folder.at(output))
    names = run.model_copy(update={"identity": {"method": method}}).option_names
    assert (has in names, lacks in names) == (bool(has), False)


def test_galleries_carry_what_filter_and_sort_read(tmp_path: Path) -> None:
    page = held(gallery(write_output(tmp_path / "out", [_product(2, 2, {1: "decode"})])))
    assert numbers_of(page, "contrast") == [10, 30, 40, None]
    assert names_of(page, "label") == ["cat"] * 4
    assert names_of(page, "style_id") == ["paint-0.jpg", "paint-0.jpg", "paint-1.jpg", "paint-1.jpg"]  # fmt: skip
    assert names_of(page, "status") == ["success"] * 3 + ["failed"]
    assert [one["code"] for one in page["state"]["reasons"]] == ["decode"]


def test_gallery_escapes_ids_captions_and_messages(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script><!--'
    hostile = Pair(f"{evil}/a'\"<b>.png", f"{evil}&amp;\u202e.png", caption=f'"></style>{evil}')
    failing = Pair(f"{evil}/fail.png", "x.png", error="<i>code</i>")
    path = report(write_output(tmp_path / "out", [[hostile, failing]])).gallery
    page, found = _Page(path), held(path)
    assert len(page.all("script")) == 7
    assert len(page.all("style")) == 1
    assert not page.all("i")
    assert "<script>alert" not in page.source
    assert "\u202e" not in page.source
    assert "<!--" not in page.source
    assert found["rows"][0]["content_id"] == hostile.content
    assert found["rows"][0]["style_id"] == hostile.style.replace("\u202e", "\\u202e")
    assert found["rows"][0]["caption"] == f'"></style>{evil}'
    assert found["rows"][1]["error_code"] == "<i>code</i>"
    assert found["rows"][1]["error_message"] == f"{failing.content}: <broken>"
    assert list(found["inputs"]["style"]) == [found["rows"][0]["style_id"]]


def test_large_galleries_are_sampled_evenly_and_say_so(tmp_path: Path) -> None:
    pairs = _product(6, 5, {0: "decode"})
    output = write_output(tmp_path / "out", [pairs[:15], pairs[15:]])
    path = gallery(output, max_samples=10)
    source, page = Path(path).read_bytes(), held(path)
    assert len(shown(page)) == 10
    assert "Shows 10 of 29 samples, evenly spaced in key order" in page["state"]["summary"]
    keys = [row["key"] for row in shown(page)]
    assert keys[0] == "000000001"
    assert keys[-1] == "000010012"
    assert Path(gallery(output, max_samples=10)).read_bytes() == source
    assert "evenly spaced" not in Path(gallery(output, max_samples=29)).read_text()


def test_missing_runs_are_refused_with_the_path_and_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere/run\.json: missing; .* start the run"):
        report(tmp_path / "nowhere")
    output = write_output(tmp_path / "out", [_product(1, 1)])
    (output / "metadata/train-00000_stats.json").unlink()
    with pytest.raises(ManifestError, match=r"out/metadata: no committed shard.* resume the run"):
        report(output)
    assert not (output / "gallery.html").exists()


def test_names_are_short_and_stay_distinct() -> None:
    ids = ["dog/1.png", "cat/1.png", "cat/2.jpg", "cat/2.png", "a\nb.png"]
    assert list(short_names(ids).values()) == [
        "dog/1.png",
        "cat/1.png",
        "cat/2.jpg",
        "cat/2.png",
        "a b",
    ]


def test_long_labels_keep_both_ends_and_fit() -> None:
    font = ImageFont.load_default(12)
    shown = elide("a_very_long_file_name_of_a_photograph_00017", font, 100)
    assert font.getlength(shown) <= 100
    assert shown.startswith("a_very")
    assert shown.endswith("0017")
    assert elide("short", font, 100) == "short"
