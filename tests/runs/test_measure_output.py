"""`stylebatch measure`: columns of a finished output, whose pictures stay; killed, locked, damaged, grown, in a store."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylebatch.cli import main
from stylebatch.engine.measure_output import measure_output
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError, OutputLockedError
from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.reports.committed import read_samples
from stylebatch.reports.report import report
from stylebatch.spec.output import OutputFormat
from stylebatch.store.run_lock import RunLock
from stylebatch.store.sinks import SINKS
from stylebatch.store.verify import verify
from tests.support.exported import FAILED, PER_SHARD, SHARDS, rendered, rows_of
from tests.support.eyes import EYES
from tests.support.images import picture, write_inputs, write_manifest
from tests.support.killed_measures import CASES, NAMES
from tests.support.runs import digests, environment, leftovers
from tests.support.s3 import BUCKET, s3_server
from tests.support.viewers import answering, columns_of, found_rows, told

COLUMNS = ["agreement", "agreement_rank", "agreement_content", "feature_style"]


@pytest.fixture
def eyes(tmp_path: Path) -> str:
    (tmp_path / "eyes.py").write_text(EYES)
    return f"{tmp_path}/eyes.py:mean_colour"


def _means(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3).mean(0) + 1.0


def _payload(output: Path) -> dict[str, str]:
    return {
        name: digest
        for name, digest in digests(output).items()
        if name.startswith(("data/", "images/cat", "images/train", "input_images/"))
        and not name.endswith(".jsonl")
    }


@pytest.mark.parametrize("kind", list(SINKS))
@pytest.mark.parametrize("shares_inputs", [False, True])
def test_columns_are_added_and_pictures_stay(
    kind: OutputFormat, shares_inputs: bool, tmp_path: Path, eyes: str
) -> None:
    output = rendered(tmp_path / "out", kind, shares_inputs=shares_inputs)
    before, rows = _payload(output), rows_of(output, success=False)
    done = measure_output(output, ["feature_style", "agreement"], classifier=eyes)
    assert (done.exit_code, done.num_shards, done.num_samples) == (
        0,
        SHARDS,
        SHARDS * (PER_SHARD - 1),
    )
    assert _payload(output) == before
    assert before
    assert list(verify(output)) == []
    after = rows_of(output, success=False)
    assert [{k: v for k, v in row.items() if k not in COLUMNS} for row in after] == rows
    assert [name for name in after[0] if name in COLUMNS] == COLUMNS
    assert [after[FAILED][name] for name in COLUMNS] == [None] * 4
    wanted = {f"train-{number:05d}": {} for number in range(SHARDS)}
    for row in after:
        if row["status"] == "success":
            wanted[f"train-{row['shard']:05d}"][row["key"]] = row
    for key, members in read_samples(Folder.at(output), wanted):
        row = next(row for row in after if row["key"] == key)
        result, content = _means(members["jpg"]), _means(members["content.jpg"])
        probability = (result / result.sum())[content.argmax()]
        assert row["agreement"] == pytest.approx(probability, rel=1e-5)
        assert row["agreement_content"] == pytest.approx(content.max() / content.sum(), rel=1e-5)
    # whatever reads the output knows the columns
    assert "agreement" in "\n".join(report(output).lines())
    taken = export(
        [output], tmp_path / "taken", ExportOptions(format="files", where="agreement_rank = 1")
    )
    expected = [row for row in after if row["agreement_rank"] == 1]
    assert 0 < taken.report.num_success == len(expected) < len(after)
    line = json.loads((tmp_path / "taken/images/train/metadata.jsonl").read_text().splitlines()[0])
    assert line["agreement"] == expected[0]["agreement"]


def test_measured_twice_is_measured_once_and_more_may_follow(tmp_path: Path, eyes: str) -> None:
    output = rendered(tmp_path / "out")
    measure_output(output, ["agreement"], classifier=eyes)
    whole = digests(output)
    again = measure_output(output, ["agreement", "agreement"], classifier=eyes)
    assert (again.num_shards, again.num_before, digests(output) == whole) == (0, SHARDS, True)
    assert measure_output(output, ["feature_style"], classifier=eyes).num_shards == SHARDS
    assert set(COLUMNS) <= rows_of(output)[0].keys()
    # other eyes for a part would leave columns of two classifiers side by side
    (tmp_path / "eyes.py").write_text(EYES + "\n# other")
    with pytest.raises(ManifestError, match="--add agreement,feature_style"):
        measure_output(output, ["agreement"], classifier=eyes)
    assert measure_output(output, NAMES, classifier=eyes).num_shards == SHARDS
    assert list(verify(output)) == []


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_between_any_two_writes_it_goes_on(every: int, tmp_path: Path, eyes: str) -> None:
    source = rendered(tmp_path / "source")
    cases = list(enumerate(CASES))[::every]
    for number, _ in cases:
        shutil.copytree(source, tmp_path / str(number))
    words = [sys.executable, "-m", "tests.support.killed_measures", str(tmp_path), str(every)]
    subprocess.run(words, env=environment(), check=True, timeout=300)
    measure_output(source, NAMES, classifier=eyes)
    whole, killed = digests(source), 0
    for number, point in cases:
        output = tmp_path / str(number)
        killed += int((tmp_path / f"{number}.status").read_text()) == -signal.SIGKILL
        # no sample is lost meanwhile: a shard's records are the former or the new ones
        assert {problem.shard for problem in verify(output)} <= {None}, point
        assert report(output).num_success == SHARDS * (PER_SHARD - 1), point
        assert measure_output(output, NAMES, classifier=eyes).exit_code == 0
        assert digests(output) == whole, point
        assert (leftovers(output), list(verify(output))) == ([], []), point
    assert killed > len(cases) / 2


def test_a_viewer_shows_what_was_measured_so_far(tmp_path: Path, eyes: str) -> None:
    output = rendered(tmp_path / "out")
    first, second = (output / f"metadata/train-0000{number}" for number in (0, 1))
    endings = (".parquet", "_stats.json")
    former = [Path(f"{first}{ending}").read_bytes() for ending in endings]
    before = json.loads(Path(f"{second}_stats.json").read_text())
    measure_output(output, ["agreement"], classifier=eyes)
    # killed before the first shard was measured, and between the records and the marker of the second
    for ending, data in zip(endings, former, strict=True):
        Path(f"{first}{ending}").write_bytes(data)
    after = json.loads(Path(f"{second}_stats.json").read_text())
    pending = before | {"pending_sha256": after["metadata_sha256"]}
    Path(f"{second}_stats.json").write_text(json.dumps(pending))
    with answering(output) as answers:
        assert told(answers, "/api/state")["problems"] == []
        values = columns_of(answers)["agreement"]
        unknown = [number for number, value in enumerate(values) if value is None]
        # of the other two shards one sample failed
        assert set(unknown) > set(range(PER_SHARD))
        assert len(unknown) < len(values)
        assert found_rows(answers, where="agreement is null") == unknown


def test_a_damaged_shard_is_told_and_the_others_are_measured(tmp_path: Path, eyes: str) -> None:
    output = rendered(tmp_path / "out")
    tar, metadata = output / "data/train-00001.tar", output / "metadata/train-00002.parquet"
    sound = tar.read_bytes(), metadata.read_bytes()
    place = sound[0].index(b"\xff\xd8\xff")
    tar.write_bytes(sound[0][: place + 300] + b"\0" * 40 + sound[0][place + 340 :])
    metadata.write_bytes(sound[1][:-40])
    done = measure_output(output, ["agreement"], classifier=eyes)
    assert (done.exit_code, done.num_shards, len(done.damaged)) == (3, 1, 2)
    text = "\n".join(done.lines())
    assert "train-00001.tar" in text
    assert "train-00002.parquet" in text
    assert f"Next: stylebatch repair {output}" in text
    tar.write_bytes(sound[0])
    metadata.write_bytes(sound[1])
    assert measure_output(output, ["agreement"], classifier=eyes).num_shards == 2
    assert list(verify(output)) == []


def test_a_classifier_that_fails_at_a_picture_costs_its_shard(tmp_path: Path, eyes: str) -> None:
    output = rendered(tmp_path / "out")
    file = tmp_path / "eyes.py"
    failing = "    calls.append(1)\n    if len(calls) == 3:\n        raise OSError('no light')\n"
    head = "def mean_colour(images, device):\n"
    file.write_text(EYES.replace(head, f"calls = []\n{head}{failing}"))
    done = measure_output(output, ["agreement"], classifier=eyes)
    assert (done.exit_code, done.num_shards, len(done.unseen)) == (3, SHARDS - 1, 1)
    text = "\n".join(done.lines())
    assert "train-00000: not measured:" in text
    assert "OSError: no light" in text
    assert "Next: mend the classifier" in text
    file.write_text(EYES)  # other code is another classifier: all is measured anew
    assert measure_output(output, ["agreement"], classifier=eyes).num_shards == SHARDS
    assert list(verify(output)) == []


def test_what_cannot_be_measured_is_refused_and_nothing_changes(
    tmp_path: Path, eyes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = rendered(tmp_path / "out")
    before = digests(output)
    for names, options, text in (
        (["agrement"], {}, "did you mean 'agreement'"),
        (["sharpness"], {}, "no measure by a network"),
        ([], {}, "found nothing"),
        (["agreement"], {"classifier": "no/where"}, "no file"),
        (["agreement"], {"classifier": eyes, "labels": {"Dog": 1}}, "no content has"),
        (["feature_style"], {"classifier": eyes.replace("mean_colour", "alone")}, "returns none"),
    ):
        with pytest.raises(ManifestError, match=text):
            measure_output(output, names, **options)  # type: ignore[arg-type]
    with RunLock(Folder.at(output)), pytest.raises(OutputLockedError):
        measure_output(output, ["agreement"], classifier=eyes)
    with pytest.raises(ManifestError, match=r"run\.json"):
        measure_output(tmp_path / "nowhere", ["agreement"], classifier=eyes)
    assert digests(output) == before
    assert main(["measure", str(output), "--add", "agreement", "--label", "cat"]) == 2
    assert "LABEL=CLASS" in capsys.readouterr().err
    words = [
        "measure",
        str(output),
        "--add",
        "agreement,feature_content",
        "--classifier",
        eyes,
        "--label",
        "cat=red",
    ]
    assert main(words) == 0
    assert "measured 18 samples of 3 shards" in capsys.readouterr().out


def test_runs_and_growth_know_what_was_added(tmp_path: Path, eps_folder: Path, eyes: str) -> None:
    write_inputs(tmp_path, contents=2, styles=1)
    output = {"path": str(tmp_path / "out"), "shard_size": 1}
    method = {"name": "styleid", "steps": 2}
    manifest = write_manifest(tmp_path, eps_folder, method=method, output=output)
    run(load_spec(manifest))
    measure_output(tmp_path / "out", ["agreement"], classifier=eyes)
    whole = digests(tmp_path / "out")
    assert run(load_spec(manifest)).num_resumed_shards == 2
    assert digests(tmp_path / "out") == whole
    # a new shard lacks the column until it is measured too
    picture(5).save(tmp_path / "contents/cat/5.png")
    assert run(load_spec(manifest)).exit_code == 0
    assert list(verify(tmp_path / "out")) == []
    done = measure_output(tmp_path / "out", ["agreement"], classifier=eyes)
    assert (done.num_shards, done.num_before) == (1, 2)
    assert all(row["agreement"] is not None for row in rows_of(tmp_path / "out"))
    # an output without contents beside its results
    output |= {"path": str(tmp_path / "bare"), "inputs": False}
    run(load_spec(write_manifest(tmp_path, eps_folder, method=method, output=output)))
    before = digests(tmp_path / "bare")
    with pytest.raises(ManifestError, match="does not hold the content of its samples"):
        measure_output(tmp_path / "bare", ["agreement"], classifier=eyes)
    assert digests(tmp_path / "bare") == before


def test_outputs_in_stores_and_exports_are_measured(tmp_path: Path, eyes: str) -> None:
    source = rendered(tmp_path / "source")
    taken = tmp_path / "taken"
    export([source], taken, ExportOptions(format="webdataset", originals=0.5))
    with s3_server():
        stored = Folder.at(f"s3://{BUCKET}/out")
        for file in taken.rglob("*.*"):
            stored.write(str(file.relative_to(taken)), file.read_bytes())
        assert measure_output(stored, NAMES, classifier=eyes).exit_code == 0
        assert list(verify(stored)) == []
        measure_output(taken, NAMES, classifier=eyes)
        for name in digests(taken):
            if name.startswith(("data/", "metadata/train")):
                assert stored.read(name) == (taken / name).read_bytes(), name
    originals = [row for row in rows_of(taken) if row["is_original"]]
    assert originals
    assert all(row["agreement"] == row["agreement_content"] for row in originals)
