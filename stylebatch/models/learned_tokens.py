"""Textual inversions (arXiv 2208.01618): files of vectors that a token in prompts stands for, read without torch.

diffusers writes one tensor under its token, AUTOMATIC1111 one under `emb_params`; trainers of SDXL write one for each text encoder,
`clip_l` and `clip_g`. A file of the latter two is named by its token in prompts, as people do.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stylebatch.errors import ManifestError
from stylebatch.models.finite import not_finite
from stylebatch.models.model_section import EmbeddingSpec
from stylebatch.models.tokens import ENDS
from stylebatch.models.weights import FLOATS, Stored, read_header

ACCEPTED = (
    "a .safetensors file of a textual inversion: one tensor (its name is the token, or emb_params), or clip_l and clip_g for "
    "Stable Diffusion XL"
)
BY_NAME = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_NAMELESS = ("emb_params", "*", "string_to_param.*")
"""Names of the one tensor that are no token."""
MOST_VECTORS = 1000


@dataclass(frozen=True)
class Embedding:
    """A token; by text encoder that knows it, the name of its tensor in `path` and how many vectors it has."""

    path: Path
    token: str
    tensors: Mapping[str, str]
    counts: Mapping[str, int]

    def names(self, encoder: str) -> tuple[str, ...]:
        """What a tokenizer calls the vectors: TOKEN, TOKEN_1, ..., as diffusers does."""
        rest = range(1, self.counts.get(encoder, 0))
        return (
            (self.token, *(f"{self.token}_{i}" for i in rest)) if self.counts.get(encoder) else ()
        )

    def is_in(self, text: str) -> bool:
        """Whether a prompt names it; a tokenizer finds it within words too, and in any case."""
        return spelled(self.token) in spelled(text)


def spelled(text: str) -> str:
    """As CLIP's tokenizer reads a text: composed, in small letters."""
    return unicodedata.normalize("NFC", text).lower()


def names_for(embeddings: Sequence[Embedding], encoder: str) -> tuple[str, ...]:
    """Names of all vectors for a text encoder, which its tokenizer is to know."""
    return tuple(name for one in embeddings for name in one.names(encoder))


def find_embeddings(
    specs: Sequence[EmbeddingSpec], widths: Mapping[str, int]
) -> tuple[Embedding, ...]:
    """What the files of a manifest hold. `widths`: features of each text encoder.

    Raises ManifestError, naming the file, for other files, widths of another model, and two that share a token and an encoder.
    """
    found = tuple(_found(spec, widths) for spec in specs)
    for encoder in widths:
        taken: dict[str, Embedding] = {}
        for one in found:
            for name in one.names(encoder):
                if (other := taken.setdefault(spelled(name), one)) is not one:
                    raise _refusal(
                        one.path,
                        f"found the token {one.token}, whose vector {name} {other.path} has too",
                        "a token of its own for each embedding (`token`)",
                    )
    return found


def is_embedding(header: Mapping[str, Stored]) -> bool:
    """Whether the tensors of a file are those of a textual inversion."""
    are_named = bool(header) and (len(header) == 1 or set(header) <= set(BY_NAME))
    return are_named and all(
        one.dtype in FLOATS and len(one.shape) in (1, 2) for one in header.values()
    )


def num_vectors(stored: Stored) -> int:
    """Of a tensor of one vector, or of several."""
    return stored.shape[0] if len(stored.shape) == 2 else 1


def check_tokens(
    embeddings: Sequence[Embedding], encoder: str, vocabulary: Collection[str]
) -> None:
    """Raise ManifestError for a token that a tokenizer knows already."""
    for one in embeddings:
        for name in one.names(encoder):
            # a word's last piece ends with </w>
            if spelled(name) in vocabulary or f"{spelled(name)}</w>" in vocabulary:
                raise _refusal(
                    one.path,
                    f"found the token {name}, which is in the vocabulary, so that prompts could mean the word",
                    f"a token that is no word (`token`), such as <{one.token.strip('<>')}>",
                )


def check_lengths(embeddings: Sequence[Embedding], encoder: str, context: int) -> None:
    """Raise ManifestError for one of more vectors than the `context` of a text encoder holds, begin and end included."""
    for one in embeddings:
        if (count := one.counts.get(encoder, 0)) > context - ENDS:
            raise _refusal(
                one.path,
                f"{one.tensors[encoder]}: found {count:,} vectors",
                f"up to {context - ENDS:,}, which {encoder} of {context} tokens holds beside begin and end",
            )


def _found(spec: EmbeddingSpec, widths: Mapping[str, int]) -> Embedding:
    path = Path(spec.path)
    try:
        header = read_header(path)
    except ManifestError as error:
        reason = str(error).removeprefix("model: ")
        raise _refusal(path, f"cannot be read ({reason})", ACCEPTED) from None
    tensors = dict(_by_encoder(path, header, widths))
    named = next(iter(header))
    is_named = len(header) == 1 and named not in (*_NAMELESS, *BY_NAME)
    if is_named and spec.token is None and (meant := _meant(named)):
        raise _refusal(
            path,
            f"found the key {named}, nearly {meant}, which is no token",
            f"{ACCEPTED}. Next: set `token` to what prompts shall name it by",
        )
    token = spec.token or (named if is_named else path.stem)
    if not token or token != "".join(token.split()) or not token.isprintable():
        raise _refusal(
            path,
            f"found the token {token!r}",
            "one without blanks; next: set `token`, such as <cat>",
        )
    counts = {part: _bounded(path, name, header[name]) for part, name in tensors.items()}
    for name in tensors.values():
        if fault := not_finite(path, name):
            raise _refusal(path, f"{name}: found {fault}", "finite numbers")
    return Embedding(path, token, tensors, counts)


def _meant(name: str) -> str:
    """The key of trainers that a name is nearly; "" for other names."""
    keys = (*_NAMELESS, *BY_NAME)
    return next(iter(difflib.get_close_matches(name.lower(), keys, n=1, cutoff=0.8)), "")


def _by_encoder(
    path: Path, header: Mapping[str, Stored], widths: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Pairs of a text encoder and the name of the tensor for it. Raises ManifestError unless there are such."""
    names = sorted(header)
    if not names or (len(names) > 1 and not set(names) <= set(BY_NAME)):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "no tensor"
        lora = " (LoRA weights belong to `lora`)" if any("lora" in name for name in names) else ""
        raise _refusal(path, f"found {shown}{lora}", ACCEPTED)
    has = ", ".join(f"{width} for {part}" for part, width in widths.items())
    for name in names:
        stored = header[name]
        if stored.dtype not in FLOATS or len(stored.shape) not in (1, 2) or not stored.elements:
            raise _refusal(path, f"{name}: found {stored.dtype} of shape {stored.shape}", ACCEPTED)
        fitting = [part for part, width in widths.items() if width == stored.shape[-1]]
        if name in BY_NAME:
            fitting = [part for part in fitting if part == BY_NAME[name]]
        if not fitting:
            raise _refusal(
                path,
                f"{name}: found vectors of {stored.shape[-1]} numbers",
                f"{has}, the text encoders of this model (take an embedding that was trained for it)",
            )
        if len(fitting) > 1:
            raise _refusal(
                path,
                f"{name}: found a width that both text encoders have",
                "tensors clip_l and clip_g",
            )
        yield fitting[0], name


def _bounded(path: Path, name: str, stored: Stored) -> int:
    count = num_vectors(stored)
    if count > MOST_VECTORS:
        raise _refusal(path, f"{name}: found {count:,} vectors", f"up to {MOST_VECTORS:,}")
    return count


def _refusal(path: Path, found: str, accepted: str) -> ManifestError:
    return ManifestError(f"model.embeddings: {path}: {found}; accepted: {accepted}")
