"""Features in the machine's memory, and their way back to a GPU: pinned, on a stream of their own, one timestep ahead.

Where the device is the CPU its memory is the machine's, and nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylebatch.methods.styleid.features import SiteFeatures

SLAB_BYTES = 256 << 20
"""torch rounds every pinned allocation up to a power of two, so that tensors share large ones."""
ALIGNMENT = 512


class HostedFeatures:
    """Features kept in the machine's memory since the inversion that made them; on the device are two timesteps."""

    def __init__(self, device: torch.device) -> None:
        self.by_timestep: dict[float, SiteFeatures] = {}
        self._ferry = Ferry(device) if device.type == "cuda" else None
        self._device = device
        self._last: tuple[float, SiteFeatures] | None = None
        self._coming: tuple[float, Callable[[], SiteFeatures]] | None = None

    def keep(self, t: float, features: SiteFeatures) -> None:
        """Take the features of a timestep from the device."""
        take = Tensor.cpu if self._ferry is None else self._ferry.take
        self.by_timestep[t] = _mapped(take, features)

    def at(self, t: float) -> SiteFeatures:
        """On the device; while they are used the copy of the next lower timestep goes on."""
        if self._last is None or self._last[0] != t:
            if self._coming is None or self._coming[0] != t:
                self._coming = t, self._begin(t)
            self._last = t, self._coming[1]()
            lower = max((other for other in self.by_timestep if other < t), default=None)
            self._coming = None if lower is None else (lower, self._begin(lower))
        return self._last[1]

    def _begin(self, t: float) -> Callable[[], SiteFeatures]:
        """Start the copy of a timestep; the result gives it."""
        features = self.by_timestep[t]
        if self._ferry is not None:
            return self._ferry.bring(features)
        return lambda: _mapped(lambda tensor: tensor.to(self._device), features)


@dataclass
class Slab:
    """Pinned memory, `used` bytes of it."""

    memory: Tensor
    used: int = 0


class Ferry:
    """Copies between a GPU and pinned memory, in order, beside what the GPU computes. No call waits for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._slab = Slab(torch.empty(0, dtype=torch.uint8))

    def take(self, tensor: Tensor) -> Tensor:
        """A copy in pinned memory, with the same order in memory, for `bring` alone: it is not complete yet."""
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        # projections give heads within tokens: as it lies there, the copy is one piece
        dense = tensor.permute(order)
        copied = self._room(dense)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            copied.copy_(dense, non_blocking=True)
        # else its memory would be given to another tensor while it is read
        tensor.record_stream(self._stream)
        return copied.permute([order.index(place) for place in range(tensor.dim())])

    def bring(self, features: SiteFeatures) -> Callable[[], SiteFeatures]:
        """Start copies to the GPU of what `take` gave; the result makes the present stream wait for them."""
        with torch.cuda.stream(self._stream):
            brought = _mapped(lambda tensor: tensor.to(self.device, non_blocking=True), features)
            arrived = self._stream.record_event()

        def arrive() -> SiteFeatures:
            present = torch.cuda.current_stream(self.device)
            present.wait_event(arrived)
            for tensors in brought.values():
                for tensor in tensors.values():
                    tensor.record_stream(present)
            return brought

        return arrive

    def _room(self, tensor: Tensor) -> Tensor:
        """Uninitialised pinned memory of the shape and type of a dense tensor."""
        size, slab = tensor.nbytes, self._slab
        if slab.used + size > slab.memory.nbytes:
            # the former ones are kept by the tensors in them
            slab = self._slab = Slab(_pinned(max(SLAB_BYTES, size)))
        part = slab.memory[slab.used : slab.used + size]
        slab.used += math.ceil(size / ALIGNMENT) * ALIGNMENT
        return part.view(tensor.dtype).view(tensor.shape)


def _pinned(num_bytes: int) -> Tensor:
    """Uninitialised pinned memory. Raises MemoryError where the machine has none, which a worker answers with smaller parts."""
    try:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        # it speaks of CUDA, and would be taken for a fault of the device
        if "out of memory" not in str(error):
            raise
        raise MemoryError(
            f"engine.host_gb: the machine gave no {num_bytes:,} bytes of pinned memory; accepted: less than it has free for each worker"
        ) from error


def _mapped(function: Callable[[Tensor], Tensor], features: SiteFeatures) -> SiteFeatures:
    return {
        site: {name: function(tensor) for name, tensor in tensors.items()}
        for site, tensors in features.items()
    }
