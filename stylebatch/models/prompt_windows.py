"""Long prompts as windows of the text encoder's context, each with its begin and end token, concatenated after encoding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from stylebatch.models.denoiser import Conditioning
from stylebatch.models.tokens import ENDS, token_counts


def windows_needed(tokenizer: Any, prompt: str) -> int:
    """Number of windows that hold all tokens of a prompt."""
    tokens = token_counts(tokenizer, [prompt])[0] - ENDS
    capacity = int(tokenizer.model_max_length) - ENDS
    return max(1, -(-tokens // capacity))


def windows_of_ids(tokenizer: Any, prompts: list[str], counts: Sequence[int]) -> list[list[int]]:
    """Token numbers of `counts[i]` windows of each prompt i, padded to full windows."""
    length = int(tokenizer.model_max_length)
    texts = tokenizer(prompts, truncation=False, padding=False, verbose=False).input_ids
    rows = []
    for ids, count in zip(texts, counts, strict=True):
        begin, *words, end = ids
        for window in range(count):
            part = words[window * (length - ENDS) : (window + 1) * (length - ENDS)]
            padding = [tokenizer.pad_token_id] * (length - ENDS - len(part))
            rows.append([begin, *part, end, *padding])
    return rows


def in_rows(cond: Conditioning, counts: Sequence[int]) -> Conditioning:
    """Joins rows of windows into one row per prompt; pooled features are those of a prompt's first window."""
    if max(counts, default=1) == 1:
        return cond
    ends = torch.tensor([0, *counts]).cumsum(0).tolist()
    rows = [cond.hidden[first:last].flatten(0, 1) for first, last in pairwise(ends)]
    hidden = pad_sequence(rows, batch_first=True)
    mask = None  # prompts of equal length need none
    if len(set(counts)) > 1:
        lengths = torch.tensor([len(row) for row in rows], device=hidden.device)
        mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    pooled = None if cond.pooled is None else cond.pooled[ends[:-1]]
    return Conditioning(hidden, pooled, mask=mask)
