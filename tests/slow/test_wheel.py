"""What is installed is the product alone, with its data, and renders from any folder without the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from pipelines.release_check import BESIDE, sdist_faults, tracked, wheel_faults

ROOT = Path(__file__).parents[2]
PACKED = ("stylebatch", "pipelines", "manifests", *BESIDE)
IMPORT_ALL = """
import importlib, json, pkgutil, stylebatch
names = [m.name for m in pkgutil.walk_packages(stylebatch.__path__, "stylebatch.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps([stylebatch.__file__, names]))
"""

PACKAGE = tracked(ROOT)

pytestmark = pytest.mark.slow


def call(*command: str | Path, cwd: Path) -> str:
    """What the command prints; the repository is not on its path, and no network is asked."""
    environment = {key: x for key, x in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, built from a copy of the repository."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in PACKED:
        if (ROOT / name).is_dir():
            waste = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=waste)
        else:
            shutil.copy(ROOT / name, source)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(built)!r})"
    call(sys.executable, "-c", build, cwd=source)
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(built, filter="data")
        held = [one.name.partition("/")[2] for one in tar.getmembers() if one.isfile()]
    assert list(sdist_faults(held, PACKAGE)) == []
    unpacked = built / archive.name.removesuffix(".tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    call(*pip, "--wheel-dir", built, unpacked, cwd=built)
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of a new environment that holds the wheel, and sees the libraries of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    call(*pip, wheel, cwd=home)
    (packages,) = home.glob("lib/python*/site-packages")
    # a path in a .pth file: what is installed there as editable stays unseen
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_holds_the_product_and_its_data_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert list(wheel_faults(names, PACKAGE)) == []
    assert {"stylebatch/py.typed", "stylebatch/models/tiny/unet/config.json"} <= set(names)


def test_every_module_is_importable_without_the_laboratory(installed: Path, tmp_path: Path) -> None:
    place, names = json.loads(call(installed / "python", "-c", IMPORT_ALL, cwd=tmp_path))
    assert Path(place).is_relative_to(installed.parent)
    assert "stylebatch.engine.worker" in names
    absent = "import importlib.util as u; print(u.find_spec('pipelines'), u.find_spec('tests'))"
    assert call(installed / "python", "-c", absent, cwd=tmp_path).split() == ["None", "None"]


def test_the_demo_renders_from_another_folder(installed: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    call(
        installed / "stylebatch", "demo", "--output", "out", "--set", "pairing={mode: zip}",
        "--set", "method.steps=2", "--set", "engine.threads=1", cwd=here,
    )  # fmt: skip
    output = here / "out"
    assert sorted(path.name for path in output.glob("data/*.tar"))
    call(installed / "stylebatch", "verify", output, cwd=here)
    told = call(installed / "stylebatch", "conformance", "--help", cwd=here)
    assert "conformance" in told
