"""Training of a Stable Diffusion autoencoder: reconstruction, gradients, pooled colour, KL (arXiv 2112.10752).

B batch, H W pixels, h w latent cells, C latent channels. With `noise` set, each latent channel is standardised and
noise of that size replaces the posterior: all channels and frequencies then pay for themselves, and the latents
are about as hard to invert as white ones (DDIM loses most where the data varies least). `fold` puts the
standardisation into the 1 x 1 convolution around the latent, so the result is a plain `AutoencoderKL`.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from stylebatch.training.spec import VaeOptions


class AutoencoderLoss(nn.Module):
    """Loss of a batch of images; holds the running statistics of latent channels."""

    def __init__(self, vae: AutoencoderKL, options: VaeOptions) -> None:
        super().__init__()
        self.vae = vae
        self.options = options
        self.statistics = nn.BatchNorm2d(vae.config.latent_channels, affine=False, momentum=0.02)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and squared error of images (B, 3, H, W) in [-1, 1]; noise (B, C, h, w) is standard normal."""
        options = self.options
        posterior = self.vae.encode(images).latent_dist
        if options.noise is None:
            latents = posterior.mean + posterior.std * noise
            loss = options.kl_weight * posterior.kl().mean() / noise[0].numel()
        else:
            latents = self.statistics(posterior.mean) + options.noise * noise
            loss = latents.new_zeros(())
        difference = self.vae.decode(latents).sample - images
        across = difference[..., 1:] - difference[..., :-1]
        down = difference[..., 1:, :] - difference[..., :-1, :]
        squared = difference.square().mean()
        loss = loss + difference.abs().mean() + options.squared_weight * squared
        loss = loss + options.gradient_weight * (across.abs().mean() + down.abs().mean())
        loss = loss + options.pooled_weight * F.avg_pool2d(difference, 4).abs().mean()
        return loss, squared.detach()


@torch.no_grad()
def fold(loss: AutoencoderLoss) -> AutoencoderKL:
    """A copy of the autoencoder whose latents have mean 0 and deviation 1, with the scaling factor of the options.

    Without `noise` the autoencoder is returned as it is, with its own scaling factor.
    """
    vae = copy.deepcopy(loss.vae)
    noise = loss.options.noise
    if noise is None:
        return vae
    channels = int(vae.config.latent_channels)
    mean, variance = loss.statistics.running_mean, loss.statistics.running_var
    assert mean is not None
    assert variance is not None
    deviation = (variance + loss.statistics.eps).sqrt()
    inside = vae.quant_conv
    inside.weight[:channels] /= deviation[:, None, None, None]
    inside.bias[:channels] = (inside.bias[:channels] - mean) / deviation
    inside.weight[channels:] = 0.0
    inside.bias[channels:] = 2 * math.log(noise)
    vae.register_to_config(scaling_factor=loss.options.scaling_factor)
    return vae


@torch.no_grad()
def round_trip(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) through the posterior mean, clamped to [-1, 1]."""
    decoded: Tensor = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return decoded.clamp(-1, 1)
