"""Runs that make splits: what people train with reads each, on every sink; growth, verify and repair know them."""

from __future__ import annotations

import glob
import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import datasets
import pyarrow.parquet as pq
import pytest
import webdataset

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.engine.repair import repair
from stylebatch.engine.run import run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.spec.output import OutputFormat
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import digests

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
SPLIT = {"validation": 0.3, "test": 0.2, "seed": 4}


def _write(folder: Path, contents: range, styles: range) -> None:
    for side, numbers in (("contents", contents), ("styles", styles)):
        for number in numbers:
            label = f"{'cat' if number % 2 else 'dog'}/" if side == "contents" else ""
            path = folder / side / f"{label}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number + 50 * (side == "styles"), 40, 32).save(path)


def _manifest(folder: Path, **changes: Any) -> Path:
    document = {
        "name": "split", "contents": {"path": "contents"}, "styles": {"path": "styles"},
        "method": {"name": "styleid", "steps": 2}, "image": {"size": 32}, "split": SPLIT,
        "engine": {"name": "local", "threads": 1}, "output": {"path": str(folder / "out"), "shard_size": 2},
    } | changes  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(document))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[OutputFormat, Path]:
    """An output of each format."""
    folder = tmp_path_factory.mktemp("split")
    _write(folder, range(10), range(1))
    for kind in FORMATS:
        spec = load_spec(_manifest(folder), [f"output.format={kind}"], output=str(folder / kind))
        assert run(spec).exit_code == 0
        assert list(verify(folder / kind)) == []
    return {kind: folder / kind for kind in FORMATS}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def _rows(output: Path) -> list[dict[str, Any]]:
    files = sorted(output.glob("metadata/*-*.parquet"))
    return [row | {"file": path.stem} for path in files for row in pq.read_table(path).to_pylist()]


def _split_of(row: dict[str, Any]) -> str:
    found: str = row["file"].partition("-")[0]
    assert row.get("split", "train") == found
    return found


def _content_of(row: dict[str, Any]) -> str:
    found: str = (row.get("json") or row)["content_id"]
    return found


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_datasets_loads_each_split(
    kind: OutputFormat, streaming: bool, outputs: dict[OutputFormat, Path]
) -> None:
    written = _rows(outputs[kind])
    assert all(row["file"].startswith(f"{row['split']}-") for row in written)
    contents: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        loaded = datasets.load_dataset(str(outputs[kind]), split=split, streaming=streaming)
        rows = list(loaded)
        expected = [row for row in written if row["split"] == split]
        assert len(rows) == len(expected) > 0
        contents[split] = {_content_of(row) for row in rows}
        assert contents[split] == {row["content_id"] for row in expected}
        if kind != "files":
            feature = loaded.features["cls" if kind == "webdataset" else "label"]
            assert feature.names == ["cat", "dog"]  # one list of classes, whatever a split has
    assert sum(map(len, contents.values())) == len(set().union(*contents.values())) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset_reads_a_split(workers: int, outputs: dict[OutputFormat, Path]) -> None:
    output = outputs["webdataset"]
    shards = sorted(glob.glob(f"{output}/data/train-*.tar"))
    found = webdataset.WebDataset(shards, shardshuffle=False).decode().to_tuple("__key__", "json")
    loader = webdataset.WebLoader(found, batch_size=None, num_workers=workers)
    keys = [key for key, _ in loader]
    assert sorted(keys) == [row["key"] for row in _rows(output) if row["split"] == "train"]


def test_the_cards_own_code_reads_the_first_split(outputs: dict[OutputFormat, Path]) -> None:
    """As it stands there, with its number of workers."""
    for kind in ("webdataset", "files"):
        output = outputs[kind]  # type: ignore[index]
        card = (output / "README.md").read_text()
        code = card.split("```python\n")[2].split("```")[0]
        names: dict[str, Any] = {}
        exec(code.replace("PATH_OF_THIS_FOLDER", str(output)), names)
        found = list(names.get("loader", names["dataset"]))
        assert len(found) == sum(row["split"] == "train" for row in _rows(output))
        assert "Splits: `train`" in card


def test_an_output_with_splits_is_a_source_by_split(outputs: dict[OutputFormat, Path]) -> None:
    for kind in ("webdataset", "parquet"):
        output = outputs[kind]  # type: ignore[index]
        image = "image" if kind == "parquet" else None
        options = SourceOptions(split="validation", image=image)
        items = list_images(open_source(str(output), "contents", options)).items
        expected = [row for row in _rows(output) if row["split"] == "validation"]
        assert len(items) == len(expected)
        assert Counter(item.label for item in items) == Counter(row["label"] for row in expected)


@pytest.mark.parametrize("kind", ["webdataset", "files"])
def test_a_lost_shard_of_a_split_is_told_and_rendered_again(
    kind: OutputFormat, tmp_path: Path
) -> None:
    _write(tmp_path, range(8), range(1))
    spec = load_spec(_manifest(tmp_path), [f"output.format={kind}"])
    run(spec)
    output = tmp_path / "out"
    before = digests(output)
    shard = min(path.stem for path in output.glob("metadata/validation-*.parquet"))
    pattern = "images/validation/**/*.jpg" if kind == "files" else f"data/{shard}.*"
    lost = next(output.glob(pattern))
    lost.unlink()
    (output / "metadata" / f"other-{shard[-5:]}_stats.json").write_text("{}")
    texts = [problem.line() for problem in verify(output)]
    assert any(lost.name in text or shard in text for text in texts)
    assert any("no shard of this plan owns it" in text for text in texts)
    (output / "metadata" / f"other-{shard[-5:]}_stats.json").unlink()
    repair(output)
    assert list(verify(output)) == []
    assert digests(output) == before


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        (
            {"pairing": {"mode": "sample", "per_content": 1}, "split": SPLIT | {"exact": True}},
            8,
            14,
        ),
        ({"split": None, "output": {"path": "out"}, "engine": {"threads": 1, "batch": 2}}, 3, 5),
    ],
    ids=["splits", "no splits, a size of shards that is settled"],
)
def test_growth_keeps_contents_in_their_splits(
    changes: dict[str, Any], before: int, after: int, tmp_path: Path
) -> None:
    _write(tmp_path, range(before), range(2))
    path, output = _manifest(tmp_path, **changes), tmp_path / "out"
    run(load_spec(path, output=str(output)))
    first = digests(output)
    of_content = {row["content_id"]: _split_of(row) for row in _rows(output)}
    _write(tmp_path, range(before, after), range(2, 3))
    assert run(load_spec(path, output=str(output))).exit_code == 0
    assert list(verify(output)) == []
    assert first.items() <= digests(output).items()
    rows = _rows(output)
    now = {row["content_id"]: _split_of(row) for row in rows}
    assert of_content.items() <= now.items()
    assert len(now) == after
    assert len({row["key"] for row in rows}) == len(rows)
    assert all(_split_of(row) == now[row["content_id"]] for row in rows)
    counts = Counter(map(_split_of, rows))
    for split, count in counts.items():
        assert datasets.load_dataset(str(output), split=split).num_rows == count
    whole = digests(output)
    assert run(load_spec(path, output=str(output))).num_attempted == 0
    for lost in (min(output.glob("data/*.tar")), max(output.glob("data/*.tar"))):
        lost.unlink()
    repair(output)
    assert digests(output) == whole


def test_other_splits_are_another_output(tmp_path: Path) -> None:
    _write(tmp_path, range(8), range(1))
    run(load_spec(_manifest(tmp_path)))
    for split, match in (
        (None, "the output has splits, and the manifest makes none"),
        ({"validation": 0.9, "seed": 2}, "another label, caption, split, size or option"),
    ):
        with pytest.raises(PlanChangedError, match=match):
            run(load_spec(_manifest(tmp_path, split=split)))


def test_folders_of_splits_come_out_as_they_went_in(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "val")):
        for label in ("cat", "dog"):
            path = tmp_path / "contents" / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number, 40, 32).save(path)
        style = tmp_path / "styles" / split / f"{number}.png"
        style.parent.mkdir(parents=True, exist_ok=True)
        picture(number + 9, 40, 32).save(style)
    path = _manifest(tmp_path, split={"source": True, "styles": True})
    assert run(load_spec(path, ["output.format=files"])).exit_code == 0
    found = sorted(p.relative_to(tmp_path / "out/images").parent.as_posix() for p in tmp_path.glob("out/images/**/*.jpg"))  # fmt: skip
    assert Counter(found) == {
        **dict.fromkeys(("train/cat", "train/dog"), 4),
        **dict.fromkeys(("validation/cat", "validation/dog"), 1),
    }
    for row in _rows(tmp_path / "out"):
        assert row["content_id"].split("/")[0] == row["style_id"].split("/")[0]
