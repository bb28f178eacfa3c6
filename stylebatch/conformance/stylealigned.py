"""StyleAligned cases: prompts or a reference image on SDXL, and panoramas by windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stylebatch.data.pictures.decoding import decode
from stylebatch.diffusion.windows import Windows
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.prompted import Prompts
from stylebatch.methods.stylealigned.algorithm import Reference, StyleAligned
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.denoiser import Conditioning
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.unet.latent_space import latent_scale
from stylebatch.models.unet.unet_loading import as_stable_diffusion

SHARING = ("share_attention", "adain_queries", "adain_keys", "adain_values")
PLAIN = {name: False for name in (*SHARING, "share_group_norm", "full_attention_share")}


def run_prompts(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    """Text to image and transfer from a picture; prompts are given as embeddings."""
    inputs = load_file(folder / "inputs.safetensors")
    model = load_checkpoint(Checkpoint(folder / options["model"]), device="cpu")
    sizes = torch.tensor([[*options["original_size"], 0, 0, *options["target_size"]]])
    picture = options["inversion"]["reference"]
    pixels = np.asarray(decode((folder / picture).read_bytes(), picture))
    found = {"reference/z0": model.encode(to_tensor([pixels]))}
    against, towards = (
        Conditioning(
            inputs["inversion/encoder_hidden_states"][row : row + 1],
            inputs["inversion/text_embeds"][row : row + 1],
            inputs["inversion/time_ids"][row : row + 1],
        )
        for row in (0, 1)
    )
    inverted = StyleAligned(steps=options["steps"]).invert(
        model, found["reference/z0"], Prompts(towards, against, options["inversion"]["guidance"])
    )
    found["inversion/zts"] = torch.cat(inverted)
    positive, negative = (
        Conditioning(inputs[f"{prefix}prompt_embeds"], inputs[f"{pooled}prompt_embeds"], sizes)
        for prefix, pooled in (("", "pooled_"), ("negative_", "negative_pooled_"))
    )
    for case, settings in options["cases"].items():
        method = _method(options["steps"], settings)
        prompts = Prompts(positive, negative, settings["guidance"])
        reference = Reference(inputs["latents"][:1], prompts.select([0]))
        if settings["reference_from"] == "image":
            reference = method.reference_of_image(inverted, reference.prompts)
        others = inputs["latents"][1:]
        found[f"case/{case}/start_latents"] = torch.cat([reference.start, others])

        shown = prompts.select(range(1, 1 + len(others)))
        for index, now in enumerate(method.denoising(model, reference, others, shown)):
            latents = torch.cat([now.reference, now.samples])
            found[f"case/{case}/latents_after_step{index}"] = latents
        found[f"case/{case}/final"] = latents
    return found


def run_panorama(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    """A panorama by windows beside a reference of the window's size."""
    inputs = load_file(folder / "inputs.safetensors")
    model = load_checkpoint(Checkpoint(folder / options["model"]), device="cpu")
    scaling = latent_scale(as_stable_diffusion(model).vae)
    prompts = Prompts(
        Conditioning(inputs["prompt_embeds"]),
        Conditioning(inputs["negative_prompt_embeds"]),
        options["guidance"],
    )
    found: dict[str, Tensor] = {}
    for case, settings in options["cases"].items():
        final = _method(settings["steps"], settings).generate(
            model,
            Reference(inputs[settings["reference_latent"]], prompts.select([0])),
            inputs[settings["latents"]],
            prompts.select([1]),
            batch=1 + settings["view_batch"],
            windows=Windows(settings["window"], settings["stride"], settings["circular"]),
        )
        found[f"case/{case}/final_over_scaling"] = final.samples / scaling
        found[f"case/{case}/reference_final_over_scaling"] = final.reference / scaling
    return found


def _method(steps: int, settings: dict[str, Any]) -> StyleAligned:
    fields = {key: value for key, value in settings.items() if key in StyleAligned.model_fields}
    off = {} if settings["style_aligned"] else PLAIN  # overrides what the case lists
    return StyleAligned.model_validate({**fields, **off, "steps": steps})
