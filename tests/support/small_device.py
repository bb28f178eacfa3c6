"""A device with memory for few rows."""

from __future__ import annotations

import torch


class Device:
    """Memory for `rows` rows at once: an evaluation of more fails as it would on a GPU."""

    def __init__(self, rows: int) -> None:
        self.rows, self.refused = rows, 0

    def __call__(self, rows: int) -> None:
        if rows > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError(f"out of memory with {rows} rows")
