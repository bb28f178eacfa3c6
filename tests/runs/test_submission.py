"""Submission to clusters: a real Ray head with its job server and token, and the files of `deploy`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.cli import main
from stylebatch.cli.submit import _shown
from tests.support.images import write_inputs, write_manifest
from tests.support.runs import small_manifest

ROOT = Path(__file__).parents[2]
TOKEN = secrets.token_hex(32)
OWN = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",
       "PATH": "/usr/bin:/bin"}  # fmt: skip
"""No `python` of ours on the path: a job finds the environment that submitted it."""
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | OWN


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Address of the job server of a head that asks for TOKEN."""
    folder = tempfile.mkdtemp(prefix="sb")  # short: socket paths have a limit
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "metrics-export-port",
             "ray-client-server-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")  # fmt: skip
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "2",
               "--disable-usage-stats", "--temp-dir", folder, "--node-ip-address", "127.0.0.1",
               "--dashboard-host", "127.0.0.1", *(f"--{name}={port}" for name, port in ports.items())]  # fmt: skip
    environment = PLAIN | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
        "RAY_JOB_STOP_WAIT_TIME_S": "600",  # a busy machine may take more than three seconds to stop
    }  # fmt: skip
    log = Path(folder, "start.log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        _await(url, process, log)
        yield url
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(
        f"{url}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.5)
    pytest.fail(log.read_text())


def _submit(
    manifest: Path, address: str, *args: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stylebatch", "submit", manifest.name, "--address", address, *args],
        capture_output=True, text=True, cwd=manifest.parent,
        env=PLAIN | ({"RAY_AUTH_TOKEN": token} if token else {}),
    )  # fmt: skip


def _bytes(output: Path) -> dict[str, str]:
    files = [*output.glob("data/*.tar"), *output.glob("metadata/*.parquet")]
    return {
        p.relative_to(output).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path, contents=2, styles=2)
    return write_manifest(tmp_path, eps_folder)


@pytest.mark.slow
def test_a_job_gives_the_bytes_of_a_local_run_and_resumes(manifest: Path, head: str) -> None:
    first = _submit(manifest, head, "--output", "jobs")
    assert first.returncode == 0, first.stderr + first.stdout
    assert "Went through 4 of 4 samples" in first.stdout
    local = [sys.executable, "-m", "stylebatch", "run", str(manifest), "--output", "alone"]
    subprocess.run(local, cwd=manifest.parent, env=PLAIN, check=True, capture_output=True)
    assert _bytes(manifest.parent / "jobs") == _bytes(manifest.parent / "alone") != {}
    again = _submit(manifest, head, "--output", "jobs")
    assert again.returncode == 0, again.stderr
    assert "Went through 0 of" in again.stdout or "nothing to do" in again.stdout


@pytest.mark.slow
def test_with_json_logs_every_line_is_an_object(manifest: Path, head: str) -> None:
    done = _submit(manifest, head, "--output", "jobs", "--json-logs")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert {"submitted", "begin", "committed", "end", "log"} <= {line["event"] for line in lines}
    told = [line["text"] for line in lines if line["event"] == "log"]
    assert any("Went through 4 of 4 samples" in text for text in told)
    refused = _submit(manifest, head, "--json-logs", "--set", "method.sites=[1,6]")
    lines = [json.loads(line) for line in (refused.stdout + refused.stderr).splitlines()]
    assert {"error"} <= {line["event"] for line in lines}
    assert {line["exit_code"] for line in lines if line["event"] == "error"} == {2}


@settings(max_examples=25)
@given(data=st.data())
def test_lines_become_objects_however_they_arrive(data: st.DataObject) -> None:
    events = [{"event": "note", "text": 'Maß\u2028 "x"'}, {"event": "end"}]
    lines = [
        *map(json.dumps, events),
        "Went through",
        "[1, 2]",
        "3",
        "",
        "{cut",
        "12 % \x1b[31mred",
    ]
    order = data.draw(st.permutations(lines))
    ends = data.draw(
        st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=len(order), max_size=len(order))
    )
    text = "".join(line + end for line, end in zip(order, ends, strict=True))
    text = text.rstrip("\r\n") if data.draw(st.booleans()) else text
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    said = io.StringIO()
    with redirect_stdout(said), _shown(as_json=True) as show:
        for start, stop in pairwise([0, *cuts, len(text)]):
            show(text[start:stop])
    found = [json.loads(line) for line in said.getvalue().splitlines()]
    assert len(found) == len(lines) - 1
    expected = [json.loads(line) if line.startswith('{"') else line for line in order if line]
    assert [one if "time" not in one else one["text"] for one in found] == expected


@pytest.mark.slow
def test_the_exit_code_is_that_of_the_run(manifest: Path, head: str) -> None:
    result = _submit(manifest, head, "--set", "method.sites=[1,6]")
    assert result.returncode == 2, result.stderr
    assert "Submitted" in result.stderr
    assert "where this model has no self-attention" in result.stdout


@pytest.mark.slow
def test_ray_job_submit_needs_no_submitter_of_ours(manifest: Path, head: str) -> None:
    """Inside a job the cluster's address is known; the job's own variables go before ours."""
    output = manifest.parent / "plain"
    own = json.dumps({"env_vars": {"OMP_WAIT_POLICY": "ACTIVE"}})
    run = [sys.executable, "-m", "stylebatch", "run", str(manifest), "--output", str(output),
           "--engine", "ray"]  # fmt: skip
    ray = str(Path(sys.executable).parent / "ray")
    done = subprocess.run(
        [ray, "job", "submit", "--address", head, "--runtime-env-json", own, "--", *run],
        capture_output=True, text=True,
        env=PLAIN | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Went through 4 of 4 samples" in done.stdout
    assert json.loads((output / "run.json").read_text())["resolved"]["engine"] == "ray"


@pytest.mark.slow
def test_a_stopped_job_ends_in_order(tmp_path: Path, head: str) -> None:
    manifest, output = small_manifest(tmp_path / "in"), tmp_path / "stopped"
    arguments = [sys.executable, "-m", "stylebatch", "submit", str(manifest), "--address", head,
                 "--output", str(output), "--set", "method.steps=50"]  # fmt: skip
    environment = PLAIN | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    job = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert job.stderr is not None
    name = job.stderr.readline().split()[1].rstrip(":")
    while not list(output.glob("metadata/*_stats.json")):
        assert job.poll() is None
        time.sleep(0.1)
    ray = str(Path(sys.executable).parent / "ray")
    subprocess.run([ray, "job", "stop", "--address", head, name], env=environment, check=True)
    stdout, stderr = job.communicate()
    assert job.returncode == 143, stderr + stdout
    assert "committed shards are kept, nothing partial was written" in stdout
    assert not list(output.rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_missing_or_wrong_token_is_named(manifest: Path, head: str, token: str | None) -> None:
    result = _submit(manifest, head, token=token)
    assert result.returncode == 1
    assert "nothing was submitted" in result.stderr
    assert "RAY_AUTH_TOKEN" in result.stderr


def test_a_bad_manifest_is_refused_before_it_is_submitted(manifest: Path) -> None:
    result = _submit(manifest, "http://127.0.0.1:9", "--set", "contents.path=nowhere")
    assert result.returncode == 2
    assert "shared storage" in result.stderr


@pytest.mark.parametrize(
    ("address", "code", "expected"),
    [
        ("http://127.0.0.1:9", 1, "--address http://127.0.0.1:9: nothing was submitted"),
        ("http://no-such-head.invalid:8265", 1, "nothing was submitted"),
        ("", 2, "--address: found ''; accepted: http://HOST:8265"),
        ("ray://head:10001", 2, "accepted: http://HOST:8265"),
        ("head:8265", 2, "accepted: http://HOST:8265"),
        ("http://head:port", 2, "accepted: http://HOST:8265"),
    ],
)
def test_a_wrong_address_is_named(
    manifest: Path, capsys: pytest.CaptureFixture[str], address: str, code: int, expected: str
) -> None:
    assert main(["submit", str(manifest), "--address", address]) == code
    shown = capsys.readouterr().err
    assert expected in shown
    assert "Traceback" not in shown


def test_a_stranger_at_the_address_is_named(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert main(["submit", str(manifest), "--address", address]) == 1
        server.shutdown()
    assert f"--address {address}: nothing was submitted" in capsys.readouterr().err


def test_make_submit_runs_the_verb() -> None:
    made = [
        "make",
        "-n",
        "submit",
        "MANIFEST=m.yaml",
        "ADDRESS=http://head:8265",
        "ARGS=--workers 2",
    ]
    done = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'stylebatch submit "m.yaml" --address "http://head:8265" --workers 2' in done.stdout


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}  # fmt: skip


TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = _closed(name=TEXT, image=TEXT, resources=_closed(requests=TEXTS, limits=TEXTS),
                    volumeMounts={"type": "array", "items": _closed(name=TEXT, mountPath=TEXT)})  # fmt: skip
VOLUME = _closed(name=TEXT, persistentVolumeClaim=_closed(claimName=TEXT))
POD = _closed(spec=_closed(containers={"type": "array", "items": CONTAINER, "minItems": 1},
                           volumes={"type": "array", "items": VOLUME}))  # fmt: skip
WORKERS = _closed(groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT,
                  rayStartParams=TEXTS, template=POD)  # fmt: skip
CLUSTER = _closed(rayVersion=TEXT, authOptions=_closed(mode={"enum": ["token", "disabled"]}),
                  headGroupSpec=_closed(rayStartParams=TEXTS, template=POD),
                  workerGroupSpecs={"type": "array", "items": WORKERS, "minItems": 1})  # fmt: skip
RAYJOB = _closed(apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"}, metadata=_closed(name=TEXT),
                 spec=_closed(entrypoint=TEXT, shutdownAfterJobFinishes={"type": "boolean"},
                              ttlSecondsAfterFinished=COUNT, backoffLimit=COUNT, rayClusterSpec=CLUSTER))  # fmt: skip
"""The fields of KubeRay's RayJob that we use."""


def test_the_rayjob_has_the_fields_of_its_kind() -> None:
    job = yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text())
    jsonschema.validate(job, RAYJOB)
    cluster = job["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    limits = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"][
        "limits"
    ]
    assert limits["nvidia.com/gpu"] == "1"


def test_the_slurm_script_is_sound() -> None:
    script = ROOT / "deploy/slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(script)], check=True)
    assert {"#SBATCH --requeue", "#SBATCH --signal=B:TERM@120"} <= set(
        script.read_text().splitlines()
    )


def test_the_dockerfile_copies_what_exists() -> None:
    lines = [line.split() for line in (ROOT / "deploy/Dockerfile").read_text().splitlines()]
    words = [line for line in lines if line and not line[0].startswith("#")]
    assert {line[0] for line in words} <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert words[0][0] == "FROM"
    copies = [line[1:] for line in words if line[0] == "COPY"]
    copied = [name for line in copies if not line[0].startswith("--") for name in line[:-1]]
    let_in = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split()
    assert let_in[0] == "*"
    assert {f"!{name.removesuffix('/')}" for name in copied} == set(let_in[1:]) - {"**/__pycache__"}
    assert all((ROOT / name).exists() for name in copied)
