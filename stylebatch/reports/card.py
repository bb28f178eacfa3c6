"""The dataset card (README.md of an output): YAML that `datasets` reads, lineage, licences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stylebatch.data.image_section import SourceSpec
from stylebatch.data.sources.source import Item
from stylebatch.folder import Folder
from stylebatch.masking import masked, one_line, printable
from stylebatch.methods.input_kinds import TEXT
from stylebatch.planning.picture_sizes import size_words
from stylebatch.planning.plan import Plan
from stylebatch.quality.measures import measures_of
from stylebatch.reports.parameters import option
from stylebatch.reports.templating import filled
from stylebatch.spec.gates import DEFAULT
from stylebatch.spec.output import OutputFormat
from stylebatch.store.loaders import loader_hints
from stylebatch.store.output_record import Origin
from stylebatch.store.records import SEGMENTATION, asked_of, input_names, schema_of_plan
from stylebatch.store.sinks import sink_of
from stylebatch.store.sinks.annotations import notes_on_splits
from stylebatch.store.sinks.columns import Shape
from stylebatch.words import counted

LONGEST_NAME = 500
_IDENTIFIER = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")


@dataclass(frozen=True)
class Head:
    """What the YAML of a card tells. `license`: as the maker of the dataset declared it; `splits`: samples of each that has any."""

    name: str
    license: str | None
    tags: tuple[str, ...]
    format: OutputFormat
    shape: Shape
    splits: Mapping[str, int]


def write_card(
    plan: Plan,
    output: Folder,
    *,
    splits: Mapping[str, int],
    version: str,
    verdict: str = "",
    alike: str = "",
) -> None:
    """Write `README.md`: configs, features (ClassLabel names for `cls`), lineage, how to load.

    `splits`: samples of each split that has any; `verdict`: what became of those that the gates judged; `alike`:
    what is said of near-duplicates.
    """
    spec = plan.spec
    head = Head(
        spec.name,
        spec.license,
        (*tags(TEXT in plan.options.axes()), spec.method.name, spec.output.format),
        spec.output.format,
        _shape(plan, splits),
        splits,
    )
    told = {"version": version, "gates": _rules(plan), "verdict": verdict, "alike": alike}
    write_page(head, _values(plan, splits) | told, output)


def write_page(head: Head, values: dict[str, object], output: Folder) -> None:
    """Write `README.md` from what the template asks beside the YAML and the sink's own words."""
    header = yaml.safe_dump(_header(head), sort_keys=False, allow_unicode=True, width=100)
    if printable(header) != header:  # names that would turn the direction of the text around them
        header = yaml.safe_dump(_header(head), sort_keys=False, width=100)
    sink = sink_of(head.format)
    told = {
        "header": header,
        "name": head.name,
        "members": sink.members(head.shape),
        "loading": sink.loading(head.shape),
        "records_are_in": sink.records_are_in,
        "license": head.license or "not recorded",
        "splits": {split: counted(number, "sample") for split, number in head.splits.items()},
    }
    filters: dict[str, Callable[[str], str]] = {"code": code, "raw": str}
    text = filled("card.md", values | told, plain=markdown, filters=filters)
    output.write("README.md", text.encode())


def _header(head: Head) -> dict[str, Any]:
    sink = sink_of(head.format)
    return {
        "pretty_name": head.name,
        **_declared(head.license),
        "tags": list(head.tags),
        "configs": [
            {
                "config_name": "default",
                # a pattern without files would be an error to `datasets`: only splits that have samples
                "data_files": [
                    {"split": split, "path": sink.data_files(split)} for split in head.splits
                ],
            },
            *sink.further_configs(head.shape, head.splits),
        ],
        "dataset_info": {"features": sink.features(head.shape)},
    }


def _declared(licence: str | None) -> dict[str, str]:
    """A licence as the hub takes it: one of its identifiers, or the name of another."""
    if not licence or _IDENTIFIER.fullmatch(licence):
        return {"license": licence} if licence else {}
    return {
        "license": "other",
        "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-"),
    }


def _shape(plan: Plan, splits: Mapping[str, int]) -> Shape:
    """What every sample has."""
    output = plan.spec.output
    schema = schema_of_plan(plan)
    inputs = tuple(plan.options.input_members) if output.inputs else ()
    inputs += (SEGMENTATION,) if plan.has_segmentation else ()
    return Shape(
        output.image.format,
        schema,
        inputs,
        plan.has_captions,
        plan.labels,
        split=next(iter(splits)),
        shared=output.inputs == "reference",
    )


def _values(plan: Plan, splits: Mapping[str, int]) -> dict[str, object]:
    """What the card's template says of the plan."""
    given = plan.options.model_dump(mode="json", exclude={"name"})
    options = filter(None, (option(name, value) for name, value in given.items()))
    kinds = input_names(plan.options)
    return {
        "export": None,
        "num_samples": counted(sum(splits.values()), "sample"),
        "sources": _sources(plan),
        "first_axis": plan.axes[0].name,
        "disjoint_styles": plan.spec.split is not None and plan.spec.split.styles,
        "size": size_words(plan.sample_sizes),
        "method": plan.spec.method.name,
        "options": ", ".join(options),
        "model": plan.model,
        "additions": list(plan.spec.model.additions),
        "fingerprint": str(plan.identity["model_fingerprint"])[:16],
        "digest": plan.digest[:16],
        "hints": [*loader_hints(plan), *_of_annotations(plan, splits)],
        "kinds": kinds,
        "measures": [*measures_of(kinds), *asked_of(plan)],
        "lineage": list(lineage(plan)),
    }


def _rules(plan: Plan) -> list[tuple[str, str]]:
    """The rules that samples are rejected by, with the class of each; "" where there is one for all."""
    gates = plan.spec.gates
    if gates is None:
        return []
    is_one = list(gates.reject) == [DEFAULT]
    return [("" if is_one else name, rule) for name, rule in gates.reject.items()]


def _of_annotations(plan: Plan, splits: Mapping[str, int]) -> list[str]:
    is_written = plan.spec.output.format == "files" and plan.has_objects
    return notes_on_splits(str(plan.identity.get("annotations", "")), splits) if is_written else []


def markdown(text: str) -> str:
    """Plain text within a line of Markdown: nothing in it is markup or HTML."""
    # `masked` first: a credential must not be cut or escaped out of its pattern
    return re.sub(r"([\\`*_{}\[\]#|~$!<&])", r"\\\1", one_line(_clipped(masked(text))))


def code(text: str) -> str:
    """A name as a code span, with a fence that no run of backticks in it closes."""
    text = one_line(_clipped(masked(text)))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # CommonMark strips one space on both sides of a code span
    rim = " " if "`" in text else ""
    return f"{fence}{rim}{text}{rim}{fence}"


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def tags(has_prompts: bool) -> tuple[str, ...]:
    """What the dataset is about."""
    return ("synthetic", "diffusion") if has_prompts else ("stylised", "style-transfer")


def _sources(plan: Plan) -> str:
    counts = " and ".join(counted(len(axis), axis.name) for axis in plan.axes)
    return counts if TEXT in plan.options.axes() else f"{counts} ({plan.spec.pairing.mode} pairing)"


def lineage(plan: Plan) -> Iterator[Origin]:
    """Where the inputs came from, with their licences."""
    spec = plan.spec
    for number, axis in enumerate(plan.axes):
        if axis.name == TEXT:
            assert spec.prompts is not None
            yield Origin(what="Prompts", origin=Path(spec.prompts.path or "").name)
            continue
        source = spec.styles if axis.name == "style" else spec.contents
        kind, items = plan.inputs_of(number)
        if TEXT in plan.options.axes() and (source is None or axis.name == "set"):
            named = {item.id for item in items} - {""}
            if named:
                yield Origin(what=f"{counted(len(named), 'file')} named in column", origin=kind)
            continue
        origin = source.path if source is not None else str(spec.pairing.path)
        yield Origin(
            what=f"{kind.capitalize()}s",
            origin=Path(origin).name,
            licences=_licences(items, source),
        )


def _licences(rows: Sequence[Item], source: SourceSpec | None) -> str:
    declared = (source.license if source is not None else None) or ""
    return ", ".join(sorted({row.license or declared for row in rows} - {""})) or "not recorded"
