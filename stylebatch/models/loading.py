"""Loads a checkpoint through its family; accelerate and the manifest decide the device and the dtype."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch

from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.families import LOADED_PIPELINES
from stylebatch.models.libraries import quiet
from stylebatch.models.model_section import CompileMode, ModelSpec, describe_model
from stylebatch.models.offload import Offload

with quiet():
    from accelerate import PartialState
    from accelerate.utils import parse_choice_from_env

_PRECISIONS = {"no": "", "fp16": "float16", "bf16": "bfloat16"}
"""Accelerate's names."""


class LoadedPipeline(Protocol):
    """A `DiffusionPipeline` of diffusers, or of stylebatch."""

    @property
    def components(self) -> dict[str, Any]:
        """Networks, tokenizers and scheduler by name."""
        ...


class Loader(Protocol):
    """The module named by `Family.loader`. `family` is always an instance of the module's own family.

    Only `load` is required; where a module has no `faults` or `check`, weights are first looked at when they load, and one
    without `compile` compiles nothing.
    """

    def load(self, family: Any, *, dtype: str, device: torch.device, offload: Offload) -> Denoiser:
        """The model in inference mode. Raises ManifestError, naming part and file, for whatever `faults` finds."""
        ...

    def compile(self, model: Any, mode: CompileMode) -> None:
        """Have the layers of a loaded model compiled when they are first used. Raises ManifestError where no compiler works."""
        ...

    def faults(self, family: Any) -> Iterator[ManifestError]:
        """Missing, unexpected or misshapen weights, one error per part; reads headers alone."""
        ...

    def check(self, family: Any) -> None:
        """Raise ManifestError for the first fault, and for LoRA files that do not fit."""
        ...


def _loader_of(checkpoint: Checkpoint) -> Loader:
    return cast(Loader, importlib.import_module(checkpoint.family.loader))


def faults(checkpoint: Checkpoint) -> Iterator[ManifestError]:
    """As `Loader.faults`."""
    find = getattr(_loader_of(checkpoint), "faults", None)
    if find is not None:
        yield from find(checkpoint.family)


def load_model(
    spec: ModelSpec | Literal["tiny"] | str | Path | LoadedPipeline,
    *,
    device: str | torch.device | None = None,
) -> Denoiser:
    """Load a checkpoint in inference mode on the device that accelerate assigns to this process.

    `spec`: a known name ("tiny", "sd15", ...), a pipeline folder, a hub id, a `ModelSpec` (single files, variants, offload), or a
    pipeline that diffusers has loaded. Its networks then serve where they are and in their dtype, LoRA weights and offloading as they
    are set up there, and the pipeline can be used as before; move it before, with `pipe.to(...)`, not by `device`.
    Raises ManifestError, one paragraph, if it cannot be found, fetched or used.
    """
    if not isinstance(spec, ModelSpec | str | Path):
        return _lent(spec, device)
    if not isinstance(spec, ModelSpec):
        try:
            spec = describe_model(str(spec))
        except ValueError as error:
            raise ManifestError(f"model: {spec}: {error}") from None
    checkpoint = find_checkpoint(spec)
    model = load_checkpoint(checkpoint, dtype=spec.dtype, device=device, offload=spec.offload)
    if spec.compile != "off":
        _compile(checkpoint, model, spec.compile)
    return model


def _lent(pipeline: LoadedPipeline, device: str | torch.device | None) -> Denoiser:
    if device is not None:
        raise ManifestError(
            f"device: found {device} beside a loaded pipeline, which stays where it is; accepted: none. Next: pipe.to({str(device)!r})"
        )
    model: Denoiser = importlib.import_module(LOADED_PIPELINES).denoiser_of(pipeline)
    return model


def _compile(checkpoint: Checkpoint, model: Denoiser, mode: CompileMode) -> None:
    compiler = getattr(_loader_of(checkpoint), "compile", None)
    if compiler is None:
        raise ManifestError(
            f"model.compile: found {mode}; accepted for this model family: off, since its loader compiles nothing"
        )
    compiler(model, mode)


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    offload: Offload = "none",
) -> Denoiser:
    """Load the parts of a pipeline folder or single file; see `load_model`."""
    target, resolved = placement(dtype, device)
    loader = _loader_of(checkpoint)
    return loader.load(checkpoint.family, dtype=resolved, device=target, offload=offload)


def check_model(spec: ModelSpec, checkpoint: Checkpoint | None = None) -> None:
    """Raise ManifestError unless the weights and LoRA files of `spec` are complete and fit each other.

    `checkpoint`: where it was found already.
    """
    checkpoint = checkpoint or find_checkpoint(spec)
    check = getattr(_loader_of(checkpoint), "check", None)
    if check is not None:
        check(checkpoint.family)


def find_device(kind: str) -> torch.device | None:
    """The device that `engine.device` asks for; None for `auto`, which accelerate decides.

    Raises ManifestError where this process sees none of that kind.
    """
    if kind == "auto":
        return None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ManifestError(_missing(kind, _why_no_cuda()))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ManifestError(
            _missing(kind, "check that this is a Mac with Apple silicon and its torch")
        )
    # of several ranks each has its own GPU
    assigned = PartialState().device if kind != "cpu" else torch.device("cpu")
    return assigned if assigned.type == kind else torch.device(kind)


def _missing(kind: str, step: str) -> str:
    here = [name for name, has in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if has.is_available()]  # fmt: skip
    return (
        f"engine.device: found {kind}, and torch {torch.__version__} sees no such device here; accepted on this machine: "
        f"{', '.join(['auto', 'cpu', *here])}. Next: --set engine.device=auto, or {step}"
    )


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "install a build of torch for CUDA: this one is not"
    return "check `nvidia-smi` and CUDA_VISIBLE_DEVICES"


def placement(
    dtype: str = "auto", device: str | torch.device | None = None
) -> tuple[torch.device, str]:
    """The device that accelerate assigns to this process, and the dtype that `auto` means there.

    `accelerate launch --mixed_precision` decides `auto`. Raises ManifestError if that is not possible here.
    """
    # PartialState is a singleton of the process: it is created only where no device is given.
    target = torch.device(device) if device is not None else PartialState().device
    if dtype != "auto":
        return target, dtype
    # read from the environment: a plan asks for the dtype before any Accelerator exists
    wanted = parse_choice_from_env("ACCELERATE_MIXED_PRECISION", "no")
    if wanted not in _PRECISIONS or (wanted == "fp16" and target.type == "cpu"):
        raise ManifestError(
            f"model.dtype: auto follows accelerate's mixed precision; found {wanted} on {target.type}; accepted: no, bf16, "
            "or fp16 on a GPU. Next: accelerate launch --mixed_precision no, or set model.dtype"
        )
    # on Apple's GPU what the CPU proves: half precision is unproven there
    wide = target.type in ("cpu", "mps")
    return target, _PRECISIONS[wanted] or ("float32" if wide else "float16")
