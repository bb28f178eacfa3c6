"""The reference of the command line, from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stylebatch.cli.app import NAME, command


def reference() -> str:
    """Markdown: the verbs in their groups, each with its usage, arguments and options."""
    top = command()
    verbs: dict[str, list[tuple[str, Any]]] = {}
    for name, verb in top.commands.items():
        verbs.setdefault(getattr(verb, "rich_help_panel", None) or "Others", []).append(
            (name, verb)
        )
    lines: list[str] = []
    for group, members in verbs.items():
        lines += [f"## {group}", ""]
        for name, verb in members:
            for path, leaf in _leaves(f"{NAME} {name}", verb):
                lines += _verb(path, leaf)
    return "\n".join(lines)


def _leaves(path: str, verb: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(verb, "commands"):
        yield path, verb
        return
    for name, inner in verb.commands.items():
        yield from _leaves(f"{path} {name}", inner)


def _verb(path: str, verb: Any) -> list[str]:
    context = verb.make_context(path, ["--help"], resilient_parsing=True)
    usage = " ".join([path, *verb.collect_usage_pieces(context)])
    lines = [f"### `{path}`", "", f"{_sentence(verb.help)}", "", "```text", usage, "```", ""]
    records = [one.get_help_record(context) for one in verb.get_params(context) if one.name != "help"]  # fmt: skip
    if any(records):
        lines += ["| argument or option | what it is |", "|---|---|"]
    lines += [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in filter(None, records)]
    return [*lines, ""]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
