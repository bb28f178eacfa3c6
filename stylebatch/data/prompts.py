"""Lists the rows of a run of prompts: from a file, from a template, each over the images of `contents` where these are given.

Ids are stable: the `id` column, or a hash of what the row asks for. Rows that are added change no other row's id or
seed. Nothing is decoded here.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stylebatch.data.masks import list_contents
from stylebatch.data.shards import sample_seed
from stylebatch.data.sources import ImageRow, read_rows, require_text, text
from stylebatch.errors import ManifestError
from stylebatch.spec import PromptMethod, PromptSource, RunSpec, names

SET_COLUMNS = ("style", "reference", "reference_prompt")
COLUMNS = ("prompt", "negative_prompt", "seed", "label", "caption", "id")
IMAGE_COLUMNS = ("image", "mask", "reference")
MAX_SEED = 2**63


class PromptRow(NamedTuple):
    """One requested sample. Empty texts stand for what a row does not give; images are ids (see `PromptTable.files`).

    `number`: of the row in its file, or of the combination, from 1.
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

    @property
    def facts(self) -> tuple[str, ...]:
        """All that affects the sample or its record, as texts."""
        negative = "" if self.negative_prompt is None else f"-{self.negative_prompt}"
        return (self.id, self.prompt, str(self.seed), negative, *self[4:-1])


class Place(NamedTuple):
    """Where a row stands: in a file, or as a combination of a template; and the image it is for."""

    source: str | None
    number: int
    image: str = ""

    def __str__(self) -> str:
        where = f"{self.source}: row" if self.source else "prompts.template: combination"
        return f"{where} {self.number}" + (f", image {self.image}" if self.image else "")


@dataclass
class PromptTable:
    """Rows, the path of each image by column and id, and the licences that `contents` name."""

    rows: list[PromptRow]
    files: dict[str, dict[str, str]] = field(
        default_factory=lambda: {name: {} for name in IMAGE_COLUMNS}
    )
    licenses: set[str] = field(default_factory=set)


def list_prompts(spec: RunSpec) -> PromptTable:
    """Rows of `spec.prompts`. Raises ManifestError, naming file, row, field, what was found and what is accepted."""
    source, method = spec.prompts, spec.prompt_method
    if source is None:
        raise ManifestError("prompts: missing; accepted: rows or a template")
    table = PromptTable([])
    seen: set[str] = set()
    repeats: dict[str, int] = {}
    references: dict[str, tuple[str, str]] = {}
    for place, row, seed in _rows(source, method, spec, table):
        if method.uses_sets:
            _check_reference(place, row, references)
        name = row.id or _hash_of(row)
        if not row.id:
            repeats[name] = repeats.get(name, 0) + 1
            name += f"-{repeats[name]}" if repeats[name] > 1 else ""
        for j in range(source.per_prompt):
            id_ = f"{name}/{j}" if source.per_prompt > 1 else name
            if id_ in seen:
                raise ManifestError(
                    f"{place}: id: found {row.id!r}, which stands there twice; accepted: each id once, or no column `id`"
                )
            seen.add(id_)
            own = sample_seed(spec.seed, id_, "") if seed is None else (seed + j) % MAX_SEED
            table.rows.append(row._replace(id=id_, seed=own))
    if not table.rows:
        raise ManifestError(f"prompts.path: {source.path}: found no rows; accepted: at least one")
    return table


Asked = tuple[Place, PromptRow, int | None]
"""Where a row stands, the row, and the seed it asks for."""


def _rows(
    source: PromptSource, method: PromptMethod, spec: RunSpec, table: PromptTable
) -> Iterator[Asked]:
    defaults = {name: _shared(source, name, table) for name in IMAGE_COLUMNS}
    if spec.contents is None:
        for place, row, seed in _given(source, method, {}, table):
            yield place, _filled(place, row, source, method, defaults), seed
        return
    images = list_contents(spec.contents)
    table.licenses = {image.license for image in images} - {""}
    for image in images:
        table.files["image"][image.id] = image.path
        mask = _own_mask(image, Path(spec.contents.path), method, table)
        texts = {"label": image.label, "caption": image.caption}
        for place, row, seed in _given(source, method, texts, table):
            if row.image or defaults["image"]:
                raise ManifestError(
                    f"{place}: image: found {row.image or defaults['image']!r} beside contents; accepted: one of the two"
                )
            if mask and (row.mask or defaults["mask"]):
                raise ManifestError(
                    f"{place}: mask: found {row.mask or defaults['mask']!r} beside the mask of content {image.id!r}; accepted: one "
                    "of the two"
                )
            id_ = f"{row.id}/{image.id}" if row.id else ""
            own = row._replace(id=id_, image=image.id, mask=mask or row.mask)
            made = own._replace(label=row.label or image.label)
            where = place._replace(image=image.id)
            yield where, _filled(where, made, source, method, defaults), seed


def _own_mask(image: ImageRow, source: Path, method: PromptMethod, table: PromptTable) -> str:
    """Id of the mask that `contents` give an image: its path from the folder or table's folder; "" where none is given or asked for."""
    if not image.mask or "mask" not in method.inputs:
        return ""
    id_ = os.path.relpath(image.mask, source if source.is_dir() else source.parent)
    table.files["mask"][id_] = image.mask
    return id_


def _given(
    source: PromptSource, method: PromptMethod, texts: Mapping[str, str], table: PromptTable
) -> Iterator[Asked]:
    """Rows as the file or the template has them; `texts` of the image that they are for."""
    if source.template is None:
        return _of_file(Path(str(source.path)), method, table)
    return _of_template(source, texts)


def _filled(
    place: Place,
    row: PromptRow,
    source: PromptSource,
    method: PromptMethod,
    defaults: Mapping[str, str],
) -> PromptRow:
    """`row` with the section's values where it has none of its own. Raises ManifestError where something is missing."""
    changes: dict[str, Any] = {
        name: default for name, default in defaults.items() if default and not getattr(row, name)
    }
    if row.negative_prompt is None and source.negative_prompt is not None:
        changes["negative_prompt"] = source.negative_prompt
    if not row.reference_prompt and source.reference_prompt:
        changes["reference_prompt"] = source.reference_prompt
    row = row._replace(**changes, caption=row.caption or row.prompt)
    for name in ("prompt", *method.inputs):
        if not getattr(row, name):
            raise ManifestError(
                f"{place}: {name}: found nothing; accepted: "
                + ("a text" if name == "prompt" else "the path of an image, in every row")
            )
    return row


def _shared(source: PromptSource, name: str, table: PromptTable) -> str:
    """Id of the section's own image, or nothing."""
    path = getattr(source, name)
    if path is None:
        return ""
    table.files[name][Path(path).name] = path
    return Path(path).name


def _of_file(path: Path, method: PromptMethod, table: PromptTable) -> Iterator[Asked]:
    accepted = [*COLUMNS, *method.inputs, *(SET_COLUMNS if method.uses_sets else ())]
    for number, row in read_rows(path):
        place = Place(str(path), number)
        for column in row:
            if column not in accepted:
                raise _unknown_column(place, column, accepted)
        texts = {name: text(row, name) for name in accepted}
        require_text(place, *texts.values())
        seed = _seed(place, row.get("seed"))
        del texts["seed"]
        negative = texts.pop("negative_prompt")
        for name in IMAGE_COLUMNS:
            if texts.get(name):
                table.files[name][texts[name]] = str(path.parent / texts[name])
        yield (
            place,
            PromptRow(seed=0, negative_prompt=negative or None, number=number, **texts),
            seed,
        )


def _unknown_column(place: Place, column: Any, accepted: list[str]) -> ManifestError:
    close = difflib.get_close_matches(str(column), accepted, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    what = "more values than columns" if column is None else f"unknown column {column!r}"
    return ManifestError(
        f"{place}: {what}; {hint}accepted columns with this method: {', '.join(accepted)}"
    )


def _seed(place: Place, value: Any) -> int | None:
    """The seed that a row asks for."""
    if value is None or value != value or str(value).strip() == "":
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not (text.strip().isdecimal() and int(text) < MAX_SEED) or isinstance(value, bool):
        raise ManifestError(
            f"{place}: seed: found {value!r}; accepted: a whole number from 0, below 2^63, or nothing"
        )
    return int(text)


def _of_template(source: PromptSource, texts: Mapping[str, str]) -> Iterator[Asked]:
    """Every combination of the lists, the last one changing fastest; labels and sets carried along."""
    lists = [
        [(key, text) for key, texts in values.items() for text in texts]
        if isinstance(values, dict)
        else [(text, text) for text in values]
        for values in source.values.values()
    ]
    for number, chosen in enumerate(itertools.product(*lists), 1):
        by_name = dict(zip(source.values, chosen, strict=True))
        known = {**texts, **{name: text for name, (_, text) in by_name.items()}}
        yield (
            Place(None, number),
            PromptRow(
                id="",
                prompt=_put(str(source.template), known, "template"),
                seed=0,
                label=by_name[source.label][0] if source.label else "",
                caption=_put(source.caption or "", known, "caption"),
                style=by_name[source.style][0] if source.style else "",
                number=number,
            ),
            None,
        )


def _put(template: str, texts: Mapping[str, str], name: str) -> str:
    missing = sorted(word for word in names(template, name) if not texts.get(word))
    if missing:
        raise ManifestError(
            f"prompts.{name}: found {{{missing[0]}}}, which is in no list of `values` and of no image; accepted: names of "
            "`values`, and over `contents` label and caption where every image has one"
        )
    return template.format_map(texts)


def _hash_of(row: PromptRow) -> str:
    """16 hexadecimal digits that stand for what a row asks for."""
    return hashlib.sha256("\0".join(row.facts).encode()).hexdigest()[:16]


def _check_reference(place: Place, row: PromptRow, references: dict[str, tuple[str, str]]) -> None:
    """Rows of one set have one reference; `references`: of the sets so far."""
    own = (row.reference, row.reference_prompt)
    before = references.setdefault(row.style, own)
    if own != before:
        field = "reference" if own[0] != before[0] else "reference_prompt"
        found, other = (pair[field == "reference_prompt"] for pair in (own, before))
        raise ManifestError(
            f"{place}: {field}: found {found!r} in set {row.style!r}, whose first row has {other!r}; accepted: one "
            "reference per style"
        )
