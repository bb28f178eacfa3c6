"""The denoising loss (arXiv 2006.11239) with its options: v-prediction, min-SNR, borrowed keys and values.

B batch, C latent channels, h w latent cells. Borrowing is what StyleID does when it injects a style: at the chosen
sites, the first rows of a batch read keys and values from partners that look alike and show something else, at the
same timestep. A network trained so reads style through self-attention. A *restyled* row goes further: its noisy
latents show the picture before it was styled, and what it is to predict is the styled one, so that only the
borrowed keys and values tell it which style. *Stylised* rows have no picture to become: a content is injected with the
features of another row, as StyleID does it, and `StyleLoss` says how far its prediction is from that row's look.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from stylebatch.diffusion.attention import adain
from stylebatch.training.spec import UnetOptions
from stylebatch.training.style_loss import StyleLoss

POSITIONS = 3
"""Attention layers of an up block of Stable Diffusion; decoder site = 3 block + position."""


class BorrowingAttention:
    """Self-attention in which the first ``pairs`` rows take keys and values from the ``pairs`` rows after them, at `tau`.

    The last rows, as many as `gamma` (S,), are stylised: they take those of the same partners, one each, and blend their
    queries with those of the rows from `contents` on: `gamma` of these, at `style_tau`.
    """

    def __init__(self, tau: float, style_tau: float = 1.0) -> None:
        self.tau = tau
        self.style_tau = style_tau
        self.lend()

    def lend(self, pairs: int = 0, contents: int = 0, gamma: Tensor | None = None) -> None:
        """Which rows of the next batch borrow; without arguments none."""
        self.pairs, self.contents, self.gamma = pairs, contents, gamma

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attention over tokens (B, tokens, channels)."""
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        n, first = self.pairs, self.contents
        if n or self.gamma is not None:
            stylised = 0 if self.gamma is None else len(self.gamma)
            last = len(query) - stylised
            lent = slice(n, n + stylised)
            key, value = (torch.cat([t[n : 2 * n], t[n:last], t[lent]]) for t in (key, value))
            parts = [self.tau * query[:n], query[n:last]]
            if self.gamma is not None:
                contents, gamma = query[first : first + stylised], self.gamma[:, None, None, None]
                parts.append(self.style_tau * torch.lerp(query[last:], contents, gamma.to(query)))
            query = torch.cat(parts)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        output: Tensor = attn.to_out[0](mixed)
        return output


@dataclass(frozen=True)
class Noised:
    """What a network is trained on: noisy latents and targets (B, C, h, w), timesteps and loss weights (B,).

    The first `restyled` rows start from another picture than the one they are to become.
    """

    latents: Tensor
    times: Tensor
    target: Tensor
    weight: Tensor
    restyled: int = 0


def noised(
    schedule: DDPMScheduler,
    latents: Tensor,
    noise: Tensor,
    times: Tensor,
    snr_gamma: float | None,
    start: Tensor | None = None,
) -> Noised:
    """Diffuse clean latents; the target is noise or velocity, as the schedule says.

    The first rows are diffused from `start` where that is given. Their target still leads to `latents`: the noise
    that these would need. It grows with the signal-to-noise ratio, which min-SNR weighting with 1 takes back.
    """
    velocity = schedule.config.prediction_type == "v_prediction"
    restyled = 0 if start is None else len(start)
    begin = latents if start is None else torch.cat([start, latents[restyled:]])
    noisy = schedule.add_noise(begin, noise, times)
    snr = compute_snr(schedule, times)
    if restyled:
        ratio = snr.sqrt()[:, None, None, None]
        noise = noise + ratio * (begin - latents)
    target = schedule.get_velocity(latents, noise, times) if velocity else noise
    limit = torch.full_like(snr, torch.inf if snr_gamma is None else snr_gamma)
    limit[:restyled] = limit[:restyled].clamp(max=1.0)
    weight = torch.minimum(snr, limit) / (snr + 1 if velocity else snr)
    if snr_gamma is None:
        weight[restyled:] = 1.0
    return Noised(noisy, times, target, weight, restyled)


class DenoisingLoss(nn.Module):
    """Weighted mean squared error of the prediction."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        schedule: DDPMScheduler,
        options: UnetOptions,
        style: StyleLoss | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = schedule
        self.straighten = options.straighten
        self.style = style
        self.shown: dict[str, Tensor] = {}
        self.borrowing = BorrowingAttention(
            options.borrow.tau if options.borrow else 1.0,
            options.style_loss.tau if options.style_loss else 1.0,
        )
        if options.borrow is not None:
            names = tuple(
                f"up_blocks.{site // POSITIONS}.attentions.{site % POSITIONS}."
                for site in options.borrow.sites
            )
            processors = {
                name: self.borrowing if name.startswith(names) and "attn1" in name else processor
                for name, processor in unet.attn_processors.items()
            }
            unet.set_attn_processor(processors)

    def forward(
        self,
        batch: Noised,
        text: Tensor,
        pairs: int,
        gamma: Tensor | None = None,
        further: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss, and unweighted squared error of the rows that are not restyled; the first `pairs` rows borrow from the next `pairs`.

        With `gamma` (S,) there are S stylised rows beside the batch, for which `text` has S rows more: row 2 `pairs` + i is
        the content and row `pairs` + i, of the same timestep, the style. With `further` (S,) they do not start from the
        content but from a step of DDIM that was stylised itself and comes from so many timesteps above.
        """
        count, stylised = len(batch.latents), 0 if gamma is None else len(gamma)
        styles, contents = (slice(first, first + stylised) for first in (pairs, 2 * pairs))
        latents, times = batch.latents, batch.times
        if stylised:
            if gamma is not None and further is not None:
                start = self._on_the_way(batch, text, styles, contents, gamma, further)
            else:
                start = adain(latents[contents], latents[styles])
            latents, times = torch.cat([latents, start]), torch.cat([times, times[styles]])
        self.borrowing.lend(pairs, contents.start, gamma)
        output = self.unet(latents, times, encoder_hidden_states=text).sample
        self.borrowing.lend()
        predicted = output[:count]
        error = (predicted - batch.target).square().mean((1, 2, 3))
        loss = (batch.weight * error).mean()
        if gamma is not None and stylised and self.style is not None:
            there = Noised(start, times[count:], start, times[count:])
            wanted = self._clean(batch, batch.target)[styles]
            kept = self._clean(batch, predicted)[contents].detach()
            missed, self.shown = self.style(
                self._clean(there, output[count:]), wanted, kept, self._sigma(there.times), gamma
            )
            loss = loss + missed * stylised / count
        if self.straighten is not None:
            rows = min(round(self.straighten.share * len(predicted)), len(predicted) - pairs)
            if rows:
                bend = self._bend(batch, predicted, text, rows)
                loss = loss + self.straighten.weight * bend * rows / len(predicted)
        return loss, error[batch.restyled :].detach().mean()

    def _bend(self, batch: Noised, predicted: Tensor, text: Tensor, rows: int) -> Tensor:
        """Error of one inversion step (DDIM, arXiv 2010.02502, eq. 13) of the last `rows` rows, which do not borrow.

        Inversion takes the noise predicted at t for that at t + stride; what differs is lost on the way back. The
        squared difference counts as much as it moves the latents, relative to the mean over timesteps.
        """
        assert self.straighten is not None
        levels = self.schedule.alphas_cumprod.to(batch.latents)
        last = len(levels) - 1
        steps = torch.arange(len(levels), device=levels.device)
        signal, deviation = levels.sqrt(), (1 - levels).sqrt()
        ahead = (steps + self.straighten.stride).clamp(max=last)
        reach = deviation[ahead] - deviation * signal[ahead] / signal
        times = batch.times[-rows:]
        further = ahead[times]
        latents, noise = batch.latents[-rows:], self._noise(batch, predicted)[-rows:]
        column = (slice(None), None, None, None)
        keep = (signal[further] / signal[times])[column]
        moved = (keep * latents + reach[times][column] * noise).detach()
        there = Noised(moved, further, moved, further)
        again = self._noise(
            there, self.unet(moved, further, encoder_hidden_states=text[-rows:]).sample
        )
        weight = reach[times].square() / reach.square().mean()
        bend: Tensor = (weight * (again - noise).square().mean((1, 2, 3))).mean()
        return bend

    @torch.no_grad()
    def _on_the_way(
        self,
        batch: Noised,
        text: Tensor,
        styles: slice,
        contents: slice,
        gamma: Tensor,
        further: Tensor,
    ) -> Tensor:
        """Latents (S, C, h, w) of stylised rows after one DDIM step (arXiv 2010.02502, eq. 12) from `further` timesteps above.

        Rendering starts from the toned content and goes on from what it made itself; there the queries of a row have
        left the content's, so that how much of these is kept begins to matter.
        """
        count, times = len(gamma), batch.times[styles]
        above = (times + further).clamp(max=len(self.schedule.alphas_cumprod) - 1)
        high, low = (
            self.schedule.alphas_cumprod.to(batch.latents)[t][:, None, None, None]
            for t in (above, times)
        )
        clean, noise = (part(batch, batch.target) for part in (self._clean, self._noise))
        style, content = (
            high.sqrt() * clean[rows] + (1 - high).sqrt() * noise[rows]
            for rows in (styles, contents)
        )
        toned = adain(content, style)
        self.borrowing.lend(0, count, gamma)
        output = self.unet(
            torch.cat([style, content, toned]),
            above.repeat(3),
            encoder_hidden_states=torch.cat([text[styles], text[contents], text[-count:]]),
        ).sample[-count:]
        self.borrowing.lend()
        there = Noised(toned, above, toned, above)
        clean, noise = self._clean(there, output), self._noise(there, output)
        latents: Tensor = low.sqrt() * clean + (1 - low).sqrt() * noise
        return latents

    def _level(self, batch: Noised) -> Tensor:
        """Share of the signal's variance (B, 1, 1, 1), in the precision of the latents."""
        level: Tensor = self.schedule.alphas_cumprod.to(batch.latents)[batch.times]
        return level[:, None, None, None]

    def _sigma(self, times: Tensor) -> Tensor:
        """Noise over signal (B,)."""
        level = self.schedule.alphas_cumprod.to(times.device)[times]
        sigma: Tensor = (1 / level - 1).sqrt()
        return sigma

    def _clean(self, batch: Noised, predicted: Tensor) -> Tensor:
        """Clean latents that a prediction leads to (arXiv 2010.02502, eq. 9)."""
        level = self._level(batch)
        noise = self._noise(batch, predicted)
        clean: Tensor = (batch.latents - (1 - level).sqrt() * noise) / level.sqrt()
        return clean

    def _noise(self, batch: Noised, predicted: Tensor) -> Tensor:
        """Predicted noise, also of a network that predicts velocity (arXiv 2202.00512)."""
        if self.schedule.config.prediction_type != "v_prediction":
            return predicted
        level = self._level(batch)
        noise: Tensor = level.sqrt() * predicted + (1 - level).sqrt() * batch.latents
        return noise
