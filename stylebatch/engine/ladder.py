"""What a worker does when the device runs out of memory: smaller batches, then smaller blocks, then no further.

A rung is recorded in the shard's stats, because float results differ in their last bits between batch sizes; a repair
starts from the recorded rung and so gives the same bytes.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from stylebatch.planning.grid import Block

_ALLOCATORS = ("can't allocate memory", "not enough memory", "MPS backend out of memory")


@dataclass(frozen=True)
class Rung:
    """`batch`: rows of one evaluation at most; a block is rendered in parts of `rows` x `columns`, 0 for all."""

    batch: int
    rows: int = 0
    columns: int = 0

    @property
    def is_last(self) -> bool:
        return self.batch == self.rows == self.columns == 1

    def below(self, block: Block) -> Rung:
        """Half the batch; when that is 1, half of the longer side of the block's parts."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        rows = min(self.rows or len(block.rows), len(block.rows))
        columns = min(self.columns or len(block.columns), len(block.columns))
        # halves of the longer side keep most of what rows and columns share
        if rows >= columns:
            return Rung(1, max(1, rows // 2), columns)
        return Rung(1, rows, max(1, columns // 2))

    def parts(self, block: Block) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Rows and columns of each part of `block`."""
        height = self.rows or len(block.rows)
        width = self.columns or len(block.columns)
        for top in range(0, len(block.rows), height):
            for left in range(0, len(block.columns), width):
                yield block.rows[top : top + height], block.columns[left : left + width]

    def as_list(self) -> list[int]:
        return [self.batch, self.rows, self.columns]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation on the device failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch's allocators of the CPU and of Apple's GPU raise a plain RuntimeError
    return isinstance(error, RuntimeError) and any(text in _text(error) for text in _ALLOCATORS)


def is_device_fault(error: BaseException) -> bool:
    """Whether the device cannot be used again by this process (an illegal access, an ECC error)."""
    # an out-of-memory error of CUDA can say so too, and leaves the device usable
    return "CUDA error" in _text(error) and not is_out_of_memory(error)


def _text(error: BaseException) -> str:
    """The text of `error`. `str(error)` is not called: a `__str__` that a user wrote may raise."""
    return "".join(traceback.format_exception_only(error))
