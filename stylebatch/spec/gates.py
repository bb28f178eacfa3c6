"""Gates: which samples are rejected by their measures, and what is tried in their place."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from stylebatch.methods.method import MethodOptions
from stylebatch.section import Section
from stylebatch.spec.pairing import Pairing

DEFAULT = "default"
"""Stands for the classes without a rule of their own."""
NEXT = "next"
SEED, STYLE = "seed", "style"
"""What a rung may change beside options: to the `next` one."""
Rung = dict[str, Any]
"""What an attempt changes of the sample as planned: options of the method, `seed: next`, `style: next`."""


def _rule_by_class(value: Any) -> Any:
    """`RULE` in full; YAML takes the rules `true` and `false` for truth values."""
    rules = value if isinstance(value, dict) else {DEFAULT: value}
    found = {
        name: str(rule).lower() if type(rule) is bool else rule for name, rule in rules.items()
    }
    if not all(isinstance(rule, str) for rule in found.values()):
        raise ValueError("accepted: an expression such as structure < 0.3, or one for each class")
    return found


Rules = Annotated[
    dict[str, str],
    BeforeValidator(_rule_by_class, json_schema_input_type=str | dict[str, str]),
]


class GateSpec(Section):
    """Which samples are rejected, and what is tried in their place."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    reject: Rules = Field(
        description="Rule over the columns of a record that a sample is rejected by, as SQL has it, such as "
        '"structure < 0.3 or contrast < 5"; or one for each class, such as {default: ..., cat: ...}'
    )
    retry: Annotated[tuple[Rung, ...], Field(strict=False)] = Field(
        (),
        description="What the second attempt at a rejected sample changes, what the third, ...: options of the method that nothing "
        "prepared hangs on (styleid: gamma, tau), `seed: next`, `style: next` (one that the content meets nowhere in the run)",
    )
    attempts: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Attempts at a sample at most, the first included; default 1 and one for each rung of `retry`. Further ones repeat "
        "the last rung, with the next seed or style",
    )
    yield_: float = Field(
        1.0,
        alias="yield",
        gt=0.0,
        le=1.0,
        description="Share of samples that is enough: in a shard where as many passed so far nothing is tried again",
    )
    keep_rejected: bool = Field(
        False, description="Keep the pictures of rejected samples aside, in rejected/SHARD.tar"
    )

    @model_validator(mode="after")
    def _rules_are_there(self) -> GateSpec:
        if not self.reject or not all(rule.strip() for rule in self.reject.values()):
            raise ValueError(
                "reject: found no rule; accepted: an expression such as structure < 0.3, or one for each class; `false` rejects nothing"
            )
        return self

    @model_validator(mode="after")
    def _attempts_differ(self) -> GateSpec:
        if not self.retry and (self.attempts or 1) > 1:
            raise ValueError(
                f"attempts: found {self.attempts} without `retry`, so that each would give the same picture; accepted: 1"
            )
        for number, rung in enumerate(self.retry):
            odd = [name for name in (SEED, STYLE) if rung.get(name, NEXT) != NEXT]
            if not rung or odd:
                found = json.dumps(rung[odd[0]]) if odd else "nothing"
                raise ValueError(
                    f"retry.{number}{f'.{odd[0]}' if odd else ''}: found {found}; accepted: options of the method, `seed: next`, "
                    "`style: next`"
                )
            if rung in self.retry[:number] and NEXT not in rung.values():
                raise ValueError(
                    f"retry.{number}: found {json.dumps(rung)} again, which would give the same picture; accepted: each once"
                )
        if self.retry and self.num_attempts > 1 + len(self.retry):
            last = self.retry[-1]
            if NEXT not in last.values():
                raise ValueError(
                    f"attempts: found {self.attempts}, more than 1 and one for each rung of `retry`, of which the last changes nothing "
                    f"further; accepted: up to {1 + len(self.retry)}, or a last rung with `seed: next` or `style: next`"
                )
        return self

    @property
    def num_attempts(self) -> int:
        """At one sample, at most."""
        return 1 + len(self.retry) if self.attempts is None else self.attempts

    def rung(self, attempt: int) -> Rung:
        """What an attempt, from 2 on, changes."""
        return self.retry[min(attempt - 2, len(self.retry) - 1)]

    @property
    def facts(self) -> dict[str, Any]:
        """For a plan's identity."""
        return self.model_dump(mode="json", exclude_none=True)

    def check(self, options: MethodOptions, pairing: Pairing) -> None:
        """Raise ValueError, naming the field, for rungs that the method or the pairing does not allow."""
        for number, rung in enumerate(self.retry):
            where = f"gates.retry.{number}"
            if STYLE in rung and "style" not in options.axes():
                raise ValueError(f"{where}.style: the method has no styles; leave it out")
            if STYLE in rung and pairing.mode == "product":
                raise ValueError(
                    f"{where}.style: found next with pairing mode product, where each content meets every style anyway; accepted with "
                    "mode sample, explicit or zip"
                )
            if set(rung) == {SEED} and not options.uses_seed:
                raise ValueError(
                    f"{where}.seed: the method draws nothing by its seed, so that the next one gives the same picture; accepted: "
                    "another option, or one that is a range, such as method.gamma: {from: 0.5, to: 0.9}"
                )
            changed = changed_options(options, rung, where)
            same = all(getattr(options, name) == value for name, value in changed.items())
            if same and NEXT not in rung.values():
                raise ValueError(
                    f"{where}: found {json.dumps(rung)}, which the method has already; accepted: other values"
                )


def changed_options(options: MethodOptions, rung: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that a rung gives, as the method has them. Raises ValueError for others, and for values that it does not take."""
    given = {name: value for name, value in rung.items() if name not in (SEED, STYLE)}
    accepted = options.retried
    for name in given:
        if name not in accepted:
            close = difflib.get_close_matches(name, (*accepted, SEED, STYLE), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"{where}.{name}: found no option that an attempt may change; {hint}accepted: {', '.join((*accepted, SEED, STYLE))}"
            )
    if not given:
        return {}
    values = {**options.model_dump(mode="json"), **given}
    try:
        # by way of JSON, as strict fields take a list for a tuple from JSON alone
        changed = type(options).model_validate_json(json.dumps(values))
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"] if "[" not in str(part))
        message = str(fault["msg"]).removeprefix("Value error, ")
        raise ValueError(
            f"{where}.{field}: found {json.dumps(fault['input'], default=str)}; {message[0].lower()}{message[1:]}"
        ) from None
    return {name: getattr(changed, name) for name in given}
