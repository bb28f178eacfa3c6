"""Long prompts as windows of the text encoder's context, each with its begin and end token, concatenated after encoding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from stylebatch.models.denoiser import Conditioning
from stylebatch.models.tokens import ENDS, token_groups


def windows_needed(tokenizer: Any, prompt: str) -> int:
    """Number of windows that hold all tokens of a prompt."""
    capacity = int(tokenizer.model_max_length) - ENDS
    return len(_windows(token_groups(tokenizer, [prompt])[0], capacity))


def _windows(groups: Sequence[tuple[int, ...]], capacity: int) -> list[list[int]]:
    """Token numbers by window; the vectors of an embedding stay together where one window holds them."""
    found: list[list[int]] = [[]]
    for group in groups:
        if len(found[-1]) + len(group) > capacity >= len(group):
            found.append([])
        for number in group:
            if len(found[-1]) == capacity:
                found.append([])
            found[-1].append(number)
    return found


def windows_of_ids(tokenizer: Any, prompts: list[str], counts: Sequence[int]) -> list[list[int]]:
    """Token numbers of `counts[i]` windows of each prompt i, padded to full windows; what is beyond them is left out."""
    capacity = int(tokenizer.model_max_length) - ENDS
    rows = []
    for groups, count in zip(token_groups(tokenizer, prompts), counts, strict=True):
        if count == 1:  # cut as a stock pipeline does, within an embedding too
            groups = [(number,) for group in groups for number in group]
        windows = [*_windows(groups, capacity), *[[]] * count][:count]
        for words in windows:
            # padded to the full length even for short prompts: the networks were trained so
            padding = [tokenizer.pad_token_id] * (capacity - len(words))
            rows.append([tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *padding])
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
