"""The error of half precision per method: the same pictures in float16 and bfloat16 against float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipelines.embedded.evaluate import Evaluation
from pipelines.embedded.picture_distances import psnr
from stylebatch.methods.pixels import to_pixels
from stylebatch.methods.plain.algorithm import Img2Img, Inpaint, Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned.algorithm import Reference, StyleAligned
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.models.unet.unet_loading import as_stable_diffusion

STEPS = 10
PROMPTS = (
    "a painting in the style of ink hatching",
    "a painting in the style of poster colours",
    "a photo of sea",
)
DTYPES: tuple[Literal["float16", "bfloat16"], ...] = ("float16", "bfloat16")


@torch.inference_mode()
def lines(evaluation: Evaluation) -> Iterator[str]:
    """Rows of a table: method, dtype, relative error of the clean latents, mean PSNR of the pictures in dB.

    All start from the same float32 latents and noise, and the float32 autoencoder decodes, so only the network differs.
    """
    methods: dict[str, Callable[[StableDiffusion, Evaluation], Tensor]] = {
        f"styleid, {STEPS} steps": _styleid,
        f"text2img, {STEPS} steps, guidance 4": _text2img,
        f"img2img, {STEPS} steps, guidance 4": _img2img,
        f"inpaint, {STEPS} steps, guidance 4": _inpaint,
        f"stylealigned, {STEPS} steps, guidance 4": _stylealigned,
    }
    models = {
        dtype: as_stable_diffusion(load_model(ModelSpec(name="tiny", dtype=dtype)))
        for dtype in DTYPES
    }
    for name, render in methods.items():
        exact = render(evaluation.model, evaluation)
        for dtype, model in models.items():
            found = render(model, evaluation)
            error = float((found - exact).norm() / exact.norm())
            pictures = [to_pixels(evaluation.model.decode(x)) for x in (found, exact)]
            near = float(np.mean([psnr(a, b) for a, b in zip(*pictures, strict=True)]))
            yield f"| {name} | {dtype} | {error:.1e} | {near:.1f} dB |"


def _styleid(model: StableDiffusion, evaluation: Evaluation) -> Tensor:
    method = StyleID(steps=STEPS)
    contents = method.invert(model, evaluation.content_latents, "query")
    styles = method.invert(model, evaluation.style_latents[:2], "key_value")
    return method.stylise(model, contents, styles)


def _text2img(model: StableDiffusion, evaluation: Evaluation) -> Tensor:
    return Text2Img(steps=STEPS, guidance=4.0).render(model, _samples(evaluation))


def _img2img(model: StableDiffusion, evaluation: Evaluation) -> Tensor:
    method, samples = Img2Img(steps=STEPS, guidance=4.0), _samples(evaluation)
    return method.from_latents(model, samples, _repeated(evaluation, len(samples)))


def _inpaint(model: StableDiffusion, evaluation: Evaluation) -> Tensor:
    """The lower half is made anew."""
    method, samples = Inpaint(steps=STEPS, guidance=4.0), _samples(evaluation)
    clean = _repeated(evaluation, len(samples))
    mask = torch.ones(len(samples), 1, *clean.shape[-2:])
    mask[:, :, : clean.shape[-2] // 2] = 0.0
    return method.from_latents(model, replace(samples, images={"mask": mask}), clean)


def _repeated(evaluation: Evaluation, count: int) -> Tensor:
    return evaluation.content_latents[:1].repeat(count, 1, 1, 1)


def _stylealigned(model: StableDiffusion, evaluation: Evaluation) -> Tensor:
    method = StyleAligned(steps=STEPS, guidance=4.0, offset=0)
    samples = _samples(evaluation)
    prompts, noise = samples.prompts(model, method.guidance), samples.noise()
    reference = Reference(noise[:1], prompts.select([0]))
    return method.generate(model, reference, noise[1:], prompts.select([1, 2])).samples


def _samples(evaluation: Evaluation) -> Samples:
    channels, height, width = evaluation.content_latents.shape[1:]
    count = len(PROMPTS)
    return Samples(PROMPTS, (None,) * count, tuple(range(count)), (channels, height, width))
