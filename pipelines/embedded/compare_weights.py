"""One table of weights beside others on held-out pictures: what filters and colours say, and what EfficientNet-Lite0 says.

    OMP_NUM_THREADS=1 python -m pipelines.embedded.compare_weights tiny outputs/tiny-vae-judged/model --out outputs/compared

Needs the extra `quality`. Columns are the folders, in order; with two or more, the last column is the last folder less the first,
and for agreement the range that this takes in 95 % of resamplings of contents and styles. With `--every 2` (4 x 4 pairs) a folder
takes 1.5 minutes of one core at 20 steps, without it four times that. Agreement is the probability that the network gives the
result for its own first class of the content at 128 px.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.embedded.evaluate import Evaluation, Variant, strip
from pipelines.embedded.picture_distances import psnr
from stylebatch.data.images import Pixels
from stylebatch.methods.pixels import to_pixels
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.loading import load_model
from stylebatch.models.unet.unet_loading import as_stable_diffusion
from stylebatch.quality.asked import Seen, agreement, agreement_rank, feature_distance
from stylebatch.quality.imagenet_network import Network, load_network
from stylebatch.quality.measures import Floats, luma

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
SIDE, RESAMPLINGS = 128, 2000


@dataclass(frozen=True)
class Measured:
    """Name -> value of each table, agreement (S, C) of each pair, and pictures of the first pairs."""

    old: dict[str, float]
    new: dict[str, float]
    agreement: Floats
    shown: list[Pixels]


def main() -> None:
    """Measure every folder, print both tables and write them beside pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="tiny, or pipeline folders")
    parser.add_argument(
        "--contents", type=Path, help="folder of pictures; default the held-out ones"
    )
    parser.add_argument("--styles", type=Path, help="folder of pictures; default the held-out ones")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture")
    parser.add_argument("--steps", type=int, default=20, help="DDIM steps of StyleID")
    parser.add_argument("--out", type=Path, default=Path("outputs/compared"))
    args = parser.parse_args()
    contents, styles = (
        found[:: args.every]
        for found in (
            _pictures(args.contents, "contents/*/*.jpg"),
            _pictures(args.styles, "styles/*.jpg"),
        )
    )
    network = load_network()
    measured = []
    for name in args.models:
        model = as_stable_diffusion(load_model(name))
        evaluation = Evaluation(model, contents, styles, size=SIDE)
        measured.append(measure(evaluation, network, args.steps))
    text = tables(args.models, measured)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "compared.md").write_text(text + "\n", encoding="utf-8")
    strip([one.shown for one in measured], args.out / "compared.png")
    print(f"{len(contents)} contents x {len(styles)} styles, {args.steps} steps\n\n{text}")


def _pictures(folder: Path | None, pattern: str) -> list[Path]:
    if folder is None:
        return [p for part in ("demo", "heldout") for p in sorted((MANIFESTS / part).glob(pattern))]
    kinds = {".jpg", ".jpeg", ".png", ".webp"}
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    if not found:
        raise SystemExit(f"{folder}: holds no picture; accepted: {', '.join(sorted(kinds))}")
    return found


@torch.no_grad()
def measure(evaluation: Evaluation, network: Network, steps: int) -> Measured:
    """Both tables of one model. StyleID has its defaults but for the steps and for what a row names."""
    method = StyleID(steps=steps)
    named = {
        "default": Variant("default", method),
        "wrong": Variant("wrong", method, features="wrong"),
        "0.3": Variant("0.3", method.model_copy(update={"gamma": 0.3})),
        "1.0": Variant("1.0", method.model_copy(update={"gamma": 1.0})),
    }
    pictures = {name: evaluation.render(variant) for name, variant in named.items()}
    rows = {name: evaluation.measure(name, made) for name, made in pictures.items()}
    plain, default = evaluation.unstylised(), rows["default"]
    decoded = to_pixels(evaluation.model.decode(evaluation.content_latents))
    nearer = np.array(default.textures) < np.array(rows["wrong"].textures)
    pairs = list(zip(evaluation.contents, decoded, strict=True))
    contents, styles = evaluation.autoencoder()
    old = {
        "autoencoder round trip, PSNR of contents and styles, dB": (contents + styles) / 2,
        "the same, PSNR of contents, dB": float(np.mean([psnr(a, b) for a, b in pairs])),
        "gradients of decoded contents, share of the original's": _sharpness(pairs),
        f"inversion and reverse, {steps} steps, PSNR, dB": evaluation.round_trip(steps),
        "colour distance to the style falls by, %": _fall(
            plain.color_distance, default.color_distance
        ),
        "texture distance to the style falls by, %": _fall(
            plain.texture_distance, default.texture_distance
        ),
        "edge correlation with the content": default.structure,
        "the right style's k, v nearer in texture than a wrong style's, % of pairs": 100
        * float(nearer.mean()),
        "gamma 0.3 to 1.0 moves edge correlation by": rows["1.0"].structure - rows["0.3"].structure,
    }
    new, agreed = _by_network(evaluation, network, pictures, decoded)
    return Measured(old, new, agreed, pictures["default"][: len(evaluation.contents)])


def _fall(before: float, after: float) -> float:
    return 100 * (1 - after / before)


def _sharpness(pairs: Sequence[tuple[Pixels, Pixels]]) -> float:
    """Mean absolute difference of neighbours in luma of the second of each pair, over that of the first."""
    before, after = (
        np.mean([np.abs(np.diff(luma(pair[place]), axis=axis)).mean() for pair in pairs for axis in (0, 1)])
        for place in (0, 1)
    )  # fmt: skip
    return float(after / before)


def _by_network(
    evaluation: Evaluation,
    network: Network,
    pictures: dict[str, list[Pixels]],
    decoded: Sequence[Pixels],
) -> tuple[dict[str, float], Floats]:
    contents, styles, decoded_seen = (
        _seen(network, part) for part in (evaluation.contents, evaluation.styles, decoded)
    )
    seen = {name: _seen(network, pictures[name]) for name in ("default", "1.0")}
    kept, looks = evaluation.pairs.content, evaluation.pairs.style

    def mean_agreement(name: str) -> Floats:
        each = [agreement(one, contents[kept[i]]) for i, one in enumerate(seen[name])]
        return np.array(each).reshape(len(styles), len(contents))

    default = seen["default"]
    ranks = [agreement_rank(one, contents[kept[i]]) for i, one in enumerate(default)]
    agreed = mean_agreement("default")
    through = list(zip(decoded_seen, contents, strict=True))
    new = {
        "agreement of the contents themselves": _mean([agreement(one, one) for one in contents]),
        "agreement after the autoencoder alone": _mean([agreement(a, b) for a, b in through]),
        "agreement after stylising": float(agreed.mean()),
        "agreement after stylising, gamma 1.0": float(mean_agreement("1.0").mean()),
        "the content's class is the first after stylising, % of pairs": 100
        * float(np.mean(np.array(ranks) == 1)),
        "feature distance to the content, autoencoder alone": _mean(
            [feature_distance(a, b) for a, b in through]
        ),
        "feature distance to the content, stylised": _mean(
            [feature_distance(one, contents[kept[i]]) for i, one in enumerate(default)]
        ),
        "feature distance to the style, stylised": _mean(
            [feature_distance(one, styles[looks[i]]) for i, one in enumerate(default)]
        ),
    }
    return new, agreed


def _seen(network: Network, images: Sequence[Pixels]) -> list[Seen]:
    features, probabilities = network.seen(images)
    return [Seen(p, f) for p, f in zip(probabilities, features, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def tables(names: Sequence[str], measured: Sequence[Measured]) -> str:
    """The old and the new table in Markdown, a column for each model."""
    heads = [*map(_short, names), *(["last less first"] if len(names) > 1 else [])]
    lines: list[str] = []
    for title, part in (("Filters and colours", "old"), ("EfficientNet-Lite0", "new")):
        lines += [f"| {title} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        values = [getattr(one, part) for one in measured]
        for row in values[0]:
            cells = [f"{one[row]:.3f}" for one in values]
            if len(values) > 1:
                cells.append(f"{values[-1][row] - values[0][row]:+.3f}")
                if row == "agreement after stylising":
                    low, high = interval(measured[-1].agreement - measured[0].agreement)
                    cells[-1] += f" ({low:+.3f} to {high:+.3f})"
            lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines[:-1])


def _short(name: str) -> str:
    """`OUTPUT` of OUTPUT/model, which is what training leaves."""
    path = Path(name)
    return path.parent.name if path.name == "model" else path.name


def interval(values: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of (S, C) values: styles and contents are drawn anew, each as a whole."""
    rng = np.random.default_rng(0)
    rows, columns = values.shape
    means = [
        values[np.ix_(rng.integers(0, rows, rows), rng.integers(0, columns, columns))].mean()
        for _ in range(RESAMPLINGS)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
