"""Whole runs on a small real model: commit, resume, failures, byte identity, what loaders see."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from stylebatch.engine.run import RunResult, run
from stylebatch.errors import OutputLockedError, PlanChangedError
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.store.run_lock import RunLock
from tests.support.forked import Forked
from tests.support.images import write_inputs, write_manifest


def _bytes(output: Path) -> dict[str, str]:
    """Digest of every file that a plan promises to reproduce byte for byte."""
    files = [*output.glob("data/*.tar"), *output.glob("metadata/*.parquet")]
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _samples(output: Path) -> list[dict[str, Any]]:
    return list(
        webdataset.WebDataset(sorted(glob.glob(f"{output}/data/*.tar")), shardshuffle=False)
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, eps_folder: Path) -> tuple[Path, RunResult]:
    """An undisturbed run: (its folder, its result)."""
    folder = tmp_path_factory.mktemp("base")
    write_inputs(folder)
    return folder, run(load_spec(write_manifest(folder, eps_folder)))


@pytest.fixture
def folder(tmp_path: Path, base: tuple[Path, RunResult], eps_folder: Path) -> Path:
    """The same inputs and manifest, with nothing rendered yet."""
    for name in ("contents", "styles"):
        shutil.copytree(base[0] / name, tmp_path / name)
    write_manifest(tmp_path, eps_folder)
    return tmp_path


def test_every_pair_is_one_labelled_sample(base: tuple[Path, RunResult]) -> None:
    _, result = base
    samples = _samples(result.output)
    assert result.exit_code == 0
    assert (result.num_samples, result.num_attempted, result.report.num_success) == (12, 12, 12)
    records = [json.loads(sample["json"]) for sample in samples]
    assert {(r["content_id"], r["style_id"]) for r in records} == {
        (f"{'cat' if c % 2 else 'dog'}/{c}.png", f"{s}.png") for c in range(4) for s in range(3)
    }
    for sample, record in zip(samples, records, strict=True):
        assert record["key"] == sample["__key__"]
        assert (
            record["label"]
            == record["content_id"].split("/")[0]
            == ("cat", "dog")[int(sample["cls"])]
        )
        assert record["sha256"] == hashlib.sha256(sample["jpg"]).hexdigest()
        assert (record["width"], record["original_width"], record["original_height"]) == (
            64,
            96,
            80,
        )
        assert None not in record.values()
        for name in ("jpg", "content.jpg", "style.jpg"):
            with Image.open(io.BytesIO(sample[name])) as image:
                assert image.size == (64, 64)
    assert len({tuple((k, type(v).__name__) for k, v in record.items()) for record in records}) == 1


def test_stylised_images_depend_on_content_and_style(base: tuple[Path, RunResult]) -> None:
    images = {sample["jpg"] for sample in _samples(base[1].output)}
    assert len(images) == 12


def test_metadata_and_reports_are_there(base: tuple[Path, RunResult]) -> None:
    output = base[1].output
    rows = [
        row
        for path in sorted(output.glob("metadata/train-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert [row["key"] for row in rows] == [sample["__key__"] for sample in _samples(output)]
    assert pq.read_table(output / "metadata" / "errors.parquet").num_rows == 0
    with Image.open(output / "contact_sheet.png") as sheet:
        assert sheet.width > 3 * 64
    assert "<html" in (output / "gallery.html").read_text(encoding="utf-8")
    recorded = json.loads((output / "run.json").read_text())
    assert recorded["plan"]["num_samples"] == 12
    assert not [path for path in output.rglob("*") if path.name.startswith(".")]


def test_datasets_loads_the_output_with_no_arguments(
    base: tuple[Path, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    dataset = datasets.load_dataset(str(base[1].output), cache_dir=str(tmp_path))
    assert list(dataset) == ["train"]
    train = dataset["train"]
    assert train.num_rows == 12
    assert train.features["cls"].names == ["cat", "dog"]
    assert {type(row["jpg"]).__name__ for row in train} == {"JpegImageFile"}
    assert {row["json"]["label"] for row in train} == {"cat", "dog"}
    assert type(train[0]["json"]["gamma"]) is float


def test_a_second_run_renders_nothing_and_changes_no_byte(base: tuple[Path, RunResult]) -> None:
    before = _bytes(base[1].output)
    again = run(load_spec(base[0] / "run.yaml"))
    assert again.num_attempted == 0
    assert again.num_resumed_shards == 4
    assert _bytes(base[1].output) == before


def test_two_runs_of_one_plan_give_the_same_bytes(
    base: tuple[Path, RunResult], folder: Path
) -> None:
    assert _bytes(run(load_spec(folder / "run.yaml")).output) == _bytes(base[1].output)


def test_resume_renders_only_what_lacks_a_commit(
    base: tuple[Path, RunResult], folder: Path
) -> None:
    shutil.copytree(base[1].output, folder / "out")
    kept = (folder / "out/data/train-00000.tar").stat().st_mtime_ns
    (folder / "out/metadata/train-00001_stats.json").unlink()
    (folder / "out/data/train-00002.tar").unlink()
    (folder / "out/data/.tmp-train-00002.tar-0000dead").write_bytes(b"half a shard")
    result = run(load_spec(folder / "run.yaml"))
    assert result.num_attempted == 6
    assert _bytes(folder / "out") == _bytes(base[1].output)
    assert (folder / "out/data/train-00000.tar").stat().st_mtime_ns == kept
    assert not list((folder / "out").rglob(".tmp-*"))


def _wait_for(path: Path, process: Forked) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.is_alive, process.end()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(base: tuple[Path, RunResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of the run that the killed ones are compared with."""
    whole = tmp_path_factory.mktemp("whole") / "out"
    run(load_spec(base[0] / "run.yaml", ["method.steps=10"], output=str(whole)))
    return whole


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGKILL,
        *(
            pytest.param(gentle, marks=pytest.mark.slow)
            for gentle in (signal.SIGTERM, signal.SIGINT)
        ),
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    folder: Path, undisturbed: Path, signum: signal.Signals
) -> None:
    process = Forked("run", str(folder / "run.yaml"), "--set", "method.steps=10")
    _wait_for(folder / "out/metadata/train-00000_stats.json", process)
    process.signal(signum)
    done = process.end(60)
    assert done.returncode == (-9 if signum == signal.SIGKILL else 128 + signum)
    if signum != signal.SIGKILL:
        assert "Run the same command again to continue" in done.stderr
        assert not list((folder / "out").rglob(".*"))
    committed = len(list(folder.glob("out/metadata/*_stats.json")))
    assert 1 <= committed < 4
    resumed = run(load_spec(folder / "run.yaml", ["method.steps=10"]))
    assert resumed.num_resumed_shards == committed
    assert _bytes(folder / "out") == _bytes(undisturbed)


def test_bad_images_become_rows_and_the_rest_is_rendered(folder: Path) -> None:
    (folder / "contents/cat/1.png").write_bytes(b"")
    (folder / "contents/dog/0.png").write_bytes((folder / "contents/dog/0.png").read_bytes()[:200])
    (folder / "styles/2.png").write_text("this is no picture")
    result = run(load_spec(folder / "run.yaml"))
    assert result.exit_code == 3
    assert (result.report.num_success, result.report.num_failed) == (4, 8)
    assert "run the same command with --retry-failed" in "".join(result.problems())
    errors = pq.read_table(result.output / "metadata/errors.parquet").to_pylist()
    assert len(errors) == 8
    assert all(
        row["status"] == "failed" and row["error_code"] == "decode" and row["error_message"]
        for row in errors
    )
    messages = " ".join(row["error_message"] for row in errors)
    assert "the file is empty" in messages
    assert "damaged or truncated" in messages
    assert "not an image" in messages
    keys = {
        row["key"]
        for path in result.output.glob("metadata/train-*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert len(keys) == 12
    assert len(_samples(result.output)) == 4
    assert run(load_spec(folder / "run.yaml", ["max_failed_fraction=0.7"])).exit_code == 0


def test_a_shard_without_a_single_success_has_no_tar(folder: Path) -> None:
    for path in (folder / "contents").rglob("*.png"):
        path.write_bytes(b"broken")
    result = run(load_spec(folder / "run.yaml"))
    assert result.exit_code == 3
    assert result.report.num_failed == 12
    assert not list(result.output.glob("data/*"))
    assert len(list(result.output.glob("metadata/*_stats.json"))) == 4
    assert run(load_spec(folder / "run.yaml")).num_attempted == 0


def test_preview_leaves_the_output_alone(folder: Path) -> None:
    result = run(load_spec(folder / "run.yaml"), limit=2)
    assert result.output == Path(f"{folder}/out-preview-2")
    assert len(_samples(result.output)) == 2
    assert not (folder / "out").exists()


def test_changed_parameters_are_refused_and_nothing_is_touched(
    base: tuple[Path, RunResult],
) -> None:
    before = _bytes(base[1].output)
    with pytest.raises(PlanChangedError, match=r"method\.gamma: 0\.75 -> 0\.3"):
        run(load_spec(base[0] / "run.yaml", ["method.gamma=0.3"]))
    assert _bytes(base[1].output) == before


def test_two_runs_do_not_write_one_directory(base: tuple[Path, RunResult]) -> None:
    with RunLock(Folder.at(base[1].output)), pytest.raises(OutputLockedError):
        run(load_spec(base[0] / "run.yaml"))


@pytest.mark.parametrize("image", [{"format": "png"}, {"format": "webp", "quality": 80}])
def test_other_encodings_and_captions(folder: Path, image: dict[str, Any]) -> None:
    rows = "".join(f"contents/cat/1.png,styles/{s}.png,tom,caption {s}\n" for s in range(3))
    (folder / "pairs.csv").write_text("content,style,label,caption\n" + rows)
    spec = load_spec(folder / "pairs.csv")
    manifest = load_spec(folder / "run.yaml")
    update = {
        "model": manifest.model,
        "image": manifest.image,
        "method": manifest.method,
        "engine": manifest.engine,
    }
    output = manifest.output.model_copy(
        update={"image": manifest.output.image.model_copy(update=image), "inputs": False}
    )
    result = run(spec.model_copy(update={**update, "output": output}))
    samples = _samples(result.output)
    assert [sample["txt"].decode() for sample in samples] == ["caption 0", "caption 1", "caption 2"]
    assert set(samples[0]) == {
        "__key__",
        "__url__",
        "__local_path__",
        image["format"],
        "json",
        "txt",
        "cls",
    }
    with Image.open(io.BytesIO(samples[0][image["format"]])) as picture:
        assert picture.format == image["format"].upper()


def test_pair_lists_cost_what_the_plan_says(folder: Path) -> None:
    lines = [
        f"contents/{c},styles/{s}.png\n" for c in ("cat/1.png", "dog/0.png") for s in (0, 1, 1)
    ]
    (folder / "pairs.csv").write_text("content,style\n" + "".join(lines))
    manifest = load_spec(folder / "run.yaml", ["output.shard_size=3"])
    update = {
        name: getattr(manifest, name) for name in ("model", "image", "method", "engine", "output")
    }
    spec = load_spec(folder / "pairs.csv").model_copy(update=update)
    result = run(spec)
    assert result.report.num_success == 6
    assert result.report.evaluations == plan(spec).evaluations == 4 * (4 + 2 + 2)


def test_damaged_metadata_of_a_committed_shard_is_rendered_again(
    base: tuple[Path, RunResult], folder: Path
) -> None:
    shutil.copytree(base[1].output, folder / "out")
    path = folder / "out/metadata/train-00001.parquet"
    path.write_bytes(path.read_bytes()[:500])
    assert run(load_spec(folder / "run.yaml")).num_attempted == 3
    assert _bytes(folder / "out") == _bytes(base[1].output)


def test_shards_of_two_kinds_of_arithmetic_are_not_mixed(
    base: tuple[Path, RunResult], folder: Path
) -> None:
    shutil.copytree(base[1].output, folder / "out")
    recorded = json.loads((folder / "out/run.json").read_text())
    recorded["resolved"] |= {"device": "cuda", "dtype": "float16"}
    (folder / "out/run.json").write_text(json.dumps(recorded))
    with pytest.raises(PlanChangedError, match='device: "cuda" -> "cpu"; dtype: "float16"'):
        run(load_spec(folder / "run.yaml"))
