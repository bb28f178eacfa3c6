"""Finds a checkpoint's folder and identifies it, without importing torch or diffusers.

A checkpoint is a `from_pretrained` folder: the embedded one, a local one, or a hub snapshot.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import xxhash

from stylebatch.errors import ManifestError
from stylebatch.spec import MODEL_IDS, LoraSpec, ModelSpec

COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
XL_COMPONENTS = (*COMPONENTS, "text_encoder_2", "tokenizer_2")
Family = Literal["sd", "sdxl"]
"""sd: Stable Diffusion 1.x and 2.x, whatever they predict; sdxl: Stable Diffusion XL."""
TINY = Path(__file__).parent / "tiny"


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline folder and what its config files tell."""

    folder: Path
    variant: str | None = None
    loras: tuple[LoraSpec, ...] = ()

    def config(self, component: str) -> dict[str, Any]:
        """Parsed config of `unet`, `vae`, ...; raises ManifestError when the folder lacks it."""
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        path = self.folder / component / name
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ManifestError(
                f"model.path: {path} cannot be read ({error.__class__.__name__}); accepted: a Stable Diffusion pipeline folder, "
                f"as `save_pretrained` writes it, with {', '.join(COMPONENTS)}"
            ) from None
        return config

    @cached_property
    def family(self) -> Family:
        """By the network's config: SDXL adds the pooled text and the picture's sizes to the time embedding."""
        return "sd" if self.config("unet").get("addition_embed_type") is None else "sdxl"

    @property
    def components(self) -> tuple[str, ...]:
        return COMPONENTS if self.family == "sd" else XL_COMPONENTS

    @cached_property
    def zeros_for_nothing(self) -> bool:
        """Whether the absence of a prompt is told to the network by zeros (`model_index.json`, SDXL only)."""
        try:
            index = json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return True
        return bool(index.get("force_zeros_for_empty_prompt", True))

    @cached_property
    def latent_factor(self) -> int:
        """Pixels per latent cell along a side."""
        return int(2 ** (len(self.config("vae")["block_out_channels"]) - 1))

    @cached_property
    def native_size(self) -> int:
        """Pixels per side that the network was trained on."""
        return int(self.config("unet").get("sample_size") or 64) * self.latent_factor

    @cached_property
    def size_multiple(self) -> int:
        """Image sides must be a multiple of this: latent cells are halved between the UNet's levels."""
        return self.latent_factor * int(2 ** (len(self.config("unet")["block_out_channels"]) - 1))

    @cached_property
    def sites(self) -> tuple[int, ...]:
        """Decoder sites that have self-attention: 3 level + position, deepest level first."""
        config = self.config("unet")
        positions = int(config.get("layers_per_block", 2)) + 1
        with_attention = [
            level for level, kind in enumerate(config["up_block_types"]) if "CrossAttn" in kind
        ]
        return tuple(
            3 * level + position for level in with_attention for position in range(positions)
        )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the (relative path, xxh3-128) of every config, tokenizer and weight file in use, LoRA included."""
        second = [
            part for part in XL_COMPONENTS[len(COMPONENTS) :] if (self.folder / part).is_dir()
        ]
        own = self.digest(*COMPONENTS, *second)
        if not self.loras:
            return own
        added = [f"{_xxh3_of(lora)}\0{lora.scale}\n" for lora in self.loras]
        return hashlib.sha256("\n".join([own, *added]).encode()).hexdigest()

    def digest(self, *parts: str) -> str:
        """The fingerprint of some components alone."""
        digest = hashlib.sha256()
        files = (path for part in parts for path in (self.folder / part).iterdir())
        for path in sorted(path for path in files if self._is_used(path.name)):
            relative = path.relative_to(self.folder).as_posix()
            digest.update(f"{relative}\0{_xxh3(path)}\n".encode())
        return digest.hexdigest()

    def _is_used(self, name: str) -> bool:
        """Whether a file takes part: settings, vocabularies, and the weights of this variant."""
        stem, *infix, suffix = name.split(".")
        if suffix == "safetensors":
            return infix == ([self.variant] if self.variant else []) and bool(stem)
        return suffix in ("json", "txt")


def _xxh3_of(lora: LoraSpec) -> str:
    try:
        return _xxh3(Path(lora.path))
    except OSError as error:
        raise ManifestError(
            f"model.lora: {lora.path}: cannot be read ({error.strerror}); accepted: a .safetensors file"
        ) from None


def _xxh3(path: Path) -> str:
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            hasher.update(chunk)
    return hasher.hexdigest()


def find_checkpoint(spec: ModelSpec, *, families: tuple[Family, ...] = ("sd",)) -> Checkpoint:
    """The folder that `spec` names; fetches a hub snapshot when it is not in the local cache.

    Raises ManifestError, one paragraph, when the hub cannot be reached, the folder is no pipeline, or it is of
    a family that the caller does not take.
    """
    if spec.path is not None:
        folder = Path(spec.path)
    elif spec.name == "tiny":
        folder = TINY
    else:
        folder = _snapshot(spec.id or MODEL_IDS[str(spec.name)], spec.revision, spec.variant)
    checkpoint = Checkpoint(folder, spec.variant, spec.lora)
    for component in ("unet", "vae", "text_encoder", "scheduler"):
        checkpoint.config(component)
    if checkpoint.family not in families:
        raise ManifestError(
            f"model: {folder} is a Stable Diffusion XL checkpoint (two text encoders), which training "
            "does not take; accepted: Stable Diffusion 1.x and 2.x"
        )
    if checkpoint.family == "sdxl":
        checkpoint.config("text_encoder_2")
    for part in (part for part in checkpoint.components if part.startswith("tokenizer")):
        if not any((folder / part / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise ManifestError(
                f"model.path: {folder / part} holds neither tokenizer.json nor vocab.json; accepted: a Stable "
                f"Diffusion pipeline folder, as `save_pretrained` writes it, with {', '.join(checkpoint.components)}"
            )
    return checkpoint


def _snapshot(repo_id: str, revision: str | None, variant: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    infix = f".{variant}" if variant else ""
    names = (
        f"diffusion_pytorch_model{infix}.safetensors",
        f"model{infix}.safetensors",
        "*.json",
        "*.txt",
    )
    patterns = ["model_index.json", *(f"{part}/{name}" for part in XL_COMPONENTS for name in names)]
    try:
        return Path(
            huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=patterns)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no detail"])[0]
        raise ManifestError(
            f"model.id: {repo_id!r} (revision {revision or 'main'}) could not be fetched from the hub "
            f"({error.__class__.__name__}: {reason}). Accepted: an id that the hub serves to this machine, or a "
            f"local folder: on a machine with access run `hf download {repo_id} --local-dir FOLDER`, copy FOLDER "
            "here, and write `model: {path: FOLDER}`; or try `model: tiny`, which needs no download."
        ) from None
