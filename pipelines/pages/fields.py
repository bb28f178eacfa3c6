"""The reference of manifests and training configurations, from their JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from stylebatch.spec import json_schema
from stylebatch.training.spec import TrainSpec

Schema = dict[str, Any]
_BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "to", "exclusiveMaximum": "below"}  # fmt: skip
_SAID_BY_NO_BOUND = 2**53
"""A bound so large is that of the number's type."""


def manifest_reference() -> str:
    """Markdown: a table of the fields of a manifest, and one for each of its sections."""
    return _Reference(json_schema()).text()


def training_reference() -> str:
    """The same for the configurations that `stylebatch train` takes."""
    return _Reference(TrainSpec.model_json_schema(mode="validation")).text()


class _Reference:
    """Tables of a schema and of its definitions, each under the field that first takes it."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._headings: dict[str, str] = {}  # of each definition, in the order of the fields
        self._name_sections(schema, "")

    def text(self) -> str:
        lines = self._table(self._schema)
        for definition, heading in self._headings.items():
            section = self._schema["$defs"][definition]
            about = _sentence(section.get("description", ""))
            lines += [f"## {heading}", "", about, "", *self._table(section)]
        return "\n".join(lines)

    def _name_sections(self, section: Schema, path: str) -> None:
        for name, field in section.get("properties", {}).items():
            for definition in _definitions(field):
                if definition in self._headings:
                    continue
                found = self._schema["$defs"][definition]
                kind = found.get("properties", {}).get("name", {}).get("const")
                if definition == "CustomMethod":
                    kind = "a class of your own"
                self._headings[definition] = f"{path}{name}" + (f": {kind}" if kind else "")
                self._name_sections(found, f"{path}{name}.")

    def _table(self, section: Schema) -> list[str]:
        required = section.get("required", ())
        lines = ["| field | accepted | meaning |", "|---|---|---|"]
        for name, field in section.get("properties", {}).items():
            default = "; **required**" if name in required else _default(field)
            row = (
                f"`{name}`",
                self._accepted(field) + default,
                _sentence(field.get("description") or self._about(field)),
            )
            lines.append("| " + " | ".join(map(_cell, row)) + " |")
        return [*lines, ""]

    def _about(self, field: Schema) -> str:
        """What the one section says that a field without a description takes."""
        found = list(_definitions(field))
        return self._schema["$defs"][found[0]].get("description", "") if len(found) == 1 else ""

    def _accepted(self, field: Schema) -> str:
        if "$ref" in field:
            heading = self._headings[field["$ref"].rpartition("/")[2]]
            return f"[{heading}](#{_slug(heading)})"
        choices = [one for key in ("anyOf", "oneOf") for one in field.get(key, ())]
        if choices:
            found = [self._accepted(one) for one in choices if one.get("type") != "null"]
            return "; ".join(dict.fromkeys(found))
        if "enum" in field or "const" in field:
            return ", ".join(f"`{_word(one)}`" for one in field.get("enum", [field.get("const")]))
        return self._of_type(field)

    def _of_type(self, field: Schema) -> str:
        match field.get("type"):
            case "array":
                inner = field.get("items") or (field.get("prefixItems") or [{}])[0]
                size = field.get("minItems") if "prefixItems" in field else None
                return f"{size or 'list'} of: {self._accepted(inner)}"
            case "object":
                inner = field.get("additionalProperties")
                return (
                    f"mapping to: {self._accepted(inner)}" if isinstance(inner, dict) else "mapping"
                )
            case list() as kinds:
                return "; ".join(self._of_type({**field, "type": kind}) for kind in kinds)
            case "boolean":
                return "`true`, `false`"
            case "integer":
                return f"whole number{_bounds(field)}"
            case "number":
                return f"number{_bounds(field)}"
            case "string":
                return "text"
        return "any value"


def _definitions(field: Schema) -> Iterator[str]:
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2]
    for key in ("anyOf", "oneOf", "allOf"):
        for one in field.get(key, ()):
            yield from _definitions(one)
    for key in ("items", "additionalProperties"):
        if isinstance(field.get(key), dict):
            yield from _definitions(field[key])


def _bounds(field: Schema) -> str:
    given = ((word, field[key]) for key, word in _BOUNDS.items() if key in field)
    said = [f"{word} {bound:,}" for word, bound in given if bound < _SAID_BY_NO_BOUND]
    return " " * bool(said) + " ".join(said).replace(".0", "")


def _default(field: Schema) -> str:
    value = field.get("default")
    if isinstance(value, dict):  # of a section; its fields' defaults stand in its table
        value = value.get("name")
    return "" if value in (None, "", [], ()) else f"; default `{_word(value)}`"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith(".") else f"{text}."


def _slug(heading: str) -> str:
    """The anchor that the site gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
