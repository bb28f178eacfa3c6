"""Runs reference cases and compares every tensor that has a tolerance, one line each.

A case folder holds `options.json` (what to run), `inputs.safetensors`, `expected.safetensors`, pictures
and the models. Kinds: `styleid` in both conventions, and `image_load`.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stylebatch.data.images import decode, fit
from stylebatch.errors import ManifestError, SampleError
from stylebatch.methods.features import FeatureKind, Inverted, concatenate
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid import Pairs, StyleID
from stylebatch.models.base import Conditioning
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.stable_diffusion import StableDiffusion, load_checkpoint, load_unet


@dataclass(frozen=True)
class Comparison:
    """One compared tensor. `rel_l2` is None where only the absolute difference counts."""

    name: str
    max_abs: float
    max_abs_tolerance: float | None
    rel_l2: float | None
    rel_l2_tolerance: float | None
    unit: str = ""

    @property
    def ok(self) -> bool:
        absolute = self.max_abs_tolerance is None or self.max_abs <= self.max_abs_tolerance
        return absolute and (
            self.rel_l2_tolerance is None
            or (self.rel_l2 is not None and self.rel_l2 <= self.rel_l2_tolerance)
        )

    def line(self) -> str:
        parts = [
            f"max abs {self.max_abs:.2e}{self.unit}"
            + ("" if self.max_abs_tolerance is None else f" (tolerance {self.max_abs_tolerance:g})")
        ]
        if self.rel_l2_tolerance is not None:
            parts.append(f"rel l2 {self.rel_l2:.2e} (tolerance {self.rel_l2_tolerance:g})")
        return f"{self.name}: {', '.join(parts)}: {'ok' if self.ok else 'FAILED'}"


def run_cases(folder: Path) -> Iterator[Comparison]:
    """Yield a comparison for every expected tensor (or picture) of `folder` that has a tolerance.

    Raises ManifestError for a folder that is no case, or a kind that is not built.
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
            yield from _compare(folder, options, _styleid_ldm(folder, options))
        elif (kind, convention) == ("styleid", "diffusers"):
            yield from _compare(folder, options, _styleid_diffusers(folder, options))
        else:
            raise ManifestError(
                f"{path}: kind: found {kind!r} (convention {convention!r}), which is not built; "
                "accepted: styleid with convention ldm or diffusers, image_load"
            )
    except ManifestError:
        raise
    except KeyError as error:
        raise ManifestError(f"{path}: {error} is missing in options or inputs") from error
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError, SampleError) as error:
        raise ManifestError(f"{folder}: the case cannot be run: {error}") from error


def _compare(
    folder: Path, options: dict[str, Any], found: dict[str, Tensor]
) -> Iterator[Comparison]:
    """Compare every toleranced tensor; one that was not produced differs by infinity."""
    expected = load_file(folder / "expected.safetensors") | {
        k: v for k, v in load_file(folder / "inputs.safetensors").items() if k.endswith("/z0")
    }
    for name, want in sorted(expected.items()):
        tolerance = next(
            (
                t
                for pattern, t in options["tolerances"].items()
                if fnmatch.fnmatchcase(name, pattern)
            ),
            None,
        )
        if not tolerance:
            continue
        got = found.get(name)
        if got is None or got.shape != want.shape:
            yield Comparison(
                name, float("inf"), tolerance.get("max_abs"), float("inf"), tolerance.get("rel_l2")
            )
            continue
        difference = got.double() - want.double()
        rel = float(difference.norm() / want.double().norm()) if "rel_l2" in tolerance else None
        yield Comparison(
            name,
            float(difference.abs().max()),
            tolerance.get("max_abs"),
            rel,
            tolerance.get("rel_l2"),
        )


def _method(options: dict[str, Any], case: dict[str, Any]) -> StyleID:
    fields = {key: value for key, value in case.items() if key in StyleID.model_fields}
    return StyleID(convention=options["convention"], **fields)


class _Conditioned(StableDiffusion):
    """A model whose prompt embedding is handed over by the case."""

    def __init__(self, model: StableDiffusion, embedding: Tensor) -> None:
        super().__init__(
            model.unet,
            model.schedule,
            vae=model.vae,
            text_encoder=model.text_encoder,
            tokenizer=model.tokenizer,
        )
        self.embedding = embedding

    def embed(self, prompts: list[str]) -> Conditioning:
        return Conditioning(self.embedding)


def _styleid_ldm(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    inputs = load_file(folder / "inputs.safetensors")
    model = _Conditioned(
        load_unet(folder / options["model"], folder / options["scheduler"]),
        inputs["text_embedding"],
    )
    found: dict[str, Tensor] = {}
    if "forward_check/x" in inputs:
        found["forward_check/eps"] = torch.cat(
            [
                model.predict_noise(x[None], int(t), model.embed([""]))
                for x, t in zip(inputs["forward_check/x"], inputs["forward_check/t"], strict=True)
            ]
        )
    for case, settings in options["cases"].items():
        method = _method(options, settings)
        names = [sorted(set(side)) for side in zip(*settings["pairs"], strict=True)]
        inverted = {
            name: _invert_named(model, method, inputs[f"{name}/z0"], name, found)
            for name in sorted({*names[0], *names[1]})
        }
        contents = concatenate([inverted[name]["query"] for name in names[0]])
        styles = concatenate([inverted[name]["key_value"] for name in names[1]])
        rows = sorted((names[1].index(s), names[0].index(c)) for c, s in settings["pairs"])
        pairs = Pairs(tuple(c for _, c in rows), tuple(s for s, _ in rows))
        starts = method.initial_latents(contents, styles, pairs)
        finals = method.stylise(
            model, contents, styles, pairs
        )  # all pairs of the case as one block
        for row, (style, content) in enumerate(rows):
            pair = f"case/{case}/{names[0][content]}_{names[1][style]}"
            found[f"{pair}/x_T"] = starts[row : row + 1]
            found[f"{pair}/final"] = finals[row : row + 1]
    return found


def _invert_named(
    model: StableDiffusion, method: StyleID, z0: Tensor, name: str, found: dict[str, Tensor]
) -> dict[str, Inverted]:
    """Both kinds of features of one image, also recorded under the names of the case format."""
    recording = method.model_copy(update={"inject": True})  # cases without injection record too
    result: dict[str, Inverted] = {}
    kinds: tuple[tuple[FeatureKind, str], ...] = (("query", "q"), ("key_value", "kv"))
    for kind, tensors in kinds:
        result[kind] = recording.invert(model, z0, kind)
        found |= {
            f"inv/{name}/x_t{level:04d}": latent for level, latent in result[kind].levels.items()
        }
        for step in method.trajectory(model).reverse:
            for site, features in result[kind].features.at(step.t).items():
                for letter in tensors:
                    found[f"feat/{name}/t{step.t:04d}/output_block_{site}/{letter}"] = features[
                        letter
                    ].flatten(0, 1)
    return result


def _styleid_diffusers(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    model = load_checkpoint(Checkpoint(folder / options["model"]), device="cpu")
    found: dict[str, Tensor] = {}
    for role in ("content", "style"):
        pixels = np.asarray(decode((folder / options[role]).read_bytes(), options[role]))
        found[f"{role}/z0"] = model.encode(to_tensor([pixels]))
    for case, settings in options["cases"].items():
        method = _method(options, settings)
        recording = method.model_copy(update={"inject": True})
        contents = recording.invert(model, found["content/z0"], "query")
        styles = recording.invert(model, found["style/z0"], "key_value")
        for role, source, letters in (("content", contents, "q"), ("style", styles, "kv")):
            found |= {
                f"case/{case}/inv/{role}/x_t{level:04d}": latent
                for level, latent in source.levels.items()
            }
            for step in method.trajectory(model).reverse:
                for site, features in source.features.at(step.t).items():
                    for letter in letters:
                        found[f"case/{case}/feat/{role}/t{step.t:04d}/layer{site}/{letter}"] = (
                            features[letter].flatten(0, 1)
                        )
        found[f"case/{case}/x_T"] = method.initial_latents(contents, styles, Pairs((0,), (0,)))
        final = method.stylise(model, contents, styles)
        found[f"case/{case}/final_pred_x0"] = final
        found[f"case/{case}/final_image_float"] = model.decode_unclamped(final)
    return found


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
        worst = (
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
