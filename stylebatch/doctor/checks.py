"""Checks of a checkpoint that need its configs and the headers of its weights alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stylebatch.doctor.findings import Finding, note, problem
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.weights import TEXT_KEYS, UNET_KEYS, VAE_KEYS, num_parameters, read_header

NETWORKS = ("unet", "text_encoder", "text_encoder_2", "vae")


def parameters(checkpoint: Checkpoint) -> dict[str, int]:
    """Numbers of weights by part; 0 where their files are missing or cannot be read."""
    if checkpoint.weights is not None:
        tensors = read_header(checkpoint.weights)
        texts = reversed(TEXT_KEYS[checkpoint.layout])
        names = {"unet": UNET_KEYS, "vae": VAE_KEYS}
        names |= dict(zip(("text_encoder_2", "text_encoder"), texts, strict=False))
        if checkpoint.layout != "xl":
            names["text_encoder"] = names.pop("text_encoder_2")
        return {part: num_parameters(tensors, [names[part]]) for part in NETWORKS if part in names}
    return {part: _held(checkpoint, part) for part in NETWORKS if part in checkpoint.components}


def _held(checkpoint: Checkpoint, part: str) -> int:
    try:
        return sum(num_parameters(read_header(path)) for path in checkpoint.weight_files(part))
    except ManifestError:
        return 0


def check_weights(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Every network of a folder has whole weights, safetensors, of the variant that is asked for."""
    if checkpoint.weights is not None:
        return
    for part in (part for part in checkpoint.components if part in NETWORKS):
        files = checkpoint.weight_files(part)
        if not files:
            yield _missing(checkpoint, part)
        for path in files:
            try:
                read_header(path)
            except ManifestError as error:
                told, _, step = str(error).removeprefix("model: ").partition("; next: ")
                yield problem(told, step or "fetch it again")


def _missing(checkpoint: Checkpoint, part: str) -> Finding:
    folder = checkpoint.folder / part
    wanted = f"of variant {checkpoint.variant}" if checkpoint.variant else "without a variant"
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    stems = [name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")]
    others = sorted({stem.split(".")[1].split("-")[0] for stem in stems if "." in stem})
    if others:
        step = f"`model: {{..., variant: {others[0]}}}`, or --variant {others[0]}"
    elif stems:
        step = "leave `variant` out"
    elif any(name.endswith((".bin", ".ckpt")) for name in names):
        step = "convert the pickled weights to safetensors (docs/models.md)"
    else:
        step = "fetch the folder again, weights included"
    return problem(f"{folder} holds no safetensors weights {wanted}", step)


def check_configs(checkpoint: Checkpoint) -> Iterator[Finding]:
    """The parts fit each other: text to network, network to latents, latents to VAE."""
    unet, vae = checkpoint.config("unet"), checkpoint.config("vae")
    texts = [checkpoint.config(part) for part in NETWORKS[1:3] if part in checkpoint.components]
    width = sum(int(text.get("hidden_size", 0)) for text in texts)
    together = "take the parts of one checkpoint"
    if unet.get("cross_attention_dim") != width:
        yield problem(
            f"the network attends to {unet.get('cross_attention_dim')} text features, the text encoders give {width}",
            together,
        )
    latents = int(vae.get("latent_channels", 4))
    if unet.get("in_channels", 4) != latents:
        yield problem(
            f"the network takes {unet.get('in_channels', 4)} channels, the VAE gives {latents}",
            "use a text-to-image checkpoint (networks for inpainting or depth take more)",
        )
    if checkpoint.family == "sdxl":
        yield from _check_xl(unet, vae, texts)
    predicted = checkpoint.config("scheduler").get("prediction_type", "epsilon")
    if checkpoint.layout == "2.x" and checkpoint.native_size == 768 and predicted == "epsilon":
        yield note(
            "a 2.x network of 768 px whose scheduler says epsilon; the published one predicts v",
            "if pictures are noise, set prediction_type: v_prediction in scheduler/scheduler_config.json",
        )


def _check_xl(
    unet: dict[str, Any], vae: dict[str, Any], texts: list[dict[str, Any]]
) -> Iterator[Finding]:
    told = 6 * int(unet.get("addition_time_embed_dim") or 0) + int(
        texts[-1].get("projection_dim", 0)
    )
    if unet.get("projection_class_embeddings_input_dim") != told:
        yield problem(
            f"the network takes {unet.get('projection_class_embeddings_input_dim')} added features; "
            f"pooled text and six sizes give {told}",
            "take the base checkpoint (the refiner takes five)",
        )
    if "scaling_factor" not in vae:
        yield note(
            "vae/config.json has no scaling_factor, so that 0.18215 is taken; XL's is 0.13025",
            "write it into vae/config.json",
        )
