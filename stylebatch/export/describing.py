"""The dataset card of an export: what was taken of which outputs, how those were rendered, lineage and licences of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stylebatch.export.exported_shards import Exported
from stylebatch.folder import Folder
from stylebatch.methods.input_kinds import TEXT, kinds_of
from stylebatch.planning.picture_sizes import size_words
from stylebatch.quality.asked import TABLE
from stylebatch.reports.card import Head, tags, write_page
from stylebatch.reports.parameters import option
from stylebatch.store.loaders import few_shards
from stylebatch.store.output_record import RunRecord
from stylebatch.store.sinks.annotations import form_of, notes_on_splits
from stylebatch.words import counted


def write_export_card(
    exported: Exported, record: RunRecord, told: Sequence[str], output: Folder, *, version: str
) -> None:
    """Write `README.md`; `told`: of the choice, a sentence each."""
    methods = dict.fromkeys(_method(one.run) for one in exported.given)
    licences = {_licence(one.run) for one in exported.given}
    head = Head(
        record.name,
        licences.pop() if len(licences) == 1 else None,
        (*tags(TEXT in record.axes), *methods, exported.format),
        exported.format,
        exported.shape,
        exported.selection.splits,
    )
    fewest = min(one.num_shards for one in exported.stretches)
    hint = few_shards(fewest, exported.format)
    columns = exported.schema.names
    values: dict[str, object] = {
        "version": version,
        "num_samples": counted(len(exported.selection), "sample"),
        "size": _size(record.plan.model_extra or {}),
        "digest": record.digest[:16],
        "gates": [],
        "alike": "",
        "export": [f"{line[0].upper()}{line[1:]}." for line in _choice(exported, told)],
        "methods": list(_methods(exported)),
        "hints": [*([hint] if hint else []), *_of_annotations(exported, record)],
        "kinds": tuple(kind.name for kind in kinds_of(columns)),
        "measures": [measure for measure in TABLE if measure.column in columns],
        "lineage": record.lineage,
    }
    write_page(head, values, output)


def _of_annotations(exported: Exported, record: RunRecord) -> list[str]:
    is_written = exported.format == "files" and "objects" in exported.schema.names
    return notes_on_splits(form_of(record), exported.selection.splits) if is_written else []


def _size(plan: Mapping[str, Any]) -> str:
    """What is known of the samples' sizes, in words."""
    if "sizes" in plan:
        return size_words([(width, height) for width, height in plan["sizes"]])
    return size_words([(plan["width"], plan["height"])]) if "width" in plan else ""


def _choice(exported: Exported, told: Sequence[str]) -> Iterator[str]:
    names = " and ".join(exported.names)
    yield f"made of {names}; the column source_key has the key that a sample had there"
    if len(exported.given) > 1:
        yield "the column source has the name of the dataset that a sample is from"
    yield from told
    if len(exported.selection.splits) > 1:
        named = (f"{split} ({count:,})" for split, count in exported.selection.splits.items())
        yield f"splits: {', '.join(named)}"
    if exported.has_originals:
        yield "an original is a content that was not stylised: is_original is true, and its measures compare it with itself"


def _methods(exported: Exported) -> Iterator[dict[str, str]]:
    for name, one in zip(exported.names, exported.given, strict=True):
        given = one.run.spec.get("method")
        options = dict(given) if isinstance(given, dict) else {}
        words = (
            option(key, value)
            for key, value in options.items()
            if key != "name" and _is_plain(value)
        )
        yield {
            "name": name,
            "method": _method(one.run),
            "options": ", ".join(filter(None, words)),
            "model": one.run.model,
            "digest": one.run.digest[:16],
        }


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict) and not (
        isinstance(value, list) and any(isinstance(one, dict) for one in value)
    )


def _method(run: RunRecord) -> str:
    given = run.spec.get("method")
    return str((given if isinstance(given, dict) else {}).get("name", "") or "a method of a user")


def _licence(run: RunRecord) -> str | None:
    found = run.spec.get("license")
    return str(found) if found else None
