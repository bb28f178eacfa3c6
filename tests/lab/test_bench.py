"""The benchmark measures something, records it, and fails when it did not."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.bench.record import Figure, Outcome, Size, measure
from pipelines.bench.sizes import CODECS, SD15, timestep_bytes
from stylebatch.features.codecs import Codec
from stylebatch.features.style_cache import StyleCache
from tests.support.styles import LEVELS, SITES, TIMESTEPS, rows, style_key, write

ROOT = Path(__file__).parents[2]


def bench(out: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.bench", "--quick", "--threads", "1",
         "--out", str(out), "--parts", *parts],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


PARTS = ("evaluations", "naive", "cache", "codecs", "io")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The record of the quick parts, and what was printed."""
    out = tmp_path_factory.mktemp("bench")
    done = bench(out, *PARTS)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "bench.json").read_text()), done.stdout


@pytest.mark.slow
def test_quick_parts_record_their_figures(quick: tuple[dict[str, Any], str]) -> None:
    record, printed = quick
    assert record["quick"] is True
    assert record["machine"]["cores"] >= 1
    assert tuple(record["parts"]) == PARTS
    for part in record["parts"].values():
        assert part["figures"]
        for figure in part["figures"]:
            assert math.isfinite(figure["value"])
            assert figure["unit"] != "x" or figure["value"] > 0
            assert figure["name"] in printed


@pytest.mark.slow
def test_evaluations_follow_the_closed_form(quick: tuple[dict[str, Any], str]) -> None:
    figures = quick[0]["parts"]["evaluations"]["figures"]
    planned = {f["name"]: f["value"] for f in figures if f["name"].endswith("by the plan")}
    assert planned["product 1 x 1: per image, by the plan"] == 149.0
    assert planned["product 8 x 8: per image, by the plan"] == 49 + 100 / 8


@pytest.mark.slow
def test_int8_features_keep_the_pictures(quick: tuple[dict[str, Any], str]) -> None:
    figures = {f["name"]: f["value"] for f in quick[0]["parts"]["codecs"]["figures"]}
    assert 40 <= figures["x8 against exact: least PSNR"] < 100
    assert figures["recomputed against held: relative L2 of the latents"] < 1e-4


@pytest.mark.parametrize("name", ["kv", "x", "x8"])
def test_bytes_by_arithmetic_are_those_that_are_stored(name: Any, tmp_path: Path) -> None:
    cache, key = StyleCache(tmp_path), style_key(codec=name)
    stored = sum(row.length for row in rows(cache, write(cache, key)))
    features = len(TIMESTEPS) * len(SITES) * timestep_bytes(key.codec, (16, 8))
    assert stored == features + len(LEVELS) * (4 * 8 * 8 * 4 + 8)


def test_a_style_of_stable_diffusion_15_has_the_bytes_of_the_design() -> None:
    def gigabytes(codec: Codec) -> float:
        levels = SD15.levels
        return 50 * sum(n * timestep_bytes(codec, (side**2, c)) for n, c, side in levels) / 1e9

    expected = (2.36, 1.18, 1.18, 0.59, 0.295, 0.0)
    assert [gigabytes(codec) for codec in CODECS] == pytest.approx(expected, abs=0.005)


@pytest.mark.slow
def test_measuring_nothing_fails(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert done.returncode == 1
    assert "measured nothing" in done.stderr


@pytest.mark.parametrize(
    "figures", [(), (Figure("ratio", math.nan, "x"),), (Figure("ratio", 0.0, "x"),)]
)
def test_an_empty_part_fails_and_the_others_still_run(
    tmp_path: Path, figures: tuple[Figure, ...]
) -> None:
    def hollow(size: Size) -> Outcome:
        return Outcome(figures, {})

    def sound(size: Size) -> Outcome:
        return Outcome((Figure("ratio", 2.0, "x", 3.0),), {})

    said: list[str] = []
    failures = measure(
        {"hollow": hollow, "sound": sound}, Size(True), tmp_path / "b.json", say=said.append
    )
    assert [failure.split()[0] for failure in failures] == ["hollow"]
    record = json.loads((tmp_path / "b.json").read_text())["parts"]
    assert record["sound"]["figures"][0]["met"] is False
    assert "MISSED" in "\n".join(said)
