"""The GPU benchmark works where there is no GPU, so that it is not broken when one appears; its claims can fail."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.bench import gpu
from pipelines.bench.gpu_lab import Budget, Lab, subjects
from pipelines.bench.gpu_styleid import _require_equal
from pipelines.bench.record import BenchmarkError, Figure, Outcome, SkippedError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """JSON and Markdown of a quick run of every part."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("bench")
    assert gpu.main(["--quick", "--device", "cpu", "--seconds", "3600", "--out", str(out)]) == 0
    text = (out / "bench_gpu.md").read_text(encoding="utf-8")
    return json.loads((out / "bench_gpu.json").read_text(encoding="utf-8")), text


@pytest.mark.slow
def test_every_part_measures_and_is_told(record: tuple[dict[str, Any], str]) -> None:
    found, text = record
    assert found["machine"]["device"] == "cpu"
    assert list(found["parts"]) == list(gpu.PARTS)
    for name, part in found["parts"].items():
        assert part["figures"], name
        for figure in part["figures"]:
            assert math.isfinite(figure["value"])
            assert f"| {name} | {figure['name']} |" in text


@pytest.mark.slow
def test_published_configs_and_the_embedded_model_are_both_built(
    record: tuple[dict[str, Any], str],
) -> None:
    names = {figure["name"].split(",")[0] for figure in record[0]["parts"]["network"]["figures"]}
    assert names == {"tiny", "narrow sdxl"}


def test_full_sizes_can_be_planned_without_weights(tmp_path: Path) -> None:
    for subject in subjects(tmp_path, False):
        assert subject.checkpoint.family.sizes.native == subject.size
        subject.checkpoint.family.check()
        assert subject.memory("float16").row > 1e7


def test_a_part_without_time_is_skipped_and_all_of_them_are_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--device", "cpu", "--seconds", "1", "--out", str(tmp_path)]
    assert gpu.main([*arguments, "--parts", "network"]) == 1
    assert "every part was skipped" in capsys.readouterr().err
    part = json.loads((tmp_path / "bench_gpu.json").read_text())["parts"]["network"]
    assert "of 1 s are left" in part["skipped"]


def test_what_would_overrun_is_left_out_and_told() -> None:
    budget = Budget(10.0)
    assert budget.allows(9.0, "short")
    assert not budget.allows(11.0, "long")
    assert budget.skipped == ["long: needs 11 s, 10 s are left"]
    lab = Lab(CPU, (), True)
    assert not lab.fits(1e15, budget, "wide")
    assert "wide: plans 1000000.0 GB" in budget.skipped[1]


def test_the_budget_of_all_parts_ends_with_the_whole() -> None:
    def work(lab: Lab, budget: Budget) -> Outcome:
        assert budget.seconds <= 20.0
        return Outcome((Figure("left", budget.left, "s"),), {})

    parts = gpu.timed({"one": (work, 100.0)}, Lab(CPU, (), False), 20.0)
    assert parts["one"](None).figures[0].value <= 20.0  # type: ignore[arg-type]
    with pytest.raises(SkippedError):
        gpu.timed({"one": (work, 100.0)}, Lab(CPU, (), False), 0.0)["one"](None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cached", "told"), [(torch.tensor([1.0, 2.1]), "apart"), (torch.tensor([1.0, torch.nan]), "finite")]
)  # fmt: skip
def test_unequal_features_are_no_measurement(cached: torch.Tensor, told: str) -> None:
    with pytest.raises(BenchmarkError, match=told):
        _require_equal({"held": torch.tensor([1.0, 2.0]), "cached": cached})


def test_a_machine_without_a_gpu_is_told_what_it_may_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gpu.main(["--device", "cpu"]) == 2
    assert "--quick" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert gpu.main([]) == 2
        assert "--quick --device cpu" in capsys.readouterr().err
