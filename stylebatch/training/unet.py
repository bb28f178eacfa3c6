"""Training of the small UNet: epsilon prediction on latents, with style carried by attention.

1. A batch is made of pairs from one group (same picture or same style) and of singles.
2. The two of a pair share the timestep. At decoder sites 6..11 the first of a pair reads keys and
   values from the second: what StyleID does when it injects a style.
3. Most steps see 16 x 16 windows of the latents; whole 32 x 32 latents come in towards the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from stylebatch.training.latents import Latents
from stylebatch.training.loop import (
    Average,
    Clock,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    set_rate,
)
from stylebatch.training.muon import Muon

SITES = tuple(f"up_blocks.{block}.attentions.{i}." for block in (2, 3) for i in range(3))


@dataclass(frozen=True)
class UnetRun:
    """Options of one run; ``large`` are (progress reached, share of 32 x 32 steps)."""

    seconds: float = 3900.0
    rate: float = 1.5e-3
    matrix_rate: float = 0.01
    decay: float = 0.997
    drop_prompt: float = 0.7
    batch: int = 24
    large_batch: int = 12
    large: tuple[tuple[float, float], ...] = ((0.5, 0.1), (0.8, 0.3), (1.0, 0.6))
    save_every: float = 300.0
    seed: int = 17


def build_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.x topology: four levels, twelve decoder positions."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(24, 48, 96, 96),
        layers_per_block=2,
        attention_head_dim=(1, 2, 4, 4),
        cross_attention_dim=64,
        norm_num_groups=4,
    )


def noise_schedule() -> DDPMScheduler:
    """The schedule of Stable Diffusion."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )


class PairedAttention:
    """Self-attention in which row i takes its keys and values from row ``partner[i]``."""

    def __init__(self) -> None:
        self.partner: Tensor | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attention over tokens (batch, tokens, channels)."""
        source = hidden_states if self.partner is None else hidden_states[self.partner]
        query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        split = [x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)]
        mixed = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        output: Tensor = attn.to_out[0](mixed)
        return output


class NoiseLoss(nn.Module):
    """Mean squared error of the predicted noise."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        self.sharing = PairedAttention()
        processors = {
            name: self.sharing if name.startswith(SITES) and "attn1" in name else processor
            for name, processor in unet.attn_processors.items()
        }
        unet.set_attn_processor(processors)

    def forward(
        self, noisy: Tensor, times: Tensor, text: Tensor, noise: Tensor, pairs: int
    ) -> Tensor:
        """Rows 0..pairs-1 borrow from rows pairs..2*pairs-1; the others use their own."""
        partner = torch.arange(len(noisy))
        partner[:pairs] += pairs
        self.sharing.partner = partner if pairs else None
        predicted = self.unet(noisy, times, encoder_hidden_states=text).sample
        self.sharing.partner = None
        error: Tensor = (predicted - noise).square().mean()
        return error


class Sampler:
    """Draws batches of windows of latents; a third of the rows borrow from a partner."""

    def __init__(self, data: Latents, seed: int) -> None:
        self.data = data
        self.generator = torch.Generator().manual_seed(seed)
        self.members = [torch.nonzero(data.groups == g)[:, 0] for g in data.groups.unique()]
        self.members = [m for m in self.members if len(m) > 1]
        sizes = torch.tensor([float(len(m)) for m in self.members])
        self.weights = sizes.sqrt()

    def draw(self, count: int, side: int, drop: float) -> tuple[Tensor, Tensor, int]:
        """Latents (count, 4, side, side), text (count, 16, 64), number of pairs."""
        pairs = count // 3
        chosen = torch.multinomial(self.weights, pairs, True, generator=self.generator)
        first, second = [], []
        for group in chosen.tolist():
            members = self.members[group]
            a, b = torch.randperm(len(members), generator=self.generator)[:2].tolist()
            first.append(int(members[a]))
            second.append(int(members[b]))
        singles = self.integers(len(self.data.values), count - 2 * pairs).tolist()
        rows = torch.tensor([*first, *second, *singles])
        latents = torch.stack([self.window(self.data.values[row], side) for row in rows.tolist()])
        text = self.data.embeddings[self.data.captions[rows]]
        kept = torch.rand(count, 1, 1, generator=self.generator) >= drop
        return latents.float(), torch.where(kept, text, self.data.null), pairs

    def window(self, latent: Tensor, side: int) -> Tensor:
        """A random square of a latent."""
        limit = latent.shape[-1] - side
        top, left = self.integers(limit + 1, 2).tolist()
        return latent[:, top : top + side, left : left + side]

    def integers(self, high: int, count: int) -> Tensor:
        """Uniform integers below ``high``."""
        return torch.randint(high, (count,), generator=self.generator)


def optimizer_for(unet: UNet2DConditionModel, run: UnetRun) -> Muon:
    """Orthogonalised momentum for hidden kernels and projections, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in unet.named_parameters():
        edge = name.startswith(("conv_in", "conv_out", "time_embedding"))
        (others if parameter.ndim < 2 or edge else matrices).append(parameter)
    return Muon(matrices, others, run.matrix_rate, run.rate)


def train_unet(run: UnetRun, out: Path) -> None:
    """Train until the clock runs out; checkpoints to ``out/unet.pt``, log to ``out/unet.jsonl``."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(run.seed)
    module = NoiseLoss(build_unet().to(memory_format=torch.channels_last))
    model = accelerator.prepare(module)
    unet = module.unet
    parameters = list(unet.parameters())
    optimizer = optimizer_for(unet, run)
    average = Average(parameters, run.decay)
    step, spent = 0, 0.0
    if state := load_checkpoint(out / "unet.pt"):
        unet.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, average.steps = state["average"], state["step"]
        step, spent = state["step"], state["spent"]
    sampler = Sampler(Latents.load(out / "latents.pt"), run.seed + 7919 * step
                      + accelerator.process_index)  # fmt: skip
    common = torch.Generator().manual_seed(run.seed + step)
    schedule = noise_schedule()
    clock = Clock(accelerator, run.seconds, spent)
    saved, recent = clock.spent, []

    def keep() -> None:
        save_checkpoint(
            out / "unet.pt", model=unet.state_dict(), optimizer=optimizer.state_dict(),
            average=average.values, step=step, spent=clock.spent,
        )  # fmt: skip

    for progress in clock:
        share = next(s for until, s in run.large if progress <= until)
        large = float(torch.rand(1, generator=common)) < share
        count, side = (run.large_batch, 32) if large else (run.batch, 16)
        latents, text, pairs = sampler.draw(count, side, run.drop_prompt)
        times = sampler.integers(1000, count)
        times[:pairs] = times[pairs : 2 * pairs]
        noise = torch.randn(latents.shape, generator=sampler.generator)
        noisy = schedule.add_noise(latents, noise, times)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        loss = model(noisy, times, text, noise, pairs)
        accelerator.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        set_rate(optimizer, learning_rate(progress))
        optimizer.step()
        optimizer.zero_grad()
        average.update(parameters)
        step += 1
        recent.append(loss.item())
        if accelerator.is_main_process and step % 50 == 0:
            line = {"seconds": round(clock.spent), "step": step,
                    "loss": sum(recent[-50:]) / len(recent[-50:])}  # fmt: skip
            with (out / "unet.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if accelerator.is_main_process and clock.spent - saved > run.save_every:
            saved = clock.spent
            keep()
    if accelerator.is_main_process:
        keep()


def averaged_unet(path: Path) -> tuple[UNet2DConditionModel, int]:
    """The averaged weights of a checkpoint and the steps they took."""
    state = load_checkpoint(path)
    if state is None:
        raise FileNotFoundError(path)
    unet = build_unet()
    unet.load_state_dict(state["model"])
    for parameter, value in zip(unet.parameters(), state["average"], strict=True):
        parameter.data.copy_(value)
    return unet.eval(), int(state["step"])


@torch.no_grad()
def noise_error(unet: UNet2DConditionModel, latents: Tensor, null: Tensor) -> float:
    """Mean squared error on given latents at ten fixed timesteps with fixed noise, null prompt."""
    schedule = noise_schedule()
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for time in range(50, 1000, 100):
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.full((len(latents),), time)
        noisy = schedule.add_noise(latents, noise, times)
        predicted = unet(noisy, times, encoder_hidden_states=null.expand(len(latents), -1, -1))
        total += float((predicted.sample - noise).square().mean())
    return total / 10
