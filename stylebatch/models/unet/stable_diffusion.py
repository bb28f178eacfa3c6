"""Stable Diffusion 1.x, 2.x and XL, and the embedded model of 1.x's topology, as `Denoiser`.

Prediction type, scaling factor and noise schedule come from the checkpoint's config files, never from its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from stylebatch.diffusion.schedule import DiffusionSchedule
from stylebatch.models.denoiser import AttentionEdit, Conditioning, Lenders, Site
from stylebatch.models.family import NUM_SITES
from stylebatch.models.lanes import Lanes
from stylebatch.models.prompt_windows import in_rows, windows_needed, windows_of_ids
from stylebatch.models.tokens import token_counts
from stylebatch.models.unet.edits import (
    decoder_sites,
    installed,
    installed_at_layers,
    norms_shared,
    self_attentions,
)
from stylebatch.models.unet.latent_space import latent_factor, latent_scale

M = TypeVar("M", bound="StableDiffusion")
P = ParamSpec("P")
T = TypeVar("T")


def gradless(method: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """`method` without gradients: in inference mode, unless the networks are lent."""

    @wraps(method)
    def called(self: M, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not self.is_lent:
            with torch.inference_mode():
                return method(self, *args, **kwargs)
        # a weight that moves to another device or dtype in inference mode could never be trained again
        with torch.inference_mode(False), torch.no_grad():
            return method(self, *args, **kwargs)

    return called


class StableDiffusion:
    """A loaded checkpoint, as `load_model` returns it; parts that a caller does not need may be None.

    `is_lent`: the networks are a caller's own, who goes on with them afterwards.
    """

    def __init__(
        self,
        unet: Any,
        schedule: DiffusionSchedule,
        *,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        device: torch.device | None = None,
    ) -> None:
        self.unet = unet
        self.vae = vae
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.schedule = schedule
        # given for offloaded networks, whose weights lie elsewhere between calls
        self.device = torch.device(unet.device) if device is None else device
        self.chunks = False
        self.clip_skip = 0
        self.on_evaluations: Callable[[int], None] | None = None
        self.pictures_at_once: int | None = None
        self.lanes: Lanes | None = None
        self.is_lent = False
        # a list, so that shallow copies know of it too
        self._edits: list[object] = []
        self.sites: tuple[Site, ...] = tuple(sorted({n % NUM_SITES for n in decoder_sites(unet)}))
        self.latent_factor = latent_factor(vae) if vae is not None else 8
        self.latent_channels = int(unet.config.in_channels)
        self.native_cells = _native_cells(unet.config)
        # the UNet halves its cells between levels
        self.side_multiple = self.latent_factor * 2 ** (len(unet.down_blocks) - 1)

    @property
    def dtype(self) -> torch.dtype:
        return cast(torch.dtype, self.unet.dtype)

    @gradless
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, c, h, w), float32: the mode of the VAE's posterior."""
        with self._wide_vae():
            return torch.cat([self._encoded(part) for part in self._at_once(images)])

    def _encoded(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device, self.vae.dtype).contiguous()
        # the mode, not a sample: the same picture must always give the same latents
        latents = self.vae.encode(pixels).latent_dist.mode().float()
        return cast(Tensor, (latents - self._shift()) * latent_scale(self.vae))

    @gradless
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) -> images (B, 3, H, W) in [-1, 1], float32, clamped."""
        return self.decode_unclamped(latents).clamp(-1.0, 1.0)

    @gradless
    def decode_unclamped(self, latents: Tensor) -> Tensor:
        """As `decode`, but not clamped."""
        unscaled = latents / latent_scale(self.vae) + self._shift()
        with self._wide_vae():
            parts = self._at_once(unscaled.to(self.device, self.vae.dtype))
            return torch.cat([self.vae.decode(part).sample.float() for part in parts])

    @contextmanager
    def _wide_vae(self) -> Iterator[None]:
        """Inside, a float16 autoencoder that would overflow is float32, as in the pipelines of diffusers."""
        is_narrow = self.upcasts and self.vae.dtype == torch.float16
        if is_narrow:
            self.vae.to(torch.float32)
        try:
            yield
        finally:
            if is_narrow:
                self.vae.to(torch.float16)

    def _at_once(self, images: Tensor) -> Sequence[Tensor]:
        """Batches of at most `pictures_at_once`."""
        # split(0) would fail for an empty batch
        return list(images.split(self.pictures_at_once or max(1, len(images))))

    @property
    def tokenizers_used(self) -> tuple[Any, ...]:
        return (self.tokenizer,)

    def is_cut(self, prompt: str) -> bool:
        """Whether tokens of a prompt are left out."""
        return not self.chunks and any(
            token_counts(tokenizer, [prompt])[0] > tokenizer.model_max_length
            for tokenizer in self.tokenizers_used
        )

    def num_windows(self, prompt: str) -> int:
        if not self.chunks:
            return 1
        return max(windows_needed(tokenizer, prompt) for tokenizer in self.tokenizers_used)

    @gradless
    def embed(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        """Last hidden state of the text encoder, prompts padded to its context length."""
        return self._embedded(prompts, windows, self.clip_skip)

    def embed_negative(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        return self._embedded(prompts, windows, 0)

    @gradless
    def _embedded(self, prompts: list[str], windows: Sequence[int], skip: int) -> Conditioning:
        counts = windows or [self.num_windows(prompt) for prompt in prompts]
        ids = self._ids(self.tokenizer, prompts, counts)
        if not skip:
            return in_rows(Conditioning(self.text_encoder(ids)[0]), counts)
        states = self.text_encoder(ids, output_hidden_states=True).hidden_states
        # the last norm was trained on the last layer's, and stock pipelines apply it to earlier ones as well
        inner = getattr(self.text_encoder, "text_model", self.text_encoder)
        return in_rows(Conditioning(inner.final_layer_norm(states[-1 - skip])), counts)

    def _ids(self, tokenizer: Any, prompts: list[str], counts: Sequence[int]) -> Tensor:
        """(rows, context length): one row per window, the windows of a prompt in succession."""
        return torch.tensor(windows_of_ids(tokenizer, prompts, counts), device=self.device)

    def embed_nothing(self) -> Conditioning:
        return self.embed_negative([""])

    @gradless
    def predict_noise(
        self, x: Tensor, t: float, cond: Conditioning, *, level: float | None = None
    ) -> Tensor:
        """eps (B, c, h, w) in float32 for latents `x` at timestep `t`; `level` if the noise level of x is another."""
        # an edit may relate rows to each other
        parts = 1 if self.lanes is None or self._edits else self.lanes.num_parts(len(x))
        if self.lanes is None or parts < 2:
            return self._predict_rows(x, t, cond, level)

        def predict(rows: list[int]) -> Tensor:
            return self._predict_rows(x[rows], t, cond.select(rows), level)

        rows = [part.tolist() for part in torch.arange(len(x)).tensor_split(parts)]
        return torch.cat(self.lanes.map(predict, rows))

    def _predict_rows(self, x: Tensor, t: float, cond: Conditioning, level: float | None) -> Tensor:
        if self.on_evaluations is not None:
            self.on_evaluations(x.shape[0])
        dtype = self.unet.dtype
        out = self.unet(
            x.to(dtype),
            timestep_for(t, x.device),
            encoder_hidden_states=cond.expand(x.shape[0]).to(dtype),
            added_cond_kwargs=self._added(x, cond),
            encoder_attention_mask=None if cond.mask is None else cond.mask.expand(x.shape[0], -1),
            return_dict=False,
        )[0]
        # v becomes eps in float32: at high noise levels float16 would cancel
        return self.schedule.to_eps(out.float(), x, t if level is None else level)

    def editing(self, edit: AttentionEdit, sites: tuple[Site, ...]) -> AbstractContextManager[None]:
        """Install `edit` at `sites` for a `with` block."""
        return self._edited(installed(self.unet, edit, sites)) if sites else nullcontext()

    @property
    def num_self_attentions(self) -> int:
        return len(self_attentions(self.unet))

    def editing_layers(
        self, edit: AttentionEdit, layers: tuple[int, ...]
    ) -> AbstractContextManager[None]:
        """Install `edit` at self-attention layers of the whole network for a `with` block."""
        return self._edited(installed_at_layers(self.unet, edit, layers))

    def sharing_norms(self, lenders: Lenders) -> AbstractContextManager[None]:
        return self._edited(norms_shared(self.unet, lenders))

    @contextmanager
    def _edited(self, edit: AbstractContextManager[None]) -> Iterator[None]:
        with edit:
            self._edits.append(edit)
            try:
                yield
            finally:
                self._edits.pop()

    def _added(self, x: Tensor, cond: Conditioning) -> dict[str, Tensor] | None:
        return None

    @property
    def upcasts(self) -> bool:
        """Whether the autoencoder stays float32 in a float16 model."""
        return False

    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


class StableDiffusionXL(StableDiffusion):
    """A loaded SDXL checkpoint: two text encoders, and the picture's sizes as conditioning (arXiv 2307.01952).

    `texts`: each encoder with its tokenizer.
    """

    def __init__(
        self,
        unet: Any,
        schedule: DiffusionSchedule,
        *,
        vae: Any = None,
        texts: Sequence[tuple[Any, Any]] = (),
        zeros_for_nothing: bool = True,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(unet, schedule, vae=vae, device=device)
        self.text_encoders = tuple(encoder for encoder, _ in texts)
        self.tokenizers = tuple(tokenizer for _, tokenizer in texts)
        self.zeros_for_nothing = zeros_for_nothing
        # on the device already: each copy to a GPU would wait for what it computes
        self._time_ids: dict[tuple[int, int], Tensor] = {}

    @property
    def upcasts(self) -> bool:
        return bool(getattr(self.vae.config, "force_upcast", True))

    @gradless
    def _embedded(self, prompts: list[str], windows: Sequence[int], skip: int) -> Conditioning:
        """The penultimate hidden states of both encoders, concatenated by feature; pooled: the second's projection."""
        if not self.text_encoders:
            raise ValueError("this model was loaded without its text encoders")
        hidden = []
        counts = windows or [self.num_windows(prompt) for prompt in prompts]
        for encoder, tokenizer in zip(self.text_encoders, self.tokenizers, strict=True):
            ids = self._ids(tokenizer, prompts, counts)
            out = encoder(ids, output_hidden_states=True)
            # [-2] as in the paper's training, without the final norm; text_embeds is kept of the last encoder
            hidden.append(out.hidden_states[-2 - skip])
        return in_rows(Conditioning(torch.cat(hidden, dim=-1), pooled=out.text_embeds), counts)

    @property
    def tokenizers_used(self) -> tuple[Any, ...]:
        return self.tokenizers

    def embed_nothing(self) -> Conditioning:
        """Zeros if `force_zeros_for_empty_prompt` says that the network was trained with them."""
        empty = self.embed_negative([""])
        if not self.zeros_for_nothing or empty.pooled is None:
            return empty
        return Conditioning(torch.zeros_like(empty.hidden), torch.zeros_like(empty.pooled))

    def _added(self, x: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        batch, dtype = x.shape[0], self.unet.dtype
        if cond.pooled is None:
            raise ValueError("conditioning: pooled is missing; Stable Diffusion XL needs it")
        sizes = cond.time_ids
        if sizes is None:
            height, width = (side * self.latent_factor for side in x.shape[-2:])
            sizes = self._time_ids.get((height, width))
            if sizes is None:
                sizes = torch.tensor([[height, width, 0, 0, height, width]], device=self.device)
                self._time_ids[height, width] = sizes
        return {
            "text_embeds": cond.pooled.expand(batch, -1).to(self.device, dtype),
            "time_ids": sizes.expand(batch, -1).to(self.device, dtype),
        }


def timestep_for(t: float, device: torch.device) -> float | Tensor:
    """`t` as diffusers takes it on a device: a number would be copied to a GPU, and the copy waits for all that it computes."""
    if device.type in ("cpu", "mps"):
        return t
    dtype = torch.float64 if isinstance(t, float) else torch.int64
    return torch.full((1,), t, dtype=dtype, device=device)


def _native_cells(config: Any) -> int:
    """Latent cells of the shorter side that the network was trained on; diffusers' default if the config has none."""
    sides = config.sample_size or (64 if config.addition_embed_type is None else 128)
    return int(sides) if isinstance(sides, int) else int(min(sides))
