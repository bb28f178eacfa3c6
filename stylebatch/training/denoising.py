"""The denoising loss (arXiv 2006.11239) with its options: v-prediction, min-SNR, borrowed keys and values.

B batch, C latent channels, h w latent cells. *Borrowing* rows train what StyleID does when it injects a style: at the chosen
sites, the first rows of a batch attend to the keys and values of partners, which have the same look and other contents, at
the same timestep. A *restyled* row goes further: its noisy latents show the picture before it was styled, its target the
styled one, so that only the borrowed keys and values carry the style. A *stylised* row has no target picture: features of
another row are injected into a content, as StyleID does, and `StyleLoss` measures the distance of its prediction from the
look of that row.
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
from stylebatch.models.unet.network import path_of_site
from stylebatch.training.spec import UnetOptions
from stylebatch.training.style_loss import StyleLoss


class BorrowingAttention:
    """Self-attention in which the first `pairs` rows use keys and values of the next `pairs` rows, at temperature `tau`.

    The last S rows, for `gamma` (S,), are stylised: row i of them uses keys and values of partner i, and its query is
    (1 - gamma_i) q + gamma_i q_content, at `style_tau`, where content i is row `contents` + i.
    """

    def __init__(self, tau: float, style_tau: float = 1.0) -> None:
        self.tau = tau
        self.style_tau = style_tau
        self.lend()

    def lend(self, pairs: int = 0, contents: int = 0, gamma: Tensor | None = None) -> None:
        """Set which rows of the next batch borrow; without arguments none do."""
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
            # borrowers take their partners', the rest their own, stylised rows those of the first S partners
            key, value = (torch.cat([t[n : 2 * n], t[n:last], t[lent]]) for t in (key, value))
            # the temperature goes into the queries: one kernel call has one scale for all rows
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
    """A training batch: noisy latents and targets (B, C, h, w), timesteps and loss weights (B,).

    The noisy latents of the first `restyled` rows show another picture than their targets.
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
    """Add noise to clean latents; the target is noise or velocity, as the schedule says.

    The first rows start from `start` instead, if given. Their target still leads to `latents`: it is the noise that
    would turn these into the noisy ones, noise + sqrt(SNR) (start - latents).
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
    limit[:restyled] = limit[:restyled].clamp(max=1.0)  # their target grows with sqrt(SNR)
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
            names = tuple(map(path_of_site, options.borrow.sites))
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
        """Loss, and unweighted squared error of the rows that are not restyled. The first `pairs` rows borrow from the next `pairs`.

        With `gamma` (S,) there are S stylised rows beside the batch, and `text` has S rows more. Row 2 `pairs` + i is the
        content of stylised row i, row `pairs` + i its style; both have the same timestep. With `further` (S,) stylised rows
        start from a stylised DDIM step from `further` timesteps above, instead of from the content.
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
        self.borrowing.lend()  # later evaluations, such as validation's, must not borrow
        predicted = output[:count]
        error = (predicted - batch.target).square().mean((1, 2, 3))
        loss = (batch.weight * error).mean()
        if gamma is not None and stylised and self.style is not None:
            added = Noised(start, times[count:], start, times[count:])
            style = self._clean(batch, batch.target)[styles]
            # the content as predicted, not as it is: structure that noise hides is not required of the stylised row
            content = self._clean(batch, predicted)[contents].detach()
            distance, self.shown = self.style(
                self._clean(added, output[count:]), style, content, self._sigma(added.times), gamma
            )
            loss = loss + distance * stylised / count
        if self.straighten is not None:
            rows = min(round(self.straighten.share * len(predicted)), len(predicted) - pairs)
            if rows:
                bend = self._bend(batch, predicted, text, rows)
                loss = loss + self.straighten.weight * bend * rows / len(predicted)
        return loss, error[batch.restyled :].detach().mean()

    def _bend(self, batch: Noised, predicted: Tensor, text: Tensor, rows: int) -> Tensor:
        """Mean error of one inversion step (DDIM, arXiv 2010.02502, eq. 13) of the last `rows` rows, which do not borrow.

        Inversion uses the noise predicted at t in place of that at t + stride; the difference is lost on the way back. Its
        square is weighted by how far it moves the latents, relative to the mean over timesteps.
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
        # detached: the penalty is on the prediction there, not on how the step got there
        moved = (keep * latents + reach[times][column] * noise).detach()
        stepped = Noised(moved, further, moved, further)
        again = self._noise(
            stepped, self.unet(moved, further, encoder_hidden_states=text[-rows:]).sample
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

        Rendering continues from its own steps. There the queries of a row differ from the content's, so that `gamma` has an
        effect that the first step, from the content itself, does not show.
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
        stepped = Noised(toned, above, toned, above)
        clean, noise = self._clean(stepped, output), self._noise(stepped, output)
        latents: Tensor = low.sqrt() * clean + (1 - low).sqrt() * noise
        return latents

    def _level(self, batch: Noised) -> Tensor:
        """alpha_bar (B, 1, 1, 1), in the dtype of the latents."""
        level: Tensor = self.schedule.alphas_cumprod.to(batch.latents)[batch.times]
        return level[:, None, None, None]

    def _sigma(self, times: Tensor) -> Tensor:
        """sigma (B,): noise over signal."""
        level = self.schedule.alphas_cumprod.to(times.device)[times]
        sigma: Tensor = (1 / level - 1).sqrt()
        return sigma

    def _clean(self, batch: Noised, predicted: Tensor) -> Tensor:
        """Clean latents that a prediction implies (arXiv 2010.02502, eq. 9)."""
        level = self._level(batch)
        noise = self._noise(batch, predicted)
        clean: Tensor = (batch.latents - (1 - level).sqrt() * noise) / level.sqrt()
        return clean

    def _noise(self, batch: Noised, predicted: Tensor) -> Tensor:
        """Noise that a prediction implies, also of velocity (arXiv 2202.00512)."""
        if self.schedule.config.prediction_type != "v_prediction":
            return predicted
        level = self._level(batch)
        noise: Tensor = level.sqrt() * predicted + (1 - level).sqrt() * batch.latents
        return noise
