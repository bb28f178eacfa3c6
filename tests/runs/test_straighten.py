"""The penalty on predictions that change over a stride, against inversion written out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from stylebatch.training.denoising import DenoisingLoss, noised
from stylebatch.training.spec import Straighten, UnetOptions


def _loss(folder: Path, options: UnetOptions, kind: str) -> tuple[DenoisingLoss, DDPMScheduler]:
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", prediction_type=kind)
    return DenoisingLoss(unet, schedule, options), schedule


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_penalty_is_the_error_of_one_inversion_step(eps_folder: Path, kind: str) -> None:
    straighten = Straighten(share=0.5, weight=3.0, stride=40)
    loss, schedule = _loss(eps_folder, UnetOptions(straighten=straighten), kind)
    plain, _ = _loss(eps_folder, UnetOptions(), kind)
    generator = torch.Generator().manual_seed(5)
    size = int(loss.unet.config.sample_size)
    latents, noise = torch.randn(
        (2, 4, int(loss.unet.config.in_channels), size, size), generator=generator
    )
    text = torch.randn((4, 5, int(loss.unet.config.cross_attention_dim)), generator=generator)
    times = torch.tensor([7, 300, 500, 990])
    batch = noised(schedule, latents, noise, times, None)
    with torch.no_grad():
        penalty = loss(batch, text, 0)[0] - plain(batch, text, 0)[0]

        levels = schedule.alphas_cumprod.double()

        def predicted(x: torch.Tensor, t: int, row: int) -> torch.Tensor:
            out = loss.unet(x[None].float(), t, encoder_hidden_states=text[row : row + 1]).sample[0]
            a = levels[t]
            return a.sqrt() * out + (1 - a).sqrt() * x if kind == "v_prediction" else out.double()

        total = 0.0
        for row in (2, 3):
            t = int(times[row])
            later = min(t + 40, 999)
            a, b = levels[t], levels[later]
            x = batch.latents[row].double()
            eps = predicted(x, t, row)
            clean = (x - (1 - a).sqrt() * eps) / a.sqrt()
            ahead = b.sqrt() * clean + (1 - b).sqrt() * eps
            all_reach = torch.stack(
                [
                    (1 - levels[min(s + 40, 999)]).sqrt()
                    - (1 - levels[s]).sqrt() * (levels[min(s + 40, 999)] / levels[s]).sqrt()
                    for s in range(1000)
                ]
            )
            weight = all_reach[t] ** 2 / all_reach.square().mean()
            total += float(weight * (predicted(ahead, later, row) - eps).square().mean())
    assert float(penalty) == pytest.approx(3.0 * total / 4, rel=2e-3)


@pytest.mark.slow
def test_training_on_the_penalty_straightens(eps_folder: Path) -> None:
    loss, schedule = _loss(
        eps_folder, UnetOptions(straighten=Straighten(share=1.0, weight=1.0)), "epsilon"
    )
    size, channels = int(loss.unet.config.sample_size), int(loss.unet.config.in_channels)
    generator = torch.Generator().manual_seed(6)
    text = torch.zeros((4, 5, int(loss.unet.config.cross_attention_dim)))
    latents, noise = torch.randn((2, 4, channels, size, size), generator=generator)
    batch = noised(schedule, latents, noise, torch.tensor([100, 400, 700, 900]), None)

    def bend() -> torch.Tensor:
        shown = loss.unet(batch.latents, batch.times, encoder_hidden_states=text).sample
        return loss._bend(batch, shown, text, 4)

    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-3)
    before = bend()
    for _ in range(8):
        optimizer.zero_grad()
        bend().backward()
        optimizer.step()
    assert bend().item() < 0.9 * before.item()


def test_rows_that_borrow_are_left_out(eps_folder: Path) -> None:
    options = UnetOptions.model_validate(
        {"borrow": {"share": 0.5}, "straighten": {"share": 1.0}}, strict=False
    )
    loss, schedule = _loss(eps_folder, options, "epsilon")
    size, channels = int(loss.unet.config.sample_size), int(loss.unet.config.in_channels)
    text = torch.zeros((4, 5, int(loss.unet.config.cross_attention_dim)))
    latents, noise = torch.randn((2, 4, channels, size, size))
    batch = noised(schedule, latents, noise, torch.tensor([100, 400, 100, 400]), None)
    seen: list[int] = []
    loss.unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    loss(batch, text, 2)
    assert seen == [4, 2]
