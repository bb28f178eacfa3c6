"""Measure the embedded model on held-out images (8 contents x 8 styles) and on prompts; writes tables and pictures.

    OMP_NUM_THREADS=1 python -m pipelines.embedded.evaluate_tiny --out outputs/evaluation

Parts can be run alone (`--parts styleid prompts`); each writes OUT/PART.md beside its pictures. With one thread each and two
at a time: styleid (defaults at 50 steps and their controls) 20 minutes, ablations (20 steps) 25, prompts 20, round trips 5.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from pipelines.embedded import figures
from pipelines.embedded.evaluate import Evaluation, Row, Variant, evaluation_time, strip, variants
from pipelines.embedded.prompts import CONTRASTS, Prompter
from stylebatch.data.images import Pixels
from stylebatch.models.loading import load_model
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.unet_loading import as_stable_diffusion

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
CONTROLS = 3
"""The first variants: the defaults, own keys and values, a wrong style's."""
GUIDANCE = (1.0, 4.0)
DIAGONAL = (0, 9, 18, 27, 36, 45, 54, 63)


def main() -> None:
    """Run the chosen parts."""
    parts: dict[str, Callable[[argparse.Namespace], str]] = {
        "round_trips": _round_trips,
        "styleid": _styleid,
        "ablations": _ablations,
        "prompts": _prompts,
        "time": _time,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="tiny, or a pipeline folder")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts)[:4])
    parser.add_argument("--out", type=Path, default=Path("outputs/evaluation"))
    parser.add_argument("--every", type=int, default=1, help="take every n-th held-out image")
    parser.add_argument("--against", help="time: the pipeline folder to compare with")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        text = parts[part](args)
        (args.out / f"{part}.md").write_text(text + "\n")
        print(text, flush=True)


def _evaluation(args: argparse.Namespace) -> Evaluation:
    folders = (MANIFESTS / "demo", MANIFESTS / "heldout")
    contents = [path for folder in folders for path in sorted(folder.glob("contents/*/*.jpg"))]
    styles = [path for folder in folders for path in sorted(folder.glob("styles/*.jpg"))]
    return Evaluation(
        as_stable_diffusion(load_model(args.model)),
        contents[:: args.every],
        styles[:: args.every],
        size=128,
    )


def _round_trips(args: argparse.Namespace) -> str:
    evaluation = _evaluation(args)
    contents, styles = evaluation.autoencoder()
    lines = [
        "| round trip | mean PSNR |",
        "|---|---|",
        f"| autoencoder | {(contents + styles) / 2:.2f} dB (contents {contents:.1f}, styles {styles:.1f}) |",
    ]
    for steps in (50, 20):
        lines.append(
            f"| inversion and reverse, {steps} steps | {evaluation.round_trip(steps):.1f} dB |"
        )
    return "\n".join(lines)


def _styleid(args: argparse.Namespace) -> str:
    evaluation = _evaluation(args)
    rows, _ = _measure(evaluation, variants(50)[:CONTROLS])
    return _table(rows)


def _ablations(args: argparse.Namespace) -> str:
    evaluation = _evaluation(args)
    rows, pictures = _measure(evaluation, variants(20))
    count = len(pictures[0])
    chosen = [index for index in DIAGONAL if index < count]
    strip([[grid[index] for grid in pictures] for index in chosen], args.out / "ablations.jpg")
    figures.ablations(rows, args.out / "ablations.png")
    return _table(rows)


def _measure(
    evaluation: Evaluation, chosen: Sequence[Variant]
) -> tuple[list[Row], list[list[Pixels]]]:
    rows, pictures = [evaluation.unstylised()], []
    for variant in chosen:
        pictures.append(evaluation.render(variant))
        rows.append(evaluation.measure(variant.name, pictures[-1]))
    return rows, pictures


def _table(rows: Sequence[Row]) -> str:
    """The first row is the unstylised content, the second the defaults that the others are held against."""
    default = np.array(rows[1].textures)
    lines = [
        "| variant | colour distance | texture distance | edge correlation | defaults nearer to the style's texture |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        nearer = f"{100 * float((default < np.array(row.textures)).mean()):.0f} %"
        lines.append(
            f"| {row.name} | {row.color_distance:.2f} | {row.texture_distance:.3f} | {row.structure:.3f} "
            f"| {'' if row is rows[1] else nearer} |"
        )
    colour, texture = (
        100 * (1 - after / before)
        for before, after in (
            (rows[0].color_distance, rows[1].color_distance),
            (rows[0].texture_distance, rows[1].texture_distance),
        )
    )
    return "\n".join([*lines, "", f"Colour falls by {colour:.0f} %, texture by {texture:.0f} %."])


def _prompts(args: argparse.Namespace) -> str:
    torch.set_num_threads(1)
    prompter = Prompter(TINY if args.model == "tiny" else Path(args.model))
    lines = [
        "| captions | statistic | guidance | difference of the means of 64 samples | in the training images |",
        "|---|---|---|---|---|",
    ]
    for contrast in CONTRASTS:
        for guidance in GUIDANCE:
            found = prompter.respond(contrast, guidance)
            lines.append(
                f"| {contrast.first} - {contrast.second} | {contrast.statistic.__name__} | {guidance:g} "
                f"| {found.difference:+.1f} ± {found.error:.1f} | {contrast.in_data:+.1f} |"
            )
    prompter.sheet(args.out / "prompts.jpg", guidance=GUIDANCE[-1])
    return "\n".join(lines)


def _time(args: argparse.Namespace) -> str:
    torch.set_num_threads(1)
    models = [as_stable_diffusion(load_model(one)) for one in (args.model, args.against)]
    mine, other = evaluation_time(models)
    return f"One UNet evaluation of 8 latents takes {mine / other:.2f} of the time of {Path(args.against).name}'s."


if __name__ == "__main__":
    main()
