"""The proof at real scale, on small networks: its arithmetic holds, and wrong arithmetic is noticed."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.proofs import real_scale as proof
from stylebatch.features.codecs import Codec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")

CODECS = [Codec("x", "float32"), Codec("x", "float16"), Codec("x8", "float32"), Codec("kv")]


WIDTHS = {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32, "norm_num_groups": 8}
SMALL = proof.Scale(
    64,
    {**proof.UNET, **WIDTHS, "sample_size": 8},
    {**proof.VAE, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 8},
    math.inf,
)
SUMS = proof.Arithmetic(WIDTHS["block_out_channels"], 8)


def prove(sums: Any, codecs: list[Codec], folder: Path) -> Any:
    return proof.prove(SMALL, sums, codecs, folder)


@pytest.mark.slow
def test_every_check_holds_at_a_small_size(tmp_path: Path) -> None:
    record = prove(SUMS, CODECS, tmp_path)
    assert [check.line() for check in record.checks if not check.holds] == []
    on_disk = [check for check in record.checks if "bytes on disk" in check.name]
    assert len(on_disk) == len(CODECS) * proof.NUM_STYLES * proof.STEPS
    assert {check.tolerance for check in on_disk} == {0.0}
    assert record.figures["one evaluation, batch 2, s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        replace(SUMS, channels=(32, 33, 64, 64)),
        replace(SUMS, cells=16),
        replace(SUMS, sites=(7, 8, 9, 10, 11)),
    ],
)
def test_wrong_arithmetic_fails(tmp_path: Path, wrong: Any) -> None:
    checks = prove(wrong, [Codec("x8", "float32")], tmp_path).checks
    failures = "\n".join(check.name for check in checks if not check.holds)
    for what in ("content's q held", "styles held", "bytes on disk", "planner"):
        assert what in failures


def test_wrong_bytes_are_outside_every_tolerance() -> None:
    assert proof.Check("exact", 100, 100).holds
    assert not proof.Check("exact", 101, 100).holds
    assert proof.Check("peak", 114, 100, 0.15).holds
    assert not proof.Check("peak", 84, 100, 0.15).holds
    assert not proof.Check("not a number", math.nan, 100, 0.15).holds


def test_sums_of_stable_diffusion_1_5() -> None:
    sums = proof.Arithmetic(proof.UNET["block_out_channels"], 64)
    assert sums.elements == 3 * 32 * 32 * 640 + 3 * 64 * 64 * 320 == 5_898_240
    assert sums.stored(Codec("x", "float16")) * 50 == 589_824_000
    assert sums.stored(Codec("kv", "float16")) * 50 == 1_179_648_000
    assert sums.stored(Codec("x8")) == 5_898_240 + 4 * 3 * (640 + 320)


def test_peak_counts_what_is_freed_again_and_nothing_from_before() -> None:
    size = 200 << 20
    torch.ones(2 * size, dtype=torch.uint8)
    before = proof.resident()
    torch.ones(size, dtype=torch.uint8)
    assert proof.Check("peak", proof.peak() - before, size, 0.05).holds
    assert proof.resident() - before < size / 20


def test_random_network_is_drawn_from_its_seed() -> None:
    one, same, other = (
        proof.random_network(proof.UNet2DConditionModel, SMALL.unet, seed) for seed in (0, 0, 1)
    )
    pairs = list(zip(one.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.conv_in.weight, other.conv_in.weight)
    assert all(bool(a.isfinite().all()) for a, _ in pairs)
