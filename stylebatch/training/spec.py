"""The training specification: typed, frozen, validated before anything heavy is imported.

`TrainSpec` is what a training config says and what `stylebatch.training.trainer.train` takes. Paths of data and
model are relative to the config's folder, the output path to the working directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from stylebatch.models.model_section import ModelSpec
from stylebatch.section import Section
from stylebatch.training.judge_section import Perceptual, StyleJudge

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class TrainData(Section):
    """Captioned training images: a folder, WebDataset tars or Parquet."""

    path: str = Field(
        min_length=1,
        description="Image folder (with metadata.csv or metadata.jsonl for captions), folder or file of "
        ".parquet with an image column, or folder or file of WebDataset .tar",
    )
    image: str | None = Field(None, description="Image column; default the first that holds images")
    caption: str | None = Field(
        None, description="Caption column; default text, caption or txt where there is one"
    )
    group: str | None = Field(
        None, description="Column naming what looks alike (one picture, one style), for borrow"
    )
    before: str | None = Field(
        None,
        description="Image column with the same picture before it was styled, for borrow.restyle; "
        "empty cells: none",
    )
    template: str = Field(
        "a photo of {label}",
        description="Caption where the data has none; {label} is the class of the image",
    )
    size: int = Field(512, ge=32, le=2048, description="Pixels per side of a training crop")
    min_scale: float = Field(
        1.0, gt=0.0, le=1.0, description="Smallest random crop, as a share of the shorter side"
    )
    crops: int = Field(
        1, ge=1, le=1000, description="Random crops of each image (unet: encoded once)"
    )
    flip: bool = Field(True, description="Mirror half of the crops")


class Window(Section):
    """One size of training window."""

    size: int = Field(ge=16, description="Pixels per side")
    batch: int = Field(ge=1, description="Windows per process and step")
    share: float = Field(1.0, gt=0.0, description="Weight against the other windows of the phase")


class Phase(Section):
    """A stretch of the run: ends at `until`, a share of all steps."""

    until: float = Field(1.0, gt=0.0, le=1.0, description="Share of all steps at which it ends")
    windows: Annotated[tuple[Window, ...], Field(min_length=1, strict=False)]


class Optimizer(Section):
    """Optimizer and learning rate."""

    name: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: orthogonalised momentum for hidden matrices, AdamW for the rest"
    )
    rate: float = Field(1e-5, gt=0.0, description="Peak learning rate of AdamW")
    matrix_rate: float = Field(0.01, gt=0.0, description="Peak learning rate of muon's matrices")
    weight_decay: float = Field(0.01, ge=0.0, description="Of AdamW and muon")
    max_norm: float = Field(1.0, gt=0.0, description="Gradients are clipped to this norm")
    warmup: Fraction = Field(0.02, description="Share of steps of linear warmup")
    decay: Fraction = Field(0.5, description="Last share of steps, in which the rate falls to zero")


class Borrow(Section):
    """Pairs of one group: the first attends to keys and values of the second, as injection does."""

    share: Fraction = Field(description="Share of a batch that reads keys and values of a partner")
    sites: Annotated[tuple[Annotated[int, Field(ge=0, le=11)], ...], Field(strict=False)] = Field(
        (6, 7, 8, 9, 10, 11), description="Decoder self-attention sites, 0 to 11"
    )
    tau: float = Field(1.0, gt=0.0, le=10.0, description="Attention temperature of borrowing rows")
    restyle: Fraction = Field(
        0.0,
        description="Share of borrowing rows whose noisy input shows the picture of data.before",
    )


class TimestepBias(Section):
    """More training where a network is weak: part of the timesteps come from a range, the rest from all."""

    begin: int = Field(500, ge=0, description="First timestep of the range")
    end: int = Field(1000, ge=1, description="One past its last timestep")
    share: Fraction = Field(0.5, description="Share of a batch drawn from the range")

    @model_validator(mode="after")
    def _ascends(self) -> TimestepBias:
        if self.begin >= self.end:
            raise ValueError(f"begin {self.begin} is not below end {self.end}")
        return self


class Straighten(Section):
    """A penalty on the error of DDIM inversion, which assumes the same noise prediction one stride further."""

    share: Fraction = Field(
        0.25, description="Share of a batch that is evaluated one stride further"
    )
    weight: float = Field(1.0, gt=0.0, description="Of the penalty, next to the denoising loss")
    stride: int = Field(
        50, ge=1, le=500, description="Timesteps of a stride; 50 is that of 20 steps"
    )


class StyleLossOptions(Section):
    """Stylised rows: contents with injected features, as in StyleID, compared with the look of their styles."""

    share: Fraction = Field(
        0.33,
        description="Stylised rows, as a share of the batch and beside it: as many as there are partners and "
        "other rows to be style and content",
    )
    texture_weight: float = Field(
        0.1, ge=0.0, description="Of the distance of filter-bank Gram matrices to the style"
    )
    color_weight: float = Field(
        0.1, ge=0.0, description="Of the distance of channel distributions to the style"
    )
    structure_weight: float = Field(
        0.1, ge=0.0, description="Of the edge correlation with the content that is missing"
    )
    structure: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        (0.75, 0.75), description="Edge correlation required at the first and at the second gamma"
    )
    contrast_weight: float = Field(
        0.0,
        ge=0.0,
        description="Of being nearer to the right style than to the others of the batch",
    )
    contrast_temperature: float = Field(
        0.15, gt=0.0, description="Texture distance that counts as clearly another style"
    )
    gamma: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        (0.75, 0.75),
        description="Query preservation, as in StyleID: drawn for each row between these two",
    )
    judge: StyleJudge | None = Field(None, description="What a network for photographs says")
    tau: float = Field(1.5, gt=0.0, le=10.0, description="Attention temperature, as in StyleID")
    ahead: int = Field(
        0,
        ge=0,
        le=999,
        description="Stylised rows start from a stylised step of up to so many timesteps; 0: from the content",
    )
    begin: int = Field(20, ge=0, description="First timestep")
    end: int = Field(900, ge=1, description="One past the last timestep")

    @model_validator(mode="after")
    def _ascends(self) -> StyleLossOptions:
        if self.begin >= self.end:
            raise ValueError(f"begin {self.begin} is not below end {self.end}")
        return self


class UnetOptions(Section):
    """Denoising (arXiv 2006.11239) on latents that are encoded once."""

    prediction: Literal["epsilon", "v_prediction"] | None = Field(
        None, description="What the network predicts; default what the checkpoint's scheduler says"
    )
    drop_prompt: Fraction = Field(
        0.1, description="Share of prompts replaced by the empty one (classifier-free guidance)"
    )
    snr_gamma: float | None = Field(
        None, gt=0.0, description="Min-SNR loss weighting (arXiv 2303.09556); 5 is usual"
    )
    latents: Literal["sample", "mode"] = Field(
        "sample", description="Draw from the autoencoder's posterior, or take its mean"
    )
    timestep_bias: TimestepBias | None = Field(
        None, description="Draw a range of timesteps more often"
    )
    borrow: Borrow | None = Field(None, description="Train self-attention to carry style")
    straighten: Straighten | None = Field(
        None, description="Train for inversion in few steps: predictions that hold over a stride"
    )
    style_loss: StyleLossOptions | None = Field(
        None, description="Train injected features to bring the look of the picture they come from"
    )

    @model_validator(mode="after")
    def _styles_come_from_partners(self) -> UnetOptions:
        if self.style_loss is not None and self.borrow is None:
            raise ValueError(
                "style_loss takes its styles from the partners of `borrow`; give `borrow` too"
            )
        return self


class VaeOptions(Section):
    """Reconstruction and KL of the autoencoder (arXiv 2112.10752)."""

    only: Literal["decoder"] | None = Field(
        None, description="decoder: latents stay as they are, so that a trained UNet fits"
    )
    perceptual: Perceptual | None = Field(
        None, description="Also as a network for photographs sees the pictures"
    )

    squared_weight: float = Field(
        3.0, ge=0.0, description="Of the squared error; the absolute has 1"
    )
    gradient_weight: float = Field(
        0.25, ge=0.0, description="Of errors in differences of neighbours"
    )
    pooled_weight: float = Field(0.25, ge=0.0, description="Of errors of 4x-pooled colours")
    kl_weight: float = Field(1e-6, ge=0.0, description="Of the KL divergence from a unit Gaussian")
    noise: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="Standardise each latent channel and add this much noise in place of posterior and KL",
    )
    scaling_factor: float = Field(
        1.0,
        gt=0.0,
        description="With noise: deviation of the latents that the UNet sees; above 1 suits white latents",
    )

    @model_validator(mode="after")
    def _decoder_keeps_latents(self) -> VaeOptions:
        if self.only is not None and self.noise is not None:
            raise ValueError(
                "noise changes the latents, which `only: decoder` keeps; give one of them"
            )
        return self


class Validation(Section):
    """Pictures made along the way."""

    every: int = Field(500, ge=1, description="Steps between two grids")
    prompts: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        ("a photo", "a painting"), description="unet: captions to sample"
    )
    guidance: float = Field(
        4.0, ge=0.0, le=50.0, description="unet: classifier-free guidance scale"
    )
    steps: int = Field(20, ge=1, le=1000, description="unet: DDIM steps")
    images: str | None = Field(
        None, description="vae: image folder whose reconstructions are shown and measured"
    )
    count: int = Field(4, ge=1, le=64, description="Samples of each prompt, or images")


class Checkpoints(Section):
    """Checkpoints, from which a resumed run continues."""

    every: int = Field(500, ge=1, description="Steps between two checkpoints")
    keep: int = Field(2, ge=1, description="Older ones are deleted")


class TrainSpec(Section):
    """One training run."""

    name: str = Field("training", min_length=1)
    stage: Literal["unet", "vae"] = Field(description="Part of the pipeline folder that is trained")
    model: Annotated[
        ModelSpec, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)
    ] = Field(description="Pipeline folder to start from")
    data: TrainData
    steps: int = Field(ge=1, description="Optimizer steps; may be raised when a run is resumed")
    phases: Annotated[tuple[Phase, ...], Field(min_length=1, strict=False)] = Field(
        description="Window sizes and batches; one phase with one window of data.size is usual"
    )
    accumulation: int = Field(1, ge=1, description="Batches per optimizer step")
    optimizer: Optimizer = Optimizer()
    ema: float | None = Field(
        0.9999,
        gt=0.0,
        lt=1.0,
        description="Decay of the average of weights that is exported; null: none",
    )
    precision: Literal["no", "fp16", "bf16"] = Field(
        "no", description="accelerate's mixed precision"
    )
    unet: UnetOptions = UnetOptions()
    vae: VaeOptions = VaeOptions()
    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    tracker: Literal["tensorboard", "wandb"] | None = Field("tensorboard")
    threads: int | None = Field(
        None, ge=1, description="CPU threads per process; default its share"
    )
    export_dtype: Literal["float32", "float16", "bfloat16"] = Field("float32")
    seed: int = Field(0, ge=0, lt=2**31)
    output: str = Field(
        min_length=1, description="Output folder, relative to the working directory"
    )

    @model_validator(mode="before")
    @classmethod
    def _batch_is_short_for_one_phase(cls, data: Any) -> Any:
        # `batch: 8` is short for one phase with one window of data.size
        if isinstance(data, dict) and "batch" in data and "phases" not in data:
            section = data.get("data")
            size = section.get("size", 512) if isinstance(section, dict) else 512
            rest = {key: value for key, value in data.items() if key != "batch"}
            return rest | {"phases": [{"windows": [{"size": size, "batch": data["batch"]}]}]}
        return data

    @field_validator("phases")
    @classmethod
    def _phases_ascend_to_the_end(cls, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        ends = [phase.until for phase in phases]
        if ends != sorted(set(ends)) or ends[-1] != 1.0:
            raise ValueError("`until` ascends from phase to phase and the last is 1.0")
        return phases

    @model_validator(mode="after")
    def _windows_fit(self) -> TrainSpec:
        for window in (w for phase in self.phases for w in phase.windows):
            if window.size > self.data.size:
                raise ValueError(
                    f"phases: a window of {window.size} px does not fit data.size {self.data.size}"
                )
        for name in ("vae", "embeddings", "clip_skip"):
            if getattr(self.model, name):
                raise ValueError(
                    f"model.{name}: accepted: none, since what training writes is the checkpoint with one part changed. Next: leave it "
                    "out; another autoencoder may be put into the vae folder of a copy"
                )
        borrow = self.unet.borrow
        if borrow is not None and self.data.group is None:
            raise ValueError("unet.borrow pairs rows of one group; give `data.group`, a column")
        if borrow is not None and borrow.restyle and self.data.before is None:
            raise ValueError(
                "unet.borrow.restyle starts from pictures; give `data.before`, a column"
            )
        return self

    def window(self, progress: float, chance: float) -> Window:
        """Window of a step at `progress` in [0, 1), drawn by `chance` in [0, 1)."""
        phase = next(phase for phase in self.phases if progress < phase.until)
        limit, total = chance * sum(window.share for window in phase.windows), 0.0
        for window in phase.windows:
            total += window.share
            if limit < total:
                return window
        return phase.windows[-1]  # rounding of the sum


FREE_TO_CHANGE = frozenset(
    {
        "name",
        "steps",
        "validation",
        "checkpoints",
        "tracker",
        "threads",
        "export_dtype",
        "output",
    }
)
"""Fields that a resumed run may change: they do not affect the steps already made."""


def join_inputs(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy of raw config `data` with the input paths joined to `folder`."""
    joined = dict(data)
    for section, field in (("data", "path"), ("model", "path"), ("validation", "images")):
        inner = joined.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(field), str):
            joined[section] = inner | {field: str(folder / inner[field])}
    return joined
