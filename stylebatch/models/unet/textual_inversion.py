"""Puts the vectors of textual inversions into a text encoder's table, at the numbers that its tokenizer gave their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from stylebatch.errors import ManifestError
from stylebatch.models.learned_tokens import Embedding


@torch.no_grad()
def add_embeddings(
    embeddings: Sequence[Embedding], part: str, encoder: Any, tokenizer: Any
) -> None:
    """Add the vectors for the text encoder `part`; `tokenizer` knows their names already.

    Raises ManifestError, naming the file, for vectors that are not finite in the encoder's dtype.
    """
    added = [one for one in embeddings if part in one.tensors]
    if not added:
        return
    layer = encoder.get_input_embeddings()
    before: Tensor = layer.weight
    numbers = [tokenizer.convert_tokens_to_ids(list(one.names(part))) for one in added]
    rows = max(len(before), 1 + max(map(max, numbers)))
    weight = before.new_zeros(rows, before.shape[1])
    weight[: len(before)] = before
    for one, places in zip(added, numbers, strict=True):
        vectors = _vectors(one, part).to(before.dtype)
        if not bool(vectors.isfinite().all()):
            raise ManifestError(
                f"model.embeddings: {one.path}: found values that are not finite in {str(before.dtype).removeprefix('torch.')}; "
                "accepted: finite ones"
            )
        weight[places] = vectors
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.num_embeddings = encoder.config.vocab_size = rows


def _vectors(embedding: Embedding, part: str) -> Tensor:
    """(vectors, width)"""
    with safe_open(str(embedding.path), framework="pt") as file:
        found: Tensor = file.get_tensor(embedding.tensors[part])
    return found.reshape(embedding.counts[part], -1)
