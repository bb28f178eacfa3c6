"""Reads the networks and tokenizers of a checkpoint through diffusers and transformers, from a folder or a single file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.weights import UNET_KEYS, num_parameters, read_header

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' notices (missing optional packages, progress of loading) from our users."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


with quiet():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = [
        library
        for library in (transformers_logging, diffusers_logging)
        if library.is_progress_bar_enabled()
    ]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


@dataclass(frozen=True)
class Parts:
    """In evaluation mode, on the CPU; one text encoder and tokenizer, or SDXL's two."""

    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]


def read_parts(checkpoint: Checkpoint, dtype: str) -> Parts:
    """Everything that a checkpoint consists of. Raises ManifestError, one paragraph, naming part and file."""
    # SDXL's own VAE overflows in float16; a retrained one says force_upcast: false
    upcast = (
        dtype == "float16"
        and checkpoint.family == "sdxl"
        and checkpoint.config("vae").get("force_upcast", True)
    )
    vae_dtype = "float32" if upcast else dtype
    if checkpoint.weights is not None:
        return _from_single_file(checkpoint, checkpoint.weights, dtype, vae_dtype)
    classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

    def network(cls: Any, part: str, dtype: str = dtype) -> Any:
        weights = {"variant": checkpoint.variant, "use_safetensors": True, "dtype": DTYPES[dtype]}
        return _frozen(_from_folder(checkpoint, cls, part, weights))

    return Parts(
        network(UNet2DConditionModel, "unet"),
        network(AutoencoderKL, "vae", vae_dtype),
        tuple(network(classes[part], part) for part in checkpoint.components if part in classes),
        tuple(
            _from_folder(checkpoint, CLIPTokenizer, part, {})
            for part in checkpoint.components
            if part.startswith("tokenizer")
        ),
    )


def read_unet(folder: Path) -> Any:
    """A UNet from a folder of its own; CPU, float32."""
    with quiet(), _no_progress_bars():
        return _frozen(
            UNet2DConditionModel.from_pretrained(
                str(folder), use_safetensors=True, dtype=torch.float32
            )
        )


def _from_folder(checkpoint: Checkpoint, cls: Any, part: str, options: dict[str, Any]) -> Any:
    return _read(
        f"{part} of {checkpoint.folder}",
        lambda: cls.from_pretrained(str(checkpoint.folder), subfolder=part, **options),
    )


def _from_single_file(checkpoint: Checkpoint, weights: Path, dtype: str, vae_dtype: str) -> Parts:
    with quiet():
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    is_xl = checkpoint.family == "sdxl"
    where = {"config": str(checkpoint.folder), "local_files_only": True}
    unused = {"feature_extractor": None, "image_encoder": None} | (
        {} if is_xl else {"safety_checker": None}
    )
    vae = _read(
        f"vae of {weights}",
        lambda: AutoencoderKL.from_single_file(
            str(weights), subfolder="vae", dtype=DTYPES[vae_dtype], **where
        ),
    )
    pipeline = _read(
        str(weights),
        lambda: (StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline).from_single_file(
            str(weights), vae=vae, dtype=DTYPES[dtype], **where, **unused
        ),
    )
    parts = Parts(
        pipeline.unet,
        vae,
        (pipeline.text_encoder, pipeline.text_encoder_2) if is_xl else (pipeline.text_encoder,),
        (pipeline.tokenizer, pipeline.tokenizer_2) if is_xl else (pipeline.tokenizer,),
    )
    _check_used(parts, checkpoint, weights)
    for part in (parts.unet, parts.vae, *parts.text_encoders):
        _frozen(part)
    return parts


def _check_used(parts: Parts, checkpoint: Checkpoint, weights: Path) -> None:
    """diffusers only logs what it leaves out; raise ManifestError instead."""
    held = num_parameters(read_header(weights), [UNET_KEYS])
    used = sum(tensor.numel() for tensor in parts.unet.parameters())
    if held != used:
        raise ManifestError(
            f"model.path: the UNet of {weights} has {held:,} parameters, model.config ({checkpoint.folder}) describes "
            f"{used:,}; accepted: the configs of the file's own family"
        )


def _frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)


def _read(what: str, read: Callable[[], Any]) -> Any:
    try:
        with quiet(), _no_progress_bars():
            return read()
    except (
        OSError,
        ValueError,
        LookupError,
        RuntimeError,
        AttributeError,
        SafetensorError,
    ) as error:
        reason = (str(error).strip().splitlines() or [error.__class__.__name__])[0]
        if "meta tensor" in reason:
            reason = "it lacks tensors that its config describes"
        raise ManifestError(
            f"model: {what} cannot be loaded: {reason}. Accepted: a Stable Diffusion 1.x, 2.x or XL pipeline folder "
            "with safetensors weights, or a whole .safetensors checkpoint with the configs of its family"
        ) from error
