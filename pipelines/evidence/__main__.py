"""Does training on stylised images help? Trains small classifiers with and without them, at equal steps and images.

    python -m pipelines.evidence.materials --packages PACKAGES --output MATERIALS    # once: textures and photographs of Debian
    python -m pipelines.evidence --output OUT --styles manifests/demo/styles --unseen manifests/heldout/styles \\
        --font NotoColorEmoji.ttf --textures MATERIALS/textures --photographs MATERIALS/photographs

Takes some ten minutes of one core for rendering and as many for training; leaves OUT/evidence.md and OUT/evidence.png. Type it again after
any interruption: renders and trained classifiers stay. Your own: --photographs FOLDER (a folder per class), --styles FOLDER, and
--manifest FILE for model, method and engine, e.g. `model: sd15` with `engine: {workers: 4}`; --device cuda for the classifiers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pipelines.evidence import experiment, findings, image_sets, rendering
from pipelines.evidence.classifier import Training
from pipelines.evidence.mixtures import mixtures
from pipelines.evidence.silhouettes import Painter
from stylebatch.errors import SampleError

DRAFT: dict[str, Any] = {
    "method": {"name": "styleid", "preset": "draft"},
    "model": "tiny",
    "image": {"size": 128},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0, 2 for inputs that do not serve, or the code of a run that failed; the reason on standard error."""
    args = _parser().parse_args(arguments)
    if args.device == "cpu":
        # results would differ in the last bits between numbers of threads
        torch.set_num_threads(1)
    try:
        settings = _settings(args)
        every = [experiment.run(images, _styles(args, images), settings) for images in _sets(args)]
    except (ValueError, SampleError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except rendering.RenderingError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    lines = []
    for found in every:
        parts = (findings.table(found), findings.gains(found), [findings.advice(found)])
        lines += [f"## {found.images.name}", ""]
        lines += [line for part in parts for line in (*part, "")]
    (args.output / "evidence.md").write_text("\n".join(lines), encoding="utf-8")
    findings.figure(every, args.output / "evidence.png")
    sys.stdout.write("\n".join(lines))
    return 0


def _sets(args: argparse.Namespace) -> Iterator[image_sets.ImageSet]:
    if not args.photographs and not (args.font and args.textures):
        raise ValueError(
            "no images to train on. Next: give --font and --textures for silhouettes, --photographs for a folder of classes, or all"
        )
    for path in (args.font, args.textures, args.photographs, *args.styles, *args.unseen):
        if path is not None and not path.exists():
            raise ValueError(f"{path}: not found")
    if args.font and args.textures:
        files = sorted(path for path in args.textures.iterdir() if path.is_file())
        painter = Painter(args.font, files)
        folder = args.output / "cue" / "contents"
        yield image_sets.cue_conflict(folder, painter, args.images, args.tests, args.seed)
    if args.photographs:
        folder = args.output / "photographs" / "contents"
        yield image_sets.photographs(folder, args.photographs, args.test_share, args.seed)


def _styles(args: argparse.Namespace, images: image_sets.ImageSet) -> rendering.Styles:
    return rendering.collect(images.contents.parent / "styles", args.styles, args.unseen)


def _settings(args: argparse.Namespace) -> experiment.Settings:
    least = {"seeds": 2, "size": 32, "epochs": 1, "batch": 2, "width": 1, "styled_tests": 2}
    for name, number in least.items():
        if getattr(args, name) < number:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(args, name)}: accepted are numbers from {number} on"
            )
    mixtures(args.ratios, args.num_styles, has_unhinted=False)
    return experiment.Settings(
        tuple(args.ratios),
        tuple(args.num_styles),
        args.seeds,
        args.size,
        args.styled_tests,
        Training(args.epochs, args.batch, args.width, device=args.device),
        _base(args.manifest) if args.manifest else DRAFT,
        tuple(part for setting in args.set for part in ("--set", setting)),
    )


def _base(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a manifest. Next: see stylebatch schema")
    return document


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.evidence", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for renders, results and tables")
    add("--styles", type=Path, nargs="+", required=True, help="folders of styles to train with")
    add("--unseen", type=Path, nargs="+", required=True, help="folders of styles to test with")
    add("--font", type=Path, help="emoji font for silhouettes")
    add("--textures", type=Path, help="folder of one texture per class, in order of names")
    add("--photographs", type=Path, help="folder with a folder of images per class")
    add("--manifest", type=Path, help="method, model, image, engine of the renders")
    add("--set", action="append", default=[], help="a value of the manifest, as in stylebatch run")
    add("--ratios", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1])
    add("--num-styles", type=int, nargs="+", default=[1, 2, 6])
    add("--seeds", type=int, default=3, help="classifiers of each mixture, at least 2")
    add("--images", type=int, default=192, help="silhouettes to train with")
    add("--tests", type=int, default=240, help="silhouettes of each test")
    add("--styled-tests", type=int, default=48, help="clean test images in unseen styles, at most")
    add("--test-share", type=float, default=0.4, help="part of the photographs to test with")
    add("--epochs", type=int, default=Training.epochs)
    add("--batch", type=int, default=Training.batch)
    add("--width", type=int, default=Training.width, help="channels of the first layer")
    add("--size", type=int, default=64, help="side of what the classifiers see, pixels")
    add("--seed", type=int, default=0, help="draws silhouettes and splits")
    add("--device", default="cpu", help="of the classifiers; renders go by the manifest's engine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
