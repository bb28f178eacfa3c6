"""Samples with their prompts: what guidance evaluates, and in which rows of a network batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylebatch.diffusion.guidance import guide
from stylebatch.diffusion.schedule import Step
from stylebatch.models.denoiser import Conditioning, Denoiser
from stylebatch.words import counted


@dataclass(frozen=True)
class Prompts:
    """Positive and negative conditioning of B samples, B rows each or one for all, and the guidance scale w."""

    positive: Conditioning
    negative: Conditioning
    guidance: float

    @property
    def halves(self) -> int:
        """Network rows per sample: 2 with guidance (negative rows first), 1 where w is 1."""
        return 1 if self.guidance == 1.0 else 2

    def select(self, rows: Sequence[int]) -> Prompts:
        """The prompts of these samples, modulo the number of samples there are."""
        return Prompts(self.positive.select(rows), self.negative.select(rows), self.guidance)

    def joined(self, other: Prompts) -> Prompts:
        """These samples, then those of `other`, at this guidance."""
        return Prompts(
            self.positive.joined(other.positive),
            self.negative.joined(other.negative),
            self.guidance,
        )

    def predict(self, model: Denoiser, x: Tensor, step: Step) -> Tensor:
        """Guided eps for `x` (B, c, h, w); row r is sample r modulo the number of samples."""
        rows = range(x.shape[0])
        positive = self.positive.select(rows)
        if self.halves == 1:
            return model.predict_noise(x, step.t, positive, level=step.source)
        cond = self.negative.select(rows).joined(positive)
        # negative rows first, as the pipelines of diffusers have them
        both = model.predict_noise(torch.cat([x, x]), step.t, cond, level=step.source)
        negative_eps, positive_eps = both.chunk(2)
        return guide(negative_eps, positive_eps, self.guidance)


def embedded(
    model: Denoiser,
    prompts: Sequence[str],
    *,
    negative: Sequence[str] | None = None,
    guidance: float,
) -> Prompts:
    """Prompts of B samples; `negative` has B texts, or one for all; without it, what stands for no prompt.

    Raises ValueError for a scale below 1 and for numbers of texts that do not fit.
    """
    if guidance < 1.0:
        raise ValueError(f"guidance: found {guidance}; accepted: 1 (none) or more")
    if negative is not None and len(negative) not in (1, len(prompts)):
        raise ValueError(
            f"negative: found {counted(len(negative), 'text')} for {counted(len(prompts), 'prompt')}; accepted: one, or as many"
        )
    windows = [model.num_windows(text) for text in prompts]
    if negative is None:
        return Prompts(in_windows(model.embed, prompts, windows), model.embed_nothing(), guidance)
    if len(negative) == len(prompts):
        windows = [
            max(n, model.num_windows(text)) for n, text in zip(windows, negative, strict=True)
        ]
    against = in_windows(model.embed_negative, negative, windows[: len(negative)])
    return Prompts(in_windows(model.embed, prompts, windows), against, guidance)


def in_windows(
    embed: Callable[..., Conditioning], texts: Sequence[str], windows: Sequence[int]
) -> Conditioning:
    """Texts as conditioning, each in that many windows of the context; a prompt and its negative prompt have as many."""
    if max(windows, default=1) == 1:
        return embed(list(texts))
    return embed(list(texts), windows)
