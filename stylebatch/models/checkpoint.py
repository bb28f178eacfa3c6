"""Finds a checkpoint and identifies it, without importing torch or diffusers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stylebatch.errors import ManifestError
from stylebatch.models.configs import Fields
from stylebatch.models.families import family_of, published
from stylebatch.models.family import Family
from stylebatch.models.hub_models import is_cached, snapshot
from stylebatch.models.model_section import MODEL_IDS, ModelSpec
from stylebatch.models.pipeline_files import PARTS, TINY, PipelineFiles, find_vae, hash_of_file


@dataclass(frozen=True)
class Checkpoint(PipelineFiles):
    """The files of a checkpoint, and the family that reads them."""

    @cached_property
    def family(self) -> Family:
        return family_of(self)

    @cached_property
    def sites(self) -> tuple[int, ...]:
        """Named sites that have self-attention, ascending."""
        shapes = self.family.site_shapes(self.family.sizes.native)
        return tuple(shape.site for shape in shapes)

    @cached_property
    def fingerprint(self) -> str:
        """As `fingerprint_without_prompts`, with what prompts alone make use of: textual inversions and `clip_skip`."""
        found = self.fingerprint_without_prompts
        added = [
            f"{hash_of_file(one.path, 'model.embeddings')}\0{one.token}"
            for one in (self.family.embeddings if self.embeddings else ())
        ]
        added += [f"clip_skip {self.clip_skip}"] if self.clip_skip else []
        if added:
            found = hashlib.sha256("\n".join([found, *added]).encode()).hexdigest()
        return found

    @cached_property
    def fingerprint_without_prompts(self) -> str:
        """sha256 over the (relative path, xxh3-128) of every config, tokenizer and weight file in use.

        VAE slicing and tiling, another VAE and LoRA weights change pixels, and so the fingerprint.
        """
        # Appended only if set: a fingerprint of a plain checkpoint must stay as former outputs recorded it.
        replaced = ("vae",) if self.vae else ()
        parts = (part for part in PARTS if part not in replaced and (self.folder / part).is_dir())
        found = self.digest(*parts)
        if self.vae:
            found = hashlib.sha256(f"{found}\0{self.vae_digest()}".encode()).hexdigest()
        if self.vae_passes:
            found = hashlib.sha256(f"{found}\0{' '.join(self.vae_passes)}".encode()).hexdigest()
        if self.loras:
            added = [
                f"{hash_of_file(Path(lora.path), 'model.lora')}\0{lora.scale}\n"
                for lora in self.loras
            ]
            found = hashlib.sha256("\n".join([found, *added]).encode()).hexdigest()
        return found


@dataclass(frozen=True)
class PublishedCheckpoint(Checkpoint):
    """A well-known checkpoint (`name`) whose files are not on this machine: enough to plan by, and nothing to load.

    Its fingerprint is "", so that no plan of it has the identity of a run's.
    """

    name: str = ""
    is_here = False
    fingerprint = fingerprint_without_prompts = ""

    def given_fields(self, part: str) -> Fields:
        """From the package."""
        return Fields(self.folder / part, dict(published(self.name).configs[part]))

    @cached_property
    def index(self) -> Fields:
        return Fields(self.folder, {})

    def num_parameters(self, part: str) -> int:
        if part == "vae" and self.vae:
            return super().num_parameters(part)
        return published(self.name).parameters.get(part, 0)

    @property
    def note(self) -> str:
        """For people."""
        return (
            f"model: published figures of {published(self.name).title}; weights are not here. A run fetches them from the hub; without "
            f"network, on a machine with access: hf download {MODEL_IDS[self.name]} --local-dir FOLDER"
        )


def find_checkpoint(spec: ModelSpec) -> Checkpoint:
    """The checkpoint that `spec` names; a hub snapshot is fetched unless the local cache has it.

    Raises ManifestError, one paragraph, if the hub cannot be reached, the folder is no pipeline, or its family refuses it.
    """
    weights = None
    if spec.config is not None:
        folder, weights = Path(spec.config), Path(str(spec.path))
    elif spec.path is not None:
        folder = Path(spec.path)
    elif spec.name == "tiny":
        folder = TINY
    else:
        folder = snapshot(spec.id or MODEL_IDS[str(spec.name)], spec.revision, spec.variant)
    checkpoint = Checkpoint(folder, spec.variant, weights, **_added(spec))
    checkpoint.family.check()
    if (spec.embeddings or spec.clip_skip) and not checkpoint.family.tokenizers:
        field = "embeddings" if spec.embeddings else "clip_skip"
        raise ManifestError(
            f"model.{field}: accepted by this model family: none, since it has no text encoder"
        )
    return checkpoint


def checkpoint_to_plan(spec: ModelSpec) -> Checkpoint:
    """As `find_checkpoint`; of a well-known name without files on this machine, what is published, and nothing is fetched."""
    wanted = spec.id or MODEL_IDS.get(str(spec.name))
    name = next((name for name, repo_id in MODEL_IDS.items() if repo_id == wanted), None)
    if name is None or spec.revision is not None or is_cached(MODEL_IDS[name], spec.variant):
        return find_checkpoint(spec)
    found = PublishedCheckpoint(
        Path(MODEL_IDS[name]), spec.variant, None, name=name, **_added(spec)
    )
    found.family.check()
    return found


def _added(spec: ModelSpec) -> dict[str, Any]:
    """What a manifest adds to the files of a checkpoint, by field of `Checkpoint`."""
    return {
        "vae_passes": _vae_passes(spec),
        "loras": spec.lora,
        "embeddings": spec.embeddings,
        "clip_skip": spec.clip_skip,
        "vae": None if spec.vae is None else find_vae(Path(spec.vae)),
    }


def _vae_passes(spec: ModelSpec) -> tuple[Literal["slicing", "tiling"], ...]:
    slicing: tuple[Literal["slicing"], ...] = ("slicing",) if spec.vae_slicing else ()
    return (*slicing, "tiling") if spec.vae_tiling else slicing
