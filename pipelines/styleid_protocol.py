"""The StyleID protocol, 20 contents x 40 styles, on any two folders: renders, evaluates, and puts the published table beside it.

    python pipelines/styleid_protocol.py --contents photos --styles paintings --model sd14 \\
      --weights art_inception=art_inception.pth --weights alexnet=alexnet.pth --weights lpips=alex.pth --weights vgg19=vgg19.pth

800 pairs at the model's own size, of the embedded model unless one is named; `--limit 40` renders a preview. Leaves the output in
outputs/styleid-protocol, evaluation.md, evaluation.json and pareto.png in outputs/styleid-protocol-evaluation. Published figures are of
other pictures (MS-COCO, WikiArt): only with those, the weights above and Stable Diffusion 1.4 do they compare.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import stylebatch
from stylebatch import RunSpec
from stylebatch.evaluation.evaluate import Evaluation, Request, evaluate
from stylebatch.evaluation.figure_tables import lines
from stylebatch.evaluation.written import write_evaluations
from stylebatch.folder import Folder
from stylebatch.words import aligned

NUM_CONTENTS, NUM_STYLES = 20, 40
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
COLUMNS = ("art_fid", "fid_art", "lpips", "cfsd")
PUBLISHED: dict[str, tuple[float, ...]] = {
    "StyleID (arXiv 2312.09008)": (28.80, 18.13, 0.505, 0.228),
    "cosine gamma 0.75 to 0.375 (arXiv 2605.26538)": (26.98, 16.12, 0.575, 0.297),
    "with scheduled ControlNet (arXiv 2605.26538)": (27.04, 16.29, 0.564, 0.295),
}
"""The measures of COLUMNS, of other pictures and Stable Diffusion 1.4."""


def pictures(folder: Path, count: int) -> list[Path]:
    """The first `count` pictures of a folder and those beneath, by path. Exits where there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        sys.exit(f"{folder}: found no picture; accepted: a folder with {', '.join(SUFFIXES)}")
    return [path.resolve() for path in found[:count]]


def write_pairs(file: Path, contents: Sequence[Path], styles: Sequence[Path]) -> None:
    """All pairs as rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(["content", "style"])
        rows.writerows((str(content), str(style)) for content in contents for style in styles)


def spec(pairs: Path, output: Path, model: str) -> RunSpec:
    """The paper's options over a table of pairs; pictures without loss, as the protocol stores them."""
    return RunSpec.model_validate(
        {
            "name": "styleid-protocol",
            "pairing": {"mode": "explicit", "path": str(pairs)},
            "method": {"name": "styleid"},
            "model": {"path": model} if Path(model).exists() else model,
            "output": {"path": str(output), "image": {"format": "png"}},
        }
    )


def table(evaluation: Evaluation) -> list[str]:
    """The published rows, then this run's; `-` where weights are not given."""
    rows = [["", *COLUMNS]]
    rows += [[name, *(f"{value:g}" for value in values)] for name, values in PUBLISHED.items()]
    found = [evaluation.value(name) for name in COLUMNS]
    ours = ["-" if one is None or one.value is None else f"{one.value:.4g}" for one in found]
    return aligned([*rows, [f"this run ({evaluation.num_samples} pairs)", *ours]])


def main(argv: Sequence[str] | None = None) -> int:
    """Render, evaluate, print; the exit code: of the run, or 3 where pictures could not be read."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--contents", type=Path, required=True, help="folder of contents")
    parser.add_argument("--styles", type=Path, required=True, help="folder of styles")
    parser.add_argument("--model", default="tiny", help="a known name or a pipeline folder")
    parser.add_argument("--output", type=Path, default=Path("outputs/styleid-protocol"))
    parser.add_argument("--limit", type=int, help="pairs of a preview")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    given = parser.parse_args(argv)
    weights = dict(one.partition("=")[::2] for one in given.weights)
    pairs = given.output.with_name(f"{given.output.name}-pairs.csv")
    write_pairs(pairs, pictures(given.contents, NUM_CONTENTS), pictures(given.styles, NUM_STYLES))
    result = stylebatch.run(spec(pairs, given.output, given.model), limit=given.limit)
    (found,) = evaluate([result.output], Request(weights=weights))
    told = Folder.at(result.output.with_name(f"{result.output.name}-evaluation"))
    notes = write_evaluations(told, [found])
    text = [*lines([found]), "", *table(found), *notes, *found.faults]
    sys.stdout.write("\n".join([*text, f"written: {told.where('evaluation.md')}"]) + "\n")
    return result.exit_code or (3 if found.faults else 0)


if __name__ == "__main__":
    sys.exit(main())
