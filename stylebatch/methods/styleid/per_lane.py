"""An edit of attention for batches that are evaluated side by side through one network."""

from __future__ import annotations

import threading

from torch import Tensor

from stylebatch.models.denoiser import AttentionEdit, SelfAttention, Site


class PerLane:
    """An attention edit that stands for one per batch: in each thread, that of the batch which it renders."""

    def __init__(self) -> None:
        self._present = threading.local()

    def stand_for(self, edit: AttentionEdit) -> None:
        """In this thread, until the next call."""
        self._present.edit = edit

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        edit: AttentionEdit = self._present.edit
        return edit(site, hidden, layer)
