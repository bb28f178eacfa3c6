"""What docs/evaluation.md shows is what the command line takes and the tables have."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from stylebatch.cli.app import command
from stylebatch.engine.variants import VARIED, varied_field
from stylebatch.evaluation.backbones import WEIGHTS
from stylebatch.evaluation.definitions import DEFINITIONS
from stylebatch.evaluation.traps import FULL_RANK

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "evaluation.md").read_text(encoding="utf-8")


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("stylebatch ")]


def test_every_command_is_one_that_the_command_line_takes() -> None:
    found = _commands()
    assert {words[1] for words in found} == {"compare", "evaluate"}
    group = command()
    for _, verb, *words in found:
        # parses options and their values; runs nothing
        context = group.commands[verb].make_context(verb, words)
        for text in context.params.get("vary", ()):
            assert varied_field(text).field.partition(".")[0] in VARIED
        given = [text.partition("=")[0] for text in context.params.get("weights") or ()]
        assert set(given) <= {one.name for one in WEIGHTS}
    assert any(len(re.findall("--weights", " ".join(words))) == len(WEIGHTS) for words in found)


def test_the_table_has_every_measure_and_its_weights() -> None:
    for one in DEFINITIONS:
        name = one.name
        if one.is_published and name != "set_consistency_clip":  # told beside DINO's
            row = re.search(rf"^\| `{name}`.*$", TEXT, re.MULTILINE)
            assert row is not None, name
            assert all(f"`{need}`" in row[0] for need in one.needs), name
        elif not one.is_published:
            assert name.endswith("_efficientnet_lite0")
    assert f"{FULL_RANK:,}" in TEXT
    assert all((DOCS / link).exists() for link in re.findall(r"\]\(((?!http)[^)#]+)\)", TEXT))
