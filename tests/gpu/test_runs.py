"""Whole runs on a device: the same bytes twice, every example manifest near the frozen pictures, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stylebatch.engine.worker import Worker
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.pipeline_files import TINY
from stylebatch.planning.resolve import plan
from tests.support.frozen import CASES, distances, rendered
from tests.support.runs import digests, render, small_manifest

LEVELS = 1.0
"""Of 255, that a picture may be off on average: convolutions of a GPU round to TF32, and a few steps carry that on."""


@pytest.mark.parametrize("source", ["held", "recomputed", "cached"])
def test_two_workers_make_the_same_bytes(device: torch.device, tmp_path: Path, source: str) -> None:
    model = load_checkpoint(Checkpoint(TINY), dtype="auto", device=device)
    changes = [f"features.source={source}", "output.shard_size=4"]
    changes += [f"features.cache={tmp_path / 'cache'}"] if source == "cached" else []
    resolved = plan(load_spec(small_manifest(tmp_path / "in", contents=2, styles=2), changes))
    for name in ("a", "b"):
        with Worker(resolved, Folder.at(tmp_path / name), threads=1, model=model) as worker:
            stats = [worker.render(shard) for shard in resolved.shards]
        assert {one["num_failed"] for one in stats} == {0}
        assert {torch.device(one["device"]).type for one in stats} == {device.type}
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != {}


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_every_example_is_near_its_frozen_pictures(
    name: str, tmp_path: Path, cuda: torch.device
) -> None:
    found = rendered(name, tmp_path, "model.dtype=float32")
    assert max(mean for _, mean in distances(name, found)) < LEVELS


@pytest.mark.gpu
def test_the_command_line_runs_on_the_gpu_and_says_so(tmp_path: Path, cuda: torch.device) -> None:
    manifest = small_manifest(tmp_path / "in", contents=2, styles=2)
    outputs = tmp_path / "a", tmp_path / "b"
    for output in outputs:
        done = render(manifest, output, "--engine", "local")
        assert done.returncode == 0, done.stderr
    told = json.loads((outputs[0] / "run.json").read_text())["resolved"]
    assert (told["device"], told["dtype"]) == ("cuda", "float16")
    assert digests(outputs[0]) == digests(outputs[1]) != {}
