"""Measure StyleID's options beyond the paper on held-out images; writes the tables and pictures of docs/beyond_the_paper.md.

    OMP_NUM_THREADS=1 python -m pipelines.embedded.beyond_the_paper --out outputs/beyond

Parts can be run alone (`--parts curve exact`); each writes OUT/PART.md beside its pictures. With `--every 3`, 3 contents x 3
styles, curve takes 8 minutes of one idle core; with `--every 8`, one pair, a minute and a half. `--every 1` takes all 8 x 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.embedded import beyond, figures, further, precision, prompt_presets
from pipelines.embedded.evaluate import Evaluation, strip
from stylebatch.models.loading import load_model
from stylebatch.models.unet.unet_loading import as_stable_diffusion

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
FOLDERS = (MANIFESTS / "demo", MANIFESTS / "heldout")
SHOWN = (0, 4)
"""Pairs in the strips, as far as there are as many."""


def main() -> None:
    """Run the chosen parts."""
    parts: dict[str, Callable[[argparse.Namespace], Iterable[str]]] = {
        "presets": _presets,
        "curve": _curve,
        "further": _further,
        "prompts": lambda _: prompt_presets.lines(),
        "exact": _exact,
        "gammas": _gammas,
        "blends": _blends,
        "masks": _masks,
        "precision": _precision,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--out", type=Path, default=Path("outputs/beyond"))
    parser.add_argument("--every", type=int, default=3, help="take every n-th held-out image")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for part in args.parts:
        with (args.out / f"{part}.md").open("w") as file:
            for line in parts[part](args):
                print(line, flush=True)
                print(line, file=file, flush=True)


def _evaluation(args: argparse.Namespace, contents: int | None = None) -> Evaluation:
    paths = [path for folder in FOLDERS for path in sorted(folder.glob("contents/*/*.jpg"))]
    styles = [path for folder in FOLDERS for path in sorted(folder.glob("styles/*.jpg"))]
    return Evaluation(
        as_stable_diffusion(load_model("tiny")),
        paths[:: args.every][:contents],
        styles[:: args.every],
        size=128,
    )


def _compared(
    args: argparse.Namespace, name: str, variants: list[tuple[str, dict[str, Any]]]
) -> Iterable[str]:
    """A table of variants, and OUT/NAME.png with two pairs of each."""
    comparison = beyond.Comparison(_evaluation(args))
    yield beyond.HEADER
    measured = []
    for label, options in variants:
        measured.append(comparison.measure(label, options))
        yield measured[-1].line()
    evaluation = comparison.evaluation
    shown = [pair for pair in SHOWN if pair < len(evaluation.pairs.content)]
    rows = [
        [
            evaluation.contents[evaluation.pairs.content[pair]],
            evaluation.styles[evaluation.pairs.style[pair]],
            *(one.pictures[pair] for one in measured),
        ]
        for pair in shown
    ]
    strip(rows, args.out / f"{name}.png")
    if name == "curve":
        figures.evaluations(measured, args.out / "curve_plot.png")


def _presets(args: argparse.Namespace) -> Iterable[str]:
    variants = [(name, {"preset": name}) for name in ("paper", "fast", "draft")]
    yield from _compared(args, "presets", variants)


def _curve(args: argparse.Namespace) -> Iterable[str]:
    yield from _compared(args, "curve", beyond.curve())


def _further(args: argparse.Namespace) -> Iterable[str]:
    comparison = beyond.Comparison(_evaluation(args))
    yield beyond.HEADER
    for name, options in further.options():
        yield comparison.measure(name, options).line()


def _gammas(args: argparse.Namespace) -> Iterable[str]:
    yield from _compared(args, "gammas", beyond.gammas())


def _exact(args: argparse.Namespace) -> Iterable[str]:
    evaluation = _evaluation(args, contents=2)
    yield "| round trip | evaluations | relative error of the latents | PSNR |\n|---|---|---|---|"
    for steps in (10, 20):
        for name, options in beyond.ROUND_TRIPS.items():
            count, error, near = beyond.round_trip(evaluation, {**options, "steps": steps})
            yield f"| {name}, {steps} steps | {count} | {error:.1e} | {near:.1f} dB |"
    yield ""
    yield from _compared(args, "exact", beyond.exact())


def _blends(args: argparse.Namespace) -> Iterable[str]:
    evaluation, pair = _evaluation(args, contents=1), (0, -1)
    for mode in ("tokens", "outputs"):
        rows = beyond.blend(evaluation, mode, pair)
        yield f"`blend: {mode}`\n"
        yield (
            "| weight of the first style | colour distance to the first, the second | texture distance |\n"
            "|---|---|---|"
        )
        yield from beyond.distances(evaluation, rows, pair)
        yield ""
        first, second = (evaluation.styles[style] for style in pair)
        strip(
            [
                [content, first, *row, second]
                for content, row in zip(evaluation.contents, rows, strict=True)
            ],
            args.out / f"blends_{mode}.png",
        )


def _masks(args: argparse.Namespace) -> Iterable[str]:
    evaluation = _evaluation(args, contents=2)
    cells = evaluation.content_latents.shape[-1]
    mask = beyond.disc(cells, 0.3)
    masks = mask.expand(len(evaluation.contents), 1, cells, cells)
    whole, part = beyond.masked(evaluation, None), beyond.masked(evaluation, masks)
    pixels = np.kron(mask[0].numpy(), np.ones((128 // cells, 128 // cells)))
    yield (
        "| | mean difference from the content inside | outside | edge correlation outside |\n"
        "|---|---|---|---|"
    )
    for name, pictures in (("style everywhere", whole), ("style in a disc", part)):
        inner, outer, edges = beyond.inside_and_outside(evaluation, pictures, pixels)
        yield f"| {name} | {inner:.1f} | {outer:.1f} | {edges:.3f} |"
    shown = np.repeat((255 * pixels[..., None]).astype(np.uint8), 3, axis=2)
    strip(
        [
            [
                evaluation.contents[evaluation.pairs.content[i]],
                evaluation.styles[evaluation.pairs.style[i]],
                shown,
                whole[i],
                part[i],
            ]
            for i in range(min(3, len(whole)))
        ],
        args.out / "masks.png",
    )


def _precision(args: argparse.Namespace) -> Iterable[str]:
    evaluation = _evaluation(args, contents=2)
    yield "| method | dtype | relative error of the latents | PSNR to float32 |\n|---|---|---|---|"
    yield from precision.lines(evaluation)


if __name__ == "__main__":
    main()
