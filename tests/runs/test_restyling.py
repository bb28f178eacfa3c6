"""Rows whose input shows another picture than their target, and timesteps drawn from a range."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from stylebatch.errors import ManifestError
from stylebatch.training.captioned import read
from stylebatch.training.denoising import noised
from stylebatch.training.spec import TrainData, TrainSpec
from stylebatch.training.trainer import train
from tests.support.restyled import restyling, write_rows


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_target_of_a_restyled_row_leads_to_the_styled_latents(kind: str) -> None:
    schedule = DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear")
    styled, before, noise = torch.randn((3, 3, 8, 4, 4), generator=torch.Generator().manual_seed(1))
    times = torch.tensor([3, 400, 990])
    batch = noised(schedule, styled, noise, times, None, start=before[:2])
    signal = schedule.alphas_cumprod[times].sqrt()[:, None, None, None]
    sigma = (1 - signal**2).sqrt()
    expected = torch.cat([before[:2], styled[2:]])
    torch.testing.assert_close(batch.latents, signal * expected + sigma * noise)
    noise_part = sigma * batch.target
    of = {
        "epsilon": (batch.latents - noise_part) / signal,
        "v_prediction": signal * batch.latents - noise_part,
    }
    clean = of[kind]
    torch.testing.assert_close(clean, styled, rtol=1e-3, atol=1e-3)
    snr = compute_snr(schedule, times)
    of_clean = snr if kind == "epsilon" else 1 + snr  # the target's square error, per clean's
    assert torch.allclose((batch.weight * of_clean)[:2], snr[:2].clamp(max=1.0))
    assert batch.weight[2] == 1.0


def test_picture_before_the_style_is_cropped_like_the_styled_one(tmp_path: Path) -> None:
    data = TrainData(
        path=str(write_rows(tmp_path / "data")), before="before", size=32, min_scale=0.5
    )
    images = read(data, tmp_path / "cache")
    for row in range(4):
        both = [
            take(row, np.random.default_rng([7, row])).astype(int)
            for take in (images.crop, images.crop_before)
        ]
        assert np.array_equal(both[1], 255 - both[0] if row % 2 else both[0]) or (
            row % 2 and np.abs(both[0] + both[1] - 255).max() <= 1
        )


@pytest.mark.slow
def test_restyling_changes_what_is_learnt(eps_folder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data")
    losses = []
    for share in (1.0, 0.0):
        out = tmp_path / str(share)
        train(restyling(data, eps_folder, out, borrow={"share": 0.5, "restyle": share}))
        losses.append(json.loads((out / "log.jsonl").read_text().splitlines()[-1])["loss"])
    assert losses[0] != losses[1]


def test_range_of_timesteps_is_drawn_more_often(eps_folder: Path, tmp_path: Path) -> None:
    from stylebatch.training.stages import UnetStage

    bias = {"begin": 600, "end": 800, "share": 0.5}
    stage = object.__new__(UnetStage)
    stage.spec = restyling(tmp_path, eps_folder, tmp_path / "out", timestep_bias=bias)
    stage.schedule = DDPMScheduler()
    times = stage._times(20000, torch.Generator().manual_seed(3))
    within = ((times >= 600) & (times < 800)).float().mean().item()
    assert within == pytest.approx(0.5 + 0.5 * 0.2, abs=0.02)
    assert times.min() < 20
    assert times.max() > 980


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": {"before": "nothing"}}, r"data.before: found nothing; accepted in .*: image"),
        (
            {"data": {"before": None}},
            "unet.borrow.restyle starts from pictures; give `data.before`",
        ),
        ({"unet": {"timestep_bias": {"begin": 9, "end": 9}}}, "begin 9 is not below end 9"),
    ],
)
def test_mistakes_are_named(
    change: dict[str, Any], named: str, eps_folder: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "data", before=False)
    raw = json.loads(
        restyling(
            data, eps_folder, tmp_path / "out", borrow={"share": 0.5, "restyle": 0.5}
        ).model_dump_json(exclude_unset=True)
    )
    for section, fields in change.items():
        raw[section] = raw[section] | fields
    with pytest.raises((ManifestError, ValueError), match=named):
        train(TrainSpec.model_validate_json(json.dumps(raw)))
