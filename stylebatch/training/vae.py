"""Training of the small autoencoder: factor 4, four latent channels.

B batch, H W pixels, h w = H/4 W/4 latents. Left alone, a short run settles on grey: group norms
discard the level of a channel. Two measures keep colour: the posterior starts sharp
(log-variance bias -6), and for the first part of the run latents 0-2 are tied to the 4x-pooled
luma and chroma.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor, nn

from stylebatch.training.data import Crops, to_tensor
from stylebatch.training.loop import (
    Average,
    Clock,
    learning_rate,
    load_checkpoint,
    psnr,
    save_checkpoint,
    set_rate,
)
from stylebatch.training.muon import Muon

YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])


@dataclass(frozen=True)
class VaeRun:
    """Options of one run; ``sizes`` are (progress reached, crop side, crops per rank)."""

    seconds: float = 1500.0
    channels: tuple[int, ...] = (24, 48, 96)
    rate: float = 3e-3
    matrix_rate: float = 0.02
    anchor_until: float = 0.4
    sizes: tuple[tuple[float, int, int], ...] = ((0.2, 32, 24), (0.85, 64, 10), (1.0, 128, 4))
    save_every: float = 240.0
    seed: int = 7


def build_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    """A fresh autoencoder with a sharp posterior."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=128,
    )
    with torch.no_grad():
        vae.quant_conv.weight[4:].mul_(0.05)
        vae.quant_conv.bias[4:].fill_(-6.0)
    return vae


class VaeLoss(nn.Module):
    """Reconstruction, gradients, pooled colour, KL, and the fading colour anchor."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("ycc", YCC, persistent=False)

    def forward(self, images: Tensor, anchor: float) -> tuple[Tensor, Tensor]:
        """Loss and squared error for images (B, 3, H, W) in [-1, 1]."""
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.sample()
        decoded = self.vae.decode(latents).sample
        difference = decoded - images
        loss = difference.abs().mean() + 2.0 * difference.square().mean()
        across = difference[..., 1:] - difference[..., :-1]
        down = difference[..., 1:, :] - difference[..., :-1, :]
        loss = loss + 0.25 * (across.abs().mean() + down.abs().mean())
        loss = loss + 0.5 * F.avg_pool2d(difference, 4).abs().mean()
        loss = loss + 1e-4 * posterior.kl().mean() / latents[0].numel()
        pooled = torch.einsum("ij,bjhw->bihw", self.ycc, F.avg_pool2d(images, 4))
        tied = (posterior.mean[:, :3] - 2.0 * pooled).abs().mean()
        return loss + anchor * tied, difference.detach().square().mean()


def sub_crops(pixels: np.ndarray, side: int, count: int, rng: np.random.Generator) -> Tensor:
    """Random windows of the stored crops, mirrored half the time."""
    chosen = []
    limit = pixels.shape[1] - side
    for index in rng.integers(0, len(pixels), count):
        top, left = rng.integers(0, limit + 1, 2)
        window = pixels[index, top : top + side, left : left + side]
        chosen.append(window[:, ::-1] if rng.random() < 0.5 else window)
    return to_tensor(np.stack(chosen))


def optimizer_for(model: nn.Module, rate: float, matrix_rate: float) -> Muon:
    """Orthogonalised momentum for hidden kernels, AdamW for the first, last and small ones."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        edge = "conv_in" in name or "conv_out" in name or "quant_conv" in name
        (others if parameter.ndim < 2 or edge else matrices).append(parameter)
    return Muon(matrices, others, matrix_rate, rate)


def train_vae(run: VaeRun, crops: Crops, out: Path, demo: Tensor | None) -> None:
    """Train until the clock runs out; writes ``out/vae.pt`` now and then, and at the end."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(run.seed)
    module = VaeLoss(build_vae(run.channels))
    model = accelerator.prepare(module)
    vae = module.vae
    parameters = list(vae.parameters())
    optimizer = optimizer_for(vae, run.rate, run.matrix_rate)
    average = Average(parameters, 0.99)
    step, spent = 0, 0.0
    if state := load_checkpoint(out / "vae.pt"):
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, step, spent = state["average"], state["step"], state["spent"]
    rng = np.random.default_rng([run.seed, accelerator.process_index, step])
    torch.manual_seed(run.seed + 1000 * accelerator.process_index + step)
    clock = Clock(accelerator, run.seconds, spent)
    saved = clock.spent

    def keep() -> None:
        save_checkpoint(
            out / "vae.pt", model=vae.state_dict(), optimizer=optimizer.state_dict(),
            average=average.values, step=step, spent=clock.spent, channels=run.channels,
        )  # fmt: skip

    for progress in clock:
        side, count = next((s, n) for until, s, n in run.sizes if progress <= until)
        anchor = max(0.0, 1.0 - progress / run.anchor_until)
        loss, error = model(sub_crops(crops.pixels, side, count, rng), anchor)
        accelerator.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        set_rate(optimizer, learning_rate(progress, 0.01, 0.5))
        optimizer.step()
        optimizer.zero_grad()
        average.update(parameters)
        step += 1
        if accelerator.is_main_process and step % 25 == 0:
            quality = 10 * torch.log10(4 / error)
            print(f"vae {clock.spent:6.0f}s step {step} side {side} loss {float(loss):.4f} "
                  f"psnr {float(quality):.2f}", flush=True)  # fmt: skip
        if accelerator.is_main_process and clock.spent - saved > run.save_every:
            saved = clock.spent
            keep()
    if accelerator.is_main_process:
        keep()
        average.copy_to(parameters)
        if demo is not None:
            values = evaluate(vae, demo)
            print(f"vae held-out psnr {float(values.mean()):.2f}", flush=True)


@torch.no_grad()
def evaluate(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """PSNR of the round trip through the posterior mean, per image."""
    return psnr(vae.decode(vae.encode(images).latent_dist.mode()).sample, images)


def trained_vae(path: Path) -> AutoencoderKL:
    """The averaged weights of a checkpoint, in evaluation mode."""
    state = load_checkpoint(path)
    if state is None:
        raise FileNotFoundError(path)
    vae = build_vae(tuple(state["channels"]))
    vae.load_state_dict(state["model"])
    for parameter, value in zip(vae.parameters(), state["average"], strict=True):
        parameter.data.copy_(value)
    return vae.eval()
