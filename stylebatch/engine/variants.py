"""The variants of a manifest that `compare` renders: every combination of the values given for some of its fields.

What is varied must leave the samples what they are (their contents, styles, prompts), so that each row of a comparison shows one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.spec import RunSpec
from stylebatch.words import counted

VARIED = ("method", "model", "image", "features", "seed")
"""Parts of a manifest that say how samples are rendered."""
MOST_VARIANTS = 64
_LONGEST = 80
"""Characters of a folder's name."""
_PLAIN = re.compile(r"[A-Za-z0-9=,.+_-]+")
_OPENING = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Varied:
    """`method.gamma=0.3,0.6`: a field with the values it takes in turn, as they were written."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """A run specification with its varied fields, as written."""

    values: tuple[tuple[str, str], ...]
    name: str
    spec: RunSpec

    @property
    def folder(self) -> str:
        """Name of a folder for it; another variant has another."""
        if len(self.name) <= _LONGEST and _PLAIN.fullmatch(self.name) and self.name.strip("."):
            return self.name
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        kept = "".join(_PLAIN.findall(self.name))[: _LONGEST - 9].lstrip(".")
        return f"{kept}-{digest}" if kept else digest


def variants_of(
    manifest: str, vary: Sequence[str], overrides: Sequence[str] = ()
) -> tuple[list[Variant], list[str]]:
    """The variants of `manifest`, in the order of the values, and notes on those that are left out because they equal another.

    Raises ManifestError for a field that is unknown or changes which samples there are, and for a value that the field does not
    take, with the variant named.
    """
    base = load_spec(manifest, overrides)
    varied = [varied_field(text) for text in vary]
    _require_once(varied)
    num_variants = 1
    for one in varied:
        num_variants *= len(one.values)
    if not 2 <= num_variants <= MOST_VARIANTS:
        raise ManifestError(
            f"--vary: found {counted(num_variants, 'variant')}; accepted: 2 to {MOST_VARIANTS}, such as --vary method.gamma=0.3,0.6,0.9"
        )
    names = _short_names(varied)
    found: list[Variant] = []
    notes: list[str] = []
    for values in product(*(one.values for one in varied)):
        pairs = tuple(zip((one.field for one in varied), values, strict=True))
        name = ",".join(f"{names[field]}={value}" for field, value in pairs)
        given = [f"{field}={value}" for field, value in pairs]
        try:
            spec = load_spec(manifest, [*overrides, *given])
        except ManifestError as error:
            raise ManifestError(f"variant {name}: {error}") from None
        twin = next((one for one in found if one.spec == spec), None)
        if twin is None:
            found.append(Variant(pairs, name, spec))
        else:
            notes.append(f"variant {name} is the same as {twin.name}, and left out")
    if len(found) < 2:
        raise ManifestError(
            f"--vary: found one variant alone ({base.method.name}, {found[0].name}), since the others are the same; accepted: "
            "values that differ"
        )
    return found, notes


def varied_field(text: str) -> Varied:
    """Parse `FIELD=VALUE,VALUE`; commas within brackets or quotes belong to a value. Raises ManifestError."""
    field, equals, rest = text.partition("=")
    field = field.strip()
    if not equals or not field:
        raise ManifestError(
            f"--vary {text}: found no `field=values`; example: --vary method.gamma=0.3,0.6,0.9"
        )
    part = field.partition(".")[0]
    # a field that no manifest has is refused where it is read, with the nearest name
    if part in RunSpec.model_fields and part not in VARIED:
        raise ManifestError(
            f"--vary {field}: changes more than how samples are rendered; accepted: fields of {', '.join(VARIED)}. "
            f"Next: give --set {field}=VALUE for all variants"
        )
    values = tuple(value.strip() for value in _split(text, rest))
    if not all(values):
        raise ManifestError(f"--vary {text}: found an empty value; accepted: values, such as 1,2,3")
    return Varied(field, values)


def _split(text: str, values: str) -> Iterator[str]:
    """Parts between commas that stand in no brackets and no quotes."""
    start, quote = 0, ""
    closing: list[str] = []
    for place, one in enumerate(values):
        if quote:
            quote = "" if one == quote else quote
        elif one in "'\"" and (closing or not values[start:place].strip()):
            quote = one  # not an apostrophe within a word
        elif one in _OPENING:
            closing.append(_OPENING[one])
        elif closing and one == closing[-1]:
            closing.pop()
        elif one == "," and not closing:
            yield values[start:place]
            start = place + 1
    if closing or quote:
        raise ManifestError(f"--vary {text}: found no closing {quote or closing[-1]}")
    yield values[start:]


def _require_once(varied: Sequence[Varied]) -> None:
    fields = [one.field for one in varied]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice is not None:
        raise ManifestError(f"--vary {twice}: stands twice; give all values at once: {twice}=A,B,C")
    for one in fields:
        inner = next((other for other in fields if other.startswith(f"{one}.")), None)
        if inner is not None:
            raise ManifestError(
                f"--vary {one}: holds {inner}, which is varied too; vary one of both"
            )


def _short_names(varied: Sequence[Varied]) -> dict[str, str]:
    """The last part of each field, or the whole where two have the same."""
    leaves = [one.field.rpartition(".")[2] for one in varied]
    return {
        one.field: leaf if leaves.count(leaf) == 1 else one.field
        for one, leaf in zip(varied, leaves, strict=True)
    }
