"""StyleID in four steps at three sites, over drawn latents; evaluations counted."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Inverted
from stylebatch.models.denoiser import Conditioning
from stylebatch.models.unet.stable_diffusion import StableDiffusion

QUICK: dict[str, Any] = {"steps": 4, "sites": [6, 9, 11]}
CONTENTS = 0.8 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
STYLES = 0.8 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)).cumsum(-1) / 2


def rel(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def styleid(**options: Any) -> StyleID:
    return StyleID.model_validate(QUICK | options)


@cache
def inverted(method: StyleID, model: StableDiffusion, batch: int = 16) -> tuple[Inverted, Inverted]:
    """CONTENTS and STYLES; nobody changes what comes back, so that tests share it."""
    contents = method.invert(model, CONTENTS, "query", batch=batch)
    return contents, method.invert(model, STYLES, "key_value", batch=batch)


class Counting(StableDiffusion):
    """Notes every network evaluation."""

    def __init__(self, model: StableDiffusion) -> None:
        super().__init__(
            model.unet,
            model.schedule,
            vae=model.vae,
            text_encoder=model.text_encoder,
            tokenizer=model.tokenizer,
        )
        self.evaluations: list[tuple[int, int]] = []

    def predict_noise(
        self, x: Tensor, t: float, cond: Conditioning, *, level: float | None = None
    ) -> Tensor:
        self.evaluations.append((t, x.shape[0]))
        return super().predict_noise(x, t, cond, level=level)
