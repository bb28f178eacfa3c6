"""Further columns of rows of prompts and of listed pairs stand in the records of their samples, whatever the order of rendering."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from stylebatch.engine.run import run
from stylebatch.errors import InputChangedError, ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.prompt_runs import write_prompts
from tests.support.runs import digests
from tests.support.samples import samples_of


def records(output: Path) -> list[dict[str, Any]]:
    return [
        row
        for file in sorted(output.glob("metadata/train-*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]


CELLS = ("wiki,3,04109,1,p", ",4,80331,2.5,q", "web,5,00001,3,")


def table(before: str, *rows: str) -> str:
    lines = [f"{row},{cells}" for row, cells in zip(rows, CELLS, strict=False)]
    return "\n".join([f"{before},source,width,zip,score,prompt_source", *lines, ""])


TABLES = {
    "text2img": table("prompt", "a cat", "a dog", "a hen"),
    "img2img": table("prompt,image", "a cat,0.png", "a dog,1.png"),
    # sets are rendered together: the second row comes last
    "stylealigned": table("prompt,style", "a cat,s", "a dog,t", "a hen,s"),
}
EXPECTED = {
    "a cat": ("wiki", 3, "04109", 1.0, "p"),
    "a dog": ("", 4, "80331", 2.5, "q"),
    "a hen": ("web", 5, "00001", 3.0, ""),
}
"""Of each prompt `source`, `prompt_width` (our own `width` is the picture's), `zip`, `score`, `prompt_source`."""


def manifest(folder: Path, kind: str, model: Path, **changes: Any) -> Path:
    path = write_prompts(folder, kind, model, **changes)
    (folder / "rows.csv").write_text(TABLES[kind])
    return path


@pytest.mark.parametrize("kind", TABLES)
def test_columns_of_prompts_are_in_record_and_sample(
    kind: str, tmp_path: Path, eps_folder: Path
) -> None:
    path = manifest(tmp_path, kind, eps_folder, prompts={"path": "rows.csv", "per_prompt": 2})
    spec = load_spec(path, ["method.steps=2", "image.size=64"])
    (note,) = (note for note in plan(spec).notes if "carried" in note)
    assert note == (
        "prompts: columns carried to the records: prompt_source, score, source, width as prompt_width, zip"
    )
    assert run(spec).exit_code == 0
    output = tmp_path / "out"
    assert list(verify(output)) == []
    stored = [json.loads(sample["json"]) for sample in samples_of(output)]
    for rows in (records(output), stored):
        assert len(rows) == 2 * (TABLES[kind].count("\n") - 1)
        for row in rows:
            names = ("source", "prompt_width", "zip", "score", "prompt_source")
            assert tuple(row[name] for name in names) == EXPECTED[row["prompt"]]


def test_columns_of_prompts_over_contents_stand_beside_those_of_the_contents(
    tmp_path: Path, eps_folder: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(2):
        picture(i).save(tmp_path / f"photos/{i}.png")
    (tmp_path / "photos/metadata.csv").write_text("file_name,source,lens\n0.png,x,50\n1.png,y,35\n")
    path = manifest(tmp_path, "text2img", eps_folder, contents={"path": "photos"}, method={"name": "img2img", "steps": 2})  # fmt: skip
    (tmp_path / "rows.csv").write_text(TABLES["text2img"])
    assert run(load_spec(path, ["image.size=64"])).exit_code == 0
    rows = records(tmp_path / "out")
    assert len(rows) == 6
    for row in rows:
        assert (row["source"], row["lens"]) == {"0.png": ("x", 50), "1.png": ("y", 35)}[row["image"]]  # fmt: skip
        assert (row["prompt_source_source"], row["zip"]) == {
            "a cat": ("wiki", "04109"), "a dog": ("", "80331"), "a hen": ("web", "00001")
        }[row["prompt"]]  # fmt: skip


def test_a_changed_cell_is_noticed_and_carry_leaves_columns_out(
    tmp_path: Path, eps_folder: Path
) -> None:
    path = manifest(tmp_path, "text2img", eps_folder)
    few = ["method.steps=2", "image.size=64", "output.shard_size=1"]
    spec = load_spec(path, few)
    assert run(spec).exit_code == 0
    output = tmp_path / "out"
    before = digests(output)
    last = sorted(output.glob("metadata/*_stats.json"))[-1]
    last.unlink()
    assert run(spec).exit_code == 0
    assert digests(output) == before
    for carry, columns in (("[]", set()), ("[zip]", {"zip"})):
        named = load_spec(path, [*few, f"prompts.carry={carry}"])
        assert {one.column for one in plan(named).carried} == columns
    with pytest.raises(ManifestError, match=r"prompts\.carry: .*'zpi'.*did you mean 'zip'"):
        plan(load_spec(path, [*few, "prompts.carry=[zpi]"]))
    last.unlink()
    (tmp_path / "rows.csv").write_text(TABLES["text2img"].replace("web,5", "net,5"))
    with pytest.raises(InputChangedError, match=r"the carried columns of prompt \w+ changed"):
        run(spec)


LIST = [("0.png", "0.png", "a", "1"), ("1.png", "2.png", "b", ""), ("0.png", "1.png", "c,d", "3"), ("0.png", "0.png", "e", "4"),
        ("1.png", "0.png", "", "5")]  # fmt: skip


@pytest.mark.parametrize("order", ["pools", "listed"])
def test_columns_of_pairs_follow_their_rows(tmp_path: Path, order: str) -> None:
    for side, count in (("c", 2), ("s", 3)):
        (tmp_path / side).mkdir()
        for i in range(count):
            picture(10 * count + i, 48, 48).save(tmp_path / side / f"{i}.png")
    rows = LIST[:]
    random.Random(4).shuffle(rows)
    lines = [f'c/{c},s/{s},"{note}",{score}' for c, s, note, score in rows]
    (tmp_path / "pairs.csv").write_text("\n".join(["content,style,note,Score", *lines]))
    data = {
        "pairing": {"mode": "explicit", "path": "pairs.csv", "order": order}, "method": {"name": "styleid", "steps": 2},
        "image": {"size": 32}, "engine": {"threads": 1}, "output": {"path": str(tmp_path / "out"), "shard_size": 2},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    spec = load_spec(tmp_path / "run.yaml")
    assert "pairing: columns carried to the records: Score, note" in plan(spec).notes
    assert run(spec).exit_code == 0
    found = records(tmp_path / "out")
    told = [(r["content_id"], r["style_id"], r["note"], r["Score"]) for r in found]
    expected = [(f"c/{c}", f"s/{s}", note, score) for c, s, note, score in rows]
    if order == "listed":
        assert told == expected
    else:
        assert [expected[row["row"] - 1] for row in found] == told
    assert sorted(told) == sorted(expected)
    assert plan(load_spec(tmp_path / "run.yaml", ["pairing.carry=[]"])).carried == ()


@pytest.mark.parametrize("kind", ["pairs", "prompts"])
def test_rows_that_are_equal_but_for_columns_keep_their_order(
    kind: str, tmp_path: Path, eps_folder: Path
) -> None:
    """A list that is shuffled before a resume gives no column twice, and loses none."""
    for side in "cs":
        (tmp_path / side).mkdir()
        picture(1, 48, 48).save(tmp_path / side / "0.png")
    few = ["method.steps=2", "image.size=64", "output.shard_size=1"]
    path = tmp_path / "run.yaml"
    if kind == "pairs":
        head, row, table = "content,style,note", "c/0.png,s/0.png", "pairs.csv"
        data = {
            "pairing": {"mode": "explicit", "path": table, "order": "listed"}, "method": {"name": "styleid"},
            "engine": {"threads": 1}, "output": {"path": str(tmp_path / "out")},
        }  # fmt: skip
        path.write_text(yaml.safe_dump(data))
    else:
        head, row, table = "prompt,note", "a cat", "rows.csv"
        path = manifest(tmp_path, "text2img", eps_folder)

    def write(*notes: str) -> None:
        (tmp_path / table).write_text("\n".join([head, *(f"{row},{note}" for note in notes)]))

    write("a", "b", "a")
    assert run(load_spec(path, few)).exit_code == 0
    before = digests(tmp_path / "out")
    last = sorted((tmp_path / "out").glob("metadata/*_stats.json"))[-1]
    last.unlink()
    write("b", "a", "a")
    with pytest.raises(
        InputChangedError, match=r"carried columns of (row 1 of the pairs|prompt \w+), "
    ):
        run(load_spec(path, few))
    write("a", "b", "a")
    assert run(load_spec(path, few)).exit_code == 0
    assert digests(tmp_path / "out") == before


def test_carry_without_rows_is_refused(tmp_path: Path) -> None:
    text = "contents: {path: a}\nstyles: {path: b}\noutput: {path: o}\npairing: {carry: [x]}\n"
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ManifestError, match=r"`carry`: for mode explicit; mode product has no"):
        load_spec(tmp_path / "run.yaml")
