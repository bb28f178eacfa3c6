"""Size and scale of an autoencoder's latents, for training and the laboratory, which work with the network itself."""

from __future__ import annotations

from typing import Any


def latent_factor(vae: Any) -> int:
    """Pixels per latent cell along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def latent_channels(vae: Any) -> int:
    """Numbers of a latent cell."""
    return int(vae.config.latent_channels)


def latent_scale(vae: Any) -> float:
    """The factor between the autoencoder's latents and those that the network sees."""
    return float(vae.config.scaling_factor)


def set_latent_scale(vae: Any, scale: float) -> None:
    # saved with the checkpoint's config, where assigning an attribute would not be
    vae.register_to_config(scaling_factor=scale)
