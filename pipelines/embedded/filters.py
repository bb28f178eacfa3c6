"""Procedural painterly filters: one ``Style`` applied to any photograph gives one look.

Images are float32 arrays (height, width, 3) in [0, 1]. A style fixes kind, palette, scale and
seed of its parameters; what it draws follows the photograph. Two photographs under one style are
a same-style pair, which is what teaches self-attention to carry style.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import cKDTree

Array = NDArray[np.floating[Any]]
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Style:
    """Parameters of one look; ``palette`` rows are RGB colours from dark to light."""

    kind: str
    palette: Array
    recolour: float
    scale: float
    angle: float
    jitter: float


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a style: a kind of mark, a palette of five colours, and how far to recolour."""
    kind = str(rng.choice(list(KINDS), p=WEIGHTS))
    hue = rng.uniform(0, 1) + np.array([0, 0.06, 0.45, 0.55, 0.12]) * rng.uniform(0.2, 1.6)
    saturation = rng.uniform(0.25, 1.0, 5) * rng.choice([0.5, 1.0])
    value = np.sort(rng.uniform(0.02, 1.0, 5))
    value[-1] = max(value[-1], 0.75)
    # HSV to RGB, for all five colours at once
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    palette = value[:, None] * (1 - saturation[:, None] * (1 - np.clip(wheel, 0, 1)))
    palette = palette[np.argsort(palette @ LUMA)]
    return Style(
        kind=kind,
        palette=palette.astype(np.float32),
        recolour=float(rng.choice([0.0, 0.5, 0.85, 1.0], p=[0.25, 0.25, 0.3, 0.2])),
        scale=float(rng.uniform(0.7, 1.6)),
        angle=float(rng.uniform(0, np.pi)),
        jitter=float(rng.uniform(0.02, 0.12)),
    )


def apply(style: Style, image: Array, rng: np.random.Generator) -> Array:
    """Render ``image`` in ``style``; ``rng`` only places the marks."""
    coloured = recolour(image, style)
    return np.clip(KINDS[style.kind](coloured, style, rng), 0, 1).astype(np.float32)


def recolour(image: Array, style: Style) -> Array:
    """Map brightness through the palette, keeping part of the photograph's colour."""
    luma = image @ LUMA
    rank = np.clip((luma - luma.min()) / max(float(np.ptp(luma)), 1e-3), 0, 1)
    knots = np.linspace(0, 1, len(style.palette))
    mapped = np.stack([np.interp(rank, knots, c) for c in style.palette.T], axis=-1)
    chroma = image - luma[..., None]
    blended = mapped + 0.35 * chroma
    return ((1 - style.recolour) * image + style.recolour * blended).astype(np.float32)


def orientation(image: Array, smooth: float) -> Array:
    """Angle along the contours, from the smoothed structure tensor."""
    grey = ndimage.gaussian_filter(image @ LUMA, 1.0)
    gx, gy = ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=0)
    xx, yy, xy = (ndimage.gaussian_filter(g, smooth) for g in (gx * gx, gy * gy, gx * gy))
    # half the angle of the double-angle vector: a contour has no direction
    angle: Array = (0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2).astype(np.float32)
    return angle


def _blur(image: Array, sigma: float) -> Array:
    blurred: Array = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    return blurred


def _sites(image: Array, spacing: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Jittered grid positions (row, column) in random order."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0 : height : int(max(spacing, 1)), 0 : width : int(max(spacing, 1))]
    at = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float64)
    at += rng.uniform(-spacing, spacing, at.shape) * 0.6
    at = np.clip(at, 0, [height - 1, width - 1])
    return rng.permutation(at).astype(np.intp)  # in order, marks would overlap like shingles


def _colours(image: Array, at: NDArray[np.intp], style: Style, rng: np.random.Generator) -> Array:
    shade = rng.normal(0, style.jitter, (len(at), 1)) + rng.normal(
        0, style.jitter / 2, (len(at), 3)
    )
    picked: Array = np.clip(image[at[:, 0], at[:, 1]] + shade, 0, 1).astype(np.float32)
    return picked


# Pillow draws without anti-aliasing: marks are drawn at twice the size and averaged down.
def _canvas_of(image: Array, zoom: int = 2) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    base = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    base = base.resize((base.width * zoom, base.height * zoom), Image.Resampling.BILINEAR)
    return base, ImageDraw.Draw(base)


def _finish(canvas: Image.Image, zoom: int = 2) -> Array:
    small = canvas.resize((canvas.width // zoom, canvas.height // zoom), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def strokes(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Brush strokes along the contours, large ones first."""
    angle = orientation(image, 3.0)
    canvas, pen = _canvas_of(_blur(image, 4.0))
    for radius in (6.0 * style.scale, 3.5 * style.scale, 2.0 * style.scale):
        at = _sites(image, radius * 1.1, rng)
        for (row, column), colour in zip(at, _colours(_blur(image, radius / 2), at, style, rng),
                                         strict=True):  # fmt: skip
            theta = angle[row, column] + 0.3 * np.sin(style.angle)
            reach = radius * 2.2
            dx, dy = np.cos(theta) * reach, np.sin(theta) * reach
            ends = (2 * (column - dx), 2 * (row - dy), 2 * (column + dx), 2 * (row + dy))
            pen.line(
                ends, fill=tuple(int(255 * c) for c in colour), width=max(int(radius * 1.6), 2)
            )
    return _finish(canvas)


def dots(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Pointillist discs with strongly varied colours."""
    canvas, pen = _canvas_of(0.5 * _blur(image, 5.0) + 0.5 * style.palette[-1])
    for radius in (3.5 * style.scale, 2.2 * style.scale):
        at = _sites(image, radius * 1.5, rng)
        varied = Style(**{**style.__dict__, "jitter": style.jitter * 1.6})
        for (row, column), colour in zip(at, _colours(_blur(image, 1.5), at, varied, rng),
                                         strict=True):  # fmt: skip
            box = (2 * (column - radius), 2 * (row - radius))
            far = (2 * (column + radius), 2 * (row + radius))
            pen.ellipse((*box, *far), fill=tuple(int(255 * c) for c in colour))
    return _finish(canvas)


def swirl(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Smear colour and noise along a turning flow, as thick impasto does."""
    height, width = image.shape[:2]
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), 14 * style.scale)
    angle = orientation(image, 4.0) + field / max(float(np.abs(field).max()), 1e-6) * 2.2
    grain = rng.normal(0, 0.55 * style.jitter + 0.05, (height, width, 1)).astype(np.float32)
    grain = ndimage.zoom(grain[::2, ::2], (2, 2, 1), order=1)[:height, :width]
    source = _blur(image, 0.8) + grain * 2.0
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    total = np.zeros_like(image)
    for direction in (-1.0, 1.0):  # five steps each way along the flow
        y, x = rows.copy(), columns.copy()
        for _ in range(5):
            iy = np.clip(y, 0, height - 1).astype(np.intp)
            ix = np.clip(x, 0, width - 1).astype(np.intp)
            total += source[iy, ix]
            y += direction * np.sin(angle[iy, ix]) * style.scale * 1.1
            x += direction * np.cos(angle[iy, ix]) * style.scale * 1.1
    return total / 10


def hatch(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Ink lines on paper: darker tones get more directions of lines."""
    luma = ndimage.gaussian_filter(image @ LUMA, 1.0)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    ink = np.zeros_like(luma)
    wobble = ndimage.gaussian_filter(rng.normal(size=luma.shape), 5) * 12
    for index, level in enumerate((0.8, 0.58, 0.38, 0.2)):
        theta = style.angle + index * np.pi / 3.3
        phase = (columns * np.cos(theta) + rows * np.sin(theta)) * 2 * np.pi / (4.2 * style.scale)
        line = np.clip(np.sin(phase + wobble) * 2.0 - 0.2, 0, 1)
        ink = np.maximum(ink, line * np.clip((level - luma) * 6, 0, 1))
    wash = 0.45 * _blur(image, 2.0) + 0.55 * style.palette[-1]
    drawn: Array = wash * (1 - ink[..., None]) + style.palette[0] * ink[..., None]
    return drawn


def mosaic(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Voronoi tiles with darker joints."""
    at = _sites(image, 6.0 * style.scale, rng)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    tree = cKDTree(at)
    distance, owner = tree.query(np.stack([rows, columns], -1).reshape(-1, 2), k=2)
    colours = _colours(_blur(image, 2.0), at, style, rng)
    joint = np.clip((distance[:, 1] - distance[:, 0]) / 1.6, 0, 1)[:, None]
    flat = colours[owner[:, 0]] * joint + style.palette[0] * 0.6 * (1 - joint)
    shaped: Array = flat.reshape(image.shape).astype(np.float32)
    return shaped


def poster(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Flat areas of palette colours with dark outlines."""
    del rng
    smooth = ndimage.median_filter(_blur(image, 1.0), (5, 5, 1))
    levels = 4
    flat = np.round(smooth * levels) / levels
    grey = ndimage.gaussian_filter(smooth @ LUMA, 0.7)
    edge = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    line = np.clip(edge * 3.0 - 0.35, 0, 1)[..., None]
    outlined: Array = flat * (1 - line) + style.palette[0] * 0.5 * line
    return outlined


def canvas(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """A woven ground that shows through thin paint."""
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]]
    period = 4.0 * style.scale
    weave = np.sin(2 * np.pi * rows / period) * np.sin(2 * np.pi * columns / period)
    rough = ndimage.gaussian_filter(rng.normal(size=weave.shape), 0.8) * 0.5
    relief = (weave * 0.6 + rough)[..., None] * (0.1 + style.jitter)
    woven: Array = _blur(image, 1.2) * (1 + relief) + 0.25 * relief
    return woven


def plain(image: Array, style: Style, rng: np.random.Generator) -> Array:
    """Only the palette."""
    del style, rng
    return image


KINDS: dict[str, Callable[[Array, Style, np.random.Generator], Array]] = {
    "strokes": strokes,
    "swirl": swirl,
    "dots": dots,
    "hatch": hatch,
    "mosaic": mosaic,
    "poster": poster,
    "canvas": canvas,
    "plain": plain,
}
WEIGHTS = (0.24, 0.22, 0.13, 0.11, 0.11, 0.08, 0.06, 0.05)
