"""Growth of every grid: what was drawn before stays as it was, and what was added is rendered in shards of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stylebatch.engine.run import run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import digests


def _images(folder: Path, side: str, names: str) -> None:
    for name in names:
        path = folder / side / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(ord(name), 48, 40).save(path)


def _rows(folder: Path, *rows: str) -> None:
    """A table whose rows stand in any order."""
    header, *rest = rows
    random.Random(len(rest)).shuffle(rest)
    (folder / "rows.csv").write_text("\n".join((header, *rest)) + "\n")


@dataclass(frozen=True)
class Case:
    """A run that grows: its sections, what is there at first and later, and how many samples each has."""

    sections: dict[str, Any]
    first: Callable[[Path], None]
    later: Callable[[Path], None]
    num: tuple[int, int]


PAIRS = {
    "contents": {"path": "contents"},
    "styles": {"path": "styles"},
    "method": {"name": "styleid", "steps": 2},
}
ROWS = {"prompts": {"path": "rows.csv"}}


def _both(contents: str, styles: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _images(folder, "contents", contents)
        _images(folder, "styles", styles)

    return write


def _with_rows(contents: str, *rows: str, styles: str = "") -> Callable[[Path], None]:
    """Images, and a table that names them in any order."""

    def write(folder: Path) -> None:
        _both(contents, styles)(folder)
        _rows(folder, *rows)

    return write


def _in_order(*rows: str) -> Callable[[Path], None]:
    """A table of sets, whose first rows are references."""

    def write(folder: Path) -> None:
        (folder / "rows.csv").write_text("\n".join(("prompt,style", *rows)) + "\n")

    return write


AM, BM, CN, AN = (f"contents/{c}.png,styles/{s}.png" for c, s in ("am", "bm", "cn", "an"))
MASKS = ("contents/a.png", "styles/m.png")
MASKED = ("x,contents/b.png", "y,styles/m.png")
CASES = {
    "sample": Case(
        PAIRS | {"pairing": {"mode": "sample", "per_content": 2}},
        _both("bdf", "mn"),
        _both("ac", "klo"),
        (6, 10),
    ),
    "zip": Case(PAIRS | {"pairing": {"mode": "zip"}}, _both("bd", "mn"), _both("ef", "op"), (2, 4)),
    "listed": Case(
        {"pairing": {"mode": "explicit", "path": "rows.csv"}, "method": PAIRS["method"]},
        _with_rows("ab", "content,style", AM, BM, styles="m"),
        _with_rows("c", "content,style", CN, AM, AN, AM, BM, styles="n"),
        (2, 5),
    ),
    "prompts": Case(
        ROWS | {"method": {"name": "text2img", "steps": 1}},
        _with_rows("", "prompt,label", "a cat,cat", "a dog,dog", "a cat,cat"),
        _with_rows("", "prompt,label", "an ant,ant", *["a cat,cat", "a dog,dog"] * 2),
        (3, 5),
    ),
    "images and prompts": Case(
        ROWS | {"contents": {"path": "contents"}, "method": {"name": "img2img", "steps": 2}},
        _with_rows("bc", "prompt", "ink", "oil"),
        _with_rows("a", "prompt", "chalk", "ink", "oil"),
        (4, 9),
    ),
    "images of rows": Case(
        ROWS | {"method": {"name": "img2img", "steps": 2}},
        _with_rows("ab", "prompt,image", "x,contents/a.png", "y,contents/b.png"),
        _with_rows(
            "c",
            "prompt,image",
            *(f"{x},contents/{i}.png" for x, i in ("zc", "ya", "xa", "yb")),
        ),
        (2, 4),
    ),
    "images and their masks": Case(
        ROWS
        | {
            "contents": {"path": "contents"},
            "method": {"name": "inpaint", "steps": 1, "guidance": 1},
        },
        _with_rows("b", "prompt,mask", *MASKED, styles="m"),
        _with_rows("a", "prompt,mask", *MASKED, "z,styles/n.png", styles="n"),
        (2, 6),
    ),
    "masks of one image": Case(
        ROWS | {"method": {"name": "inpaint", "steps": 1, "guidance": 1}},
        _with_rows("a", "prompt,image,mask", *(f"x,contents/a.png,{m}" for m in MASKS), styles="m"),
        _with_rows(
            "a", "prompt,image,mask", *(f"{x},contents/a.png,{m}" for x in "yx" for m in MASKS)
        ),
        (2, 4),
    ),
    "sets": Case(
        ROWS | {"method": {"name": "stylealigned", "steps": 2, "guidance": 3}},
        _in_order("a cat,ink", "a dog,ink", "a cat,oil"),
        _in_order("a cat,ink", "a dog,ink", "a hen,ink", "a cat,oil", "a hen,wax", "a cat,wax"),
        (3, 6),
    ),
}


def _table(output: Path) -> list[dict[str, Any]]:
    paths = sorted(output.glob("metadata/train-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def grown(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Case, Path]:
    """A case whose first inputs are rendered."""
    case = CASES[request.param]
    case.first(tmp_path)
    data = case.sections | {
        "image": {"size": 32},
        "engine": {"threads": 1},
        "output": {"path": str(tmp_path / "out"), "shard_size": 4},
    }
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(data))
    result = run(load_spec(path))
    assert (result.num_samples, result.exit_code) == (case.num[0], 0)
    return case, path


@pytest.mark.parametrize("grown", CASES, indirect=True)
def test_added_inputs_are_rendered_and_nothing_else_changes(grown: tuple[Case, Path]) -> None:
    case, manifest = grown
    output = manifest.parent / "out"
    before, rows = digests(output), _table(output)
    case.later(manifest.parent)
    result = run(load_spec(manifest))
    assert (result.num_samples, result.num_attempted) == (case.num[1], case.num[1] - case.num[0])
    assert result.exit_code == 0
    shards = {name: digest for name, digest in before.items() if "train-" in name}
    assert shards.items() <= digests(output).items()
    after = _table(output)
    assert after[: len(rows)] == rows
    assert len({row["key"] for row in after}) == len(after) == case.num[1]
    assert not list(verify(output))
    assert run(load_spec(manifest)).num_attempted == 0


def test_a_set_keeps_the_reference_that_it_had(tmp_path: Path) -> None:
    case = CASES["sets"]
    case.first(tmp_path)
    data = case.sections | {"image": {"size": 32}, "output": {"path": str(tmp_path / "out")}}
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    run(load_spec(tmp_path / "run.yaml"))
    case.later(tmp_path)
    run(load_spec(tmp_path / "run.yaml"))
    rows = _table(tmp_path / "out")
    firsts = {row["style"]: row["id"] for row in reversed(rows)}
    assert all(row["reference"] == firsts[row["style"]] for row in rows)
    with pytest.raises(PlanChangedError, match=r"guidance: 3\.0 -> 2\.0") as caught:
        run(load_spec(tmp_path / "run.yaml", ["method.guidance=2"]))
    assert "former." not in str(caught.value)


@pytest.mark.parametrize(
    "grown", ["listed", "prompts", "sets", "images and prompts"], indirect=True
)
def test_inputs_that_are_gone_are_named(grown: tuple[Case, Path]) -> None:
    _, manifest = grown
    path = manifest.parent / "rows.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(PlanChangedError, match="gone"):
        run(load_spec(manifest))


@pytest.mark.parametrize("grown", ["sample"], indirect=True)
def test_styles_alone_ask_for_no_samples(grown: tuple[Case, Path]) -> None:
    """What was drawn stays as it was; new styles serve contents that come later."""
    _, manifest = grown
    _images(manifest.parent, "styles", "xyz")
    assert run(load_spec(manifest)).num_attempted == 0
    _images(manifest.parent, "contents", "z")
    assert run(load_spec(manifest)).num_attempted == 2
