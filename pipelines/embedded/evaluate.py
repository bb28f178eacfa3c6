"""Measures StyleID with a model on held-out images, for the card of the embedded model.

1. Contents and styles are encoded; the round trip of the autoencoder and of the inversion are measured.
2. Every pair is stylised at the defaults, then with one option changed at a time, and with keys and values
   of the content itself or of a wrong style in place of the style's (colour statistics stay the style's).
3. Each variant is one row: colour and texture distance to the style, edge correlation with the content.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.embedded.picture_distances import psnr, texture_distance
from stylebatch.data.images import Pixels, load_picture
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid.algorithm import Pairs, StyleID
from stylebatch.methods.styleid.features import FeatureKind, FeatureSource, Inverted, SiteFeatures
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.quality.measures import edge_correlation, lab_color_distance

OF_THE_REVERSE = frozenset(
    ("gamma", "gamma_schedule", "gamma_end_share", "site_gammas", "tau", "init_adain", "blend")
)
"""Options of StyleID that do not affect inversions, so that variants share them."""


@dataclass(frozen=True)
class Variant:
    """One row of the table; `features`: whose keys and values are injected (style, own, wrong)."""

    name: str
    method: StyleID
    features: str = "style"


@dataclass(frozen=True)
class Row:
    """Means over all pairs; `textures` holds the texture distance of each."""

    name: str
    color_distance: float
    texture_distance: float
    structure: float
    textures: tuple[float, ...] = ()


def variants(steps: int) -> list[Variant]:
    """The defaults and the paper's ablations at `steps`."""
    base = StyleID(steps=steps)
    changed: list[tuple[str, dict[str, object]]] = [
        ("gamma 0.3", {"gamma": 0.3}),
        ("gamma 0.5", {"gamma": 0.5}),
        ("gamma 1.0", {"gamma": 1.0}),
        ("tau 1.0", {"tau": 1.0}),
        ("tau 2.0", {"tau": 2.0}),
        ("without injection", {"inject": False}),
        ("without AdaIN", {"init_adain": False}),
    ]
    return [
        Variant("default (gamma 0.75, tau 1.5)", base),
        Variant("own k, v", base, features="own"),
        Variant("wrong style's k, v", base, features="wrong"),
        *(Variant(name, base.model_copy(update=change)) for name, change in changed),
    ]


@dataclass(frozen=True)
class _Rolled:
    """Features of the previous image instead of each image's own."""

    source: FeatureSource

    def at(self, t: float) -> SiteFeatures:
        return {
            site: {name: tensor.roll(1, dims=0) for name, tensor in tensors.items()}
            for site, tensors in self.source.at(t).items()
        }


class Evaluation:
    """A model, C contents and S styles (uint8 arrays of one size), and the C x S grid of pairs."""

    def __init__(
        self, model: StableDiffusion, contents: Sequence[Path], styles: Sequence[Path], size: int
    ) -> None:
        self.model = model
        self.contents: list[Pixels] = [load_picture(path, size).pixels for path in contents]
        self.styles: list[Pixels] = [load_picture(path, size).pixels for path in styles]
        self.content_latents = model.encode(to_tensor(self.contents))
        self.style_latents = model.encode(to_tensor(self.styles))
        self.pairs = Pairs.product(len(self.contents), len(self.styles))
        self._inversions: dict[tuple[object, ...], Inverted] = {}

    def autoencoder(self) -> tuple[float, float]:
        """Mean PSNR in dB of encode then decode: (contents, styles)."""
        results = []
        for pixels, latents in (
            (self.contents, self.content_latents),
            (self.styles, self.style_latents),
        ):
            again = to_pixels(self.model.decode(latents))
            results.append(float(np.mean([psnr(a, b) for a, b in zip(pixels, again, strict=True)])))
        return results[0], results[1]

    def round_trip(self, steps: int) -> float:
        """Mean PSNR in dB of inversion and plain reverse (`start: level`) against the autoencoder's output."""
        method = StyleID(steps=steps, start="level", inject=False)
        returned = method.reverse_plain(
            self.model, method.invert(self.model, self.content_latents, "query")
        )
        pairs = zip(
            to_pixels(self.model.decode(self.content_latents)),
            to_pixels(self.model.decode(returned)),
            strict=True,
        )
        return float(np.mean([psnr(a, b) for a, b in pairs]))

    def render(self, variant: Variant) -> list[Pixels]:
        """Pictures of all pairs, style by style."""
        method = variant.method
        contents = self._inverted(method, self.content_latents, "query")
        styles = self._inverted(method, self.style_latents, "key_value")
        if variant.features == "style":
            return self._decode(method, contents, styles, self.pairs)
        if variant.features == "wrong":
            wrong = _Rolled(styles.features)
            return self._decode(method, contents, replace(styles, features=wrong), self.pairs)
        # each content's features with each style's latent, whose statistics AdaIN takes
        of_contents = self._inverted(method, self.content_latents, "key_value")
        pictures: list[Pixels] = []
        for style in range(len(self.styles)):
            latent = styles.latent[[style] * len(self.contents)]
            each = Pairs(tuple(range(len(self.contents))), tuple(range(len(self.contents))))
            pictures += self._decode(method, contents, replace(of_contents, latent=latent), each)
        return pictures

    def _inverted(self, method: StyleID, latents: Tensor, kind: FeatureKind) -> Inverted:
        """Inversion of the latents, shared by all methods that differ only in options of the reverse."""
        options = {k: v for k, v in method.model_dump().items() if k not in OF_THE_REVERSE}
        key = (latents is self.content_latents, kind, repr(options))
        if key not in self._inversions:
            self._inversions[key] = method.invert(self.model, latents, kind)
        return self._inversions[key]

    def _decode(
        self, method: StyleID, contents: Inverted, styles: Inverted, pairs: Pairs
    ) -> list[Pixels]:
        latents = method.stylise(self.model, contents, styles, pairs)
        return [
            pixels for part in latents.split(16) for pixels in to_pixels(self.model.decode(part))
        ]

    def measure(self, name: str, pictures: Sequence[Pixels]) -> Row:
        """Means of the measures over pictures in pair order."""
        colors, textures, edges = [], [], []
        for index, picture in enumerate(pictures):
            content, style = (
                self.contents[self.pairs.content[index]],
                self.styles[self.pairs.style[index]],
            )
            colors.append(lab_color_distance(picture, style))
            textures.append(texture_distance(picture, style))
            edges.append(edge_correlation(content, picture))
        return Row(
            name,
            float(np.mean(colors)),
            float(np.mean(textures)),
            float(np.mean(edges)),
            tuple(textures),
        )

    def unstylised(self) -> Row:
        """The contents themselves, as the row that stylisation starts from."""
        return self.measure("content, unstylised", self.contents * len(self.styles))


@torch.no_grad()
def evaluation_time(models: Sequence[StableDiffusion], *, rounds: int = 12) -> list[float]:
    """Seconds of one UNet evaluation of 8 latents of 32 x 32 by each model: medians of interleaved rounds."""
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):  # interleaved: a machine's speed drifts
        for model, taken in zip(models, seconds, strict=True):
            latents = torch.zeros(8, model.unet.config.in_channels, 32, 32)
            text = model.embed([""]).hidden.expand(8, -1, -1)
            started = time.perf_counter()
            model.unet(latents, 500, encoder_hidden_states=text)
            taken.append(time.perf_counter() - started)
    return [float(np.median(taken)) for taken in seconds]


def strip(rows: Sequence[Sequence[Pixels]], path: Path) -> None:
    """Save rows of pictures of one size as one PNG."""
    image = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    Image.fromarray(image).save(path)
