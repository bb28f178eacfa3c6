"""What looks at pictures: networks whose weights a user names, and EfficientNet-Lite0 of the extra `quality`.

A backbone gives features of a picture, or a distance of two. One whose weights are not given is told with where to get them, and never
replaced by another.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylebatch.errors import ManifestError
from stylebatch.evaluation.embeddings import Embedder
from stylebatch.evaluation.map_distances import perceptual_distance, self_similarity_distance
from stylebatch.evaluation.preparing import like_tensorflow, unit_tensor, with_shorter_side
from stylebatch.evaluation.reference_networks import (
    AlexNet,
    Inception,
    Vgg19,
    load_weights,
    lpips_layers,
)
from stylebatch.models.libraries import first_line
from stylebatch.pixel_memory import Pixels
from stylebatch.quality.imagenet_network import Network, load_network

MAPS_KEPT = 32
LITE = "efficientnet_lite0"


@dataclass(frozen=True)
class Weights:
    """A file or folder that a user may name. `source`: where to get it."""

    name: str
    holds: str
    source: str


WEIGHTS = (
    Weights("inception", "Inception v3 of the FID (2015-12-05)", "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"),
    Weights("art_inception", "Inception v3 of ArtFID", "https://huggingface.co/matthias-wright/art_inception (art_inception.pth)"),
    Weights("alexnet", "AlexNet of torchvision", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    Weights("lpips", "weights of LPIPS 0.1 for AlexNet", "the package lpips of PyPI (lpips/weights/v0.1/alex.pth in it)"),
    Weights("vgg19", "VGG-19 of torchvision", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"),
    Weights("clip", "a transformers folder of CLIP", "https://huggingface.co/openai/clip-vit-large-patch14"),
    Weights("dino", "a transformers folder of DINO", "https://huggingface.co/facebook/dino-vitb8"),
)  # fmt: skip
"""What `--weights NAME=FILE` accepts."""


def _device(name: str) -> torch.device:
    """Raises ManifestError for one that there is not, or that holds no numbers."""
    try:
        torch.zeros(1, device=name).item()
    # an AssertionError where torch was built without CUDA
    except (RuntimeError, AssertionError) as error:
        raise ManifestError(
            f"--device: found {name!r}: {first_line(error)}; accepted: cpu, or a device of this machine such as cuda or cuda:1"
        ) from None
    return torch.device(name)


class Backbones:
    """Networks by name, loaded when first asked for. `given`: files and folders by the names of `WEIGHTS`.

    Raises ManifestError for a name that is none, and later for a file that does not hold what its name says.
    """

    def __init__(self, given: Mapping[str, str], device: str = "cpu") -> None:
        self.given, self.device = given, _device(device)
        known = [one.name for one in WEIGHTS]
        for name, place in given.items():
            if name not in known:
                raise ManifestError(f"--weights {name}: accepted: {', '.join(known)}")
            if not os.path.exists(place):
                raise ManifestError(
                    f"--weights {name}={place}: does not exist; accepted: a file, of clip and dino a folder"
                )
        self._loaded: dict[str, Any] = {}
        self._maps: OrderedDict[int, tuple[Pixels, list[Tensor]]] = OrderedDict()

    def lacks(self, names: Sequence[str]) -> str:
        """Why a measure that needs these cannot be had: what to get, from where; "" where all is there."""
        missing = [one for one in WEIGHTS if one.name in names and one.name not in self.given]
        if missing:
            return "; ".join(
                f"needs {one.holds}: get it from {one.source} and give --weights {one.name}=PLACE"
                for one in missing
            )
        if LITE in names:
            try:
                self._lite()
            except ManifestError as error:
                return str(error)
        return ""

    @torch.inference_mode()
    def features(self, name: str, pixels: Pixels) -> NDArray[np.float64]:
        """(d,) of a picture, by `inception`, `art_inception`, `clip`, `dino` or EfficientNet-Lite0."""
        if name == LITE:
            pooled = self._lite().pooled_maps(self._lite_maps(pixels))
            return np.asarray(pooled[0].cpu().double().numpy())
        if name in ("clip", "dino"):
            return self._embedder(name).of_image(pixels)
        network = self._of(name, lambda: self._inception(name))
        if name == "inception":
            prepared = (like_tensorflow(unit_tensor(pixels) * 255.0) - 128.0) / 128.0
        else:
            prepared = unit_tensor(with_shorter_side(pixels))
        return np.asarray(network(prepared.to(self.device))[0].cpu().double().numpy())

    def of_text(self, text: str) -> NDArray[np.float64]:
        """(d,) of a prompt, by `clip`."""
        return self._embedder("clip").of_text(text)

    @torch.inference_mode()
    def distance(self, name: str, result: Pixels, content: Pixels) -> float:
        """`lpips` or `cfsd`, or the same arithmetic over EfficientNet-Lite0 (`perceptual_...`, `cfsd_...`)."""
        one, other = (self._maps_of(name, pixels) for pixels in (result, content))
        if name == "lpips":
            layers = self._of("lpips", lambda: lpips_layers(self.given["lpips"], self.device))
            return perceptual_distance(one, other, layers)
        if name == "cfsd":
            return self_similarity_distance(one, other)
        if name.startswith("cfsd"):
            # at stride 8: of the five, the one whose positions are nearest to those of relu3_1
            return self_similarity_distance(one[2], other[2])
        return perceptual_distance(one, other)

    def _maps_of(self, name: str, pixels: Pixels) -> Any:
        if name == "lpips":
            unit = unit_tensor(with_shorter_side(pixels)).to(self.device)
            return self._of("alexnet", self._alexnet)(2.0 * unit - 1.0)
        if name == "cfsd":
            return self._of("vgg19", self._vgg)(unit_tensor(pixels).to(self.device))
        return self._lite_maps(pixels)

    def _lite_maps(self, pixels: Pixels) -> list[Tensor]:
        """Of EfficientNet-Lite0: features and both distances ask for them one after the other."""
        key = id(pixels)
        if key not in self._maps:
            network = self._lite()
            # with the array, so that its id stays its own
            self._maps[key] = (pixels, network.maps(network.inputs([pixels])))
            if len(self._maps) > MAPS_KEPT:
                self._maps.popitem(last=False)
        return self._maps[key][1]

    def _lite(self) -> Network:
        found: Network = self._of(LITE, lambda: load_network(self.device))
        return found

    def _embedder(self, name: str) -> Embedder:
        found: Embedder = self._of(name, lambda: Embedder(self.given[name], self.device))
        return found

    def _inception(self, name: str) -> Any:
        module = Inception(of_fid=name == "inception")
        return load_weights(module, self.given[name], ignored=("fc", "AuxLogits")).to(self.device)

    def _alexnet(self) -> Any:
        file = self.given["alexnet"]
        return load_weights(AlexNet(), file, ignored=("classifier",)).to(self.device)

    def _vgg(self) -> Any:
        # layers behind relu3_1, which CFSD does not look at
        later = tuple(f"features.{number}." for number in range(12, 37))
        file = self.given["vgg19"]
        return load_weights(Vgg19(), file, ignored=("classifier", *later)).to(self.device)

    def _of(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]
