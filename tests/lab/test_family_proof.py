"""The proof of published checkpoints, on narrow ones: its arithmetic holds, and wrong arithmetic is noticed."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.proofs import families as proof
from pipelines.proofs.published import PUBLISHED, narrowed
from stylebatch.models.unet.published import Published
from tests.support.checkpoints import DIVISORS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def narrow(name: str, **changes: Any) -> Published:
    """A published checkpoint with narrow layers, few words and small pictures."""
    configs = narrowed(PUBLISHED[name], DIVISORS[name])
    counts = {}
    for part in PUBLISHED[name].parameters:
        configs[part] |= {"vocab_size": 600} if part.startswith("text") else {}
        configs[part] |= changes if part == "unet" else {}
        with torch.device("meta"):
            network = proof.BUILD[part](**configs[part])
        counts[part] = sum(weight.numel() for weight in network.parameters())
    return replace(PUBLISHED[name], native_size=128, configs=configs, parameters=counts)


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
@pytest.mark.slow
def test_every_check_holds_on_narrow_networks(name: str, tmp_path: Path) -> None:
    record = proof.prove(narrow(name), tmp_path, math.inf)
    assert [check.line() for check in record.checks if not check.holds] == []
    names = [check.name for check in record.checks]
    assert sum("heads; numbers of k" in name for name in names) == (6 if name == "sdxl" else 9)
    assert ("text: pooled features" in names) == (name == "sdxl")
    assert record.figures["one evaluation at 128 px, float32, s"] > 0


def test_wrong_counts_are_noticed(tmp_path: Path) -> None:
    published = narrow("sd15")
    wrong = {**published.parameters, "vae": published.parameters["vae"] + 1}
    checks = proof.prove(replace(published, parameters=wrong), tmp_path, math.inf).checks
    assert [check.name for check in checks if not check.holds] == ["vae: parameters"]


def test_too_little_memory_is_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proof, "free_memory", lambda: 13 * 10**9)
    assert proof.main(["sdxl"]) == 2
    assert "sdxl: 13.0 GB free, 14.0 GB needed" in capsys.readouterr().err
