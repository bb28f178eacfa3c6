"""From checkpoints to a ``StableDiffusionPipeline`` folder in half precision, and its fingerprint."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import DDIMScheduler, StableDiffusionPipeline

from stylebatch.models.checkpoint import Checkpoint
from stylebatch.training.latents import final_vae
from stylebatch.training.text import build_text_encoder, load_tokenizer
from stylebatch.training.unet import averaged_unet


def build_scheduler() -> DDIMScheduler:
    """DDIM with the schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def export(out: Path, model: Path) -> str:
    """Write the pipeline folder ``model`` from the checkpoints in ``out``; returns the fingerprint."""
    unet, steps = averaged_unet(out / "unet.pt")
    tokenizer = load_tokenizer(out / "tokenizer")
    pipeline = StableDiffusionPipeline(
        vae=final_vae(out),
        text_encoder=build_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # the text encoder stays in single precision: transformers loads what is stored, diffusers float32
    for part in (pipeline.unet, pipeline.vae):
        for parameter in part.parameters():
            parameter.data = parameter.data.half().contiguous()
    pipeline.save_pretrained(model, safe_serialization=True)
    for weights in model.rglob("*.safetensors"):
        weights.chmod(0o644)
    for config in (*model.rglob("config.json"), *model.glob("*.json")):
        fields = json.loads(config.read_text())
        if fields.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    value = Checkpoint(model).fingerprint
    (model / "FINGERPRINT").write_text(value + "\n")
    return f"{value} after {steps} steps"
