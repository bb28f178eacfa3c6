"""Where the work runs and where features come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stylebatch.masking import masked
from stylebatch.methods.stored_bytes import CodecName
from stylebatch.section import Section

DeviceKind = Literal["auto", "cpu", "cuda", "mps"]


class FeatureSpec(Section):
    """Where the attention features of styles come from while pairs are rendered."""

    source: Literal["auto", "held", "cached", "recomputed"] = Field(
        "auto",
        description="Of styles. held in memory since the inversion, on the device or in `engine.host_gb`; cached: read from `cache`, "
        "written there once; "
        "recomputed from latents; auto: the cheapest, measured where `cache` is given",
    )
    contents: Literal["auto", "held", "recomputed"] = Field(
        "auto", description="Where the queries of contents come from; auto: the cheapest"
    )
    codec: Literal["auto", CodecName] = Field(
        "auto",
        description="kv: keys and values; x: the layer's input, half of it; x8: that in int8; trajectory: of cached styles the "
        "latents alone, from which features are recomputed; auto: kv, or x where memory is short or styles are cached, or x8 or "
        "trajectory where the disk is too small or too slow for x",
    )
    cache: str | None = Field(
        None,
        min_length=1,
        description="Folder (relative to the working directory) or fsspec URL of the style cache",
    )
    copies_gb: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="Of a cache in a store: gigabytes that copies of its styles may take on this machine, beside those in use; default "
        "no bound",
    )

    @property
    def most_copies(self) -> int | None:
        """Bytes of `copies_gb`."""
        return None if self.copies_gb is None else int(self.copies_gb * 1e9)

    @model_validator(mode="after")
    def _cached_needs_a_cache(self) -> FeatureSpec:
        if self.source == "cached" and self.cache is None:
            raise ValueError("source cached reads a style cache; give `cache`, a folder or URL")
        if self.codec == "trajectory" and (
            self.cache is None or self.source not in ("auto", "cached")
        ):
            raise ValueError(
                f"codec: found trajectory with source {self.source}, cache {masked(str(self.cache))}; accepted: source cached or auto "
                "with a `cache` that keeps the latents, or codec kv, x, x8"
            )
        return self


class EngineSpec(Section):
    """Where the work runs. `threads`, `batch`, `batch_gb`, `feature_gb` and `host_gb` change the last bits of floats, no more."""

    name: Literal["auto", "local", "ray", "accelerate"] = Field(
        "auto",
        description="local: this process; ray: workers of a Ray cluster; accelerate: the ranks of `accelerate launch` or "
        "torchrun; auto: accelerate under a launcher, ray with an address, workers or several GPUs, else local",
    )
    device: DeviceKind = Field(
        "auto",
        description="What the network runs on; auto: a CUDA GPU, else Apple's GPU (mps), else the CPU. Which of several GPUs: the "
        "variable CUDA_VISIBLE_DEVICES",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Ray workers; default one per GPU of the cluster, or as many as its cores allow, growing and shrinking with it",
    )
    address: str | None = Field(
        None,
        min_length=1,
        description="Ray cluster to join: `auto`, HOST:PORT or ray://HOST:PORT; default a cluster of this machine for this run",
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0.0,
        le=64.0,
        description="Share of a GPU per Ray worker; default 1 where there are GPUs",
    )
    cpus_per_worker: float | None = Field(
        None,
        gt=0.0,
        le=4096.0,
        description="Cores per Ray worker; default 1 with a GPU, else `threads`",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="A shard that failed so often is left out and named, exit code 3",
    )
    drain_s: float = Field(
        20.0,
        ge=0.0,
        le=86400.0,
        description="Seconds that Ray workers get after SIGTERM to end the shard they are at; 0: none",
    )
    tracker: Literal["tensorboard", "wandb"] | None = Field(
        None, description="Also log progress there, through accelerate"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Serve the run's status to Prometheus on this port while it lasts, 0: on one that is free, which the run tells; "
        "the process that plans serves it",
    )
    metrics_host: str = Field(
        "0.0.0.0",
        min_length=1,
        description="Address of this machine that `metrics_port` is of; default all of them, 127.0.0.1: for this machine alone",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of the network; default the cores of the machine, at most 8",
    )
    batch: int = Field(16, ge=1, le=1024, description="Largest batch of one network evaluation")
    batch_gb: float | None = Field(
        None,
        gt=0.0,
        le=4096.0,
        description="Memory (GiB) for activations: cuts batches, on a CPU bounds how many go side by side; default 4, or half of a GPU's",
    )
    feature_gb: float = Field(
        8.0,
        gt=0.0,
        le=4096.0,
        description="Memory (GiB) of the device for attention features; blocks of contents x styles are cut to fit",
    )
    host_gb: float = Field(
        0.0,
        ge=0.0,
        le=65536.0,
        description="Memory (GiB) of the machine, beside `feature_gb`, for held features that are copied to the device a timestep ahead; "
        "of each worker, on a CPU of the same memory",
    )
