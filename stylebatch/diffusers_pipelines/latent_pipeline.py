"""What the pipelines have in common: parts, loading, the walk with its callbacks, the progress bar, and what is returned."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from stylebatch.errors import ManifestError
from stylebatch.methods.pixels import to_pixels
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.models.libraries import quiet
from stylebatch.models.loading import check_model
from stylebatch.models.model_section import MODEL_IDS, ModelSpec, describe_model
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.edits import self_attentions
from stylebatch.models.unet.loaded_pipeline import check_pipeline, denoiser_of
from stylebatch.models.unet.stable_diffusion import StableDiffusion

with quiet():
    from diffusers import (
        AutoencoderKL,
        DiffusionPipeline,
        SchedulerMixin,
        UNet2DConditionModel,
    )
    from PIL import Image
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

OutputType = Literal["pil", "np", "pt", "latent"]
Callback = Callable[..., Mapping[str, Any] | None]
Passes = Generator[Tensor, Tensor | None, None]
"""Latents (B, c, h, w) after each step; those that are sent back go on in their place."""


@dataclass(frozen=True)
class StepEnd:
    """What a caller asked to be called at the end of each step, and with which tensors."""

    callback: Callback | None
    names: Sequence[str]

    @classmethod
    def of(cls, callback: Callback | None, names: Sequence[str], accepted: Sequence[str]) -> Self:
        """Raises ValueError for a tensor that there is not."""
        # an object of diffusers' PipelineCallback names its tensors itself
        names = getattr(callback, "tensor_inputs", names)
        unknown = [name for name in names if name not in accepted]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: found {unknown}; accepted: {list(accepted)}"
            )
        return cls(callback, names)


class LatentPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Base of the pipelines: the parts of a Stable Diffusion 1.x, 2.x or XL checkpoint.

    `text_encoder_2` and `tokenizer_2` are XL's, None for the others. `scheduler` gives the table of betas and what the network
    predicts; steps are those of the method.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components = ["text_encoder_2", "tokenizer_2"]  # noqa: RUF012 - as diffusers reads it
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012
    _interrupt = False

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        denoiser_of(self)  # refuses parts that do not fit, before anybody waits for a picture

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Load a checkpoint, as `DiffusionPipeline.from_pretrained` does, with its options (`dtype`, `variant`, parts, ...).

        `pretrained_model_name_or_path`: "tiny" (the embedded model), "sd14", "sd15", "sd21-base", "sd21", "sdxl", a hub id, or a
        pipeline folder, whose weights must be whole. float32 unless `dtype` says otherwise. Weights that are loaded do not require
        gradients. Raises ManifestError for a name that there is not, and for a checkpoint of another family.
        """
        name = os.fspath(pretrained_model_name_or_path)
        where = str(TINY) if name == "tiny" else MODEL_IDS.get(name, name)
        try:
            describe_model(name)
        except ValueError as error:
            raise ManifestError(f"{cls.__name__}: {name}: {error}") from None
        is_whole = not {*cls._get_signature_keys(cls)[0]} & set(kwargs)
        if is_whole and Path(where).is_dir():
            # diffusers would fill missing weights with random numbers, and only log it
            spec = ModelSpec(path=where, variant=kwargs.get("variant"))
            check_model(spec, find_checkpoint(spec))
        made: Self = super().from_pretrained(where, **kwargs)
        for name, part in made.components.items():
            if name not in kwargs and isinstance(part, torch.nn.Module):
                # torch multiplies by weights that are trained in another way, which differs in the last bits from a run's
                part.requires_grad_(False)
        return made

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """A pipeline with the parts of another, which they share: no weight is copied, moved or cast.

        `kwargs`: parts in place of the other's, and `dtype` to cast what is then shared. (Without it diffusers' own `from_pipe` would
        cast both pipelines to float32.) Parts that are not used here, such as a ControlNet, are left out. Raises ManifestError for a
        pipeline of another family, by its class, such as StableDiffusion3Pipeline or FluxPipeline.
        """
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        check_pipeline(pipeline)
        names, settings = cls._get_signature_keys(cls)
        parts = {name: getattr(pipeline, name, None) for name in names}
        kept = {name: pipeline.config[name] for name in settings if name in pipeline.config}
        made = cls(**{**parts, **kept, **kwargs})
        if dtype is not None:
            made.to(dtype=dtype)
        return made

    def enable_vae_slicing(self) -> None:
        """Encode and decode pictures one by one, which takes less memory."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Encode and decode pictures together again."""
        self.vae.disable_slicing()

    def enable_vae_tiling(self) -> None:
        """Encode and decode large pictures in overlapping tiles, which takes less memory and changes pixels."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Encode and decode pictures whole again."""
        self.vae.disable_tiling()

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """As in diffusers; of one attention head, as the embedded network has, diffusers' "auto" would make half a head."""
        one_head = any(layer.sliceable_head_dim == 1 for layer in self_attentions(self.unet))
        super().enable_attention_slicing("max" if one_head and slice_size == "auto" else slice_size)

    @property
    def interrupt(self) -> bool:
        """Whether the call under way ends after its present step; a callback sets `pipe._interrupt = True`."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Steps of the last call at whose end the callback was called."""
        return self._num_timesteps

    _num_timesteps = 0

    @contextmanager
    def _at_work(self, model: StableDiffusion, evaluations: int) -> Iterator[None]:
        """Around the work of one call: a progress bar of the rows that the UNet evaluates, and offloading as it was before."""
        self._interrupt = False
        try:
            with self.progress_bar(total=evaluations) as bar:

                def count(rows: int) -> None:
                    bar.update(rows)

                model.on_evaluations = count
                yield
        finally:
            self.maybe_free_model_hooks()

    def _walked(self, passes: Passes, timesteps: Sequence[float], end: StepEnd) -> Tensor:
        """The latents after the last step, or after the one that a callback interrupted."""
        self._num_timesteps = len(timesteps)
        latents, changed = torch.empty(0), None
        for index, t in enumerate(timesteps):
            latents, changed = passes.send(changed), None
            if end.callback is not None:
                # a tensor of inference mode could not be written to
                tensors = dict.fromkeys(end.names, latents.clone())
                changed = _sent_back(end.callback(self, index, t, tensors), latents)
            latents = latents if changed is None else changed
            if self._interrupt:
                break
        passes.close()
        return latents

    def _returned(
        self, model: StableDiffusion, latents: Sequence[Tensor], output_type: OutputType, batch: int
    ) -> Any:
        """Pictures of clean latents, as `output_type` says; those of one tensor are decoded together. Raises ValueError for NaN."""
        if not all(bool(torch.isfinite(some).all()) for some in latents):
            raise ValueError(
                "latents: the network returned NaN or infinity; accepted: a wider dtype, pipe.to(torch.float32) or torch.bfloat16"
            )
        if output_type == "latent":
            return torch.cat(list(latents))
        parts = [part for some in latents if len(some) for part in some.split(batch)]
        decoded = torch.cat([model.decode(part) for part in parts])
        if output_type == "pil":
            return [Image.fromarray(pixels.copy()) for pixels in to_pixels(decoded)]
        shares = (decoded * 0.5 + 0.5).clamp(0.0, 1.0)
        return shares if output_type == "pt" else shares.permute(0, 2, 3, 1).cpu().numpy()


def _sent_back(returned: Any, latents: Tensor) -> Tensor | None:
    """What a callback wants in place of `latents`, or None. Raises ValueError for what cannot take their place."""
    if returned is not None and not isinstance(returned, Mapping):
        raise ValueError(
            f"callback_on_step_end: returned an object of type {type(returned).__name__}; accepted: a dict of tensors, or None"
        )
    changed = (returned or {}).get("latents")
    if changed is None:
        return None
    if not isinstance(changed, Tensor) or changed.shape != latents.shape:
        shape = tuple(getattr(changed, "shape", ()))
        raise ValueError(
            f"callback_on_step_end: returned latents of type {type(changed).__name__} and shape {shape}; "
            f"accepted: a tensor {tuple(latents.shape)}, as it was given"
        )
    return changed


def check_generator(generator: Any) -> None:
    """Raises ValueError for what draws no numbers."""
    each = generator if isinstance(generator, Sequence) else [generator]
    if generator is not None and not all(isinstance(one, torch.Generator) for one in each):
        raise ValueError(
            f"generator: found {generator!r}; accepted: a torch.Generator, or a list of these. Next: torch.Generator().manual_seed(3)"
        )


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError for a batch without rows."""
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}; accepted: 1 or more")


def checked_output_type(output_type: str) -> OutputType:
    """Raises ValueError, before any work."""
    for known in get_args(OutputType):
        if output_type == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(
        f"output_type: found {output_type!r}; accepted: {', '.join(get_args(OutputType))}"
    )


def sides(model: StableDiffusion, height: int | None, width: int | None) -> tuple[int, int]:
    """Width and height in pixels, by default those that the network was trained on. Raises ValueError for sides that it cannot halve."""
    multiple = model.side_multiple
    native = model.native_cells * model.latent_factor
    found = {"width": native if width is None else width, "height": native if height is None else height}  # fmt: skip
    for name, side in found.items():
        if side < multiple or side % multiple:
            raise ValueError(f"{name}: found {side}; accepted: multiples of {multiple} pixels")
    return found["width"], found["height"]
