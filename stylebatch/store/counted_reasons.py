"""Why samples of a shard failed or were rejected, counted: what its marker keeps, so that nobody need read its rows for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def rules_of(identity: Mapping[str, Any]) -> list[str]:
    """The rules by which an output's samples are rejected, of a plan's identity; none where it has no gates."""
    gates = identity.get("gates")
    rules = gates.get("reject") if isinstance(gates, dict) else None
    return [str(rule) for rule in rules.values()] if isinstance(rules, dict) else []


def counted_reasons(
    rows: Iterable[Mapping[str, Any]], rules: Sequence[str]
) -> dict[str, dict[str, int]]:
    """`failures` by `error_code` and `rejections` by rule, each only where there are some; of rows of the metadata."""
    failures, rejections = Counter[str](), Counter[str]()
    for row in rows:
        if row["status"] == "failed":
            failures[row["error_code"]] += 1
        elif row["status"] == "rejected":
            rejections[_rule(row["error_message"], rules)] += 1
    named = {"failures": failures, "rejections": rejections}
    return {name: dict(counts.most_common()) for name, counts in named.items() if counts}


def _rule(message: str, rules: Sequence[str]) -> str:
    """The rule that a row was rejected by; its message is `RULE (measured values)`."""
    found = [rule for rule in rules if message == rule or message.startswith(f"{rule} (")]
    # of two rules one may begin with the other
    return max(found, key=len, default="other rules")
