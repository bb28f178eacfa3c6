"""A style's look as differentiable statistics of decoded pictures, and the distance of predictions from it.

B pictures of H W pixels. *Texture* is the Gram matrix of the luma's responses to a bank of log-Gabor filters, divided by
its trace so that contrast does not count (Gatys et al., arXiv 1508.06576, with fixed filters in place of a trained network).
*Colour* is the distribution of each of luma and two opponent channels. *Structure* is the map of luma gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stylebatch.training.judge import Judge, map_distance, statistics_distance
from stylebatch.training.judge_section import StyleJudge
from stylebatch.training.spec import StyleLossOptions

WAVELENGTHS = (2.8, 4.6, 7.5, 12.5)
"""Pixels per cycle at the centre of each octave of the bank."""
ORIENTATIONS = 6
BANDWIDTH = 0.45
"""Standard deviation of a filter in log frequency; in angle it is half the distance of two orientations."""
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
"""Luma, red against green, yellow against blue."""
SMALL = 1e-6


@dataclass(frozen=True)
class Look:
    """Statistics of B pictures: Gram matrices (B, F, F) of trace 1, sorted opponent values (B, 3, H W), gradients (B, H W)."""

    texture: Tensor
    color: Tensor
    edges: Tensor


def look(images: Tensor) -> Look:
    """Statistics of images (B, 3, H, W) in [-1, 1], in single precision also under autocast."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.float()
        opponent = torch.einsum("oc,bchw->bohw", images.new_tensor(OPPONENT), images)
        luma = opponent[:, 0]
        values = opponent.flatten(2).sort(dim=2).values
        return Look(filter_gram(luma), values, _gradients(luma))


def filter_gram(luma: Tensor) -> Tensor:
    """Gram matrices (B, F, F), trace 1, of even and odd responses of luma (B, H, W) to the bank, F = 48."""
    spectrum = torch.fft.fft2(luma - luma.mean((1, 2), keepdim=True))
    bank = _bank(luma.shape[-2], luma.shape[-1]).to(luma)
    analytic = torch.fft.ifft2(spectrum[:, None] * bank).flatten(2)
    responses = torch.cat([analytic.real, analytic.imag], dim=1)
    gram = responses @ responses.transpose(1, 2)
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    normalised: Tensor = gram / (trace + SMALL * luma[0].numel())
    return normalised


def _bank(height: int, width: int) -> Tensor:
    """Log-Gabor filters (24, H, W) in the Fourier domain, each over one half of the plane: their responses are analytic."""
    y, x = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :]
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    radius[0, 0] = 1.0  # log(0) below; the response there is set to 0
    spread = math.pi / ORIENTATIONS / 2
    filters = []
    for wavelength in WAVELENGTHS:
        radial = torch.exp(-((radius * wavelength).log() ** 2) / (2 * BANDWIDTH**2))
        radial[0, 0] = 0.0
        for index in range(ORIENTATIONS):
            off = angle - index * math.pi / ORIENTATIONS
            off = torch.atan2(off.sin(), off.cos())  # into -pi..pi
            filters.append(radial * torch.exp(-(off**2) / (2 * spread**2)))
    return torch.stack(filters)


def _gradients(luma: Tensor) -> Tensor:
    across = luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]
    down = luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]
    return (across.square() + down.square() + SMALL).sqrt().flatten(1)  # sqrt has no gradient at 0


def texture_distances(first: Tensor, second: Tensor) -> Tensor:
    """Frobenius distances (A, B), 0 to 2, of Gram matrices (A, F, F) and (B, F, F), relative to their mean norm."""
    apart = (first[:, None] - second[None]).square().sum((2, 3))
    norms = [gram.square().sum((1, 2)).sqrt() for gram in (first, second)]
    scale = (norms[0][:, None] + norms[1][None]) / 2
    distances: Tensor = (apart + SMALL).sqrt() / scale.clamp_min(SMALL)
    return distances


def color_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean 1-D Wasserstein distance (B,) of sorted channel values (B, 3, H W)."""
    return (first - second).abs().mean((1, 2))


def edge_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation (B,) of gradient maps (B, H W)."""
    centred = [edges - edges.mean(1, keepdim=True) for edges in (first, second)]
    return F.cosine_similarity(centred[0], centred[1], dim=1)


class StyleLoss:
    """Distance of decoded predictions from the look of their styles and the structure of their contents.

    `decode`: latents as the UNet sees them -> images (B, 3, H, W) in [-1, 1], differentiable.
    """

    def __init__(
        self,
        options: StyleLossOptions,
        decode: Callable[[Tensor], Tensor],
        judge: Judge | None = None,
    ) -> None:
        self.options = options
        self.decode = decode
        self.judge = judge

    def __call__(
        self, predicted: Tensor, styles: Tensor, contents: Tensor, sigma: Tensor, gamma: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of predicted clean latents (B, C, h, w), and its parts for the log.

        `styles`, `contents`: latents whose look and structure each row should have. `sigma` (B,): noise over signal at its
        timestep. `gamma` (B,): query preservation, which decides how much structure is required.
        """
        options, count = self.options, len(predicted)
        with torch.no_grad():
            pictures = self.decode(torch.cat([styles, contents]))
            both = look(pictures)
        decoded = self.decode(predicted)
        shown = look(decoded)
        distances = texture_distances(shown.texture, both.texture[:count])
        texture = distances.diagonal()
        color = color_distance(shown.color, both.color[:count])
        edges = edge_correlation(shown.edges, both.edges[count:])
        loss = options.texture_weight * texture + options.color_weight * color
        (low, high), (least, most) = options.gamma, options.structure
        share = (gamma - low) / (high - low) if high > low else torch.ones_like(gamma)
        required = least + (most - least) * share
        loss = loss + options.structure_weight * F.relu(required - edges)
        if options.contrast_weight and count > 1:
            likelihood = F.log_softmax(-distances / options.contrast_temperature, dim=1)
            loss = loss - options.contrast_weight * likelihood.diagonal()
        parts = {"texture": texture, "color": color, "edges": edges}
        if self.judge is not None and options.judge is not None:
            judged = _judged(self.judge, options.judge, decoded, pictures)
            parts |= judged
            loss = loss + options.judge.style_weight * judged["judged_style"]
            loss = loss + options.judge.content_weight * judged["judged_content"]
        # x0 moves with sigma times the network's output: without the division high noise levels would dominate
        weighted = (loss / (1 + sigma)).mean()
        return weighted, {name: part.detach().mean() for name, part in parts.items()}


def _judged(
    judge: Judge, options: StyleJudge, decoded: Tensor, pictures: Tensor
) -> dict[str, Tensor]:
    """Distances (B,) of decoded predictions (B, 3, H, W) from styles and contents (2 B, 3, H, W), as the network sees them."""
    count, levels = len(decoded), sorted({*options.style_levels, *options.content_levels})
    with torch.no_grad():
        both = dict(zip(levels, judge.maps(pictures, levels), strict=True))
    shown = dict(zip(levels, judge.maps(decoded, levels), strict=True))
    of_style, of_content = options.style_levels, options.content_levels
    return {
        "judged_style": statistics_distance(
            [shown[level] for level in of_style], [both[level][:count] for level in of_style]
        ),
        "judged_content": map_distance(
            [shown[level] for level in of_content], [both[level][count:] for level in of_content]
        ),
    }
