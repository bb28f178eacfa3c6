"""StyleID cases in both conventions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stylebatch.data.pictures.decoding import decode
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid.algorithm import Pairs, StyleID
from stylebatch.methods.styleid.features import FeatureKind, Inverted
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.denoiser import Conditioning
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.models.unet.unet_loading import as_stable_diffusion, load_unet


def _method(options: dict[str, Any], case: dict[str, Any]) -> StyleID:
    fields = {key: value for key, value in case.items() if key in StyleID.model_fields}
    return StyleID(convention=options["convention"], **fields)


class _Conditioned(StableDiffusion):
    """A model whose prompt embedding is an input of the case."""

    def __init__(self, model: StableDiffusion, embedding: Tensor) -> None:
        super().__init__(
            model.unet,
            model.schedule,
            vae=model.vae,
            text_encoder=model.text_encoder,
            tokenizer=model.tokenizer,
        )
        self.embedding = embedding

    def embed(self, prompts: list[str], windows: Sequence[int] = ()) -> Conditioning:
        return Conditioning(self.embedding)

    embed_negative = embed


def run_ldm(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
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
    names = sorted(
        {name for case in options["cases"].values() for pair in case["pairs"] for name in pair}
    )
    latents = torch.cat([inputs[f"{name}/z0"] for name in names])
    inverted: dict[StyleID, dict[FeatureKind, Inverted]] = {}  # cases of the same options share it
    for case, settings in options["cases"].items():
        method = _method(options, settings)
        recording = method.model_copy(update={"inject": True})  # cases without injection record too
        if recording not in inverted:
            inverted[recording] = _invert_named(model, recording, latents, names, found)
        contents, styles = inverted[recording]["query"], inverted[recording]["key_value"]
        # `Pairs` wants pairs of one style in a row; the case lists them in any order
        rows = sorted((names.index(s), names.index(c)) for c, s in settings["pairs"])
        pairs = Pairs(tuple(c for _, c in rows), tuple(s for s, _ in rows))
        starts = method.initial_latents(contents, styles, pairs)
        # all pairs of the case in one block, as a run would render them
        finals = method.stylise(model, contents, styles, pairs)
        for row, (style, content) in enumerate(rows):
            pair = f"case/{case}/{names[content]}_{names[style]}"
            found[f"{pair}/x_T"] = starts[row : row + 1]
            found[f"{pair}/final"] = finals[row : row + 1]
    return found


def _invert_named(
    model: StableDiffusion,
    method: StyleID,
    latents: Tensor,
    names: Sequence[str],
    found: dict[str, Tensor],
) -> dict[FeatureKind, Inverted]:
    """Both kinds of features of the images `names`, also recorded under the names of the case format."""
    result: dict[FeatureKind, Inverted] = {}
    kinds: tuple[tuple[FeatureKind, str], ...] = (("query", "q"), ("key_value", "kv"))
    for kind, letters in kinds:
        result[kind] = method.invert(model, latents, kind)
        for row, name in enumerate(names):
            for level, latent in result[kind].levels.items():
                found[f"inv/{name}/x_t{level:04d}"] = latent[row : row + 1]
        for step in method.trajectory(model).reverse:
            for site, features in result[kind].features.at(step.t).items():
                for row, letter in product(range(len(names)), letters):
                    name = f"feat/{names[row]}/t{step.t:04d}/output_block_{site}/{letter}"
                    found[name] = features[letter][row]
    return result


def run_diffusers(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    model = as_stable_diffusion(
        load_checkpoint(Checkpoint(folder / options["model"]), device="cpu")
    )
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
