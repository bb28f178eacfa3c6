"""What the viewer answers: columns, rows, searches and pictures of outputs as they come, also damaged, growing and foreign ones."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylebatch.errors import ManifestError
from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions, read_keys
from stylebatch.folder import Folder
from stylebatch.reports.committed import read_samples
from stylebatch.reports.page_state import MARKS_HEAD
from stylebatch.spec.output import OutputFormat
from stylebatch.viewer.answers import Answers, Refused, Request
from stylebatch.viewer.marks import Marks, NotOursError
from stylebatch.viewer.shard_pictures import SMALL_BYTES, Cache
from stylebatch.viewer.watched import Watched
from tests.support.generations import generation
from tests.support.outputs import Pair, write_output
from tests.support.viewers import answering, columns_of, found_rows, loaded_by, told

KINDS: tuple[OutputFormat, ...] = ("webdataset", "parquet", "files")
TEXTS = st.text("abcAB<&\"'é \n", max_size=8)


def _pairs(count: int, first: int = 0) -> list[Pair]:
    return [
        Pair(f"cat/{n % 5}.png", f"paint-{n}.jpg", "decode" if n % 4 == 3 else "")
        for n in range(first, first + count)
    ]


def _picture(answers: Answers, row: int, kind: str = "result", side: int = 0) -> bytes:
    query = {"row": str(row), "kind": kind, "side": str(side)}
    return answers.get(Request("/picture", query)).data


@settings(max_examples=15, deadline=None)
@given(
    shards=st.lists(
        st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    words=TEXTS,
)
def test_columns_and_searches_are_those_of_the_records(
    shards: list[list[tuple[str, str, bool]]], words: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            [Pair(f"{a}/x.png", f"{b}s.jpg", "decode" * bad, caption=a + b) for a, b, bad in shard]
            for shard in shards
        ]
        output = write_output(Path(folder) / "out", pairs, side=1, inputs=False)
        rows = [
            row
            for path in sorted(output.glob("metadata/*.parquet"))
            for row in pq.read_table(path).to_pylist()
        ]
        with answering(output) as answers:
            columns = columns_of(answers)
            for name in ("structure", "color_distance", "contrast"):
                expected = [None if row[name] is None else float(np.float32(row[name])) for row in rows]  # fmt: skip
                assert columns[name] == expected
            for name in ("label", "style_id", "status", "error_code"):
                assert columns[name] == [row[name] for row in rows]
            assert columns["split"] == ["train"] * len(rows)
            shown = told(answers, "/api/rows", at=",".join(map(str, range(len(rows)))))["rows"]
            assert [shown[str(n)]["content_id"] for n in range(len(rows))] == [
                row["content_id"] for row in rows
            ]
            searched = ["\n".join((r["key"], r["content_id"], r["style_id"], r["label"], r["caption"])) for r in rows]  # fmt: skip
            having = [
                n
                for n, text in enumerate(searched)
                if all(word in text.lower() for word in words.lower().split())
            ]
            assert found_rows(answers, text=words) == having


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shares_inputs", [False, True])
def test_every_picture_is_the_stored_one(
    tmp_path: Path, kind: OutputFormat, shares_inputs: bool
) -> None:
    pairs = _pairs(11)
    output = write_output(
        tmp_path / "out", [pairs[:5], pairs[5:]], kind=kind, shares_inputs=shares_inputs
    )
    with answering(output) as answers:
        rows = loaded_by(answers.watched).rows(range(11))
        for number, row in enumerate(rows):
            sample = told(answers, "/api/sample", row=number)
            if row["status"] != "success":
                assert sample["pictures"] == []
                continue
            assert sample["pictures"] == ["result", "content", "style"]
            assert sample["error"] == ""
            ((_, members),) = read_samples(Folder.at(output), {row["shard"]: {row["key"]: row}})
            assert _picture(answers, number) == members["png"]
            assert _picture(answers, number, "content") == members["content.jpg"]
            assert _picture(answers, number, "style") == members["style.jpg"]
            with Image.open(io.BytesIO(_picture(answers, number, side=100))) as small:
                assert (small.format, small.size) == ("JPEG", (32, 32))


def test_splits_and_outputs_without_inputs_are_shown(tmp_path: Path) -> None:
    rows = [{"content_id": f"a/{n}.png", "label": "a"} for n in range(6)]
    splits = ["train", "train", "validation", "test", "test", "test"]
    with answering(generation(tmp_path / "split", rows, splits=splits)) as answers:
        assert columns_of(answers)["split"] == splits
    bare = write_output(tmp_path / "bare", [_pairs(3)], inputs=False)
    with answering(bare) as answers:
        assert told(answers, "/api/sample", row=0)["pictures"] == ["result"]
        with pytest.raises(Refused, match="no picture of the content"):
            _picture(answers, 0, "content")


def test_an_export_tells_what_it_was_made_from(tmp_path: Path) -> None:
    output = generation(tmp_path / "out", [{"label": "a"}, {"label": "b"}, {"label": "a"}])
    export([Folder.at(output)], Folder.at(tmp_path / "part"), ExportOptions(where="label = 'a'"))
    with answering(tmp_path / "part") as answers:
        sample = told(answers, "/api/sample", row=1)
        assert ["from the sample", "000000002"] in sample["lineage"]
        assert any(word == "made from" for word, _ in sample["lineage"])


def test_outputs_that_were_joined_say_which_a_sample_is_from(tmp_path: Path) -> None:
    given = [
        generation(tmp_path / name, [{"label": name, "content_id": f"{name}/1"}] * 2, name=name)
        for name in ("one", "two")
    ]
    export([Folder.at(one) for one in given], Folder.at(tmp_path / "both"), ExportOptions())
    with answering(tmp_path / "both") as answers:
        assert set(columns_of(answers)["source"]) == {"one", "two"}
        assert ["from the output", "two"] in told(answers, "/api/sample", row=3)["lineage"]


def test_rejected_samples_have_their_pictures_where_a_run_kept_them(tmp_path: Path) -> None:
    pairs = [Pair("cat/a.png", "s.jpg"), Pair("cat/b.png", "s.jpg", "gate")]
    output = write_output(tmp_path / "out", [pairs])
    with answering(output) as answers:
        assert told(answers, "/api/state")["with_pictures"] == ["success"]
        assert told(answers, "/api/sample", row=1)["pictures"] == []
        assert "1 rejected" in told(answers, "/api/state")["summary"]
    run = json.loads((output / "run.json").read_text())
    run["spec"] = {"gates": {"keep_rejected": True}}
    (output / "run.json").write_text(json.dumps(run))
    with answering(output) as answers:
        assert "repair" in told(answers, "/api/sample", row=1)["error"]  # it was lost
        (output / "rejected").mkdir()
        data = _picture(answers, 0)
        with tarfile.open(
            output / "rejected/train-00000.tar", "w", format=tarfile.USTAR_FORMAT
        ) as tar:
            member = tarfile.TarInfo("000000001.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        assert told(answers, "/api/sample", row=1)["pictures"] == ["result"]
        assert _picture(answers, 1) == data


def _lost(output: Path) -> None:
    (output / "data/train-00001.tar").unlink()


def _cut(output: Path) -> None:
    path = output / "data/train-00001.tar"
    path.write_bytes(path.read_bytes()[:700])


def _garbage(output: Path) -> None:
    path = output / "data/train-00001.tar"
    path.write_bytes(b"\xff" * path.stat().st_size)


def _folder(output: Path) -> None:
    _lost(output)
    (output / "data/train-00001.tar").mkdir()


def _changed_records(output: Path) -> None:
    path = output / "metadata/train-00001.parquet"
    path.write_bytes(path.read_bytes()[:-9])


def _lost_records(output: Path) -> None:
    (output / "metadata/train-00001.parquet").unlink()


def _cut_marker(output: Path) -> None:
    (output / "metadata/train-00001_stats.json").write_text("{")


@pytest.mark.parametrize("damage", [_lost, _cut, _garbage, _folder])
def test_samples_of_a_damaged_shard_say_why_and_the_others_are_shown(
    tmp_path: Path, damage
) -> None:  # type: ignore[no-untyped-def]
    output = write_output(tmp_path / "out", [_pairs(2), _pairs(2, 4)])
    damage(output)
    with answering(output) as answers:
        assert told(answers, "/api/state")["num_rows"] == 4
        assert len(_picture(answers, 0, side=64)) > 100
        for side in (0, 256):
            with pytest.raises(Refused, match="repair") as refused:
                _picture(answers, 2, side=side)
            assert refused.value.status == 404
        sample = told(answers, "/api/sample", row=2)
        assert "repair" in sample["error"]
        assert sample["columns"]["style_id"] == "paint-4.jpg"
        assert len(_picture(answers, 1)) > 100


@pytest.mark.parametrize("damage", [_changed_records, _lost_records, _cut_marker])
def test_records_that_cannot_be_read_are_a_notice(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    output = write_output(tmp_path / "out", [_pairs(2), _pairs(2, 4), _pairs(2, 8)])
    damage(output)
    with answering(output) as answers:
        state = told(answers, "/api/state")
        assert (state["num_rows"], len(state["problems"])) == (4, 1)
        assert "train-00001" in state["problems"][0]


def test_bytes_that_are_no_picture_are_an_answer(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [_pairs(2)], kind="files")
    (path,) = output.glob("images/**/*paint-0*.png")
    path.write_bytes(b"no picture" * 9)
    with answering(output) as answers, pytest.raises(Refused, match="cannot be decoded"):
        _picture(answers, 0, side=256)


def test_what_a_run_commits_appears_and_what_it_takes_back_goes(tmp_path: Path) -> None:
    whole = write_output(tmp_path / "out", [_pairs(3), _pairs(3, 4), _pairs(3, 8)])
    later = [whole / "metadata/train-00000_stats.json", whole / "metadata/train-00002_stats.json"]
    kept = {path: path.read_bytes() for path in later}
    for path in later:
        path.unlink()
    with answering(whole) as answers:
        assert (told(answers, "/api/state")["num_rows"], columns_of(answers)["style_id"]) == (
            3,
            ["paint-4.jpg", "paint-5.jpg", "paint-6.jpg"],
        )
        first = told(answers, "/api/state")["version"]
        for path, data in kept.items():
            path.write_bytes(data)
        _look_again(answers.watched)
        state = told(answers, "/api/state")
        assert (state["num_rows"], state["version"]) == (9, first)
        # rows keep their numbers, whichever shard came late
        assert columns_of(answers)["style_id"][:4] == ["paint-4.jpg", "paint-5.jpg", "paint-6.jpg", "paint-0.jpg"]  # fmt: skip
        assert state["newest"] == list(range(8, -1, -1))
        taken = json.loads(kept[later[0]]) | {"revoked": True}
        later[0].write_text(json.dumps(taken))
        _look_again(answers.watched)
        state = told(answers, "/api/state")
        assert (state["num_rows"], state["version"] != first) == (6, True)
        shutil.rmtree(whole)
        _look_again(answers.watched)
        assert "run.json" in told(answers, "/api/state")["trouble"]


def _look_again(watched: Watched) -> None:
    before = watched._looked
    watched._looked = float("-inf")
    watched.look()
    until = time.monotonic() + 30
    while watched._is_busy or watched._looked in (before, float("-inf")):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_output_without_a_commit_and_one_of_failures_are_shown(tmp_path: Path) -> None:
    empty = write_output(tmp_path / "empty", [_pairs(2)])
    for path in empty.glob("metadata/*"):
        path.unlink()
    with answering(empty) as answers:
        state = told(answers, "/api/state")
        assert (state["num_rows"], state["num_planned"], state["problems"]) == (0, 2, [])
        assert found_rows(answers, text="x") == []
        assert found_rows(answers, where="nothing > 1") == []
    failed = write_output(tmp_path / "failed", [[Pair("a/1.png", "s.jpg", "decode")] * 3])
    with answering(failed) as answers:
        assert columns_of(answers)["structure"] == [None] * 3
        (reason,) = told(answers, "/api/state")["reasons"]
        assert (reason["code"], reason["count"]) == ("decode", 3)
    with pytest.raises(ManifestError, match=r"run\.json: missing"):
        Watched(Folder.at(tmp_path))


def test_conditions_are_those_of_export(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [_pairs(4), _pairs(4)])
    with answering(output) as answers:
        contrast = columns_of(answers)["contrast"]
        expected = [n for n, value in enumerate(contrast) if value is not None and value >= 20]
        assert found_rows(answers, where="contrast >= 20") == expected
        for text in ("structur > 1", "1", "contrast > (", "(SELECT true)", "'"):
            with pytest.raises(Refused) as refused:
                found_rows(answers, where=text)
            assert refused.value.status == 400
        assert found_rows(answers, where="label = 'cat'") == list(range(8))


def test_what_is_kept_in_memory_is_bounded() -> None:
    cache: Cache[bytes] = Cache(100, len)
    for number in range(50):
        cache.put(number % 20, b"x" * (number % 30))
        assert cache.total <= 100
        cache.get(number % 7)
    cache.put("large", b"x" * 500)
    assert cache.total == 500
    cache.put("small", b"x")
    assert cache.total == 1
    assert SMALL_BYTES < 1 << 28


def test_a_picture_that_nobody_waits_for_is_not_made(tmp_path: Path) -> None:
    with answering(write_output(tmp_path / "out", [_pairs(2)])) as answers:
        query = {"row": "0", "kind": "result", "side": "128"}
        gone = Request("/picture", query, is_wanted=lambda: False)
        with pytest.raises(Refused, match="nobody"):
            answers.get(gone)
        made = answers.get(Request("/picture", query))
        assert answers.get(gone) == made  # what is there costs nothing


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[tuple[Answers, Path]]:
    keys = tmp_path / "keys.txt"
    with answering(write_output(tmp_path / "out", [_pairs(3), _pairs(3)]), keys) as answers:
        yield answers, keys


def _mark(answers: Answers, rows: list[int], marked: bool = True) -> list[str]:
    body = json.dumps({"rows": rows, "marked": marked}).encode()
    found: list[str] = json.loads(answers.post(Request("/api/marks", body=body)).data)["keys"]
    return found


def test_marks_are_keys_that_export_drops(marked: tuple[Answers, Path], tmp_path: Path) -> None:
    answers, keys = marked
    assert told(answers, "/api/marks") == {"keys": []}
    assert not keys.exists()
    assert _mark(answers, [4, 0]) == ["000000000", "000010001"]
    assert found_rows(answers, marked="1") == [0, 4]
    assert _mark(answers, [0], marked=False) == ["000010001"]
    assert read_keys(str(keys)) == ("000010001",)
    options = ExportOptions(drop=read_keys(str(keys)))
    export([Folder.at(tmp_path / "out")], Folder.at(tmp_path / "part"), options)
    with answering(tmp_path / "part") as others:
        sources = [row["source_key"] for row in loaded_by(others.watched).rows(range(5))]
        assert "000010001" not in sources
    # an output that was exported from it has marks of its own
    run = loaded_by(answers.watched).run.model_copy(update={"generations": [], "digest": "0" * 64})
    with pytest.raises(NotOursError, match="another output"):
        Marks(Folder.at(tmp_path), "keys.txt", run).keys()


def test_two_viewers_of_an_output_add_to_each_others_marks(
    marked: tuple[Answers, Path], tmp_path: Path
) -> None:
    answers, keys = marked
    with answering(tmp_path / "out", keys) as other:
        _mark(answers, [0])
        assert _mark(other, [1]) == ["000000000", "000000001"]
        assert _mark(answers, [0], marked=False) == ["000000001"]
        keys.write_text(keys.read_text() + "\n  000010002  \n")  # a line by hand
        assert _mark(other, [0]) == ["000000000", "000000001", "000010002"]


@pytest.mark.parametrize("text", ["000000001\n", "", "\x00\xff", "# Samples\n", "keys: [1]\n"])
def test_a_file_of_somebody_else_stays_as_it_is(marked: tuple[Answers, Path], text: str) -> None:
    answers, keys = marked
    keys.write_bytes(text.encode("latin-1"))
    with pytest.raises(Refused, match=r"--keys: .*keys\.txt: .* stays as it is"):
        _mark(answers, [0])
    assert keys.read_bytes() == text.encode("latin-1")
    keys.unlink()
    assert _mark(answers, [0]) == ["000000000"]
    keys.write_bytes(text.encode("latin-1"))  # put there while the viewer runs
    with pytest.raises(Refused):
        _mark(answers, [1])
    assert keys.read_bytes() == text.encode("latin-1")


def test_odd_marks_are_refused(marked: tuple[Answers, Path]) -> None:
    answers, keys = marked
    for body in (b"", b"{", b"[]", b'{"rows": "0", "marked": true}', b'{"rows": [true], "marked": true}',
                 b'{"rows": [0], "marked": 1}', b'{"rows": [0.5], "marked": true}', b"[" * 9999):  # fmt: skip
        with pytest.raises(Refused) as refused:
            answers.post(Request("/api/marks", body=body))
        assert refused.value.status == 400
    for rows in ([-1], [6], [10**12]):
        with pytest.raises(Refused, match="found no row"):
            _mark(answers, rows)
    assert not keys.exists()


def test_the_head_of_marks_is_one_line_whatever_the_name(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [_pairs(2)])
    run = json.loads((output / "run.json").read_text()) | {"name": "two\nlines\u2028\x1b[2J"}
    (output / "run.json").write_text(json.dumps(run))
    with answering(output, tmp_path / "keys.txt") as answers:
        _mark(answers, [0])
        lines = (tmp_path / "keys.txt").read_text().splitlines()
        assert lines[0].startswith(MARKS_HEAD)
        assert lines[1:] == ["000000000"]
        assert _mark(answers, [1]) == ["000000000", "000000001"]
