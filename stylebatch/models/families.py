"""The table of families, and which of them a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Callable

from stylebatch.models.family import Family
from stylebatch.models.pipeline_files import PipelineFiles
from stylebatch.models.unet.published import Published, published_checkpoints
from stylebatch.models.unet.unet_family import UNet

FAMILIES: dict[str, Callable[[PipelineFiles], Family]] = {
    "UNet2DConditionModel": UNet,
}
"""By the class of the denoising network: `_class_name` in its config; without one it is a UNet."""


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
