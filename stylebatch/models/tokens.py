"""Tokenizers of a checkpoint, without torch: completeness, context length, and numbers of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from stylebatch.errors import ManifestError
from stylebatch.models.configs import Fields, read_json

ENDS = 2
"""The begin and end tokens that every prompt gets."""
_UNBOUNDED = 10**9
"""transformers writes 1e30 for a tokenizer without a length."""


def check_tokenizer(folder: Path, encoder: Fields) -> None:
    """Raise ManifestError unless the files of a tokenizer are complete and fit the text encoder."""
    # A larger vocabulary than the encoder's embedding would index beyond it: on a GPU an assertion without a message.
    context_length(folder, encoder)
    settings = _read(folder / "tokenizer_config.json")
    if settings.values.get("tokenizer_class") is not None:
        settings.word("tokenizer_class", None, ("CLIPTokenizer", "CLIPTokenizerFast"))
    words = max(vocabulary(folder).values()) + 1
    if encoder.count("vocab_size", 49408) < words:
        raise encoder.refusal("vocab_size", f"{words:,} or more, the words of {folder}")


def context_length(folder: Path, encoder: Fields) -> int:
    """The most tokens of a prompt, begin and end included: the tokenizer's limit, at most the encoder's positions."""
    most = encoder.count("max_position_embeddings", 77, least=ENDS + 1)
    settings = _read(folder / "tokenizer_config.json")
    configured = settings.values.get("model_max_length")
    if isinstance(configured, int | float) and configured > _UNBOUNDED:
        return most
    return min(most, settings.count("model_max_length", most, least=ENDS + 1))


def load_tokenizer(folder: Path, encoder: Fields, added: Sequence[str] = ()) -> Any:
    """transformers' tokenizer with its context length set, and with the tokens `added` to it. Raises ManifestError."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    except Exception as error:  # the Rust tokenizer raises plain Exception for a damaged file
        raise ManifestError(
            f"model: {folder} cannot be loaded as a tokenizer ({_first_line(error)}); next: fetch the folder again"
        ) from error
    tokenizer.model_max_length = context_length(folder, encoder)
    if added:
        tokenizer.add_tokens(list(added))
    return tokenizer


def token_groups(tokenizer: Any, texts: Sequence[str]) -> list[list[tuple[int, ...]]]:
    """Numbers of the tokens of each text, begin and end left out: one each, and all vectors of an embedding together."""
    if not texts:
        return []
    ids = tokenizer(list(texts), truncation=False, padding=False, verbose=False).input_ids
    known = _vectors_of_tokens(tokenizer)
    return [[known.get(int(one), (int(one),)) for one in row[1:-1]] for row in ids]


def _vectors_of_tokens(tokenizer: Any) -> dict[int, tuple[int, ...]]:
    """Tokens of several vectors, by the number of the first: diffusers calls them TOKEN, TOKEN_1, TOKEN_2, ..."""
    added: dict[str, int] = tokenizer.added_tokens_encoder
    found = {}
    for token, first in added.items():
        names = takewhile(added.__contains__, (f"{token}_{i}" for i in count(1)))
        if rest := tuple(added[name] for name in names):
            found[first] = (first, *rest)
    return found


def token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text, begin and end included."""
    return [ENDS + sum(map(len, groups)) for groups in token_groups(tokenizer, texts)]


class WordCounts:
    """Counts tokens of many texts, each different word once: CLIP's tokenizer never joins words across blanks."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, int] = {}

    def count(self, texts: Iterable[str]) -> list[int]:
        """As `token_counts`."""
        split = [text.split() for text in texts]
        new = sorted({word for words in split for word in words if word not in self._counts})
        counts = token_counts(self._tokenizer, new)
        self._counts |= {word: count - ENDS for word, count in zip(new, counts, strict=True)}
        return [ENDS + sum(map(self._counts.__getitem__, words)) for words in split]


def vocabulary(folder: Path) -> dict[str, int]:
    """Number by piece of a word, and by token that was added. Raises ManifestError."""
    path = folder / "tokenizer.json"
    if path.exists():
        found = _read(path).values
        model, added = found.get("model"), found.get("added_tokens")
        words: Any = model.get("vocab") if isinstance(model, dict) else None
        tokens = [one for one in added if isinstance(one, dict)] if isinstance(added, list) else []
        extra = {str(one.get("content")): one.get("id") for one in tokens}
    elif (path := folder / "vocab.json").exists():
        words, extra = _read(path).values, {}
        if not (folder / "merges.txt").is_file():
            raise ManifestError(
                f"model: {folder} holds vocab.json without merges.txt; next: fetch the folder again"
            )
    else:
        raise ManifestError(
            f"model: {folder} holds neither tokenizer.json nor vocab.json; accepted: the files of a CLIP tokenizer. Next: "
            "fetch the folder again"
        )
    numbers: dict[str, int] = (words if isinstance(words, dict) else {}) | extra
    if not numbers or not all(isinstance(one, int) for one in numbers.values()):
        raise ManifestError(
            f"model: {path} holds no vocabulary; accepted: words and their numbers. Next: fetch the folder again"
        )
    return numbers


def _read(path: Path) -> Fields:
    try:
        return Fields(path, read_json(path) if path.exists() else {})
    except ValueError as error:
        raise ManifestError(
            f"model: {path} cannot be read ({error}); next: fetch the folder again"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [error.__class__.__name__])[0]
