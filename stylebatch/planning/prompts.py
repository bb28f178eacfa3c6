"""Prompts of a run: rows of a file, or the combinations of a template, each as often as `per_prompt` says.

Nothing is expanded: a prompt is made when a sample asks for it, over an image where the method has one. Ids are stable: the
`id` column, or a hash of what the prompt asks for. Prompts that are added change no other's id or seed.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from stylebatch.data.prompt_section import PromptSource, names
from stylebatch.data.rows import Texts
from stylebatch.data.sources.source import NOWHERE, Item
from stylebatch.errors import ManifestError

MAX_SEED = 2**63
MAX_PROMPTS = 2_000_000
"""Of one run: ids are made of all of them before it starts. Over images they make as many samples as there are crossings."""
ANY_IMAGE = Item("\0image", NOWHERE, "\0label", "\0caption")
"""Stands for the image of a prompt that is the same for each; no text has its characters."""


class PromptRow(NamedTuple):
    """What a sample asks for. Empty texts stand for what is not given; images are ids.

    `number`: of the row in its file, or of the combination, from 1; `extra`: what further columns of the row hold.
    """

    id: str
    prompt: str
    seed: int
    negative_prompt: str | None = None
    label: str = ""
    caption: str = ""
    style: str = ""
    image: str = ""
    mask: str = ""
    reference: str = ""
    reference_prompt: str = ""
    number: int = 0
    extra: Texts = ()

    @property
    def facts(self) -> tuple[str, ...]:
        """All that affects the sample, or its record beside further columns, as texts."""
        negative = "" if self.negative_prompt is None else f"-{self.negative_prompt}"
        return (self.id, self.prompt, str(self.seed), negative, *self[4:11])

    @property
    def texts(self) -> tuple[str, str]:
        """What the text encoder is given: the prompt and what guidance leads away from."""
        return self.prompt, self.negative_prompt or ""


def sample_seed(run_seed: int, row_id: str, column_id: str) -> int:
    """Seed of one sample: 63 bits of sha256 over run seed and ids, independent of order and batch."""
    text = f"{run_seed}\0{row_id}\0{column_id}"
    # 63 bits: torch takes seeds as signed 64-bit integers
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Prompts(Sequence[PromptRow]):
    """Prompts in order, copies of one behind each other. `rows`: those of a file, with their `seeds`; empty for a template.

    `defaults`: ids of the section's own images, by column. `over_images`: each prompt goes with many images, of `contents`; as a
    sequence, with one that stands for all.
    """

    source: PromptSource
    run_seed: int
    rows: tuple[PromptRow, ...] = ()
    seeds: tuple[int | None, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    over_images: bool = False

    @property
    def num_rows(self) -> int:
        """Rows of the file, or combinations of the lists."""
        if self.source.template is None:
            return len(self.rows)
        return math.prod(len(texts) for texts in self._lists)

    def __len__(self) -> int:
        return self.num_rows * self.source.per_prompt

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.at(place) for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.at(index)

    def at(self, index: int, image: Item | None = None, mask: str = "") -> PromptRow:
        """A prompt, over an `image` of `contents` with the id of its `mask`."""
        number, copy = divmod(index, self.source.per_prompt)
        image = ANY_IMAGE if image is None and self.over_images else image
        row = self._filled(number, image, mask)
        # the hash is of what is asked for, never of the place: rows may be added and moved
        name = row.id or _hash_of(row)
        if not row.id and number in self._repeats:
            name += f"-{self._repeats[number]}"
        if row.id and image is not None:
            name = f"{row.id}/{image.id}"
        id_ = f"{name}/{copy}" if self.source.per_prompt > 1 else name
        given = self.seeds[number] if self.seeds else None
        seed = sample_seed(self.run_seed, id_, "") if given is None else (given + copy) % MAX_SEED
        return row._replace(id=id_, seed=seed)

    def texts_at(self, index: int, image: Item | None = None, mask: str = "") -> PromptRow:
        """As `at`, in a third of the time: without the id and the seed, which are hashes."""
        image = ANY_IMAGE if image is None and self.over_images else image
        return self._filled(index // self.source.per_prompt, image, mask)

    @property
    def labels(self) -> set[str]:
        """Labels of their own; "" where a prompt has none."""
        if self.source.template is None:
            return {row.label for row in self.rows}
        if self.source.label is None:
            return {""}
        place = list(self.source.values).index(self.source.label)
        return {key for key, _ in self._lists[place]}

    def place(self, number: int) -> str:
        """Where a row stands, for people."""
        path = self.source.path
        place = "template: combination" if path is None else f"{Path(path).name}: row"
        return f"{place} {number}"

    @cached_property
    def names_of_images(self) -> set[str]:
        """Names in braces that stand for a text of the image."""
        source = self.source
        used = _names(source.template or "", "template") | _names(source.caption or "", "caption")
        return used - set(source.values)

    @property
    def has_repeats(self) -> bool:
        """Whether rows without an id ask for the same."""
        return bool(self._repeats)

    @cached_property
    def _repeats(self) -> dict[int, int]:
        """Rows without an id that ask for the same as earlier ones: the how manieth each is."""
        found: dict[int, int] = {}
        counts: Counter[str] = Counter()
        image = ANY_IMAGE if self.over_images else None
        for number in range(self.num_rows):
            row = self._filled(number, image, "")
            if not row.id:
                name = _hash_of(row)
                counts[name] += 1
                if counts[name] > 1:
                    found[number] = counts[name]
        return found

    def _filled(self, number: int, image: Item | None, mask: str) -> PromptRow:
        """The row with the section's values, and those of the image, where it has none of its own."""
        source = self.source
        row = self.rows[number] if source.template is None else self._combination(number, image)
        changes: dict[str, Any] = {
            name: default
            for name, default in self.defaults.items()
            if default and not getattr(row, name)
        }
        if image is not None:
            changes |= {"image": image.id, "label": row.label or image.label}
            changes |= {"mask": mask} if mask else {}
        if row.negative_prompt is None and source.negative_prompt is not None:
            changes["negative_prompt"] = source.negative_prompt
        if not row.reference_prompt and source.reference_prompt:
            changes["reference_prompt"] = source.reference_prompt
        return row._replace(**changes, caption=row.caption or row.prompt)

    @cached_property
    def _lists(self) -> list[list[tuple[str, str]]]:
        """(key, text) of each list of a template."""
        return [
            [(key, text) for key, texts in values.items() for text in texts]
            if isinstance(values, dict)
            else [(text, text) for text in values]
            for values in self.source.values.values()
        ]

    def _combination(self, number: int, image: Item | None) -> PromptRow:
        """A combination of the lists, the last one changing fastest; labels and sets carried along."""
        source, rest = self.source, number
        chosen: dict[str, tuple[str, str]] = {}
        for name, texts in zip(reversed(source.values), reversed(self._lists), strict=True):
            rest, place = divmod(rest, len(texts))
            chosen[name] = texts[place]
        known = {} if image is None else {"label": image.label, "caption": image.caption}
        known |= {name: text for name, (_, text) in chosen.items()}
        return PromptRow(
            id="",
            prompt=_put(str(source.template), known, "template", image),
            seed=0,
            label=chosen[source.label][0] if source.label else "",
            caption=_put(source.caption or "", known, "caption", image),
            style=chosen[source.style][0] if source.style else "",
            number=number + 1,
        )


_names = lru_cache(names)  # parsing the template takes longer than filling it


def _put(template: str, texts: Mapping[str, str], name: str, image: Item | None) -> str:
    """The texts in their places. `image`: the one that lends some."""
    missing = sorted(word for word in _names(template, name) if not texts.get(word))
    if missing:
        lacking = "no image has it" if image is None else f"image {image.id} has none"
        raise ManifestError(
            f"prompts.{name}: found {{{missing[0]}}}, which is in no list of `values`, and {lacking}; accepted: names of "
            "`values`, and over `contents` label and caption where every image has one"
        )
    return template.format_map(texts)


def _hash_of(row: PromptRow) -> str:
    """16 hexadecimal digits that stand for what a row asks for."""
    return hashlib.sha256("\0".join(row.facts).encode()).hexdigest()[:16]
