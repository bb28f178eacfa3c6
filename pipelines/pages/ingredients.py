"""The pictures of docs/styleid.md: StyleID with and without each of its ingredients, on the embedded model.

    OMP_NUM_THREADS=1 python -m pipelines.pages.ingredients

Writes docs/styleid_*.jpg; a minute on one core. 20 steps, the demo's photographs and styles at 128 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stylebatch import Denoiser, StyleID, load_model, load_picture, to_pixels, to_tensor
from stylebatch.data.images import Pixels
from stylebatch.methods.styleid.algorithm import Pairs
from stylebatch.methods.styleid.features import FeatureSource, Inverted, SiteFeatures

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "manifests/demo"
PAIRS = (("animal/macaw", "starry_night"), ("building/castle", "carpet"), ("object/coffee", "langlois_bridge"))  # fmt: skip
SIDE, LABEL, GAP = 128, 34, 4


@dataclass(frozen=True)
class Variant:
    """A column: its title, the method's options, and whether keys and values are those of another pair's style."""

    title: str
    method: StyleID
    keys_of_another: bool = False


@dataclass(frozen=True)
class _Turned:
    """Features of the previous style in place of each one's own."""

    source: FeatureSource

    def at(self, t: float) -> SiteFeatures:
        return {
            site: {name: tensor.roll(1, dims=0) for name, tensor in tensors.items()}
            for site, tensors in self.source.at(t).items()
        }


STEPS = 20
INGREDIENTS = [
    Variant("neither", StyleID(steps=STEPS, init_adain=False, inject=False)),
    Variant("statistics\nalone", StyleID(steps=STEPS, inject=False)),
    Variant("keys and\nvalues alone", StyleID(steps=STEPS, init_adain=False)),
    Variant("both:\nStyleID", StyleID(steps=STEPS)),
    Variant("keys of\nanother style", StyleID(steps=STEPS), keys_of_another=True),
]
STRIPS = {
    "ingredients": INGREDIENTS,
    "gamma": [
        Variant(f"gamma {g}", StyleID(steps=STEPS, gamma=g)) for g in (0.0, 0.25, 0.5, 0.75, 1.0)
    ],
    "tau": [Variant(f"tau {t}", StyleID(steps=STEPS, tau=t)) for t in (0.5, 1.0, 1.5, 2.0, 4.0)],
}


def main() -> None:
    """Render all strips."""
    model = load_model("tiny")
    inputs = [[_picture(f"contents/{content}"), _picture(f"styles/{style}")] for content, style in PAIRS]  # fmt: skip
    latents = [model.encode(to_tensor([row[side] for row in inputs])) for side in (0, 1)]
    method = StyleID(steps=STEPS)
    contents = method.invert(model, latents[0], "query")
    styles = method.invert(model, latents[1], "key_value")
    for name, variants in STRIPS.items():
        columns = [_rendered(model, variant, contents, styles) for variant in variants]
        titles = ["content", "style", *(variant.title for variant in variants)]
        rows = [[*row, *(c[i] for c in columns)] for i, row in enumerate(inputs)]
        path = ROOT / f"docs/styleid_{name}.jpg"
        _strip(titles, rows).save(path, quality=92)
        print(path)


def _picture(name: str) -> Pixels:
    return load_picture(str(DEMO / f"{name}.jpg"), SIDE).pixels


def _rendered(
    model: Denoiser, variant: Variant, contents: Inverted, styles: Inverted
) -> list[Pixels]:
    """Each content with its style: pixels of three pictures."""
    if variant.keys_of_another:
        styles = replace(styles, features=_Turned(styles.features))
    diagonal = Pairs(tuple(range(len(PAIRS))), tuple(range(len(PAIRS))))
    return to_pixels(model.decode(variant.method.stylise(model, contents, styles, diagonal)))


def _strip(titles: Sequence[str], rows: Sequence[Sequence[Pixels]]) -> Image.Image:
    """Pictures in a grid, titles above the columns."""
    step = SIDE + GAP
    sheet = Image.new("RGB", (step * len(titles) - GAP, LABEL + step * len(rows) - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column, title in enumerate(titles):
        middle = (column * step + SIDE // 2, LABEL // 2)
        draw.multiline_text(middle, title, fill="black", font=font, anchor="mm", align="center")
    for i, row in enumerate(rows):
        for column, pixels in enumerate(row):
            sheet.paste(Image.fromarray(pixels), (column * step, LABEL + i * step))
    return sheet


if __name__ == "__main__":
    main()
