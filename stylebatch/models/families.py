"""The published checkpoints as their repositories describe them: configs of every part, and parameters.

Sources: the config files of CompVis/stable-diffusion-v1-4, stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1-base,
stable-diffusion-2-1 and stable-diffusion-xl-base-1.0; sizes in arXiv 2307.01952, table 1. Keys at diffusers' defaults are left
out unless they tell the families apart. `attention_head_dim` counts heads (diffusers kept the misnomer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]

_UNET_1: Config = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "use_linear_projection": False,
    "upcast_attention": False,
    "addition_embed_type": None,
    "norm_num_groups": 32,
    "norm_eps": 1e-05,
    "act_fn": "silu",
}
_UNET_2: Config = {
    **_UNET_1,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_UNET_XL: Config = {
    **_UNET_1,
    "sample_size": 128,
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_VAE: Config = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "scaling_factor": 0.18215,
}
_CLIP_L: Config = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
_CLIP_H: Config = {
    **_CLIP_L,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
_CLIP_G: Config = {
    **_CLIP_L,
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
_BETAS: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
_PNDM: Config = {**_BETAS, "_class_name": "PNDMScheduler", "prediction_type": "epsilon"}
_TOKENIZER: Config = {"pad_token": "<|endoftext|>", "model_max_length": 77}


@dataclass(frozen=True)
class Published:
    """A checkpoint of the hub: configs by part, parameters of the parts that have any, pixels it was trained on."""

    title: str
    native_size: int
    configs: Mapping[str, Config]
    parameters: Mapping[str, int]
    zeros_for_nothing: bool | None = None


def _published(
    title: str, size: int, unet: Config, text: Config, scheduler: Config, counts: tuple[int, int]
) -> Published:
    configs = {
        "unet": unet,
        "vae": {**_VAE, "sample_size": 512 if text is _CLIP_L else 768},
        "text_encoder": text,
        "tokenizer": {**_TOKENIZER, "pad_token": "!"} if text is _CLIP_H else _TOKENIZER,
        "scheduler": scheduler,
    }
    parameters = {"unet": counts[0], "text_encoder": counts[1], "vae": 83_653_863}
    return Published(title, size, configs, parameters)


_SD1 = (859_520_964, 123_060_480)
_SD2 = (865_910_724, 340_387_840)
PUBLISHED: dict[str, Published] = {
    "sd14": _published("Stable Diffusion 1.4", 512, _UNET_1, _CLIP_L, _PNDM, _SD1),
    "sd15": _published("Stable Diffusion 1.5", 512, _UNET_1, _CLIP_L, _PNDM, _SD1),
    "sd21-base": _published("Stable Diffusion 2.1 base", 512, _UNET_2, _CLIP_H, _PNDM, _SD2),
    "sd21": _published(
        "Stable Diffusion 2.1",
        768,
        {**_UNET_2, "sample_size": 96, "upcast_attention": True},
        _CLIP_H,
        {**_BETAS, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
        _SD2,
    ),
    "sdxl": Published(
        "Stable Diffusion XL base 1.0",
        1024,
        {
            "unet": _UNET_XL,
            "vae": {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "tokenizer": _TOKENIZER,
            "tokenizer_2": {**_TOKENIZER, "pad_token": "!"},
            "scheduler": {
                **_BETAS,
                "_class_name": "EulerDiscreteScheduler",
                "prediction_type": "epsilon",
                "interpolation_type": "linear",
                "timestep_spacing": "leading",
                "use_karras_sigmas": False,
            },
        },
        {
            "unet": 2_567_463_684,
            "text_encoder": 123_060_480,
            "text_encoder_2": 694_659_840,
            "vae": 83_653_863,
        },
        zeros_for_nothing=True,
    ),
}
"""By the names of `spec.MODEL_IDS`."""

_WIDTHS = (
    "block_out_channels",
    "cross_attention_dim",
    "norm_num_groups",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
)


def narrowed(published: Published, divisor: int) -> dict[str, dict[str, Any]]:
    """The same configs with every width divided: as many layers, heads, and channels per group as the original."""

    def divide(value: Any) -> Any:
        return (
            [width // divisor for width in value] if isinstance(value, list) else value // divisor
        )

    return {
        part: {key: divide(value) if key in _WIDTHS else value for key, value in config.items()}
        for part, config in published.configs.items()
    }


def names_of(unet: Config, prediction_type: str) -> tuple[str, ...]:
    """Names of the published checkpoints with this UNet config, at any size, and prediction type."""
    return tuple(
        name
        for name, published in PUBLISHED.items()
        if published.configs["scheduler"]["prediction_type"] == prediction_type
        and all(
            _same(unet.get(key), value)
            for key, value in published.configs["unet"].items()
            if key not in ("sample_size", "upcast_attention")
            and (key in unet or key in ("block_out_channels", "addition_embed_type"))
        )
    )


def _same(found: Any, published: Any) -> bool:
    return bool((list(found) if isinstance(found, tuple) else found) == published)
