"""What a new user types first, as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import write_inputs

pytestmark = pytest.mark.slow


def test_init_and_run_in_one_go(tmp_path: Path) -> None:
    write_inputs(tmp_path, contents=2, styles=1)
    (tmp_path / "contents").rename(tmp_path / "photos")
    (tmp_path / "styles").rename(tmp_path / "paintings")
    script = (
        f"{sys.executable} -m stylebatch init photos paintings && "
        f"{sys.executable} -m stylebatch run manifest.yaml"
    )
    done = subprocess.run(script, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "paintings is taken for styles" in done.stdout
    assert (tmp_path / "outputs" / "photos-paintings" / "README.md").is_file()
