"""The engines against each other, and against workers and nodes that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pipelines.proofs.crashes import descendants, named
from stylebatch.engine.engines import engine_name, open_engine
from stylebatch.engine.ranks import stretch
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.progress import Progress
from stylebatch.spec import EngineSpec
from tests.support.forked import forked
from tests.support.runs import (
    SITE,
    command,
    digests,
    environment,
    events,
    leftovers,
    render,
    render_by_ranks,
    small_manifest,
)

RAY = ("--engine", "ray", "--json-logs")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_manifest(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def expected(manifest: Path) -> dict[str, str]:
    """What an undisturbed local run writes."""
    result = run(load_spec(manifest, output=str(manifest.parent / "expected")))
    assert result.exit_code == 0
    return digests(result.output)


def _same(output: Path, expected: dict[str, str]) -> None:
    found = digests(output)
    assert {k: v for k, v in found.items() if "errors" not in k} == {
        k: v for k, v in expected.items() if "errors" not in k
    }
    assert leftovers(output) == []


def test_the_manifest_has_several_shards(expected: dict[str, str]) -> None:
    assert sum(name.endswith(".tar") for name in expected) >= 6


def test_ray_with_two_workers_writes_the_same_bytes(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    done = render(manifest, tmp_path / "ray", *RAY, "--workers", "2")
    assert done.returncode == 0, done.stderr
    _same(tmp_path / "ray", expected)
    committed = [e for e in events(done.stderr) if e["event"] == "committed"]
    assert {e["worker"] for e in committed} == {"worker-0", "worker-1"}
    assert len({e["run"] for e in committed}) == 1


def test_two_torchrun_ranks_write_the_same_bytes(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    done = render_by_ranks(manifest, tmp_path / "ranks", "--json-logs")
    assert done.returncode == 0, done.stderr
    _same(tmp_path / "ranks", expected)
    assert done.stdout.count("samples/s") >= 1
    shards = [e["shard"] for e in events(done.stderr) if e["event"] == "committed"]
    assert 0 < len(shards) < sum(name.endswith(".tar") for name in expected)  # rank 1 made others


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("shards", [range(5, 36), [2, 3, 9, 30, 31, 32, 33], [4], []])
def test_ranks_share_out_neighbours_evenly(shards: Sequence[int], ranks: int) -> None:
    shares = [list(stretch(shards, rank, ranks)) for rank in range(ranks)]
    assert [shard for share in shares for shard in share] == list(shards)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("asked", "told"), [("2", True), ("1", False)])
@pytest.mark.slow
def test_fewer_ranks_than_asked_are_told(
    asked: str, told: bool, manifest: Path, tmp_path: Path
) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", asked]
    done = subprocess.run(
        [*launch, *command(manifest, tmp_path / "one", "--limit", "1")[1:]],
        capture_output=True, text=True, env=environment(), timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "one-preview-1" / "run.json").read_text())
    assert record["resolved"]["engine"] == "accelerate"
    assert ("accelerate started 1 rank, where several were asked for" in done.stdout) is told
    assert ("torchrun --nproc_per_node" in done.stdout) is told


@pytest.mark.slow
def test_a_tracker_logs_every_commit_beside_the_data(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = tmp_path / "out"
    for limit in (["--limit", "1"], []):  # the preview leaves nothing in the way of the run
        done = render(manifest, output, "--tracker", "tensorboard", *limit)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out-preview-1" / "logs").is_dir()
    _same(output, expected)
    log = EventAccumulator(str(output / "logs" / "small"))
    log.Reload()
    assert [scalar.step for scalar in log.Scalars("samples")] == list(range(1, 19))
    assert {scalar.value for scalar in log.Scalars("failed")} == {0.0}
    assert all(scalar.value > 0 for scalar in log.Scalars("evaluations_per_second"))


@pytest.mark.slow
def test_a_shard_that_kills_its_worker_is_left_out_and_named(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    root = environment()["PYTHONPATH"]
    path = f"{tmp_path / 'site'}{os.pathsep}{root}"
    output = tmp_path / "poison"
    done = render(
        manifest,
        output,
        *RAY,
        "--workers",
        "2",
        PYTHONPATH=path,
        KILLER=str(manifest.parent / "contents" / "03.png"),
    )
    assert done.returncode == 3, done.stderr
    poisoned = [e for e in events(done.stderr) if e["event"] == "poisoned"]
    assert poisoned
    for event in poisoned:
        assert event["attempts"] == 3
        assert f"shard {event['shard']} was left out" in done.stderr
        assert (output / "metadata" / f"{event['shard']}_poison.json").is_file()
    found = digests(output)
    missing = {f"data/{e['shard']}.tar" for e in poisoned}
    tars = {name for name in expected if name.endswith(".tar")}
    assert {name for name in found if name.endswith(".tar")} == tars - missing
    healed = render(manifest, output)  # a local resume, the fault gone
    assert healed.returncode == 0, healed.stderr
    _same(output, expected)
    assert not list(output.glob("metadata/*_poison.json"))


@pytest.mark.slow
def test_sigterm_ends_a_ray_run_which_then_resumes(
    manifest: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "stopped"
    driver = subprocess.Popen(
        command(manifest, output, *RAY, "--workers", "1"),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not list(output.glob("metadata/*_stats.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.send_signal(signal.SIGTERM)
    _, stderr = driver.communicate(timeout=600)
    assert driver.returncode == 143, stderr
    assert "Run the same command again" in stderr
    done = render(manifest, output)
    assert done.returncode == 0, done.stderr
    _same(output, expected)


@pytest.mark.slow
def test_a_run_refused_under_torchrun_says_so_once(manifest: Path, tmp_path: Path) -> None:
    assert render(manifest, tmp_path / "out").returncode == 0
    done = render_by_ranks(manifest, tmp_path / "out", "--set", "method.gamma=0.5")
    assert done.returncode == 1
    assert done.stderr.count("method.gamma: 0.75 -> 0.5") == 1
    # torchrun may end the other rank before it says so
    assert done.stderr.count("exitcode  : 4") >= 1
    assert "[rank1]" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test asks for")
def test_a_gpu_that_this_machine_lacks_is_not_waited_for(manifest: Path, tmp_path: Path) -> None:
    done = render(manifest, tmp_path / "out", *RAY, "--set", "engine.gpus_per_worker=1")
    assert done.returncode == 2
    assert "engine.gpus_per_worker: found 1; accepted: at most 0" in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_a_ray_run_with_all_its_processes(manifest: Path, tmp_path: Path) -> None:
    """The signal goes to the whole process group, as a terminal sends it."""
    output = tmp_path / "stopped"
    driver = subprocess.Popen(
        command(manifest, output, *RAY, "--workers", "2"),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not list(output.glob("metadata/*_stats.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    below = descendants(driver.pid)
    os.killpg(driver.pid, signal.SIGINT)
    _, stderr = driver.communicate(timeout=600)
    assert driver.returncode == 130, stderr
    assert "Run the same command again" in stderr
    assert leftovers(output) == []
    while any(named(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(named(pid) for pid in below)


@pytest.mark.parametrize(
    ("spec", "environ", "name"),
    [
        ({}, {}, "local"),
        ({"workers": 2}, {}, "ray"),
        ({"address": "auto"}, {}, "ray"),
        ({}, {"RAY_ADDRESS": "10.0.0.1:6379"}, "ray"),
        ({"address": "auto"}, {"WORLD_SIZE": "2"}, "accelerate"),
        ({"name": "local"}, {"WORLD_SIZE": "2", "RAY_ADDRESS": "10.0.0.1:6379"}, "local"),
    ],
)
def test_auto_picks_the_engine(
    spec: dict[str, object], environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WORLD_SIZE", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    assert engine_name(EngineSpec(**spec)) == name  # type: ignore[arg-type]


def test_options_of_another_engine_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"engine\.address: found auto with engine local"):
        open_engine(EngineSpec(name="local", address="auto"), Progress())
    with pytest.raises(ManifestError, match=r"engine\.workers: found 4 with engine local"):
        open_engine(EngineSpec(name="local", workers=4), Progress())


def test_a_cluster_that_is_not_there_is_named(manifest: Path, tmp_path: Path) -> None:
    words = ("run", str(manifest), "--output", str(tmp_path / "none"), *RAY)
    done = forked(*words, "--address", "127.0.0.1:1")
    assert done.returncode == 1
    assert "engine.address: 127.0.0.1:1" in done.stderr
