"""What StyleID must do to pictures, as numbers: measured on a few pairs, with the claims that the numbers must meet.

A content stylised by itself must come back (`self`): that holds only if features return to the sites and timesteps
that they came from, keys as keys and values as values. The rest are the paper's ablations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipelines.embedded.picture_distances import psnr, texture_distance
from stylebatch.data.images import Pixels
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.methods.styleid.algorithm import Pairs, StyleID
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.quality.measures import edge_correlation, lab_color_distance, luma


@dataclass
class Scene:
    """Contents and styles (uint8 of one size) with their latents, and a number of steps."""

    model: StableDiffusion
    contents: Sequence[Pixels]
    styles: Sequence[Pixels]
    steps: int
    _rendered: dict[str, dict[str, float]] = field(default_factory=dict)
    _inverted: tuple[Any, Any] | None = None

    def measure(self, names: Sequence[str]) -> dict[str, float]:
        """The named numbers; higher is better for each."""
        self._rendered.clear()  # within one call, pictures are made once, and inverted once
        self._inverted = None
        measures: dict[str, Callable[[], float]] = {
            "self": self._self,
            "colour": lambda: 1 - self._stylised()["colour"] / self._plain()["colour"],
            "texture": lambda: 1 - self._stylised()["texture"] / self._plain()["texture"],
            "structure": lambda: self._stylised()["edge"],
            "gamma": lambda: self._stylised(gamma=1.0)["edge"] - self._stylised(gamma=0.0)["edge"],
            "tau": lambda: self._stylised(tau=2.0)["detail"] - self._stylised(tau=1.0)["detail"],
            "adain": lambda: (
                self._stylised(init_adain=False)["colour"] - self._stylised()["colour"]
            ),
            "injection": lambda: (
                self._stylised(inject=False)["texture"] - self._stylised()["texture"]
            ),
        }
        return {name: measures[name]() for name in names}

    def _plain(self) -> dict[str, float]:
        return self._means(list(self.contents) * len(self.styles))

    def _stylised(self, **changes: object) -> dict[str, float]:
        key = repr(sorted(changes.items()))
        if key not in self._rendered:
            self._rendered[key] = self._means(self._render(**changes))
        return self._rendered[key]

    def _latents(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        return self.model.encode(to_tensor(list(pixels)))

    def _render(self, **changes: object) -> list[Pixels]:
        method = StyleID.model_validate({"steps": self.steps, "start": "level", **changes})
        if self._inverted is None:  # which no option that is changed has a part in
            whole = StyleID(steps=self.steps, start="level")
            self._inverted = (
                whole.invert(self.model, self._latents(self.contents), "query"),
                whole.invert(self.model, self._latents(self.styles), "key_value"),
            )
        return to_pixels(self.model.decode(method.stylise(self.model, *self._inverted)))

    def _self(self) -> float:
        """PSNR in dB of contents stylised by themselves at gamma 1, tau 1, against the autoencoder's output."""
        method = StyleID(steps=self.steps, start="level", gamma=1.0, tau=1.0)
        latents = self._latents(self.contents)
        same = range(len(self.contents))
        rendered = method.stylise(
            self.model,
            method.invert(self.model, latents, "query"),
            method.invert(self.model, latents, "key_value"),
            Pairs(tuple(same), tuple(same)),
        )
        pairs = zip(
            to_pixels(self.model.decode(latents)),
            to_pixels(self.model.decode(rendered)),
            strict=True,
        )
        return float(np.mean([psnr(a, b) for a, b in pairs]))

    def _means(self, pictures: Sequence[Pixels]) -> dict[str, float]:
        rows = []
        for index, picture in enumerate(pictures):
            style, content = divmod(index, len(self.contents))
            rows.append(
                (
                    lab_color_distance(picture, self.styles[style]),
                    texture_distance(picture, self.styles[style]),
                    edge_correlation(self.contents[content], picture),
                    _detail(picture),
                )
            )
        names = ("colour", "texture", "edge", "detail")
        return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _detail(picture: Pixels) -> float:
    """Mean absolute difference of neighbours in luma, in levels: what attention that spreads over many places washes out."""
    shades = luma(picture)
    return float(np.mean([np.abs(np.diff(shades, axis=axis)).mean() for axis in (0, 1)]))


def broken(scene: Scene, claims: Mapping[str, float]) -> list[str]:
    """Claims (name: at least this much) that do not hold, with what was measured."""
    measured = scene.measure(list(claims))
    return [
        f"{name} {measured[name]:.3f}, not {least:g}"
        for name, least in claims.items()
        if not measured[name] >= least
    ]
