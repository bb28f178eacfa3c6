"""StyleAligned: images of one style by shared self-attention (Hertz et al., arXiv 2312.02133).

A set of samples is denoised beside a *reference*, which itself runs as if alone. In every self-attention
layer a sample's queries and keys take the reference's statistics (AdaIN), and it attends to the
reference's keys and values besides its own; group norms take statistics jointly. The reference comes from
a prompt, or from an image: inverted by DDIM, and put back on the stored trajectory after every step.

Since the reference sees itself alone, a set may be split over network batches that repeat it, and a
panorama's windows (arXiv 2302.08113) may be the samples of a batch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from stylebatch.diffusion import attention, ddim
from stylebatch.diffusion.schedule import Step, inversion_steps
from stylebatch.diffusion.windows import Windows
from stylebatch.methods.plain.algorithm import windows_of
from stylebatch.methods.prompted import Prompts, embedded
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned.options import StyleAlignedOptions
from stylebatch.models.denoiser import Denoiser, SelfAttention
from stylebatch.models.lanes import Lanes


@dataclass(frozen=True)
class Reference:
    """The sample whose style the others take: start (1, c, h, w), its prompts, and where it is pinned.

    `pinned[i]` replaces its latent after step i; empty for a reference that is generated.
    """

    start: Tensor
    prompts: Prompts
    pinned: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Aligned:
    """Clean latents of the reference (1, c, h, w) and of the samples (B, c, h, w)."""

    reference: Tensor
    samples: Tensor


class SharedAttention:
    """Attention edit of batches that are `halves` times (reference, samples): each row borrows from its half's reference."""

    def __init__(self, options: StyleAlignedOptions, halves: int, device: torch.device) -> None:
        self.options, self.halves, self.device = options, halves, device
        # batches of a step, of which lanes evaluate several at once, are of few sizes
        self.lenders = cache(self._lenders)
        self.key_factors = cache(self._key_factors)

    def _lenders(self, rows: int) -> Tensor:
        """The row that each of `rows` borrows from (rows,); a reference borrows from itself."""
        each = rows // self.halves
        # negative rows borrow from the negative reference, positive from the positive
        return (torch.arange(self.halves, device=self.device) * each).repeat_interleave(each)

    def _key_factors(self, rows: int) -> Tensor:
        factors = torch.full((rows,), self.options.shared_score_scale, device=self.device)
        factors[:: rows // self.halves] = 1.0
        return factors[:, None, None, None]

    def __call__(self, number: int, hidden: Tensor, layer: SelfAttention) -> Tensor:
        q, k, v = layer.query(hidden), layer.key(hidden), layer.value(hidden)
        options = self.options
        if options.full_attention_share:
            return layer.output(self._among_all(q, k, v, layer.scale))
        lenders = self.lenders(len(hidden))
        if options.adain_queries:
            q = attention.align(q, q.index_select(0, lenders))
        if options.adain_keys:
            k = attention.align(k, k.index_select(0, lenders))
        if options.adain_values:
            v = attention.align(v, v.index_select(0, lenders))
        if not options.share_attention:
            return layer.output(attention.attend(q, k, v, scale=layer.scale))
        lent_k = k.index_select(0, lenders) * self.key_factors(len(hidden)).to(k.dtype)
        lent_v = v.index_select(0, lenders)
        return layer.output(
            attention.attend_extended(
                q, (k, lent_k), (v, lent_v), shift=options.shared_score_shift, scale=layer.scale
            )
        )

    def _among_all(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Rows with one reference attend to all tokens of each other."""
        found = []
        for half in zip(*(x.chunk(self.halves) for x in (q, k, v)), strict=True):
            count, heads, tokens, dim = half[0].shape
            one = [x.transpose(0, 1).reshape(1, heads, count * tokens, dim) for x in half]
            together = attention.attend(one[0], one[1], one[2], scale=scale)
            found.append(together.reshape(heads, count, tokens, dim).transpose(0, 1))
        return torch.cat(found)


class StyleAligned(StyleAlignedOptions):
    """The algorithm; its fields are the options."""

    def shared_layers(self, num_layers: int) -> tuple[int, ...]:
        """Numbers of the self-attention layers that share; `only_self_level` picks those that stay plain."""
        # as the authors' code has it, with its rounding down and its stride
        minority = int(min(self.only_self_level, 1.0 - self.only_self_level) * num_layers)
        chosen = set(range(0, num_layers, num_layers // minority)) if minority else set()
        plain = chosen if self.only_self_level <= 0.5 else set(range(num_layers)) - chosen
        return tuple(layer for layer in range(num_layers) if layer not in plain)

    @torch.inference_mode()
    def invert(self, model: Denoiser, latent: Tensor, prompts: Prompts) -> tuple[Tensor, ...]:
        """DDIM inversion of a clean latent (1, c, h, w): `steps` + 1 latents, the noisiest first.

        Guidance is that of `prompts` (the authors use 2 and zeros for the negative side).
        """
        passed = [latent.float()]
        for step in inversion_steps(model.schedule.sampling_steps(self.steps)):
            x = passed[-1]
            if step.source != step.target:
                x = ddim.ddim_step(model.schedule, x, prompts.predict(model, x, step), step)
            passed.append(x)
        return tuple(reversed(passed))

    def reference_of_image(self, inverted: tuple[Tensor, ...], prompts: Prompts) -> Reference:
        """Reference from the latents of `invert`: it starts `offset` steps in, and is held there until reached."""
        if len(inverted) != self.steps + 1 or self.offset >= self.steps:
            raise ValueError(
                f"offset: found {self.offset} with {len(inverted)} latents of an inversion and steps {self.steps}; "
                "accepted: steps + 1 latents, and an offset below steps"
            )
        # held one step below its start until the samples have come down to it
        pinned = [inverted[max(self.offset + 1, i + 1)] for i in range(self.steps)]
        return Reference(inverted[self.offset], prompts, tuple(pinned))

    @torch.inference_mode()
    def invert_image(self, model: Denoiser, image: Tensor, prompt: str) -> tuple[Tensor, ...]:
        """Latents of `invert` for a picture (1, 3, H, W) in [-1, 1] and what it shows; without a negative prompt."""
        prompts = embedded(model, [prompt], guidance=self.inversion_guidance)
        return self.invert(model, model.encode(image), prompts)

    def prompts_of(self, model: Denoiser, text: str) -> Prompts:
        """What a reference image shows, as it conditions the reverse; without a negative prompt."""
        return embedded(model, [text], guidance=self.guidance)

    @torch.inference_mode()
    def render(
        self,
        model: Denoiser,
        samples: Samples,
        *,
        beside: Samples | None = None,
        inverted: tuple[tuple[Tensor, ...], str] | None = None,
        batch: int = 16,
    ) -> Aligned:
        """Clean latents of a set whose reference is a row, `beside`, or an image: its inversion and what it shows.

        `batch` bounds the rows of one network evaluation. There may be no samples but the reference.
        """
        if inverted is not None:
            latents, text = inverted
            reference = self.reference_of_image(latents, self.prompts_of(model, text))
        elif beside is not None:
            reference = Reference(beside.noise(), beside.prompts(model, self.guidance))
        else:
            raise ValueError("reference: found none; accepted: a row or an inverted image")
        most, windows = self.most_with_reference(batch), None
        if not len(samples):
            nothing = torch.empty(0, *reference.start.shape[1:])
            return self.generate(model, reference, nothing, reference.prompts, batch=most)
        if self.windows is not None:
            windows = windows_of(self.windows, model)
        noise, prompts = samples.noise(), samples.prompts(model, self.guidance)
        return self.generate(model, reference, noise, prompts, batch=most, windows=windows)

    @torch.inference_mode()
    def generate(
        self,
        model: Denoiser,
        reference: Reference,
        latents: Tensor,
        prompts: Prompts,
        *,
        batch: int = 8,
        windows: Windows | None = None,
    ) -> Aligned:
        """The end of `denoising`."""
        passed = self.denoising(model, reference, latents, prompts, batch=batch, windows=windows)
        return deque(passed, maxlen=1).pop()

    @torch.inference_mode()
    def denoising(
        self,
        model: Denoiser,
        reference: Reference,
        latents: Tensor,
        prompts: Prompts,
        *,
        batch: int = 8,
        windows: Windows | None = None,
    ) -> Generator[Aligned, Aligned | None, None]:
        """Denoise noise `latents` (B, c, h, w) beside `reference`: what there is after each step; what is sent back goes on in its place.

        `batch` bounds the samples (or views) of one network evaluation, the reference among them. With
        `windows` the latents are canvases and the reference has the window's size.
        """
        shape = latents.shape if windows is None else windows.cut(latents[:1]).shape
        if reference.start.shape[1:] != shape[1:]:
            raise ValueError(
                f"reference: found a latent of {tuple(reference.start.shape[1:])}; accepted: {tuple(shape[1:])}, "
                "the size of a sample, or of a window"
            )
        held, x = reference.start.to(model.device), latents.to(model.device)
        for index, step in enumerate(model.schedule.sampling_steps(self.steps)):
            parts = x if windows is None else windows.cut(x)
            now = Reference(held, reference.prompts)
            held_eps, eps = self._predict(model, now, prompts, parts, step, batch)
            if windows is not None:
                eps = windows.average(eps, *x.shape[-2:])
            held = ddim.ddim_step(model.schedule, held, held_eps, step)
            x = ddim.ddim_step(model.schedule, x, eps, step)
            if reference.pinned:
                held = reference.pinned[index].to(model.device)
            changed = yield Aligned(held, x)
            if changed is not None:
                held, x = changed.reference, changed.samples

    def _predict(
        self,
        model: Denoiser,
        reference: Reference,
        prompts: Prompts,
        x: Tensor,
        step: Step,
        batch: int,
    ) -> tuple[Tensor, Tensor]:
        """eps of the reference's latent (1, c, h, w) and of samples or views `x` (N, c, h, w)."""
        if batch < 2 or (self.full_attention_share and x.shape[0] >= batch):
            raise ValueError(
                f"batch: found {batch} for {x.shape[0]} samples; accepted: 2 or more, and with full_attention_share "
                "more than there are samples, since all of them attend to each other"
            )
        # one less: the reference is in every batch; its eps is the same in each, since it sees itself alone
        count = max(1, math.ceil(len(x) / (batch - 1)))
        batches = torch.arange(len(x)).tensor_split(count)

        def evaluate(rows: Tensor) -> Tensor:
            together = reference.prompts.joined(prompts.select(rows.tolist()))
            return together.predict(model, torch.cat([reference.start, x[rows]]), step)

        with self._aligned(model, reference.prompts.halves):
            found = (model.lanes or Lanes()).map(evaluate, batches)
        return found[0][:1], torch.cat([eps[1:] for eps in found])

    @contextmanager
    def _aligned(self, model: Denoiser, halves: int) -> Iterator[None]:
        """The edits for batches that are `halves` times (reference, samples)."""
        shared = SharedAttention(self, halves, model.device)
        adain = self.adain_queries or self.adain_keys or self.adain_values
        with ExitStack() as stack:
            if self.share_attention or self.full_attention_share or adain:
                layers = self.shared_layers(model.num_self_attentions)
                stack.enter_context(model.editing_layers(shared, layers))
            if self.share_group_norm:
                stack.enter_context(model.sharing_norms(shared.lenders))
            yield
