"""Ray on a busy machine: a start that times out is repeated, and told when no start succeeds."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from stylebatch.engine.drive import RayError
from stylebatch.engine.ray_pool import STARTS, TIMED_OUT, RayEngine
from stylebatch.progress import Progress
from stylebatch.spec import EngineSpec
from tests.support.runs import render, small_manifest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ray, whose first starts time out: as many as its `failing` says."""
    import ray

    real, starts = ray.init, []

    def busy(*args: Any, **options: Any) -> Any:
        starts.append(args)
        context = real(*args, **options)
        if len(starts) <= ray.failing:
            raise Exception(f"The current node {TIMED_OUT}.")  # what it had started is still there
        return context

    monkeypatch.setattr(ray, "init", busy)
    monkeypatch.setattr(ray, "failing", 0, raising=False)
    yield ray
    assert not ray.is_initialized()


def test_a_start_that_times_out_is_repeated(ray: Any) -> None:
    ray.failing = 1
    with RayEngine(EngineSpec(), Progress()) as engine:
        assert engine.ray.cluster_resources()["CPU"] >= 1


def test_starts_that_all_time_out_are_told(ray: Any) -> None:
    ray.failing = STARTS
    with pytest.raises(RayError, match="a Ray cluster of this machine cannot be used"):
        RayEngine(EngineSpec(), Progress()).__enter__()


def test_a_cluster_that_asks_for_a_token_is_told_so(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path / "in")
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        asked = ("--engine", "ray", "--address", address)
        none = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)}
        done = render(manifest, tmp_path / "out", *asked, **none)
    assert done.returncode == 1, done.stderr
    assert f"{address} asks for a token" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "trace" not in done.stderr
