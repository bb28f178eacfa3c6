"""Small real runs as subprocesses, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.images import picture

SITE = """
import os
from PIL.PngImagePlugin import PngImageFile
_open = PngImageFile._open
with open(os.environ["KILLER"], "rb") as file:
    _killer = file.read()
def open_or_die(self):
    if getattr(self.fp, "getvalue", bytes)() == _killer:
        os.kill(os.getpid(), 9)
    _open(self)
PngImageFile._open = open_or_die
"""
"""A sitecustomize that kills the process which decodes one image, as a fault in a decoder would."""


def small_manifest(
    folder: Path, *, contents: int = 6, styles: int = 3, size: int = 32, steps: int = 2
) -> Path:
    """A manifest on the embedded model: many shards of few samples, one thread."""
    for side, count in (("contents", contents), ("styles", styles)):
        (folder / side).mkdir(parents=True)
        for i in range(count):
            picture(10 * len(side) + i, 48, 40).save(folder / side / f"{i:02d}.png")
    manifest = folder / "run.yaml"
    manifest.write_text(
        json.dumps(
            {
                "name": "small",
                "contents": {"path": "contents"},
                "styles": {"path": "styles"},
                "method": {"name": "styleid", "steps": steps},
                "image": {"size": size},
                "engine": {"threads": 1, "feature_gb": 0.0005},
                "output": {"path": str(folder / "out"), "shard_size": 1},
            }
        )
    )
    return manifest


def command(manifest: Path, output: Path, *options: str) -> list[str]:
    """The command line that renders `manifest` into `output`."""
    return [
        *(sys.executable, "-m", "stylebatch", "run", str(manifest)),
        *("--output", str(output), *options),
    ]


def environment(**changes: str) -> dict[str, str]:
    """This process's, with one thread, and this checkout importable from anywhere.

    Ray's workers are not nice to other programs: beside a second test that keeps the cores busy they would starve.
    """
    root = str(Path(__file__).parents[2])
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "RAY_worker_niceness": "0"}
    return {**os.environ, **own, **changes}


def render(
    manifest: Path, output: Path, *options: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        command(manifest, output, *options),
        capture_output=True, text=True, env=environment(**changes), timeout=1200, check=False,
    )  # fmt: skip


def render_by_ranks(
    manifest: Path, output: Path, *options: str, ranks: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run to the end under torchrun."""
    launch = ("torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks))
    return subprocess.run(
        [sys.executable, "-m", *launch, *command(manifest, output, *options)[1:]],
        capture_output=True, text=True, env=environment(), timeout=1200, check=False,
    )  # fmt: skip


def digests(output: Path) -> dict[str, str]:
    """sha256 of every file of the payload and metadata Parquet file, by name."""
    paths = [*output.glob("data/*"), *output.glob("metadata/*.parquet")]
    folders = ("images", "input_images", "rejected")
    trees = [path for folder in folders for path in output.glob(f"{folder}/**/*")]
    paths += [path for path in trees if path.is_file()]
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def leftovers(output: Path) -> list[str]:
    """Hidden files: temporaries and locks."""
    return sorted(str(path.relative_to(output)) for path in output.rglob(".*"))


def events(text: str) -> list[dict[str, Any]]:
    """The JSON lines of `--json-logs`."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
