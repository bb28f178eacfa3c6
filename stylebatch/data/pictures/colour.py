"""Transforms from a picture's colour profile to sRGB; None where the picture is in sRGB already."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from stylebatch.data.pictures.icc import SRGB_XY, gray_profile, rgb_profile
from stylebatch.data.pictures.png import Chromaticity

MAX_PROFILE_BYTES = 1 << 23
NUM_KEPT = 8
"""Transforms that are kept: the pictures of a dataset share few profiles."""
SAME = 2
"""A profile that differs from sRGB by at most so many levels of 255 changes no pixel."""
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_SRGB_EXPONENT = 1 / 2.2


class ProfileError(Exception):
    """A profile cannot be used; the text is the reason."""


@dataclass(frozen=True)
class Colour:
    """A transform of pictures of a Pillow mode (RGB, L, CMYK, LAB) to sRGB; threads may share it."""

    mode: str
    transform: ImageCms.ImageCmsTransform

    def to_srgb(self, image: Image.Image) -> Image.Image:
        found = self.transform.apply(image)
        found.info.clear()  # Pillow copies the source's profile into it
        return found


def colour_of_profile(profile: bytes, mode: str) -> Colour | None:
    """The transform of an embedded profile for pictures of `mode` (RGB, L, CMYK); None if it is sRGB.

    Relative colorimetric: white stays white. Raises ProfileError for a profile that is damaged or meant for another mode.
    """
    problem = _problem(profile, mode)
    if problem:
        raise ProfileError(problem)
    return _built(profile, mode)


def colour_of_numbers(found: Chromaticity, mode: str) -> Colour | None:
    """The transform for the gamma and chromaticity of a PNG; None if they are sRGB's, as most programs write, or absurd."""
    xy = found.xy or SRGB_XY
    near_srgb = max(abs(a - b) for a, b in zip(xy, SRGB_XY, strict=True)) < 0.01
    if abs(found.gamma - _SRGB_EXPONENT) < 0.01 and (near_srgb or mode == "L"):
        return None
    if not 0.2 <= found.gamma <= 1.2 or mode not in ("RGB", "L"):
        return None
    exponent = 1 / found.gamma
    try:
        profile = gray_profile(exponent) if mode == "L" else rgb_profile(exponent, xy)
        return _built(profile, mode)
    except (ValueError, ProfileError):
        return None


@lru_cache(maxsize=1)
def colour_of_lab() -> Colour:
    """CIE L*a*b* of D50, as TIFF stores it without a profile."""
    return Colour("LAB", _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB"))


def _problem(profile: bytes, mode: str) -> str:
    """Why the profile's header makes it unusable; "" if it does not."""
    # Checked before lcms opens it: that accepts profiles of other spaces, and converts nonsense.
    if not profile:
        return "it is incomplete"
    if len(profile) > MAX_PROFILE_BYTES:
        return f"it has {len(profile)} bytes, at most {MAX_PROFILE_BYTES} are read"
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return "it is no ICC profile"
    if profile[12:16] not in _CLASSES:
        return f"it is of the class {_word(profile[12:16])}, not of a device that makes or shows pictures"
    if _SPACES.get(profile[16:20]) != mode:
        return f"it is for {_word(profile[16:20])}, the picture is {mode}"
    return ""


def _word(four: bytes) -> str:
    """Four bytes of a header as printable text."""
    return repr(four.decode("latin-1").strip(" \0"))


@lru_cache(maxsize=NUM_KEPT)
def _built(profile: bytes, mode: str) -> Colour | None:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = Colour(mode, _transform(opened, mode))
        probe = _probe(mode)
        shown = np.asarray(found.to_srgb(probe)).astype(int)
    except (OSError, ValueError, TypeError) as error:
        raise ProfileError(f"it is damaged ({error})") from None
    # A profile with broken tables can pass lcms and make every pixel one colour.
    if np.ptp(shown) < 64:
        raise ProfileError("it is damaged (it makes all colours one)")
    if mode not in ("RGB", "L"):
        return found
    unchanged = np.asarray(probe.convert("RGB")).astype(int)
    return None if np.abs(shown - unchanged).max() <= SAME else found


def _transform(profile: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.ImageCmsTransform(profile, srgb, mode, "RGB", intent)


def _probe(mode: str) -> Image.Image:
    """A picture with every grey level, or with colours spread over the space."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    bands = Image.getmodebands(mode)
    steps = np.linspace(0, 255, 17 if bands == 3 else 5).astype(np.uint8)
    grid: NDArray[np.uint8] = np.stack(np.meshgrid(*[steps] * bands), axis=-1).reshape(1, -1, bands)
    return Image.frombytes(mode, (grid.shape[1], 1), grid.tobytes())
