"""Tokenizers of a checkpoint, without torch: completeness, context length, and numbers of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    words = _num_words(folder)
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


def load_tokenizer(folder: Path, encoder: Fields) -> Any:
    """transformers' tokenizer with its context length set. Raises ManifestError."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    except Exception as error:  # the Rust tokenizer raises plain Exception for a damaged file
        raise ManifestError(
            f"model: {folder} cannot be loaded as a tokenizer ({_first_line(error)}); next: fetch the folder again"
        ) from error
    tokenizer.model_max_length = context_length(folder, encoder)
    return tokenizer


def token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text, begin and end included."""
    if not texts:
        return []
    ids = tokenizer(list(texts), truncation=False, padding=False, verbose=False).input_ids
    return [len(one) for one in ids]


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


def _num_words(folder: Path) -> int:
    """Size of the vocabulary: the largest token number, plus one."""
    path = folder / "tokenizer.json"
    if path.exists():
        found = _read(path).values
        model, added = found.get("model"), found.get("added_tokens")
        words: Any = model.get("vocab") if isinstance(model, dict) else None
        extra = [one.get("id") for one in added or () if isinstance(one, dict)] if isinstance(added, list) else []  # fmt: skip
    elif (path := folder / "vocab.json").exists():
        words, extra = _read(path).values, []
        if not (folder / "merges.txt").is_file():
            raise ManifestError(
                f"model: {folder} holds vocab.json without merges.txt; next: fetch the folder again"
            )
    else:
        raise ManifestError(
            f"model: {folder} holds neither tokenizer.json nor vocab.json; accepted: the files of a CLIP tokenizer. Next: "
            "fetch the folder again"
        )
    numbers = [*(words.values() if isinstance(words, dict) else ()), *extra]
    if not numbers or not all(isinstance(one, int) for one in numbers):
        raise ManifestError(
            f"model: {path} holds no vocabulary; accepted: words and their numbers. Next: fetch the folder again"
        )
    return int(max(numbers)) + 1


def _read(path: Path) -> Fields:
    try:
        return Fields(path, read_json(path) if path.exists() else {})
    except ValueError as error:
        raise ManifestError(
            f"model: {path} cannot be read ({error}); next: fetch the folder again"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [error.__class__.__name__])[0]
