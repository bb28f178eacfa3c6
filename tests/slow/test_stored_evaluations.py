"""Outputs in a store are compared and evaluated as those on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stylebatch.cli import main
from tests.support.images import write_inputs, write_manifest
from tests.support.s3 import BUCKET, s3_server

pytestmark = pytest.mark.slow


def test_a_store_gives_the_figures_of_a_folder(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, contents=2, styles=2)
    method = {"name": "styleid", "steps": 2}
    manifest = str(write_manifest(tmp_path, eps_folder, method=method))
    words = ["compare", manifest, "--limit", "2", "--vary", "method.gamma=0.2,0.9", "--output"]
    figures = []
    with s3_server():
        for place in (str(tmp_path / "here"), f"s3://{BUCKET}/there"):
            assert main([*words, place]) == 0
            capsys.readouterr()
            outputs = [f"{place}/gamma={gamma}-preview-2" for gamma in ("0.2", "0.9")]
            assert main(["evaluate", *outputs, "--to", f"{place}-told", "--json"]) == 0
            found = json.loads(capsys.readouterr().out)["outputs"]
            figures.append([one["measures"] for one in found])
            assert main(["evaluate", outputs[0], "--to", f"{place}-told", "--limit", "1"]) == 0
    assert figures[0] == figures[1]
