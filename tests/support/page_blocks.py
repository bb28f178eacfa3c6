"""The fenced blocks of README and docs/*.md, and the commands of those in sh."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
"""Stands directly above a block that nothing here can run, and says why."""
NAMED = re.compile(r"# ([\w/]+\.(?:py|yaml))\b")
"""The first line of a block that is the contents of a file."""
STYLEBATCH = ("stylebatch", ".venv/bin/stylebatch")


@dataclass(frozen=True)
class Block:
    """A block of a page: `section` and `heading` are the last of level 2 and of any level above it, `why_not_run` what
    its marker says, or "" without one."""

    page: str
    line: int
    section: str
    heading: str
    language: str
    text: str
    why_not_run: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """In their order; of Sphinx' directives none."""
    text = page.read_text(encoding="utf-8")
    lines, section, heading = text.splitlines(), "", ""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[index + 1].content
            section = heading if token.tag == "h2" else section
        if token.type not in ("fence", "code_block") or token.info.startswith("{"):
            continue
        assert token.map is not None
        above = lines[token.map[0] - 1].strip() if token.map[0] else ""
        marker = NOT_RUN.match(above)
        yield Block(
            page.name,
            token.map[0] + 1,
            section,
            heading,
            token.info,
            token.content,
            marker[1] if marker else "",
        )


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a block in sh, without comments and without variables set before it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("|", "&&", ";")), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and re.match(r"^[A-Z_]+=", command[0]):
                command.pop(0)
            if command:
                yield command


def verb_of(command: list[str]) -> list[str] | None:
    """What stylebatch is given, also behind a launcher; None for another program."""
    for index, word in enumerate(command):
        if word in STYLEBATCH and (index == 0 or command[index - 1] == "-m" or command[0] == "timeout"):  # fmt: skip
            return command[index + 1 :]
    return None


def documents(block: Block) -> list[dict[str, object]]:
    """The parts of manifests in a block of YAML; a block in which a key stands twice shows alternatives, a line each."""
    lines = [line for line in block.text.splitlines() if line.strip()]
    keys = [line.partition(":")[0] for line in lines if re.match(r"^\w+:", line)]
    texts = [block.text] if len(keys) == len(set(keys)) else lines
    return [yaml.safe_load(text) for text in texts]
