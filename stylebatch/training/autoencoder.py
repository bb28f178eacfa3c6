"""Training of a Stable Diffusion autoencoder: reconstruction, gradients, pooled colour, KL (arXiv 2112.10752).

B batch, H W pixels, h w latent cells, C latent channels. With `noise` set, each latent channel is standardised and
noise of that size replaces the posterior. A detail with less variance than the noise is then lost, so all channels and
frequencies get variance, and the latents invert about as well as white ones (DDIM loses most where the data varies least).
`fold` puts the standardisation into the 1 x 1 convolution around the latent, so the result is a plain `AutoencoderKL`.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from stylebatch.models.unet.latent_space import latent_channels, set_latent_scale
from stylebatch.training.judge import Judge, map_distance
from stylebatch.training.spec import VaeOptions


class AutoencoderLoss(nn.Module):
    """Loss of a batch of images; holds the running statistics of latent channels. `shown`: parts of the last loss, for the log."""

    def __init__(self, vae: AutoencoderKL, options: VaeOptions, judge: Judge | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.options = options
        self.judge = judge
        self.shown: dict[str, Tensor] = {}
        self.statistics = nn.BatchNorm2d(latent_channels(vae), affine=False, momentum=0.02)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and squared error of images (B, 3, H, W) in [-1, 1]; noise (B, C, h, w) is standard normal."""
        options = self.options
        posterior = self.vae.encode(images).latent_dist
        if options.noise is None:
            latents = posterior.mean + posterior.std * noise
            # diffusers sums the KL over a latent; the other terms are means
            loss = options.kl_weight * posterior.kl().mean() / noise[0].numel()
        else:
            latents = self.statistics(posterior.mean) + options.noise * noise
            loss = latents.new_zeros(())
        decoded = self.vae.decode(latents).sample
        difference = decoded - images
        across = difference[..., 1:] - difference[..., :-1]
        down = difference[..., 1:, :] - difference[..., :-1, :]
        squared = difference.square().mean()
        loss = loss + difference.abs().mean() + options.squared_weight * squared
        loss = loss + options.gradient_weight * (across.abs().mean() + down.abs().mean())
        loss = loss + options.pooled_weight * F.avg_pool2d(difference, 4).abs().mean()
        if self.judge is not None and options.perceptual is not None:
            levels = options.perceptual.levels
            with torch.no_grad():
                expected = self.judge.maps(images, levels)
            apart = map_distance(self.judge.maps(decoded, levels), expected).mean()
            self.shown = {"perceptual": apart.detach()}
            loss = loss + options.perceptual.weight * apart
        return loss, squared.detach()


@torch.no_grad()
def fold(loss: AutoencoderLoss) -> AutoencoderKL:
    """A copy of the autoencoder whose latents have mean 0 and deviation 1, with the scaling factor of the options.

    Without `noise` it is a plain copy, scaling factor included.
    """
    vae = copy.deepcopy(loss.vae)
    noise = loss.options.noise
    if noise is None:
        return vae
    channels = latent_channels(vae)
    mean, variance = loss.statistics.running_mean, loss.statistics.running_var
    assert mean is not None
    assert variance is not None
    deviation = (variance + loss.statistics.eps).sqrt()
    # The first half of its outputs are means, the second log-variances, which become those of the noise everywhere.
    last = vae.quant_conv
    last.weight[:channels] /= deviation[:, None, None, None]
    last.bias[:channels] = (last.bias[:channels] - mean) / deviation
    last.weight[channels:] = 0.0
    last.bias[channels:] = 2 * math.log(noise)
    set_latent_scale(vae, loss.options.scaling_factor)
    return vae


@torch.no_grad()
def round_trip(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) through the posterior mean, clamped to [-1, 1]."""
    decoded: Tensor = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return decoded.clamp(-1, 1)
