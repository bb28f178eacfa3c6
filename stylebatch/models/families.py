"""The table of families, and which of them a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stylebatch.models.family import Family
from stylebatch.models.learned_tokens import is_embedding, num_vectors
from stylebatch.models.pipeline_files import PipelineFiles
from stylebatch.models.unet.lora_keys import check_keys, num_layers
from stylebatch.models.unet.published import Published, published_checkpoints
from stylebatch.models.unet.single_file import (
    is_vae,
    parameters_by_part,
    single_file_layout,
    vae_tensors,
)
from stylebatch.models.unet.unet_family import TITLES, UNet
from stylebatch.models.weights import num_parameters, read_header

FAMILIES: dict[str, Callable[[PipelineFiles], Family]] = {
    "UNet2DConditionModel": UNet,
}
"""By the class of the denoising network: `_class_name` in its config; without one it is a UNet."""
LOADED_PIPELINES = "stylebatch.models.unet.loaded_pipeline"
"""The module whose `denoiser_of` takes loaded pipelines of diffusers, and refuses those of families that are not implemented."""


def family_of(files: PipelineFiles) -> Family:
    """The checkpoint's family. Raises ManifestError for a family that is not implemented."""
    # with both folders, the UNet counts
    has_other = (files.folder / "transformer" / "config.json").exists()
    if has_other and not (files.folder / "unet").is_dir():
        part, default = "transformer", None
    else:
        part, default = "unet", "UNet2DConditionModel"
    architecture = files.fields(part).word("_class_name", default, tuple(FAMILIES))
    return FAMILIES[architecture](files)


def published(name: str) -> Published:
    """What is published of a well-known checkpoint (`model_section.MODEL_IDS`)."""
    return published_checkpoints()[name]


def title_of_weights(path: Path) -> tuple[str, Mapping[str, int]]:
    """What a .safetensors file is, for people, and numbers of weights, or of LoRA's layers, by part; its header alone is read.

    Raises ManifestError for a file that is damaged, and for weights that no manifest can name, with what they are.
    """
    tensors = read_header(path)
    if layers := num_layers([*tensors]):
        check_keys(path)
        return "LoRA weights", {"layers": layers}
    if is_embedding(tensors):
        return "textual inversion", {"vectors": max(num_vectors(one) for one in tensors.values())}
    if is_vae(tensors):
        return "autoencoder (VAE)", {"vae": num_parameters(vae_tensors(path, tensors)[1])}
    layout = single_file_layout(path, tensors)
    return f"{TITLES[layout]} checkpoint in one file", parameters_by_part(layout, tensors)
