"""Evaluate the embedded model on the held-out images (8 contents x 8 styles); prints a Markdown table.

    python pipelines/evaluate_tiny.py --steps 20 --strip outputs/ablations.png

Expect about 15 minutes on 2 cores at 20 steps, most of it in the ten variants of 64 pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from stylebatch.embedded.evaluate import Evaluation, strip, variants
from stylebatch.models.stable_diffusion import load_model

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="tiny, or a pipeline folder")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", type=int, default=None, help="number of variants, from the first")
    parser.add_argument("--strip", type=Path, help="save the first pair of every variant as a PNG")
    args = parser.parse_args()
    folders = (MANIFESTS / "demo", MANIFESTS / "heldout")
    contents = [path for folder in folders for path in sorted(folder.glob("contents/*/*.jpg"))]
    styles = [path for folder in folders for path in sorted(folder.glob("styles/*.jpg"))]
    evaluation = Evaluation(load_model(args.model), contents, styles, 128)
    of_contents, of_styles = evaluation.autoencoder()
    print(f"autoencoder: contents {of_contents:.1f} dB, styles {of_styles:.1f} dB")
    for steps in (20, 50):
        print(f"inversion and reverse, {steps} steps: {evaluation.round_trip(steps):.1f} dB")
    rows, pictures = [evaluation.unstylised()], []
    for variant in variants(args.steps)[: args.only]:
        pictures.append(evaluation.render(variant))
        rows.append(evaluation.measure(variant.name, pictures[-1]))
    default = np.array(rows[1].textures)
    print(
        "| variant | colour distance | texture distance | edge correlation | default nearer to the style's texture |"
    )
    print("|---|---|---|---|---|")
    for row in rows:
        share = float((default < np.array(row.textures)).mean())
        print(
            f"| {row.name} | {row.color_distance:.2f} | {row.texture_distance:.3f} | {row.structure:.3f} | {100 * share:.0f} % |"
        )
    if args.strip:
        args.strip.parent.mkdir(parents=True, exist_ok=True)
        strip(
            [[grid[index] for grid in pictures] for index in (0, 9, 18, 27, 36, 45, 54, 63)],
            args.strip,
        )


if __name__ == "__main__":
    main()
