"""Builds the noise schedule that a scheduler's config describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from stylebatch.diffusion.schedule import (
    CLEAN,
    DiffusionSchedule,
    PredictionType,
    linear_betas,
    scaled_linear_betas,
)
from stylebatch.models.configs import Fields
from stylebatch.models.unet.config_checks import check_scheduler


def schedule_from_config(config: dict[str, Any]) -> DiffusionSchedule:
    """Noise schedule of a diffusers scheduler config (`scheduler_config.json`), in float64.

    Raises ManifestError for a formulation that is not implemented.
    """
    fields = Fields(Path("scheduler_config.json"), config)
    check_scheduler(fields)
    num = fields.count("num_train_timesteps", 1000)
    start, end = fields.number("beta_start", 0.0001), fields.number("beta_end", 0.02)
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    else:
        linear = fields.values.get("beta_schedule") in (None, "linear")
        betas = (linear_betas if linear else scaled_linear_betas)(num, start, end)
    return replace(
        DiffusionSchedule.from_betas(
            betas, cast(PredictionType, config.get("prediction_type") or "epsilon")
        ),
        # defaults of diffusers' DDIMScheduler, which old configs rely on
        spacing=config.get("timestep_spacing"),
        offset=fields.count("steps_offset", 0, least=0),
        last=CLEAN if fields.flag("set_alpha_to_one", True) else 0,
    )
