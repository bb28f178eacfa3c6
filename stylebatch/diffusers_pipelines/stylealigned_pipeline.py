"""StyleAligned as a pipeline of diffusers; the mathematics is `methods/stylealigned/algorithm.py`, which runs of manifests call too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from stylebatch.data.fit_modes import FixedMode
from stylebatch.diffusers_pipelines.given_images import Fit, pixels_of_images
from stylebatch.diffusers_pipelines.latent_pipeline import (
    Callback,
    LatentPipeline,
    Passes,
    StepEnd,
    check_batch_size,
    check_generator,
    checked_output_type,
    sides,
)
from stylebatch.methods.given_options import with_options
from stylebatch.methods.method import BlockSize
from stylebatch.methods.pixels import Pixels, to_tensor
from stylebatch.methods.samples import Samples
from stylebatch.methods.stylealigned.algorithm import Aligned, Reference, StyleAligned
from stylebatch.models.unet.config_checks import checked_clip_skip
from stylebatch.models.unet.loaded_pipeline import denoiser_of
from stylebatch.models.unet.stable_diffusion import StableDiffusion

RENAMED = {"num_inference_steps": "steps", "guidance_scale": "guidance"}


class StyleAlignedPipeline(LatentPipeline):
    """Pictures of one style by shared self-attention (Hertz et al., arXiv 2312.02133): of prompts, or of prompts and a picture.

        pipe = StyleAlignedPipeline.from_pretrained("sdxl", dtype=torch.float16).to("cuda")
        pictures = pipe(["a toy train, macro photo", "a toy boat, macro photo"]).images
        pictures = pipe("a boat, oil painting", style_image=painting, style_prompt="a field, oil painting").images

    Everything else of a `DiffusionPipeline` works as usual: `from_pipe`, `to`, `save_pretrained`, `set_progress_bar_config`,
    `enable_model_cpu_offload`, `enable_sequential_cpu_offload`.
    """

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        style_image: Any = None,
        style_prompt: str = "",
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        resize_mode: FixedMode = "center_crop",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        options: Mapping[str, Any] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        clip_skip: int | None = None,
        batch_size: int = 16,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Render prompts in one style. With the seeds of a manifest's rows and its `engine.batch` the pictures are those of its run.

        Args:
            prompt: A text, or several. Without `style_image` the first one is the reference whose style the others take, and the first
                picture is its own.
            style_image: One picture whose style is taken instead: a PIL image, a path, an array (H, W, 3), or a tensor (3, H, W), uint8
                or floats from 0 to 1. It is inverted by DDIM.
            style_prompt: What `style_image` shows, in words.
            negative_prompt: What guidance leads away from, one text or one for each prompt; without it, no prompt.
            height, width: Of the results in pixels; by default those that the network was trained on.
            resize_mode: How `style_image` is fitted to that size: `center_crop`, or `resize`, which changes proportions (`pad` crops).
            num_inference_steps: DDIM steps; 50 by default.
            guidance_scale: Of classifier-free guidance, 1 (none) to 100; 10 by default.
            options: Further options of the method, as in a manifest's `method`: {"share_group_norm": False}, {"preset": "fast"}, ...
                Panoramas (`windows`) are rendered by manifests.
            num_images_per_prompt: Pictures of each prompt, one after the other.
            generator: For the noise: one, or one for each picture, which then does not hang on the others.
            latents: The noise itself, (N, c, h, w) standard normal, in place of `generator`.
            clip_skip: Last layers of the text encoders that prompts leave out, as in stock pipelines; negative prompts keep all.
            batch_size: Rows of one network evaluation at most; a picture has two with guidance, and each evaluation has the reference.
            output_type: `pil`; `np`, (N, H, W, 3) floats from 0 to 1; `pt`, (N, 3, H, W); `latent`, (N, c, h, w), not decoded.
            return_dict: An `ImagePipelineOutput`, or a tuple of its one field.
            callback_on_step_end: Called as `callback(pipe, step, timestep, {"latents": (N, c, h, w)})` after each step; latents in the dict
                that it returns go on in place of these. `pipe._interrupt = True` ends the call with what there is.
            callback_on_step_end_tensor_inputs: Tensors in that dict; there is `latents`.

        Returns:
            `ImagePipelineOutput` with `images`, in the order of the prompts.

        Raises:
            ValueError: An argument that cannot be used, by name, with what is accepted; ManifestError, a ValueError too, for parts of
                the pipeline that cannot be used; SampleError for a file that cannot be read.
        """
        kind = checked_output_type(output_type)
        check_batch_size(batch_size)
        check_generator(generator)
        end = StepEnd.of(
            callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs
        )
        given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        method = _method(options, given)
        model = denoiser_of(self)
        encoders = [self.text_encoder, self.text_encoder_2]
        model.clip_skip = checked_clip_skip(
            clip_skip or 0, [one.config.num_hidden_layers for one in encoders if one is not None]
        )
        wide, tall = sides(model, height, width)
        cells = (model.latent_channels, tall // model.latent_factor, wide // model.latent_factor)
        rows = _rows(prompt, negative_prompt, num_images_per_prompt, cells)
        style = _style(style_image, style_prompt, Fit((wide, tall), resize_mode))
        noise = _noise(latents, generator, (len(rows), *cells))
        size = BlockSize(len(rows) - (style is None), *cells[1:], batch_size, model.native_cells)
        evaluations = method.evaluations(size)
        if style is not None:
            evaluations += method.prepare_evaluations("set")
        with self._at_work(model, evaluations):
            passes = _passes(method, model, rows, noise, style, batch_size)
            timesteps = [step.t for step in model.schedule.sampling_steps(method.steps)]
            found = self._walked(passes, timesteps, end)
            # the reference by itself, as in a run
            parts = [found] if style is not None else [found[:1], found[1:]]
            pictures = self._returned(model, parts, kind, batch_size)
        return ImagePipelineOutput(images=pictures) if return_dict else (pictures,)


def _method(options: Mapping[str, Any] | None, given: Mapping[str, Any]) -> StyleAligned:
    method = with_options(StyleAligned, options, given, RENAMED)
    if method.windows is not None:
        raise ValueError(
            f"options['windows']: found {method.windows!r}; accepted: none. Next: a manifest with method.windows renders panoramas "
            "(manifests/panorama.yaml)"
        )
    return method


def _rows(
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str] | None,
    repeats: int,
    cells: tuple[int, int, int],
) -> Samples:
    """Prompts in the order of the pictures; their noise is given beside them."""
    prompts = _texts(prompt, "prompt")
    negative: list[str | None] = [None]
    if negative_prompt is not None:
        negative = [*_texts(negative_prompt, "negative_prompt")]
    if len(negative) not in (1, len(prompts)):
        raise ValueError(
            f"negative_prompt: found {len(negative)} for {len(prompts)} prompts; accepted: one, or as many"
        )
    if not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"num_images_per_prompt: found {repeats!r}; accepted: 1 or more")
    negative = negative * len(prompts) if len(negative) == 1 else negative
    return Samples(
        texts=tuple(text for text in prompts for _ in range(repeats)),
        negative=tuple(text for text in negative for _ in range(repeats)),
        seeds=(0,) * (len(prompts) * repeats),  # not read
        shape=cells,
    )


def _texts(given: Any, name: str) -> list[str]:
    texts = list(given) if isinstance(given, list | tuple) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: found {given!r}; accepted: a text, or a list of texts")
    return texts


def _style(style_image: Any, style_prompt: str, fit: Fit) -> tuple[Pixels, str] | None:
    """The reference picture and what it shows."""
    if style_image is None:
        if style_prompt:
            raise ValueError(
                f"style_prompt: found {style_prompt!r} without style_image; accepted: both. Next: a style that is described by words alone "
                "is the first prompt"
            )
        return None
    pictures = pixels_of_images(style_image, "style_image", fit.of_styles)
    if len(pictures) != 1:
        raise ValueError(
            f"style_image: found {len(pictures)}; accepted: one, whose style all prompts take. Next: a call for each"
        )
    return pictures[0], style_prompt


def _noise(
    latents: Tensor | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    shape: tuple[int, int, int, int],
) -> Tensor:
    if latents is None:
        if isinstance(generator, Sequence) and len(generator) != shape[0]:
            raise ValueError(
                f"generator: found {len(generator)} for {shape[0]} pictures; accepted: one, or as many"
            )
        # drawn on the CPU for a CPU generator, whatever the network's device: the same numbers everywhere
        first = generator[0] if isinstance(generator, Sequence) else generator
        device = torch.device("cpu") if first is None else first.device
        noise: Tensor = randn_tensor(shape, generator, device, torch.float32)
        return noise
    if tuple(latents.shape) != shape:
        raise ValueError(f"latents: found shape {tuple(latents.shape)}; accepted: {shape}")
    if not latents.isfinite().all():
        raise ValueError(
            "latents: found numbers that are not finite; accepted: standard normal ones"
        )
    return latents.float()


def _passes(
    method: StyleAligned,
    model: StableDiffusion,
    rows: Samples,
    noise: Tensor,
    style: tuple[Pixels, str] | None,
    batch: int,
) -> Passes:
    """Latents of all pictures after each step; without a style image the first one is the reference."""
    with_first = style is None
    if style is None:
        first, rows = rows.select([0]), rows.select(range(1, len(rows)))
        reference = Reference(noise[:1], first.prompts(model, method.guidance))
        noise = noise[1:]
    else:
        pixels, shown = style
        inverted = method.invert_image(model, to_tensor([pixels]), shown)
        reference = method.reference_of_image(inverted, method.prompts_of(model, shown))
    prompts = rows.prompts(model, method.guidance) if len(rows) else reference.prompts
    most = method.most_with_reference(batch)
    steps = method.denoising(model, reference, noise, prompts, batch=most)
    changed: Aligned | None = None
    while True:
        try:
            now = steps.send(changed)
        except StopIteration:
            return
        sent = yield torch.cat([now.reference, now.samples]) if with_first else now.samples
        changed = None
        if sent is not None and with_first:
            changed = Aligned(sent[:1], sent[1:])
        elif sent is not None:
            changed = Aligned(now.reference, sent)
