"""What a worker does when the device runs out of memory: smaller batches, then smaller blocks, then no further.

A rung is recorded in the shard's stats, because float results differ in their last bits between batch sizes; a repair
starts from the recorded rung and so gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from stylebatch.data.grid import Block

_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Rung:
    """`batch`: rows of one evaluation at most; a block is rendered in parts of `contents` x `styles`, 0 for all."""

    batch: int
    contents: int = 0
    styles: int = 0

    @property
    def is_last(self) -> bool:
        return self.batch == self.contents == self.styles == 1

    def below(self, block: Block) -> Rung:
        """Half the batch; when that is 1, half of the longer side of the block's parts."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        contents = min(self.contents or len(block.contents), len(block.contents))
        styles = min(self.styles or len(block.styles), len(block.styles))
        if contents >= styles:
            return Rung(1, max(1, contents // 2), styles)
        return Rung(1, contents, max(1, styles // 2))

    def parts(self, block: Block) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Contents and styles of each part of `block`."""
        rows = self.contents or len(block.contents)
        columns = self.styles or len(block.styles)
        for c in range(0, len(block.contents), rows):
            for s in range(0, len(block.styles), columns):
                yield block.contents[c : c + rows], block.styles[s : s + columns]

    def as_list(self) -> list[int]:
        return [self.batch, self.contents, self.styles]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation on the device failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_ALLOCATOR)


def is_device_fault(error: BaseException) -> bool:
    """Whether the device cannot be used again by this process (an illegal access, an ECC error)."""
    return "CUDA error" in str(error) and not is_out_of_memory(error)
