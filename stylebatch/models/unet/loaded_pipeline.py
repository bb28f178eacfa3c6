"""A pipeline of diffusers that a caller has loaded, as `Denoiser`: its networks serve where they are, and stay as they are."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylebatch.errors import ManifestError
from stylebatch.models.configs import Fields
from stylebatch.models.libraries import quiet
from stylebatch.models.unet.config_checks import Configs, check_configs
from stylebatch.models.unet.scheduler_config import schedule_from_config
from stylebatch.models.unet.stable_diffusion import StableDiffusion, StableDiffusionXL

with quiet():
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel

TEXTS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
PARTS = ("unet", "vae", "scheduler", *TEXTS, *TEXTS.values())
WITHOUT_EFFECT = ("safety_checker", "feature_extractor", "image_encoder", "watermark")
"""Parts that no picture hangs on, as long as no IP adapter is loaded."""
ACCEPTED = (
    "a pipeline of Stable Diffusion 1.x, 2.x or XL with UNet2DConditionModel, AutoencoderKL and CLIP text encoders: "
    "StableDiffusionPipeline, StableDiffusionXLPipeline, their Img2Img and Inpaint pipelines, StyleIDPipeline, StyleAlignedPipeline"
)


def denoiser_of(pipeline: Any) -> StableDiffusion:
    """The networks of a loaded pipeline on the device and in the dtype that they have now; offloading goes on as it was set up.

    Attention processors are exchanged while an edit works, and put back; a float16 autoencoder of XL is float32 while it works.
    Raises ManifestError, one paragraph, for a pipeline of another family, and for parts that are missing or cannot be used.
    """
    check_pipeline(pipeline)
    _check_surplus(pipeline)
    parts = {name: _uncompiled(getattr(pipeline, name, None)) for name in PARTS}
    _check_parts(pipeline, parts)
    index = Fields(Path(type(pipeline).__name__), dict(pipeline.config))
    schedule = schedule_from_config(_config(parts["scheduler"]))
    where = {"vae": parts["vae"], "device": torch.device(pipeline._execution_device)}
    texts = [
        (parts[encoder], _within_context(parts[tokenizer], parts[encoder]))
        for encoder, tokenizer in TEXTS.items()
        if parts[encoder] is not None
    ]
    model: StableDiffusion
    if _is_xl(parts["unet"]):
        zeros = index.flag("force_zeros_for_empty_prompt", True)
        model = StableDiffusionXL(
            parts["unet"], schedule, texts=texts, zeros_for_nothing=zeros, **where
        )
    else:
        ((encoder, tokenizer),) = texts
        model = StableDiffusion(
            parts["unet"], schedule, text_encoder=encoder, tokenizer=tokenizer, **where
        )
    model.is_lent = True
    return model


def check_pipeline(pipeline: Any) -> None:
    """Raise ManifestError unless it is a pipeline whose denoiser is a UNet of the family."""
    kind = type(pipeline).__name__
    if not isinstance(pipeline, DiffusionPipeline):
        raise ManifestError(
            f"model: found an object of type {kind}; accepted: a name, a folder, a ModelSpec, or {ACCEPTED}"
        )
    if isinstance(_uncompiled(getattr(pipeline, "unet", None)), UNet2DConditionModel):
        return
    names = ("transformer", "unet", "prior")
    denoisers = {name: getattr(pipeline, name, None) for name in names}
    name, denoiser = next(((n, d) for n, d in denoisers.items() if d is not None), ("", None))
    has = f" with the {name} {type(denoiser).__name__}" if name else ", which has no unet"
    raise ManifestError(f"model: found {kind}{has}; accepted: {ACCEPTED}")


def _check_surplus(pipeline: Any) -> None:
    """Raise ManifestError for a part that would go unused, and that pictures of the pipeline hang on."""
    kind = type(pipeline).__name__
    found = {name for name, part in pipeline.components.items() if part is not None}
    if surplus := sorted(found - {*PARTS, *WITHOUT_EFFECT}):
        raise ManifestError(
            f"model: found {kind} with {', '.join(surplus)}, which would go unused; accepted: {ACCEPTED}. Next: "
            "StyleIDPipeline.from_pipe(pipe), which takes its other parts"
        )
    if getattr(_uncompiled(pipeline.unet), "encoder_hid_proj", None) is not None:
        raise ManifestError(
            f"model: found {kind} whose unet has projected conditioning (an IP adapter), which is not implemented; accepted: a unet "
            "without it. Next: pipe.unload_ip_adapter()"
        )


def _check_parts(pipeline: Any, parts: Mapping[str, Any]) -> None:
    """Raise ManifestError, naming part and field, for what is missing or of a formulation that is not implemented."""
    kind = type(pipeline).__name__
    wanted = PARTS if _is_xl(parts["unet"]) else [name for name in PARTS if name[-2:] != "_2"]
    missing = [name for name in wanted if parts[name] is None]
    if missing:
        raise ManifestError(
            f"model: found {kind} without {', '.join(missing)}; accepted: a pipeline with {', '.join(wanted)}. Next: give the part to "
            "`from_pretrained`, or do not set it to None"
        )
    if not isinstance(parts["vae"], AutoencoderKL):
        raise ManifestError(
            f"model: found {kind} with the vae {type(parts['vae']).__name__}; accepted: AutoencoderKL"
        )

    def fields(name: str) -> Fields:
        return Fields(Path(kind, name), _config(parts[name]))

    check_configs(
        Configs(
            # names of classes in the index are those of the files, which a caller may have replaced
            Fields(Path(kind), {**pipeline.config, "scheduler": None}),
            fields("scheduler"),
            fields("unet"),
            fields("vae"),
            {name: fields(name) for name in TEXTS if name in wanted},
        )
    )


def _config(part: Any) -> dict[str, Any]:
    """As `save_pretrained` would write it: lists, where a config in memory has tuples or arrays."""
    if hasattr(part.config, "to_dict"):
        return dict(part.config.to_dict())
    # not `to_json_string` of diffusers, which writes into the config
    text = json.dumps(dict(part.config), default=lambda value: np.asarray(value).tolist())
    found: dict[str, Any] = json.loads(text)
    return found | {"_class_name": type(part).__name__}


def _is_xl(unet: Any) -> bool:
    return bool(unet.config.addition_embed_type == "text_time")


def _uncompiled(part: Any) -> Any:
    """What `torch.compile` was given: its graph would be compiled anew for every edit."""
    return getattr(part, "_orig_mod", part)


def _within_context(tokenizer: Any, encoder: Any) -> Any:
    """The tokenizer, or a copy that pads and cuts at the encoder's context where its own limit is another."""
    most = int(encoder.config.max_position_embeddings)
    if tokenizer.model_max_length <= most:
        return tokenizer
    shorter = copy.copy(tokenizer)
    shorter.model_max_length = most
    return shorter
