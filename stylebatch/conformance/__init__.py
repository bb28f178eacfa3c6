"""Runs reference cases and compares every tensor that has a tolerance, one line each.

A case folder holds `options.json` (what to run), `inputs.safetensors`, `expected.safetensors`, pictures
and the models. Kinds: `styleid` in both conventions, `stylealigned`, `stylealigned_panorama`, `image_load`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from stylebatch.conformance import stylealigned, styleid
from stylebatch.conformance.comparison import Comparison, compare
from stylebatch.data.images import fit
from stylebatch.data.pictures.decoding import decode
from stylebatch.errors import ManifestError, SampleError

__all__ = ["Comparison", "run_cases"]


def run_cases(folder: Path) -> Iterator[Comparison]:
    """Yield a comparison for every expected tensor (or picture) of `folder` that has a tolerance.

    Raises ManifestError for a folder that is no case, or a kind that is not implemented.
    """
    path = folder / "options.json"
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path}: cannot be read ({error}); accepted: a reference case folder with options.json"
        ) from None
    if not isinstance(options, dict):
        raise ManifestError(f"{path}: found {type(options).__name__}; accepted: a JSON object")
    kind, convention = options.get("kind"), options.get("convention")
    try:
        if kind == "image_load":
            yield from _image_load(folder, options)
        elif (kind, convention) == ("styleid", "ldm"):
            yield from compare(folder, options, styleid.run_ldm(folder, options))
        elif (kind, convention) == ("styleid", "diffusers"):
            yield from compare(folder, options, styleid.run_diffusers(folder, options))
        elif kind == "stylealigned":
            yield from compare(folder, options, stylealigned.run_prompts(folder, options))
        elif kind == "stylealigned_panorama":
            yield from compare(folder, options, stylealigned.run_panorama(folder, options))
        else:
            raise ManifestError(
                f"{path}: kind: found {kind!r} (convention {convention!r}), which is not implemented; "
                "accepted: styleid with convention ldm or diffusers, stylealigned, stylealigned_panorama, image_load"
            )
    except ManifestError:  # a ValueError too
        raise
    except KeyError as error:
        raise ManifestError(f"{path}: {error} is missing in options or inputs") from error
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError, SampleError) as error:
        raise ManifestError(f"{folder}: the case cannot be run: {error}") from error


def _image_load(folder: Path, options: dict[str, Any]) -> Iterator[Comparison]:
    mode, resample = options.get("crop"), options.get("resample")
    if mode != "center_crop" or resample != "lanczos":
        raise ManifestError(
            f"{folder / 'options.json'}: found crop {mode!r}, resample {resample!r}; accepted: center_crop, lanczos"
        )
    for name, case in options["cases"].items():
        found = fit(
            decode((folder / case["image"]).read_bytes(), case["image"]),
            int(options["size"]),
            "center_crop",
        )
        with Image.open(folder / case["expected"]) as picture:
            expected = np.asarray(picture.convert("RGB"))
        same = found.shape == expected.shape
        worst = (  # as int: a difference of bytes would wrap around
            float(np.abs(found.astype(int) - expected.astype(int)).max()) if same else float("inf")
        )
        yield Comparison(
            f"{name}/pixels",
            worst,
            float(options["tolerances"]["pixels"]["max_abs_levels"]),
            None,
            None,
            unit=" levels",
        )
