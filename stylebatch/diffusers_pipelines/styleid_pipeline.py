"""StyleID as a pipeline of diffusers; the mathematics is `methods/styleid/algorithm.py`, which runs of manifests call too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers import ImagePipelineOutput

from stylebatch.data.fit_modes import FixedMode
from stylebatch.data.images import Picture
from stylebatch.diffusers_pipelines.given_images import Fit, masks_of_images, pixels_of_images
from stylebatch.diffusers_pipelines.latent_pipeline import (
    Callback,
    LatentPipeline,
    StepEnd,
    check_batch_size,
    check_generator,
    checked_output_type,
    sides,
)
from stylebatch.engine.blocks.blending import latent_masks
from stylebatch.methods.given_options import with_options
from stylebatch.methods.pixels import Pixels, to_tensor
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.block_pairs import Pairs, back_in_order, by_style
from stylebatch.methods.styleid.features import FeatureKind, Inverted, Kept
from stylebatch.models.unet.loaded_pipeline import denoiser_of
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.words import counted

Pairing = Literal["zip", "product"]
RENAMED = {"num_inference_steps": "steps"}


@dataclass(frozen=True)
class Images:
    """Contents, styles, and masks of contents or none; `pairs`: numbers of the contents and of the styles, in the order of the results."""

    contents: list[Pixels]
    styles: list[Pixels]
    masks: list[Pixels]
    pairs: tuple[list[int], list[int]]


class StyleIDPipeline(LatentPipeline):
    """Style injection without training (Chung et al., CVPR 2024, arXiv 2312.09008): a content in the style of another picture.

        pipe = StyleIDPipeline.from_pretrained("sd15", dtype=torch.float16).to("cuda")
        picture = pipe(image=photograph, style_image=painting).images[0]

    Everything else of a `DiffusionPipeline` works as usual: `from_pipe`, `to`, `save_pretrained`, `set_progress_bar_config`,
    `enable_model_cpu_offload`, `enable_sequential_cpu_offload`.
    """

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        style_image: Any,
        *,
        pairing: Pairing = "zip",
        mask_image: Any = None,
        height: int | None = None,
        width: int | None = None,
        resize_mode: FixedMode = "center_crop",
        num_inference_steps: int | None = None,
        gamma: float | None = None,
        tau: float | None = None,
        options: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        features: Kept = "held",
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Render contents in styles. With the same `batch_size` as a manifest's `engine.batch` the pictures are those of its run.

        Args:
            image: The contents: a PIL image, a path, an array (H, W, 3) or (N, H, W, 3), a tensor (3, H, W) or (N, 3, H, W), each uint8
                or floats from 0 to 1, or a list of these. Files, and PIL images as `Image.open` gives them, are turned upright and
                converted to sRGB; of other PIL images the pixels are taken as they are.
            style_image: The styles, likewise.
            pairing: `zip`: the first content with the first style, and so on; a single one goes with all. `product`: every content with
                every style, content by content.
            mask_image: Where the style applies, white, one for each content or one for all; black keeps the content's own attention
                and statistics. Sizes as of `image`, (H, W) too.
            height, width: Of the results in pixels; by default those that the network was trained on.
            resize_mode: How images are fitted to that size: `center_crop`, `resize` (changes proportions) or `pad` (with grey; styles are
                cropped instead, so that no style is grey).
            num_inference_steps: Steps of inversion and of the reverse; 50 divide 1000, as do 2, 4, 5, 8, 10, 20, 25, 40.
            gamma: Query preservation, 0 to 1; 0.75 by default, more keeps more of the content's structure.
            tau: Attention temperature, above 0, at most 10; 1.5 by default.
            options: Further options of the method, as in a manifest's `method`: {"convention": "diffusers"}, {"preset": "fast"}, ...
            batch_size: Rows of one network evaluation at most.
            features: Where attention features of inverted images wait: `held` on the device (of SD 1.5 at 512 px in float16 0.6 GB a
                content, 1.2 GB a style), `hosted` in the machine's memory, `recomputed` (nowhere; 49 more evaluations an image).
            generator: Read only where gamma or tau is a range: of a list the seeds, one for each pair, as a record's `seed`; else numbers
                are drawn from it.
            output_type: `pil`; `np`, (N, H, W, 3) floats from 0 to 1; `pt`, (N, 3, H, W); `latent`, (N, c, h, w), not decoded.
            return_dict: An `ImagePipelineOutput`, or a tuple of its one field.
            callback_on_step_end: Called as `callback(pipe, step, timestep, {"latents": (N, c, h, w)})` after each step of the reverse,
                pairs sorted by style; latents in the dict that it returns go on in place of these. `pipe._interrupt = True` ends the
                call with what there is.
            callback_on_step_end_tensor_inputs: Tensors in that dict; there is `latents`.

        Returns:
            `ImagePipelineOutput` with `images`, in the order of the pairs.

        Raises:
            ValueError: An argument that cannot be used, by name, with what is accepted; ManifestError, a ValueError too, for parts of
                the pipeline that cannot be used; SampleError for a file that cannot be read.
        """
        kind = checked_output_type(output_type)
        check_batch_size(batch_size)
        check_generator(generator)
        if features not in get_args(Kept):
            raise ValueError(f"features: found {features!r}; accepted: {', '.join(get_args(Kept))}")
        end = StepEnd.of(
            callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs
        )
        given = {"num_inference_steps": num_inference_steps, "gamma": gamma, "tau": tau}
        method = with_options(StyleID, options, given, RENAMED)

        model = denoiser_of(self)
        method = method.fitted_to(model.sites)
        size = sides(model, height, width)
        images = _images(image, style_image, mask_image, pairing, Fit(size, resize_mode))
        order = by_style(*images.pairs)
        seeds = _seeds(generator, len(order))
        pairs = Pairs(
            tuple(images.pairs[0][i] for i in order),
            tuple(images.pairs[1][i] for i in order),
            *method.drawn_by_pair([seeds[i] for i in order]),
        )
        with self._at_work(model, _num_evaluations(method, images, features)):
            work = Work(method, model, batch_size, features)
            passes = method.stylising(
                model,
                work.inverted(images.contents, "query"),
                work.inverted(images.styles, "key_value"),
                pairs,
                batch=batch_size,
                masks=_latent_masks(images, model.latent_factor),
            )
            timesteps = [step.t for step in method.trajectory(model).reverse]
            latents = back_in_order(self._walked(passes, timesteps, end), order)
            found = self._returned(model, [latents], kind, batch_size)
        return ImagePipelineOutput(images=found) if return_dict else (found,)


@dataclass(frozen=True)
class Work:
    """How images are inverted."""

    method: StyleID
    model: StableDiffusion
    batch: int
    features: Kept

    def inverted(self, pictures: Sequence[Pixels], kind: FeatureKind) -> Inverted:
        parts = [pictures[i : i + self.batch] for i in range(0, len(pictures), self.batch)]
        latents = torch.cat([self.model.encode(to_tensor(part)) for part in parts])
        return self.method.invert(self.model, latents, kind, batch=self.batch, keep=self.features)


def _images(image: Any, style_image: Any, mask_image: Any, pairing: Pairing, fit: Fit) -> Images:
    contents = pixels_of_images(image, "image", fit)
    styles = pixels_of_images(style_image, "style_image", fit.of_styles)
    masks = [] if mask_image is None else masks_of_images(mask_image, "mask_image", fit)
    if len(masks) not in (0, 1, len(contents)):
        raise ValueError(
            f"mask_image: found {len(masks)} for {counted(len(contents), 'image')}; accepted: one, or as many"
        )
    masks = masks * len(contents) if len(masks) == 1 else masks
    return Images(contents, styles, masks, _paired(len(contents), len(styles), pairing))


def _paired(contents: int, styles: int, pairing: Pairing) -> tuple[list[int], list[int]]:
    """Numbers of the contents and of the styles of all pairs."""
    if pairing == "product":
        return [c for c in range(contents) for _ in range(styles)], [*range(styles)] * contents
    if pairing != "zip":
        raise ValueError(f"pairing: found {pairing!r}; accepted: zip, product")
    if 1 not in (contents, styles) and contents != styles:
        raise ValueError(
            f"style_image: found {styles} for {counted(contents, 'image')}; accepted: one, or as many. "
            "Next: pairing='product' for every image in every style"
        )
    count = max(contents, styles)
    return [i % contents for i in range(count)], [i % styles for i in range(count)]


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise ValueError(
                f"generator: found {len(generator)} for {count} pairs; accepted: one, or as many"
            )
        return [one.initial_seed() for one in generator]
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**63 - 1, (count,), generator=generator, device=device).tolist()


def _num_evaluations(method: StyleID, images: Images, features: Kept) -> int:
    inverted, pairs = len(images.contents) + len(images.styles), len(images.pairs[0])
    each = method.num_inversion_evaluations
    if features == "recomputed":
        each += method.num_reverse_evaluations
    return inverted * each + pairs * method.num_reverse_evaluations


def _latent_masks(images: Images, factor: int) -> torch.Tensor | None:
    height, width = (side // factor for side in images.contents[0].shape[:2])
    pictures = [
        Picture(pixels, 0, 0, mask=mask)
        for pixels, mask in zip(images.contents, images.masks, strict=False)
    ]
    return latent_masks(pictures, (height, width)) if pictures else None
