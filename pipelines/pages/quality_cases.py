"""The picture and the two tables of docs/quality.md: one stylisation that is good, seven pictures that are not, and what the measures say.

    OMP_NUM_THREADS=1 python -m pipelines.pages.quality_cases

Writes docs/quality_cases.jpg and prints the tables; half a minute on one core. It needs the extra `quality`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from pipelines.pages.ingredients import DEMO, ROOT, SIDE, STEPS
from stylebatch import Denoiser, StyleID, load_model, load_picture, to_pixels, to_tensor
from stylebatch.data.images import Pixels
from stylebatch.methods.styleid.algorithm import Pairs
from stylebatch.quality.asked import MEASURES_ASKED, Seen, measured_by_network
from stylebatch.quality.imagenet_network import load_network
from stylebatch.quality.measures import MEASURES, measured
from stylebatch.quality.reduction import Reduction

SHOWN_SIDE, LABEL, GAP, COLUMNS = 144, 22, 6, 5
NETWORK_MEASURES = [one for one in MEASURES_ASKED if one.column != "agreement_content"]


def main() -> None:
    """Make the picture and print the tables."""
    content, style = (
        load_picture(str(DEMO / name), SIDE).pixels
        for name in ("contents/animal/macaw.jpg", "styles/starry_night.jpg")
    )
    cases = dict(_cases(content, style))
    _sheet({"content": content, "style": style, **cases}).save(
        ROOT / "docs/quality_cases.jpg", quality=92
    )
    compared = {"content": Reduction(content), "style": Reduction(style)}
    print("\n".join(_table([one.column for one in MEASURES])))
    for name, pixels in {"the content itself": content, **cases}.items():
        values = measured(Reduction(pixels), compared)
        print(_row(name, [one.shown(values[one.column]) for one in MEASURES]))
    print("\n" + "\n".join(_table([one.column for one in NETWORK_MEASURES])))
    *seen, kept, look = _seen([*cases.values(), content, style])
    for name, result in zip(cases, seen, strict=True):
        found = measured_by_network(NETWORK_MEASURES, result, {"content": kept, "style": look})
        print(_row(name, [one.shown(found[one.column]) for one in NETWORK_MEASURES]))
    print(f"\nagreement_content: {kept.probabilities[kept.top]:.2f}")


def _cases(content: Pixels, style: Pixels) -> Iterator[tuple[str, Pixels]]:
    model = load_model("tiny")
    good = _rendered(model, content, style, StyleID(steps=STEPS))
    image = Image.fromarray(good)
    noise = np.random.default_rng(0).normal(0, 50, good.shape)
    yield "a good one", good
    fading = StyleID(steps=STEPS, gamma=0.0)
    yield "gamma 0: content fades", _rendered(model, content, style, fading)
    bare = StyleID(steps=STEPS, inject=False, init_adain=False)
    yield "nothing injected: a copy", _rendered(model, content, style, bare)
    yield "blurred", np.asarray(image.filter(ImageFilter.GaussianBlur(4)))
    yield "grain", (good + noise).clip(0, 255).astype(np.uint8)
    burnt = ImageEnhance.Brightness(ImageEnhance.Contrast(image).enhance(2.5)).enhance(1.1)
    yield "burnt out", np.asarray(burnt)
    yield "flat", (128 + 0.08 * (good.astype(np.float64) - 128)).round().astype(np.uint8)
    yield "the style came along", np.asarray(Image.blend(image, Image.fromarray(style), 0.85))


def _rendered(model: Denoiser, content: Pixels, style: Pixels, method: StyleID) -> Pixels:
    contents = method.invert(model, model.encode(to_tensor([content])), "query")
    styles = method.invert(model, model.encode(to_tensor([style])), "key_value")
    return to_pixels(model.decode(method.stylise(model, contents, styles, Pairs((0,), (0,)))))[0]


def _seen(images: list[Pixels]) -> list[Seen]:
    features, probabilities = load_network().seen(images)
    return [Seen(*pair) for pair in zip(probabilities, features, strict=True)]


def _table(columns: list[str]) -> list[str]:
    return [_row("", [f"`{column}`" for column in columns]), "|---" * (1 + len(columns)) + "|"]


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |".replace("|  |", "| |")


def _sheet(pictures: dict[str, Pixels]) -> Image.Image:
    across, down = SHOWN_SIDE + GAP, SHOWN_SIDE + LABEL + GAP
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (across * COLUMNS, down * rows), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for place, (name, pixels) in enumerate(pictures.items()):
        left, top = place % COLUMNS * across + GAP // 2, place // COLUMNS * down + GAP // 2
        image = Image.fromarray(pixels).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, top))
        draw.text((left, top + SHOWN_SIDE + 4), name, fill="black", font=font)
    return sheet


if __name__ == "__main__":
    main()
