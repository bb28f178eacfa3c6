"""Copy full reference case folders here, keeping only what the conformance tests read.

    python tests/data/reduce_reference_cases.py FOLDER_OF_FULL_CASES

Weights, inputs and pictures are copied byte for byte. `expected.safetensors` keeps the tensors that
have a tolerance in `options.json`, less those in NOT_KEPT (to stay under 32 MB); a case without such
tensors (pictures alone) gets no such file.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file

CASES = (
    "styleid_ldm",
    "styleid_diffusers_eps",
    "styleid_diffusers_v",
    "styleid_ldm_imageio",
    "stylealigned_sdxl",
    "stylealigned_panorama",
)
NOT_READ = (
    "case.json",
    "expected.safetensors",
    "expected_save.png",
    "expected_steps*.png",
    "expected_w16*.png",
)
NOT_KEPT = ("*feat/*/t0501/*", "case/steps10/final_image_float")
TARGET = Path(__file__).parent / "golden"


def reduce_case(source: Path, target: Path) -> None:
    """Write the reduced copy of the case folder `source` to `target`."""
    shutil.copytree(
        source,
        target,
        ignore=shutil.ignore_patterns(*NOT_READ),
        copy_function=shutil.copyfile,
        dirs_exist_ok=True,
    )
    patterns = json.loads((source / "options.json").read_text(encoding="utf-8"))["tolerances"]
    expected = load_file(source / "expected.safetensors")
    kept = {
        name: tensor
        for name, tensor in expected.items()
        if _matches(name, patterns) and not _matches(name, NOT_KEPT)
    }
    if kept:
        save_file(kept, target / "expected.safetensors")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    for name in CASES:
        reduce_case(Path(sys.argv[1]) / name, TARGET / name)
