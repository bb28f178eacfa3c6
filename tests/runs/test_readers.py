"""What people train with reads the outputs: datasets, webdataset, torch, Ray, DuckDB, walks of class folders.

The tars are an export of the Parquet files.
"""

from __future__ import annotations

import glob
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pytest
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from stylebatch.engine.repair import repair
from stylebatch.engine.run import run
from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.spec.output import OutputFormat
from stylebatch.store.sinks import sink_of
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import digests
from tests.support.sink_records import LABELS, SCHEMA, records

CONTENTS = ("crash test/a.png", "crash test/b.png", "tabby cat/a.png", "tabby cat/a.jpg")
CLASSES = ["crash test", "tabby cat"]
RENDERED: tuple[OutputFormat, ...] = ("parquet", "files")
FORMATS: tuple[OutputFormat, ...] = (*RENDERED, "webdataset")
SAMPLES = 8
DATA = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
READERS = re.findall(
    r"```python\n# ([\w, ]+): ([^\n]+)\n(.*?)```",
    DATA[DATA.index("## Readers") : DATA.index("## A new format")],
    re.DOTALL,
)
"""Formats, title and code of each example."""
FOUND: dict[str, Callable[[dict[str, Any]], int]] = {
    "datasets": lambda scope: len(scope["train"]),
    "datasets, streaming, two workers": lambda scope: sum(1 for _ in scope["loader"]),
    "torch": lambda scope: sum(len(batch["key"]) for batch in scope["loader"]),
    "webdataset, two workers": lambda scope: sum(len(images) for images, _ in scope["loader"]),
    "duckdb over the records": lambda scope: sum(n for _, n, _ in scope["means"].fetchall()),
    "a walk of class folders": lambda scope: len(scope["samples"]) * (len(scope["classes"]) == 2),
    "class numbers, by the records": lambda scope: sum(n in (0, 1) for _, n in scope["samples"]),
    "class numbers, by datasets": lambda scope: sum(n in (0, 1) for n in scope["train"]["label"]),
    "ray": lambda scope: scope["train"].count(),
}
"""How many samples an example found, by the beginning of its title."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An output of each format: two classes, contents named alike, two styles named alike, two shards."""
    folder = tmp_path_factory.mktemp("readers")
    for index, name in enumerate((*CONTENTS, "styles/s/one.png", "styles/one.png")):
        path = folder / ("" if name.startswith("styles") else "contents") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index, 48, 40).save(path)
    manifest = {
        "name": "small", "contents": {"path": "contents"}, "styles": {"path": "styles"},
        "method": {"name": "styleid", "steps": 2}, "image": {"size": 32},
        "engine": {"threads": 1, "feature_gb": 0.0005},
        "output": {"path": "out", "shard_size": 4},
    }  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(manifest))
    for kind in RENDERED:
        spec = load_spec(folder / "run.yaml", [f"output.format={kind}"], output=str(folder / kind))
        assert run(spec).exit_code == 0
    export(
        [folder / "parquet"],
        folder / "webdataset",
        ExportOptions(format="webdataset", shard_size=4),
    )
    for kind in FORMATS:
        assert list(verify(folder / kind)) == []
    return {kind: folder / kind for kind in FORMATS}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    yield
    datasets.disable_progress_bars()


def _classes(dataset: Any) -> Counter[str]:
    """Class names of the samples: texts of files, numbers of rows."""
    names = getattr(dataset.features["label"], "names", None)
    return Counter(names[row["label"]] if names else row["label"] for row in dataset)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_datasets_loads_the_folder_with_no_arguments(
    kind: OutputFormat, streaming: bool, outputs: dict[str, Path]
) -> None:
    loaded = datasets.load_dataset(str(outputs[kind]), split="train", streaming=streaming)
    if kind == "webdataset":
        classes = loaded.features["cls"].names
        assert Counter(classes[row["cls"]] for row in loaded) == Counter(dict.fromkeys(CLASSES, 4))
        first = next(iter(loaded))
        assert first["jpg"].size == first["content.jpg"].size == (32, 32)
        assert first["json"]["sites"] == [6, 7, 8, 9, 10, 11]
        return
    assert _classes(loaded) == Counter(dict.fromkeys(CLASSES, SAMPLES // 2))
    first = next(iter(loaded))
    assert first["image"].size == (32, 32)
    assert first["sites"] == [6, 7, 8, 9, 10, 11]
    assert isinstance(first["gamma"], float)
    if kind == "parquet":
        assert first["content"].size == first["style"].size == (32, 32)


def _run_example(title: str, code: str, output: Path) -> int:
    """How many samples an example of the documentation finds."""
    scope: dict[str, Any] = {}
    exec(compile(code.replace("outputs/mine", str(output)), title, "exec"), scope)
    starts = [start for start in FOUND if title == start or title.startswith(f"{start},")]
    return FOUND[max(starts, key=len)](scope)


def _formats(told: str) -> list[str]:
    return list(FORMATS) if told == "any format" else told.split(", ")


@pytest.mark.parametrize(
    ("told", "title", "code"), [r for r in READERS if r[1] != "ray"], ids=lambda text: text[:40]
)
def test_every_documented_reader_finds_all_samples(
    told: str, title: str, code: str, outputs: dict[str, Path]
) -> None:
    for kind in _formats(told):
        assert _run_example(title, code, outputs[kind]) == SAMPLES, kind


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of itself
def test_ray_reads_every_format(outputs: dict[str, Path]) -> None:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        examples = [one for one in READERS if one[1] == "ray"]
        assert [told for told, _, _ in examples] == ["webdataset", "parquet", "files"]
        for told, title, code in examples:
            assert _run_example(title, code, outputs[told]) == SAMPLES, told
    finally:
        ray.shutdown()


@pytest.mark.parametrize("kind", RENDERED)
def test_a_torch_loader_shares_out_the_rows(kind: OutputFormat, outputs: dict[str, Path]) -> None:
    loaded = datasets.load_dataset(str(outputs[kind]), split="train").select_columns(
        ["image", "key"]
    )
    loader = DataLoader(loaded.with_format("torch"), batch_size=2, num_workers=2)
    batches = list(loader)
    assert {tuple(batch["image"].shape) for batch in batches} == {(2, 3, 32, 32)}
    assert len({key for batch in batches for key in batch["key"]}) == SAMPLES


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_webdataset_read_every_sample_once(workers: int, tmp_path: Path) -> None:
    output = Folder.at(tmp_path)
    for shard in range(2):
        with sink_of("webdataset")(output, f"train-{shard:05d}", SCHEMA, labels=LABELS) as sink:
            for sample in records(shard=shard):
                sink.write(sample)
            sink.commit({"plan_digest": "0" * 64})
    tars = sorted(glob.glob(f"{tmp_path}/data/*.tar"))
    dataset = webdataset.WebDataset(
        tars, shardshuffle=False, workersplitter=webdataset.split_by_worker
    )
    pipeline = dataset.decode("torchrgb").to_tuple("__key__", "jpg", "cls")
    samples = list(webdataset.WebLoader(pipeline, batch_size=None, num_workers=workers))
    assert len({key for key, _, _ in samples}) == len(samples) == 12
    assert Counter(cls for _, _, cls in samples) == {0: 4, 1: 2, 3: 2, 4: 2, 5: 2}
    assert {tuple(image.shape) for _, image, _ in samples} == {(3, 16, 24)}


def test_image_folders_by_the_library_and_by_a_walk(outputs: dict[str, Path]) -> None:
    images = outputs["files"] / "images"
    loaded = datasets.load_dataset("imagefolder", data_dir=str(images))
    assert set(loaded) == {"train"}
    assert Counter(loaded["train"]["label"]) == Counter(dict.fromkeys(CLASSES, 4))
    row = loaded["train"][0]
    with Image.open(outputs["files"] / row["content_path"]) as content:
        assert content.size == row["image"].size
    classes = sorted(path.name for path in (images / "train").iterdir() if path.is_dir())
    found = {name: sorted((images / "train" / name).rglob("*.jpg")) for name in classes}
    assert [len(files) for files in found.values()] == [4, 4]
    assert classes[1] == "tabby cat"
    assert classes[0].startswith("crash =test~")  # `datasets` would take it for a split
    names = Counter(path.name.rpartition("--")[0] for path in found["tabby cat"])
    assert names == {"a--one": 4}


def test_duckdb_asks_records_of_every_format(outputs: dict[str, Path]) -> None:
    for kind, output in outputs.items():
        told = duckdb.sql(
            f"SELECT label, count(*) FROM '{output}/metadata/train-*.parquet' WHERE structure > -1 GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert told == [(name, 4) for name in CLASSES], kind
    sizes = duckdb.sql(
        f"SELECT label, min(octet_length(image.bytes)) FROM '{outputs['parquet']}/data/*.parquet' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [label for label, _ in sizes] == [0, 1]
    assert min(size for _, size in sizes) > 100
    lines = f"{outputs['files']}/images/train/metadata.jsonl"
    names = duckdb.sql(f"SELECT DISTINCT file_name FROM '{lines}'").fetchall()
    assert len(names) == SAMPLES


def test_every_format_holds_the_same_pictures(outputs: dict[str, Path]) -> None:
    sums = [
        duckdb.sql(
            f"SELECT key, sha256 FROM '{outputs[kind]}/metadata/train-*.parquet' ORDER BY key"
        ).fetchall()
        for kind in FORMATS
    ]
    assert sums[0] == sums[1] == sums[2]
    sheets = [(outputs[kind] / "contact_sheet.png").read_bytes() for kind in FORMATS]
    assert sheets[0] == sheets[1] == sheets[2]


def test_a_damaged_tree_is_repaired_to_the_same_bytes(
    outputs: dict[str, Path], tmp_path: Path
) -> None:
    output = Path(shutil.copytree(outputs["files"], tmp_path / "out"))
    whole = digests(output)
    first, other = sorted((output / "images").rglob("*--00000000?.jpg"))[:2]
    first.write_bytes(other.read_bytes())
    other.unlink()
    (output / "images/train/metadata.jsonl").write_text("{}")
    assert {problem.shard for problem in verify(output)} == {0}
    assert repair(output).num_attempted == SAMPLES // 2
    assert digests(output) == whole
    assert list(verify(output)) == []
