"""The files of a checkpoint: configs, weights and their hashes. Knows no family and imports no torch.

A checkpoint is a `from_pretrained` folder (the embedded one, a local one, or a hub snapshot), or a single file of
weights beside a folder of configs.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import xxhash

from stylebatch.errors import ManifestError
from stylebatch.models.configs import Fields, read_json
from stylebatch.models.model_section import SINGLE_FILE, EmbeddingSpec, LoraSpec
from stylebatch.models.tokens import context_length
from stylebatch.models.weights import NETWORKS, num_parameters, read_header, stock_files

TINY = Path(__file__).parent / "tiny"
"""The embedded model."""
COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
"""The parts that an error lists when the family is not known yet."""
PARTS = (*NETWORKS, "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler")
"""Folders of a pipeline that any family may read."""
VAE_ACCEPTED = "a folder with config.json and .safetensors weights of an AutoencoderKL, or one .safetensors file"
SETTLED_NS = 2_000_000_000
"""Hashes of files changed within this time are not kept: some file systems store times in steps of 2 s."""
_hashes: dict[tuple[str | int, ...], str] = {}


@dataclass(frozen=True)
class PipelineFiles:
    """A pipeline folder. `weights`: a single file that replaces its weights. `vae_passes`: slicing and tiling of the VAE.

    `vae`: the folder or file of another autoencoder. `embeddings`: textual inversions. `clip_skip`: layers that prompts leave out.
    """

    folder: Path
    variant: str | None = None
    weights: Path | None = None
    vae_passes: tuple[Literal["slicing", "tiling"], ...] = ()
    loras: tuple[LoraSpec, ...] = ()
    vae: Path | None = None
    embeddings: tuple[EmbeddingSpec, ...] = ()
    clip_skip: int = 0

    def config(self, part: str) -> dict[str, Any]:
        """Parsed config of `unet`, `vae`, ...; raises ManifestError if the folder lacks it."""
        return self.fields(part).values

    def fields(self, part: str) -> Fields:
        """As `config`, with readers that check types."""
        place = self.place(part)
        return self.given_fields(part) if place == self.folder / part else self._read(place, part)

    def given_fields(self, part: str) -> Fields:
        """As `fields`, of the checkpoint itself, whatever autoencoder takes its own's place."""
        return self._read(self.folder / part, part)

    def place(self, part: str) -> Path:
        """The folder of a part."""
        if part == "vae" and self.vae is not None and self.vae_file is None:
            return self.vae
        return self.folder / part

    @property
    def vae_file(self) -> Path | None:
        """The single file of another autoencoder, whose config is that of the checkpoint's."""
        is_file = self.vae is not None and self.vae.suffix.lower() == SINGLE_FILE
        return self.vae if is_file else None

    def _read(self, place: Path, part: str) -> Fields:
        path = place / ("scheduler_config.json" if part == "scheduler" else "config.json")
        try:
            return Fields(path, read_json(path))
        except ValueError as error:
            if place == self.vae:
                raise ManifestError(
                    f"model.vae: {path} cannot be read ({error}); accepted: {VAE_ACCEPTED}"
                ) from None
            raise ManifestError(
                f"{self.field}: {path} cannot be read ({error}); accepted: a Stable Diffusion pipeline folder, "
                f"as `save_pretrained` writes it, with {', '.join(COMPONENTS)}"
            ) from None

    @property
    def field(self) -> str:
        """The field of the manifest that names the folder."""
        return "model.path" if self.weights is None else "model.config"

    @property
    def is_here(self) -> bool:
        """Whether the files are on this machine; False where only what is published of them is known."""
        return True

    @cached_property
    def index(self) -> Fields:
        """`model_index.json`, empty if there is none. Raises ManifestError if it cannot be read."""
        path = self.folder / "model_index.json"
        try:
            return Fields(path, read_json(path) if path.exists() else {})
        except ValueError as error:
            raise ManifestError(
                f"{self.field}: {path} cannot be read ({error}); next: fetch the folder again"
            ) from None

    def context_length(self, tokenizer: str, encoder: str) -> int:
        """Number of tokens that a text encoder takes; both arguments are names of parts."""
        return context_length(self.folder / tokenizer, self.fields(encoder))

    def weight_files(self, part: str) -> list[Path]:
        """The files of a part's weights, as diffusers chooses them; empty if there are none.

        Raises ManifestError for a broken index.
        """
        if part == "vae" and self.vae_file is not None:
            return [self.vae_file]
        if self.weights is not None and not (part == "vae" and self.vae):
            return [self.weights]
        return stock_files(self.place(part), part, self.variant_of(part))

    def variant_of(self, part: str) -> str | None:
        """The variant of a part's files: the requested one, or None if only other parts have it."""
        variant = self.variant
        if variant is None or stock_files(self.place(part), part, variant):
            return variant
        # Folders often hold fp16 files of the UNet alone. If no part has the variant, it stays: the error should name it.
        others = (other for other in NETWORKS if other != part)
        return (
            None
            if any(stock_files(self.place(other), other, variant) for other in others)
            else variant
        )

    def num_parameters(self, part: str) -> int:
        """Number of a part's weights; 0 if their files are missing or cannot be read."""
        try:
            return sum(num_parameters(read_header(path)) for path in self.weight_files(part))
        except ManifestError:
            return 0

    def digest(self, *parts: str) -> str:
        """sha256 over the (relative path, xxh3-128) of the config, tokenizer and weight files in use of some parts."""
        digest = hashlib.sha256()
        used = [
            path
            for part in parts
            for path in (self.folder / part).iterdir()
            if self._is_used(path, self.weight_files(part) if part in NETWORKS else [])
        ]
        for path in sorted(used):  # a folder lists its files in any order
            relative = path.relative_to(self.folder).as_posix()
            digest.update(f"{relative}\0{file_hash(path)}\n".encode())
        if self.weights is not None:
            digest.update(f"single file\0{file_hash(self.weights)}\n".encode())
        return digest.hexdigest()

    def vae_digest(self) -> str:
        """As `digest`, of the autoencoder that takes the place of the checkpoint's; wherever it lies."""
        config = self.place("vae") / "config.json"
        used = [("weights", path) for path in self.weight_files("vae")]
        digest = hashlib.sha256()
        for what, path in [("config", config), *used]:
            digest.update(f"vae {what}\0{hash_of_file(path, 'model.vae')}\n".encode())
        return digest.hexdigest()

    def _is_used(self, path: Path, weights: list[Path]) -> bool:
        """Whether a file affects the model: configs, vocabularies, and the weights in use."""
        if path.suffix == ".safetensors":
            return self.weights is None and path in weights
        return path.suffix in (".json", ".txt")


def find_vae(path: Path) -> Path:
    """The folder with config.json, or the file, that `model.vae` names. Raises ManifestError."""
    if path.suffix.lower() == SINGLE_FILE and path.is_file():
        return path
    for folder in (path, path / "vae"):
        # a pipeline folder has none
        if (folder / "config.json").is_file():
            return folder
    found = "no such file or folder" if not path.exists() else "no config.json in it or in its vae/"
    raise ManifestError(f"model.vae: {path}: found {found}; accepted: {VAE_ACCEPTED}")


def hash_of_file(path: Path, field: str) -> str:
    """As `file_hash`, of a file that a field of the manifest names. Raises ManifestError."""
    try:
        return file_hash(path)
    except OSError as error:
        raise ManifestError(
            f"{field}: {path}: cannot be read ({error.strerror}); accepted: a .safetensors file"
        ) from None


def file_hash(path: Path) -> str:
    """xxh3-128 of a file; kept for this process while size, times and inode stay. Raises OSError."""
    facts = path.stat()
    key = (str(path.absolute()), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)  # fmt: skip
    if (known := _hashes.get(key)) is not None:
        return known
    hasher, started = xxhash.xxh3_128(), time.time_ns()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            hasher.update(chunk)
    # a second write of the same size within one tick of the clock would change none of these facts
    if started - max(facts.st_mtime_ns, facts.st_ctime_ns) > SETTLED_NS:
        _hashes[key] = hasher.hexdigest()
    return hasher.hexdigest()
