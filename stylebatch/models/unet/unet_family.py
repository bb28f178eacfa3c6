"""The `Family` of Stable Diffusion 1.x, 2.x and XL: sizes, sites, memory and checks from a checkpoint's configs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from stylebatch.errors import ManifestError
from stylebatch.models.family import About, Memory, SiteShape, Sizes
from stylebatch.models.learned_tokens import (
    Embedding,
    check_lengths,
    check_tokens,
    find_embeddings,
)
from stylebatch.models.pipeline_files import COMPONENTS, PipelineFiles
from stylebatch.models.tokens import check_tokenizer, vocabulary
from stylebatch.models.unet.config_checks import (
    PREDICTS,
    Configs,
    check_configs,
    check_marks,
    check_vae_fits,
    checked_clip_skip,
)
from stylebatch.models.unet.lora_keys import check_keys
from stylebatch.models.unet.memory import picture_bytes, row_bytes
from stylebatch.models.unet.network import Network, network_of
from stylebatch.models.unet.published import names_of
from stylebatch.models.unet.single_file import (
    Layout,
    parameters_by_part,
    single_file_layout,
    vae_tensors,
)
from stylebatch.models.weights import NETWORKS, num_parameters, read_header

XL_COMPONENTS = (*COMPONENTS, "text_encoder_2", "tokenizer_2")
TITLES: dict[Layout, str] = {
    "1.x": "Stable Diffusion 1.x",
    "2.x": "Stable Diffusion 2.x",
    "xl": "Stable Diffusion XL",
}


@dataclass(frozen=True)
class UNet:
    """`Family` of a UNet with CLIP text encoders and an autoencoder, in a pipeline folder or a single file."""

    files: PipelineFiles
    loader: ClassVar[str] = "stylebatch.models.unet.unet_loading"
    takes_edits: ClassVar[bool] = True

    @cached_property
    def is_xl(self) -> bool:
        """SDXL adds the pooled text and the picture's sizes to the time embedding."""
        return self.files.config("unet").get("addition_embed_type") == "text_time"

    @cached_property
    def layout(self) -> Layout:
        """2.x and XL have linear projections around their attention, 1.x has convolutions."""
        if self.is_xl:
            return "xl"
        return "2.x" if self.files.config("unet").get("use_linear_projection") else "1.x"

    @property
    def parts(self) -> tuple[str, ...]:
        return XL_COMPONENTS if self.is_xl else COMPONENTS

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(part for part in self.parts if part.startswith("text_encoder"))

    @property
    def tokenizers(self) -> dict[str, str]:
        return {part.replace("text_encoder", "tokenizer"): part for part in self.text_encoders}

    @cached_property
    def embeddings(self) -> tuple[Embedding, ...]:
        encoders = {part: self.files.fields(part) for part in self.text_encoders}
        widths = {part: fields.count("hidden_size", 512) for part, fields in encoders.items()}
        return find_embeddings(self.files.embeddings, widths)

    @property
    def num_timesteps(self) -> int:
        fields = self.files.fields("scheduler")
        betas = fields.values.get("trained_betas")
        return len(betas) if isinstance(betas, list) else fields.count("num_train_timesteps", 1000)

    @property
    def zeros_for_nothing(self) -> bool:
        """Whether zeros stand for "no prompt" (`model_index.json`; SDXL only)."""
        return self.files.index.flag("force_zeros_for_empty_prompt", True)

    @property
    def upcasts(self) -> bool:
        """Whether the autoencoder stays float32 in a float16 model: SDXL's overflows; a retrained one sets force_upcast to false."""
        return self.is_xl and self.files.fields("vae").flag("force_upcast", True)

    @cached_property
    def network(self) -> Network:
        return network_of(self.files.fields("unet"))

    @cached_property
    def vae_widths(self) -> tuple[int, ...]:
        """Channels of the autoencoder by level, full size first."""
        fields = self.files.fields("vae")
        return fields.counts("block_out_channels", None, len(fields.list("block_out_channels")))

    @cached_property
    def sizes(self) -> Sizes:
        """Without `sample_size` in the config, the native size is that of diffusers' pipeline."""
        factor, cells = 2 ** (len(self.vae_widths) - 1), 128 if self.is_xl else 64
        height, width = self.network.trained_cells or (cells, cells)
        return Sizes(
            (width * factor, height * factor),
            # the UNet halves its cells between levels; an odd number would not fit the decoder's skip connections
            multiple=factor * 2 ** (self.network.num_levels - 1),
            latent_factor=factor,
            latent_channels=self.network.in_channels,
        )

    def site_shapes(self, size: int) -> tuple[SiteShape, ...]:
        """A site is 3 level + position, the deepest level of the decoder first."""
        network = self.network
        top = network.num_levels - 1
        return tuple(
            SiteShape(
                site,
                (size // self.sizes.latent_factor) >> (top - level),
                network.decoder[level].width,
                network.decoder[level].heads,
                depth,
            )
            for site, (level, depth) in sorted(network.sites.items())
        )

    def memory(self, size: tuple[int, int], value_bytes: int) -> Memory:
        wide, tall = (side // self.sizes.latent_factor for side in size)
        vae, (width, height) = self.files.fields("vae"), size
        if "tiling" in self.files.vae_passes:  # the autoencoder then sees one tile at a time
            tile = vae.counts("sample_size", 512, 2)[0]
            width, height = min(width, tile), min(height, tile)
        top, network = self.network.num_levels - 1, self.network
        features = {
            site: value_bytes
            * depth
            * network.decoder[level].width
            * (wide >> (top - level))
            * (tall >> (top - level))
            for site, (level, depth) in sorted(network.sites.items())
        }
        return Memory(
            row_bytes(network, (wide, tall), value_bytes),
            picture_bytes(self.vae_widths, (width, height), 4 if self.upcasts else value_bytes),
            features,
        )

    def check(self) -> None:
        files = self.files
        for part in ("unet", "vae", "text_encoder", "scheduler"):
            files.config(part)
        # first: what does not fit must not be put down to the UNet's config
        if files.vae is not None:
            self._check_vae(files.vae)
        encoders = {part: files.fields(part) for part in self.text_encoders}
        check_configs(
            Configs(
                files.index,
                files.fields("scheduler"),
                files.fields("unet"),
                files.fields("vae"),
                encoders,
            )
        )
        _ = self.embeddings  # files that do not fit are named here
        for part, encoder in self.tokenizers.items() if files.is_here else ():
            check_tokenizer(files.folder / part, encoders[encoder])
            check_tokens(self.embeddings, encoder, vocabulary(files.folder / part))
            check_lengths(self.embeddings, encoder, files.context_length(part, encoder))
        layers = [one.count("num_hidden_layers", 12) for one in encoders.values()]
        checked_clip_skip(files.clip_skip, layers)
        if files.weights is not None:
            self._check_single_file(files.weights)
        for lora in files.loras:
            check_keys(Path(lora.path))

    def _check_single_file(self, weights: Path) -> None:
        """Raise ManifestError unless the file's layout is the one that its config describes."""
        # diffusers would guess the layout from a few shapes, and fetch the configs of its guess.
        folder = self.files.folder
        if not (folder / "model_index.json").is_file():
            raise ManifestError(
                f"model.config: {folder} holds no model_index.json; accepted: the configs and tokenizers of a "
                "pipeline folder: `hf download OWNER/NAME --include '*.json' '*.txt' --local-dir FOLDER`"
            )
        header = read_header(weights)
        layout = single_file_layout(weights, header, needs_vae=self.files.vae is None)
        if layout != self.layout:
            # the text encoders differ, so that loading would fail, or render without the prompt
            raise ManifestError(
                f"model.config: {folder} describes Stable Diffusion {self.layout}, but model.path "
                f"({weights}) holds Stable Diffusion {layout}; accepted: the configs of the file's own family"
            )
        check_marks(weights, header, self.files.fields("scheduler"))

    def _check_vae(self, vae: Path) -> None:
        """Raise ManifestError unless the latents of another autoencoder are those that the network was trained on."""
        if self.files.vae_file is not None:
            vae_tensors(vae, read_header(vae))
            return  # it has the config of the checkpoint's
        check_vae_fits(self.files.fields("vae"), self.files.given_fields("vae"))

    def about(self) -> About:
        predicts = self.files.fields("scheduler").word("prediction_type", "epsilon", PREDICTS)
        return About(
            TITLES[self.layout],
            self.layout,
            predicts,
            self._parameters(),
            names_of(self.files.config("unet"), predicts),
            tuple(self._doubts(predicts)),
        )

    def _parameters(self) -> dict[str, int]:
        files = self.files
        found = {}
        if files.weights is not None:
            found = parameters_by_part(self.layout, read_header(files.weights))
            found = {
                part: number for part, number in found.items() if part != "vae" or not files.vae
            }
        if files.vae_file is not None:
            _, tensors = vae_tensors(files.vae_file, read_header(files.vae_file))
            found["vae"] = num_parameters(tensors)
        found = {
            part: found.get(part) or files.num_parameters(part)
            for part in NETWORKS
            if part in self.parts
        }
        for one in self.embeddings:
            for part, count in one.counts.items():
                found[part] += count * self.files.fields(part).count("hidden_size", 512)
        return found

    def _doubts(self, predicts: str) -> Iterator[tuple[str, str]]:
        if self.layout == "2.x" and self.sizes.native == 768 and predicts == "epsilon":
            yield (
                "a 2.x network of 768 px whose scheduler says epsilon; the published one predicts v",
                "if pictures are noise, set prediction_type: v_prediction in scheduler/scheduler_config.json",
            )
        if self.is_xl and "scaling_factor" not in self.files.config("vae"):
            yield (
                "vae/config.json has no scaling_factor, so that 0.18215 is taken; XL's is 0.13025",
                "write it into vae/config.json",
            )
