"""Finds a checkpoint and identifies it, without importing torch or diffusers.

A checkpoint is a `from_pretrained` folder (the embedded one, a local one, or a hub snapshot), or a single file of
weights beside a folder of configs.
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
from stylebatch.models.weights import Layout, read_header, single_file_layout
from stylebatch.spec import MODEL_IDS, LoraSpec, ModelSpec

COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
XL_COMPONENTS = (*COMPONENTS, "text_encoder_2", "tokenizer_2")
Family = Literal["sd", "sdxl"]
"""sd: Stable Diffusion 1.x and 2.x, whatever they predict; sdxl: Stable Diffusion XL."""
TINY = Path(__file__).parent / "tiny"


@dataclass(frozen=True)
class SiteShape:
    """One decoder site at some picture size: latent cells per side, channels of its input, heads, attention layers."""

    site: int
    side: int
    channels: int
    heads: int
    layers: int

    @property
    def elements(self) -> int:
        """Numbers of each of x, q, k and v over the site's layers, for one picture and timestep."""
        return self.layers * self.side**2 * self.channels


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline folder and what its config files tell.

    `weights`: a single file that is read instead of the folder's own. `vae_passes`: how the VAE is cut up.
    """

    folder: Path
    variant: str | None = None
    weights: Path | None = None
    vae_passes: tuple[Literal["slicing", "tiling"], ...] = ()
    loras: tuple[LoraSpec, ...] = ()

    def config(self, component: str) -> dict[str, Any]:
        """Parsed config of `unet`, `vae`, ...; raises ManifestError when the folder lacks it."""
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        path = self.folder / component / name
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ManifestError(
                f"{self.field}: {path} cannot be read ({error.__class__.__name__}); accepted: a Stable Diffusion pipeline folder, "
                f"as `save_pretrained` writes it, with {', '.join(COMPONENTS)}"
            ) from None
        return config

    @property
    def field(self) -> str:
        """Of the manifest, that the folder comes from."""
        return "model.path" if self.weights is None else "model.config"

    @cached_property
    def family(self) -> Family:
        """By the network's config: SDXL adds the pooled text and the picture's sizes to the time embedding."""
        return "sd" if self.config("unet").get("addition_embed_type") is None else "sdxl"

    @cached_property
    def layout(self) -> Layout:
        """By the network's config: 2.x and XL have linear projections around their attention, 1.x has convolutions."""
        if self.family == "sdxl":
            return "xl"
        return "2.x" if self.config("unet").get("use_linear_projection") else "1.x"

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

    def site_shapes(self, size: int) -> tuple[SiteShape, ...]:
        """Every site that has self-attention, for square pictures of `size` pixels."""
        config = self.config("unet")
        top = len(config["block_out_channels"]) - 1

        def at_level(key: str, level: int, default: int) -> int:
            value = config.get(key) or default
            return int(value[top - level] if isinstance(value, list) else value)

        heads = "num_attention_heads" if config.get("num_attention_heads") else "attention_head_dim"
        return tuple(
            SiteShape(
                site,
                (size // self.latent_factor) >> (top - site // 3),
                int(config["block_out_channels"][top - site // 3]),
                at_level(heads, site // 3, 8),  # diffusers' attention_head_dim counts heads
                at_level("transformer_layers_per_block", site // 3, 1),
            )
            for site in self.sites
        )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the (relative path, xxh3-128) of every config, tokenizer and weight file in use.

        A VAE that is cut up gives other numbers, and so another fingerprint; LoRA weights too.
        """
        second = [
            part for part in XL_COMPONENTS[len(COMPONENTS) :] if (self.folder / part).is_dir()
        ]
        found = self.digest(*COMPONENTS, *second)
        if self.vae_passes:
            found = hashlib.sha256(f"{found}\0{' '.join(self.vae_passes)}".encode()).hexdigest()
        if self.loras:
            added = [f"{_xxh3_of(lora)}\0{lora.scale}\n" for lora in self.loras]
            found = hashlib.sha256("\n".join([found, *added]).encode()).hexdigest()
        return found

    def digest(self, *parts: str) -> str:
        """The fingerprint of some components alone."""
        digest = hashlib.sha256()
        files = (path for part in parts for path in (self.folder / part).iterdir())
        for path in sorted(path for path in files if self._is_used(path.name)):
            relative = path.relative_to(self.folder).as_posix()
            digest.update(f"{relative}\0{_xxh3(path)}\n".encode())
        if self.weights is not None:
            digest.update(f"single file\0{_xxh3(self.weights)}\n".encode())
        return digest.hexdigest()

    def weight_files(self, part: str) -> list[Path]:
        """The files of a part's weights, of this variant; empty where there are none."""
        if self.weights is not None:
            return [self.weights]
        files = sorted((self.folder / part).glob("*.safetensors"))
        return [path for path in files if self._is_used(path.name)]

    def _is_used(self, name: str) -> bool:
        """Whether a file takes part: settings, vocabularies, and the weights of this variant."""
        stem, *infix, suffix = name.split(".")
        if suffix == "safetensors":
            variants = [part.split("-")[0] for part in infix]  # fp16-00001-of-00002 is a shard
            chosen = variants == ([self.variant] if self.variant else []) and bool(stem)
            return chosen and self.weights is None
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
    """The folder or file that `spec` names; fetches a hub snapshot when it is not in the local cache.

    Raises ManifestError, one paragraph, when the hub cannot be reached, the folder is no pipeline, a single file does
    not fit its config, or it is of a family that the caller does not take.
    """
    weights = None
    if spec.config is not None:
        folder, weights = Path(spec.config), Path(str(spec.path))
    elif spec.path is not None:
        folder = Path(spec.path)
    elif spec.name == "tiny":
        folder = TINY
    else:
        folder = _snapshot(spec.id or MODEL_IDS[str(spec.name)], spec.revision, spec.variant)
    checkpoint = Checkpoint(folder, spec.variant, weights, _vae_passes(spec), spec.lora)
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
                f"{checkpoint.field}: {folder / part} holds neither tokenizer.json nor vocab.json; accepted: a Stable "
                f"Diffusion pipeline folder, as `save_pretrained` writes it, with {', '.join(checkpoint.components)}"
            )
    if checkpoint.weights is not None:
        _check_single_file(checkpoint, checkpoint.weights)
    return checkpoint


def _vae_passes(spec: ModelSpec) -> tuple[Literal["slicing", "tiling"], ...]:
    slicing: tuple[Literal["slicing"], ...] = ("slicing",) if spec.vae_slicing else ()
    return (*slicing, "tiling") if spec.vae_tiling else slicing


def _check_single_file(checkpoint: Checkpoint, weights: Path) -> None:
    """Raise ManifestError unless the file is of the family that its config describes."""
    if not (checkpoint.folder / "model_index.json").is_file():
        raise ManifestError(
            f"model.config: {checkpoint.folder} holds no model_index.json; accepted: the configs and tokenizers of a "
            "pipeline folder: `hf download OWNER/NAME --include '*.json' '*.txt' --local-dir FOLDER`"
        )
    layout = single_file_layout(weights, read_header(weights))
    if layout != checkpoint.layout:
        raise ManifestError(
            f"model.config: {checkpoint.folder} describes Stable Diffusion {checkpoint.layout}, but model.path "
            f"({weights}) holds Stable Diffusion {layout}; accepted: the configs of the file's own family"
        )


def _snapshot(repo_id: str, revision: str | None, variant: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    infix = f".{variant}" if variant else ""
    names = (
        f"diffusion_pytorch_model{infix}.safetensors",
        f"model{infix}.safetensors",
        f"diffusion_pytorch_model{infix}-?????-of-?????.safetensors",
        f"model{infix}-?????-of-?????.safetensors",
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
