"""Judges rendered samples by a plan's rules, which are expressions over the columns of their records."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stylebatch.errors import ManifestError
from stylebatch.export.expressions import Expression
from stylebatch.planning.plan import Plan
from stylebatch.spec.gates import DEFAULT
from stylebatch.store.records import TRIED, schema_of_plan

UNKNOWN = ("key", "shard", "status", "error_code", "error_message", "sha256")
"""Columns of the records that are not known while a sample is judged, or say nothing of it."""
LONGEST_VALUE = 60


@dataclass(frozen=True)
class Rule:
    """An expression over records with these columns."""

    expression: Expression
    schema: pa.Schema

    @classmethod
    def of(cls, text: str, schema: pa.Schema, field: str) -> Rule:
        expression = Expression(text, schema, field=field, steady=True)
        return cls(expression, pa.schema([schema.field(name) for name in expression.used]))

    def reasons(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Why each row is rejected, "" where it is not, as where a value is missing."""
        names = self.schema.names
        values = [{name: row[name] for name in names} for row in rows]
        table = pa.Table.from_pylist(values, schema=self.schema)
        if not names:  # a table without columns has no rows
            table = pa.table({"row": pa.array(range(len(rows)), pa.int64())})
        fulfils, _ = self.expression.of(table)
        return [
            self._reason(one) if is_rejected else ""
            for one, is_rejected in zip(values, fulfils.tolist(), strict=True)
        ]

    def _reason(self, values: dict[str, Any]) -> str:
        told = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
        return f"{self.expression.text}{f' ({told})' if told else ''}"


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


class Gate:
    """The rules of a plan that has some, by class. Raises ManifestError for one that cannot be used with its records."""

    def __init__(self, plan: Plan) -> None:
        gates = plan.spec.gates
        assert gates is not None, "a plan without gates has nothing to judge"
        schema = schema_of_plan(plan)
        known = [field for field in schema if field.name not in (*UNKNOWN, *TRIED)]
        _require_classes(gates.reject, plan.labels)
        self._rules = {
            name: Rule.of(text, pa.schema(known), _field(name, gates.reject))
            for name, text in gates.reject.items()
        }

    def reasons(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Why each sample is rejected, "" where it is not; of their records, with measures."""
        found = [""] * len(rows)
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            name = row["label"] if row["label"] in self._rules else DEFAULT
            places.setdefault(name, []).append(place)
        for name, of_rule in places.items():
            if name in self._rules:
                reasons = self._rules[name].reasons([rows[place] for place in of_rule])
                for place, reason in zip(of_rule, reasons, strict=True):
                    found[place] = reason
        return found


def _field(name: str, rules: dict[str, str]) -> str:
    return "gates.reject" if list(rules) == [DEFAULT] else f"gates.reject.{name}"


def _require_classes(rules: dict[str, str], labels: Sequence[str]) -> None:
    unknown = [name for name in rules if name not in (DEFAULT, *labels)]
    if unknown:
        close = difflib.get_close_matches(unknown[0], (DEFAULT, *labels), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        some = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
        raise ManifestError(
            f"gates.reject: found the class {unknown[0]!r}, which no sample has; {hint}accepted: {DEFAULT}"
            f"{f', {some}' if labels else ' alone, since the samples have no labels'}"
        )


def check_gates(plan: Plan) -> None:
    """Raise ManifestError, naming the field, for gates that cannot be used with the plan's records."""
    if plan.spec.gates is not None:
        Gate(plan)
