"""What `inspect` found at a place, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stylebatch.data.tables.table_columns import shown
from stylebatch.masking import masked
from stylebatch.words import size

MOST_NAMED = 12
MOST_CELLS = 8
LONGEST = 100


@dataclass(frozen=True)
class Finding:
    """`kind`: such as `image folder`; `facts`: plain values by name, mappings of counts among them, of which people see the first.
    `bytes` is a number, which people see with its unit.

    `samples`: the first records, or images; `problems`: what is damaged, or would stop a run; `next_step`: a command.
    """

    place: str
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    next_step: str = ""

    def lines(self) -> Iterator[str]:
        yield f"{masked(self.place)}: {self.kind}"
        for name, value in self.facts.items():
            if text := size(value) if name == "bytes" else fact_text(value):
                yield f"  {name.removeprefix('num_').replace('_', ' ')}: {text}"
        for number, sample in enumerate(self.samples, 1):
            cells = [f"{name} {cell_text(value)}" for name, value in sample.items()]
            yield f"  {number}: {_some(cells[:MOST_CELLS], len(cells))}"
        yield from (f"  {note}" for note in self.notes)
        if self.next_step:
            yield f"Next: {self.next_step}"

    def as_json(self) -> dict[str, Any]:
        return {
            "path": masked(self.place),
            "kind": self.kind,
            **self.facts,
            "samples": [dict(sample) for sample in self.samples],
            "notes": list(self.notes),
            "problems": list(self.problems),
        }


def fact_text(value: Any) -> str:
    """On one line; "" for nothing. Of counts the largest first."""
    if isinstance(value, Counter):
        named = [f"{cell_text(name)} {count:,}" for name, count in value.most_common(MOST_NAMED)]
        return f"{len(value):,} ({_some(named, len(value))})" if value else ""
    if isinstance(value, Mapping):
        named = [f"{cell_text(name)} {cell_text(inner)}" for name, inner in value.items()]
        return _some(named[:MOST_NAMED], len(value))
    if isinstance(value, list | tuple):
        return _some([cell_text(one) for one in value[:MOST_NAMED]], len(value))
    return cell_text(value)


def cell_text(value: Any) -> str:
    """A value within a line: short, and printable whatever a file is called."""
    if value is None or value == "":
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = shown(str(value), LONGEST) or "(empty)"
    return text if text.isprintable() else ascii(text)


def _some(named: list[str], count: int) -> str:
    more = f" and {count - len(named):,} more" if count > len(named) else ""
    return ", ".join(named) + more
