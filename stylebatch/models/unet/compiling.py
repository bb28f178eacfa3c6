"""`torch.compile` of the layers of a UNet and a VAE that no attention edit touches.

Attention stays as it is: edits are installed and removed within a run, and would be compiled anew each time. Residual blocks and
feed-forward layers have most of the operations that fuse (norm, activation, addition). Layers of one shape share a graph.
"""

from __future__ import annotations

import torch
from torch import nn

from stylebatch.errors import ManifestError
from stylebatch.models.libraries import quiet
from stylebatch.models.model_section import CompileMode

with quiet():
    from diffusers.models.attention import FeedForward
    from diffusers.models.resnet import ResnetBlock2D

COMPILED = (ResnetBlock2D, FeedForward)
MODES = {"default": "default", "max": "max-autotune-no-cudagraphs"}
"""Of torch. Graphs of CUDA would hold the outputs of a layer, which the next evaluation writes over."""
MOST_GRAPHS = 256
"""Of one kind of layer: shapes of its weights times sizes of batches and pictures. torch gives up after 8 by itself."""


def compile_layers(network: nn.Module, mode: CompileMode) -> None:
    """Have the layers compiled at their first use."""
    limit = torch._dynamo.config.recompile_limit  # type: ignore[attr-defined]
    torch._dynamo.config.recompile_limit = max(limit, MOST_GRAPHS)  # type: ignore[attr-defined]
    for layer in network.modules():
        if isinstance(layer, COMPILED):
            # a graph for all sizes would depend on which of them came first
            layer.compile(mode=MODES[mode], dynamic=False)


def require_compiler(device: torch.device) -> None:
    """Compile a line for `device`. Raises ManifestError where that fails, before any picture is tried."""

    def line(x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1

    try:
        with torch.inference_mode():
            torch.compile(line)(torch.zeros(8, device=device))
    except Exception as error:  # each compiler has its own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ManifestError(
            f"model.compile: nothing can be compiled for {device.type} here: {reason}. Next: install a C++ compiler (CPU) or Triton "
            "(GPU), or take model.compile: off"
        ) from error
