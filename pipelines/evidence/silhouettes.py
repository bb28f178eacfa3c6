"""The cue-conflict set: silhouettes filled with textures that give the class away in training and mislead in the test.

After Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (arXiv 1811.12231), with shapes from an emoji font in
place of photographs, so that shape and texture are known exactly. Training and test have poses and backgrounds of their own,
and cut textures from the left and the right half; in the test `conflict` an image has the texture of another class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES = {
    "bird": "🐦🦆🦅🐓",
    "car": "🚗🚙🚕🚐",
    "fish": "🐟🐠🐡🦈",
    "house": "🏠🏡🏰⛪",
    "shoe": "👟👠👢🥾",
    "tree": "🌲🌳🌴🌵",
}
"""Glyphs of a class; training and test show the same in other poses."""
SIZE = 128
GLYPH = 109
"""The size of the bitmaps in NotoColorEmoji, the only one that it has; outlines of other fonts take any."""
SHEET = 512
"""Side of a texture before it is cut, pixels."""


@dataclass(frozen=True)
class Example:
    """One image of the set by what it shows; `seed` draws pose, background and the cut of the texture."""

    name: str
    shape: int
    texture: int
    glyph: str
    seed: tuple[int, ...]
    training: bool


def training_examples(num: int, seed: int) -> list[Example]:
    """`num` images, equally many of each class, whose texture is that of their class. Raises ValueError: see `_shares`."""
    return [
        _example("train", shape, shape, index, seed)
        for shape, share in enumerate(_shares(num))
        for index in range(share)
    ]


def examples_of_test(num: int, seed: int, *, conflict: bool) -> list[Example]:
    """`num` images in poses and cuts of the test's own, equally many of each class.

    Without `conflict` an image has the texture of its class, with it that of each other class equally often (once more or
    less). Glyph, pose and background of the n-th image are the same in both.
    """
    others = len(CLASSES) - 1
    return [
        _example(
            "conflict" if conflict else "agree",
            shape,
            (shape + 1 + index % others) % len(CLASSES) if conflict else shape,
            index,
            seed,
        )
        for shape, share in enumerate(_shares(num))
        for index in range(share)
    ]


def unhinted(training: Sequence[Example]) -> list[Example]:
    """The training images with the texture of every class equally often: nothing but the shape tells the class."""
    return [
        replace(one, name=f"unhinted-{one.name}", texture=(one.shape + one.seed[-1]) % len(CLASSES))
        for one in training
    ]


def _shares(num: int) -> list[int]:
    if num < len(CLASSES) or num % len(CLASSES):
        raise ValueError(
            f"{num} images: the {len(CLASSES)} classes need equally many, and at least one each. "
            f"Next: give a multiple of {len(CLASSES)}"
        )
    return [num // len(CLASSES)] * len(CLASSES)


def _example(part: str, shape: int, texture: int, index: int, seed: int) -> Example:
    training = part == "train"
    glyphs = list(CLASSES.values())[shape]
    return Example(
        name=f"{part}-{list(CLASSES)[shape]}-{index:04d}",
        shape=shape,
        texture=texture,
        glyph=glyphs[index % len(glyphs)],
        seed=(seed, int(training), shape, index),
        training=training,
    )


class Painter:
    """Draws examples from a font and one texture per class."""

    def __init__(self, font: Path, textures: Sequence[Path]) -> None:
        """Raises ValueError where the number of textures is not that of classes or the font lacks a glyph."""
        if len(textures) != len(CLASSES):
            raise ValueError(
                f"{len(textures)} textures: the set has {len(CLASSES)} classes ({', '.join(CLASSES)}), and each needs one. "
                f"Next: name a folder of {len(CLASSES)} images"
            )
        self.textures = [_sheet(path) for path in textures]
        try:
            self.font = ImageFont.truetype(font, GLYPH)
        except OSError as error:
            raise ValueError(
                f"{font}: no font that can be read at {GLYPH} pixels ({error}). Next: name a .ttf file"
            ) from error
        missing = _ink(self.font, "\U0010fffe")
        self.masks: dict[str, Image.Image] = {}
        for glyph in "".join(CLASSES.values()):
            ink = _ink(self.font, glyph)
            if ink is None or (missing is not None and ink.tobytes() == missing.tobytes()):
                raise ValueError(
                    f"{font}: no glyph for {glyph} (U+{ord(glyph):04X}). "
                    "Next: take an emoji font, as NotoColorEmoji.ttf of Debian's fonts-noto-color-emoji"
                )
            self.masks[glyph] = _filled(ink)

    def draw(self, example: Example) -> Image.Image:
        """(128, 128) RGB: the silhouette in its pose, filled with a cut of the texture, on a plain colour."""
        rng = np.random.default_rng(example.seed)
        background = tuple(int(value) for value in rng.integers(40, 250, 3) // 2 + 64)
        side = int(rng.uniform(0.62, 0.9) * SIZE)
        mask = self.masks[example.glyph].resize((side, side), Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC, expand=True)
        place = [int(rng.integers(0, max(1, SIZE - length + 1))) for length in mask.size]
        whole = Image.new("L", (SIZE, SIZE))
        whole.paste(mask, (place[0], place[1]))
        picture = Image.new("RGB", (SIZE, SIZE), background)
        picture.paste(self._cut(example, rng), (0, 0), whole)
        return picture

    def _cut(self, example: Example, rng: np.random.Generator) -> Image.Image:
        """A square of a texture's left half in training, of its right half in the test."""
        side = int(rng.integers(SIZE, SHEET // 2 - 16))
        left = int(rng.integers(0, SHEET // 2 - side + 1)) + (0 if example.training else SHEET // 2)
        top = int(rng.integers(0, SHEET - side + 1))
        box = (left, top, left + side, top + side)
        return self.textures[example.texture].resize((SIZE, SIZE), Image.Resampling.LANCZOS, box)


def _sheet(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            side = min(picture.size)
            square = picture.convert("RGB").crop((0, 0, side, side))
    except OSError as error:
        raise ValueError(
            f"{path}: no texture that can be read ({error}). Next: take it away"
        ) from error
    return square.resize((SHEET, SHEET), Image.Resampling.LANCZOS)


def _ink(font: ImageFont.FreeTypeFont, glyph: str) -> Image.Image | None:
    """What a glyph covers, cut to its box; None where it covers nothing."""
    canvas = Image.new("RGBA", (2 * GLYPH, 2 * GLYPH))
    ImageDraw.Draw(canvas).text(
        (GLYPH // 4, GLYPH // 4), glyph, (0, 0, 0, 255), font, embedded_color=True
    )
    alpha = canvas.getchannel("A")
    box = alpha.getbbox()
    return None if box is None else alpha.crop(box)


def _filled(ink: Image.Image) -> Image.Image:
    """The silhouette on a square: a drawn outline is filled."""
    side = max(ink.size) + 2
    square = Image.new("L", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    outside = square.point(lambda value: 255 if value > 96 else 0)
    ImageDraw.floodfill(outside, (0, 0), 128)
    return outside.point(lambda value: 0 if value == 128 else 255)
