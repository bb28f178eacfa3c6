"""The demo by two Ray nodes that share no folder, with inputs, style cache and output in S3: the bytes of a run on one machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stylebatch.engine.run import run
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.store.verify import verify
from tests.support.ray_nodes import ray_nodes
from tests.support.runs import environment, events
from tests.support.s3 import BUCKET, contents, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
DEMO = Path(__file__).parents[2] / "manifests" / "demo"
SMALLER = ("method.steps=2", "image.size=64", "output.shard_size=6", "engine.threads=1")


def _options(inputs: str, cache: str) -> list[str]:
    places = [f"{field}.path={inputs}/{field}" for field in ("contents", "styles")]
    return [*SMALLER, *places, f"features={{cache: '{cache}', source: cached}}"]


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Path]]]:
    """A cluster of two nodes with a core each; each has a home and a folder for temporary files of its own."""
    for name in ("OMP_NUM_THREADS", "PYTHONPATH", "RAY_worker_niceness"):
        monkeypatch.setenv(name, environment()[name])
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():  # this process sends it if it has started a Ray before
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    homes = [tmp_path / name for name in ("one", "two")]
    variables = []
    for home in homes:
        (home / "tmp").mkdir(parents=True)
        variables.append({"HOME": str(home), "TMPDIR": str(home / "tmp")})
    made = ray_nodes(
        *({"num_cpus": 1, "include_dashboard": False, "env_vars": home} for home in variables)
    )
    yield made, homes
    made.shutdown()


@pytest.fixture
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


def test_two_nodes_without_a_shared_folder_make_what_one_machine_makes(
    s3: str, nodes: tuple[Any, list[Path]], tmp_path: Path
) -> None:
    cluster, homes = nodes
    manifest = DEMO.with_suffix(".yaml")
    here = tmp_path / "here"
    run(load_spec(manifest, _options(str(DEMO), str(tmp_path / "cache")), output=str(here)))
    inputs = Folder.at(f"s3://{BUCKET}/demo")
    for path in sorted(DEMO.rglob("*")):
        if path.is_file():
            inputs.put(path.relative_to(DEMO).as_posix(), path)
    address, driver = f"s3://{BUCKET}/out", tmp_path / "driver"
    driver.mkdir()
    options = _options(inputs.shown, f"s3://{BUCKET}/cache")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stylebatch", "run", str(manifest), "--output", address),
            *("--engine", "ray", "--address", cluster.address, "--json-logs"),
            *(word for option in options for word in ("--set", option)),
        ],
        cwd=driver, env=environment(HOME=str(driver)), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    workers = {event["worker"] for event in events(done.stderr) if event["event"] == "committed"}
    assert len(workers) == 2, done.stderr
    assert list(verify(address)) == []
    stored = contents(address)
    names = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert stored.keys() == names
    for name in names:
        if name.endswith((".tar", ".parquet", ".png")):
            assert stored[name] == (here / name).read_bytes(), name
    copies = [list((home / ".cache/stylebatch/styles").rglob("*.tar")) for home in homes]
    assert all(copies), copies
    left = [path for home in (*homes, driver) for path in home.rglob("stylebatch-*")]
    assert left == []
    assert not (driver / "outputs").exists()
