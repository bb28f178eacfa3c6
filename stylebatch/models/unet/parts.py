"""Reads the networks and tokenizers of a checkpoint through diffusers and transformers, from a folder or a single file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stylebatch.errors import ManifestError
from stylebatch.models.learned_tokens import names_for
from stylebatch.models.libraries import WRONG, first_line, quiet
from stylebatch.models.tokens import load_tokenizer
from stylebatch.models.unet.single_file import vae_tensors
from stylebatch.models.unet.unet_family import UNet
from stylebatch.models.unet.weight_checks import bare, faults, vae_state
from stylebatch.models.weights import read_header

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


with quiet():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextModel, CLIPTextModelWithProjection
    from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    # restored afterwards: a user's notebook may want its own
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
    """The networks in evaluation mode on the CPU, and tokenizers; one text encoder, or SDXL's two."""

    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]


def read_parts(family: UNet, dtype: str) -> Parts:
    """Networks and tokenizers of a checkpoint. Raises ManifestError, one paragraph, naming part and file."""
    # Before loading: the libraries fill missing weights with random numbers and only log it.
    for fault in faults(family):
        raise fault
    files = family.files
    vae_dtype = "float32" if dtype == "float16" and family.upcasts else dtype
    if files.weights is not None:
        return _from_single_file(family, files.weights, dtype, vae_dtype)
    classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

    def network(cls: Any, part: str, dtype: str = dtype) -> Any:
        variant = files.variant_of(part)
        weights = {"variant": variant, "use_safetensors": True, "dtype": DTYPES[dtype]}
        where = f"{part} of {files.folder}"
        return _frozen(_whole(where, cls, files.folder, weights | {"subfolder": part}))

    return _finite(
        Parts(
            network(UNet2DConditionModel, "unet"),
            _vae(family, vae_dtype) or network(AutoencoderKL, "vae", vae_dtype),
            tuple(network(classes[part], part) for part in family.text_encoders),
            _tokenizers(family),
        ),
        files.folder,
        files.vae,
    )


def _tokenizers(family: UNet) -> tuple[Any, ...]:
    files = family.files
    with quiet():
        return tuple(
            load_tokenizer(
                files.folder / part, files.fields(encoder), names_for(family.embeddings, encoder)
            )
            for part, encoder in family.tokenizers.items()
        )


def _finite(parts: Parts, place: Path, vae: Path | None) -> Parts:
    """`parts` of a `place`, the autoencoder of `vae` if that is given.

    Raises ManifestError for weights that are not finite in their file, or became so in this dtype.
    """
    for network in (parts.unet, parts.vae, *parts.text_encoders):
        for name, weight in network.named_parameters():
            # one sum per tensor finds any NaN or infinity without a mask as large as the tensor
            if not bool(weight.sum(dtype=torch.float32).isfinite()):
                is_given = network is parts.vae and vae is not None
                where = f"model.vae: {vae}" if is_given else f"model: {place}"
                raise ManifestError(
                    f"{where}: {name} of {type(network).__name__} holds values that are not finite in "
                    f"{str(weight.dtype).removeprefix('torch.')}; next: another dtype, or fetch the file again"
                )
    return parts


def read_unet(folder: Path) -> Any:
    """A UNet from a folder of its own; CPU, float32. Raises ManifestError where it cannot be read or lacks weights."""
    weights = {"use_safetensors": True, "dtype": torch.float32}
    return _frozen(_whole(f"unet of {folder}", UNet2DConditionModel, folder, weights))


def _whole(what: str, cls: Any, folder: Path, options: dict[str, Any]) -> Any:
    """A network whose every weight its library found in the file, by the names that this version of the library knows."""
    network, told = _read(
        what, lambda: cls.from_pretrained(str(folder), output_loading_info=True, **options)
    )
    if missing := sorted(told["missing_keys"]):
        raise ManifestError(
            f"model: {what} lacks {len(missing)} of the weights that {cls.__name__} reads, among them {missing[0]}; "
            "next: `pip check`, since other versions of diffusers and transformers name weights otherwise; then fetch the file again"
        )
    return network


def _vae(family: UNet, dtype: str) -> Any:
    """The autoencoder that takes the place of the checkpoint's; None where it keeps its own."""
    files = family.files
    if files.vae is None:
        return None
    if files.vae_file is None:
        # diffusers reads the folder itself, and knows the former names of its tensors
        weights = {
            "variant": files.variant_of("vae"),
            "use_safetensors": True,
            "dtype": DTYPES[dtype],
        }
        return _frozen(_whole(f"vae of {files.vae}", AutoencoderKL, files.vae, weights))
    prefix, tensors = vae_tensors(files.vae_file, read_header(files.vae_file))
    state = _read(str(files.vae_file), lambda: load_file(str(files.vae_file)))
    named = vae_state({name: state[prefix + name] for name in tensors}, files.config("vae"))
    network = bare(family, "vae")
    # nothing is drawn at random first: the tensors take the places of empty ones
    network.load_state_dict({n: x.to(DTYPES[dtype]) for n, x in named.items()}, assign=True)
    return _frozen(network)


def _from_single_file(family: UNet, weights: Path, dtype: str, vae_dtype: str) -> Parts:
    with quiet():
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    is_xl = family.is_xl
    # local_files_only: without it diffusers asks the hub for configs that the folder lacks
    where = {"config": str(family.files.folder), "local_files_only": True}
    unused = {"feature_extractor": None, "image_encoder": None} | (
        {} if is_xl else {"safety_checker": None}
    )
    # Apart from the pipeline, which would read it in the pipeline's dtype.
    vae = _vae(family, vae_dtype) or _read(
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
        _tokenizers(family),
    )
    for part in (parts.unet, parts.vae, *parts.text_encoders):
        _frozen(part)
    return _finite(parts, weights, family.files.vae)


def _frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)


def _read(what: str, read: Callable[[], Any]) -> Any:
    try:
        with quiet(), _no_progress_bars():
            return read()
    except (*WRONG, SafetensorError) as error:
        raise ManifestError(
            f"model: {what} cannot be loaded: {first_line(error)}. Accepted: a Stable Diffusion 1.x, 2.x or XL pipeline folder "
            "with safetensors weights, or a whole .safetensors checkpoint with the configs of its family"
        ) from error
