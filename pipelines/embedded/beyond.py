"""Measures StyleID's options beyond the paper on held-out images, for docs/beyond_the_paper.md.

Each part renders variants of the method over the same contents and styles, and gives the lines of a table with
pictures beside it. Changes are in percent of the first row: 50 steps of the paper, or the defaults of the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipelines.embedded.evaluate import Evaluation, Row, Variant
from pipelines.embedded.picture_distances import psnr, texture_distance
from stylebatch.data.images import Pixels
from stylebatch.methods.pixels import to_pixels
from stylebatch.methods.styleid.algorithm import Mixture, StyleID
from stylebatch.quality.measures import edge_correlation, lab_color_distance

HEADER = (
    "| variant | evaluations per image, per pair | colour distance | texture distance | edge correlation "
    "| PSNR to the first row |\n|---|---|---|---|---|---|"
)
FEW: dict[str, Any] = {"steps": 16, "grid": "spread", "start": "paper", "solver": "ab2"}
"""Sixteen evaluations whose pictures are close to the paper's fifty."""


@dataclass(frozen=True)
class Measured:
    """A variant's pictures and mean measures, and the change of the measures from the first variant, in percent."""

    name: str
    method: StyleID
    row: Row
    change: tuple[float, float, float]
    nearness: float
    pictures: list[Pixels]

    def line(self) -> str:
        """A row of the table."""
        row, (colour, texture, edge) = self.row, self.change
        near = "" if np.isinf(self.nearness) else f"{self.nearness:.1f} dB"
        return (
            f"| {self.name} | {self.method.num_inversion_evaluations}, {self.method.num_reverse_evaluations} "
            f"| {row.color_distance:.2f} ({colour:+.1f} %) | {row.texture_distance:.3f} ({texture:+.1f} %) "
            f"| {row.structure:.3f} ({edge:+.1f} %) | {near} |"
        )


def curve() -> list[tuple[str, dict[str, Any]]]:
    """The paper's 50 steps, then fewer by each solver."""
    spread = {"grid": "spread", "start": "paper"}
    return [
        ("50 steps, the paper", {"steps": 50}),
        ("50 steps, start: level", {"steps": 50, "start": "level"}),
        *((f"DDIM {n}", {"steps": n, "start": "level"}) for n in (25, 20, 10, 8)),
        ("DDIM 16, spread", {**spread, "steps": 16}),
        *((f"AB2 {n}, spread", {**spread, "steps": n, "solver": "ab2"}) for n in (25, 16, 12, 10, 8)),
        ("DPM-Solver++(2M) 16, spread", {**spread, "steps": 16, "solver": "dpmpp_2m"}),
    ]  # fmt: skip


def gammas() -> list[tuple[str, dict[str, Any]]]:
    """Constant and falling gammas, at 16 evaluations."""
    falling = [0.75, 0.675, 0.6, 0.525, 0.45, 0.375]
    return [
        ("constant 0.75", FEW),
        ("constant 0.55", {**FEW, "gamma": 0.55}),
        *((f"{shape} 0.75 to 0.375", {**FEW, "gamma_schedule": shape}) for shape in ("linear", "cosine", "sqrt")),
        ("by site, 0.75 to 0.375", {**FEW, "site_gammas": falling}),
    ]  # fmt: skip


def exact() -> list[tuple[str, dict[str, Any]]]:
    """Stylised pictures with each inversion, 20 steps."""
    level = {"steps": 20, "start": "level"}
    names = {"ddim": "DDIM", "bdia": "BDIA"}
    return [(f"{names[rule]} 20", {**level, "inversion": rule}) for rule in names]


class Comparison:
    """Variants over one set of pairs, each against the first that was rendered."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self._first: Measured | None = None

    def measure(self, name: str, options: dict[str, Any] | StyleID) -> Measured:
        """Render all pairs by `options` and compare."""
        method = StyleID.model_validate(options)
        pictures = self.evaluation.render(Variant(name, method))
        row = self.evaluation.measure(name, pictures)
        if self._first is None:
            self._first = Measured(name, method, row, (0.0, 0.0, 0.0), float("inf"), pictures)
            return self._first
        former = self._first
        colour, texture, edge = (
            100.0 * (now / before - 1.0)
            for now, before in (
                (row.color_distance, former.row.color_distance),
                (row.texture_distance, former.row.texture_distance),
                (row.structure, former.row.structure),
            )
        )
        near = float(np.mean([psnr(a, b) for a, b in zip(pictures, former.pictures, strict=True)]))
        return Measured(name, method, row, (colour, texture, edge), near, pictures)


ROUND_TRIPS: dict[str, dict[str, Any]] = {
    "DDIM": {},
    "AB2": {"solver": "ab2"},
    "DPM-Solver++(2M)": {"solver": "dpmpp_2m"},
    "BDIA": {"inversion": "bdia"},
}


@torch.inference_mode()
def round_trip(evaluation: Evaluation, options: dict[str, Any]) -> tuple[int, float, float]:
    """Inversion and plain reverse, `start: level`.

    Evaluations in all, the latents' relative error, and the mean PSNR in dB against the autoencoder's output.
    """
    method = StyleID.model_validate({"inject": False, "start": "level", **options})
    model, latents = evaluation.model, evaluation.content_latents
    returned = method.reverse_plain(model, method.invert(model, latents, "query"))
    decoded, again = (to_pixels(model.decode(x)) for x in (latents, returned))
    error = float((returned - latents).norm() / latents.norm())
    near = float(np.mean([psnr(a, b) for a, b in zip(decoded, again, strict=True)]))
    return method.num_inversion_evaluations + method.num_reverse_evaluations, error, near


WEIGHTS = (1.0, 0.75, 0.5, 0.25, 0.0)


@torch.inference_mode()
def blend(evaluation: Evaluation, mode: str, pair: tuple[int, int]) -> list[list[Pixels]]:
    """Pictures by content and by weight of the first style of `pair` against the second."""
    method = StyleID.model_validate({**FEW, "blend": mode})
    model = evaluation.model
    contents = method.invert(model, evaluation.content_latents, "query")
    styles = method.invert(model, evaluation.style_latents[list(pair)], "key_value")
    mixtures = [
        # a weight of 0 is no blend: its logarithm would be infinite
        Mixture((0, 1), (weight, 1.0 - weight))
        if 0.0 < weight < 1.0
        else Mixture((0 if weight else 1,))
        for weight in WEIGHTS
    ]
    latents = method.stylise(model, contents, styles, mixtures=mixtures)
    pictures = [p for part in latents.split(8) for p in to_pixels(model.decode(part))]
    return [pictures[i :: contents.num_images] for i in range(contents.num_images)]


def distances(
    evaluation: Evaluation, pictures: Sequence[Sequence[Pixels]], pair: tuple[int, int]
) -> list[str]:
    """Per weight, the mean distances of colour and texture to both styles."""
    lines = []
    for column, weight in enumerate(WEIGHTS):
        found = [
            np.mean([distance(row[column], evaluation.styles[style]) for row in pictures])
            for distance in (lab_color_distance, texture_distance)
            for style in pair
        ]
        lines.append(
            f"| {weight:g} | {found[0]:.2f}, {found[1]:.2f} | {found[2]:.3f}, {found[3]:.3f} |"
        )
    return lines


@torch.inference_mode()
def masked(evaluation: Evaluation, masks: torch.Tensor | None) -> list[Pixels]:
    """All pairs with these masks (C, 1, h, w), or everywhere."""
    method, model = StyleID.model_validate(FEW), evaluation.model
    contents = method.invert(model, evaluation.content_latents, "query")
    styles = method.invert(model, evaluation.style_latents, "key_value")
    latents = method.stylise(model, contents, styles, masks=masks)
    return [p for part in latents.split(8) for p in to_pixels(model.decode(part))]


def disc(cells: int, radius: float) -> torch.Tensor:
    """A soft disc (1, cells, cells) in the middle, 1 inside, falling over an eighth of the side."""
    axis = (torch.arange(cells) + 0.5) / cells - 0.5
    distance = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    return ((radius - distance) * 8.0 + 0.5).clamp(0.0, 1.0)[None]


def inside_and_outside(
    evaluation: Evaluation, pictures: Sequence[Pixels], mask: Pixels
) -> tuple[float, float, float]:
    """Mean difference from the autoencoder's picture where `mask` (H, W) is 1 and where it is 0, and edges outside."""
    own = to_pixels(evaluation.model.decode(evaluation.content_latents))
    changes: list[tuple[float, float, float]] = []
    for index, picture in enumerate(pictures):
        before = own[evaluation.pairs.content[index]]
        difference = np.abs(picture.astype(float) - before).mean(axis=2)
        outside = np.where(mask[..., None] == 0, 1.0, 0.0)
        edges = edge_correlation(*((p * outside).astype(np.uint8) for p in (before, picture)))
        changes.append((difference[mask == 1].mean(), difference[mask == 0].mean(), edges))
    inner, outer, edge = np.mean(changes, axis=0)
    return float(inner), float(outer), float(edge)
