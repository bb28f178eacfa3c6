"""Every block of README and docs/*.md is of a kind that is checked: manifests fit the schema, commands are ones that exist.

`tests/slow/test_pages_run.py` runs what can be run here. A block that no test can run has the line `<!-- not run: REASON -->` above it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stylebatch.cli.app import command as command_line
from stylebatch.documents import parse
from stylebatch.spec import METHOD_OPTIONS, RunSpec, json_schema
from stylebatch.training.spec import TrainSpec
from tests.support.page_blocks import BLOCKS, NAMED, ROOT, Block, commands, documents, verb_of

LANGUAGES = {"csv", "json", "python", "sh", "text", "yaml"}
"""`text` is what a program prints or a tree of files, and is read by people alone."""
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TRAINING = {
    "stage": "unet",
    "model": "tiny",
    "data": {"path": "x"},
    "steps": 1,
    "batch": 1,
    "output": "x",
}


def _of(language: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language == language]


def test_every_block_has_a_language_that_is_checked() -> None:
    unknown = {str(block): block.language for block in BLOCKS if block.language not in LANGUAGES}
    assert not unknown, f"accepted: {sorted(LANGUAGES)}; a block without a fence has none"


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    marked = [block for block in BLOCKS if block.why_not_run]
    assert len(marked) < len(BLOCKS) / 5
    reasons = Counter(block.why_not_run.partition(";")[0] for block in marked)
    assert all(re.match(r"(needs|takes|stands for) ", reason) for reason in reasons), reasons
    lines = [line for page in {block.page for block in BLOCKS} for line in _page(page).splitlines()]
    assert (
        sum("not run:" in line for line in lines) == len(marked) + 1
    )  # development.md tells of it


def _page(name: str) -> str:
    folder = ROOT if name == "README.md" else ROOT / "docs"
    return (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", _of("yaml"))
def test_a_manifest_fits_the_schema(block: Block) -> None:
    for document in documents(block):
        assert isinstance(document, dict)
        if set(document) <= set(RunSpec.model_fields):
            _require_manifest(document)
        else:
            TrainSpec.model_validate_json(json.dumps(TRAINING | document))


def _require_manifest(document: dict[str, Any]) -> None:
    method = document.get("method", "styleid")
    name = method if isinstance(method, str) else method.get("name", "")
    takes_prompts = "prompts" in document or name not in ("styleid", "")
    inputs: dict[str, Any] = {"contents": {"path": "x"}, "styles": {"path": "x"}}
    if takes_prompts:
        inputs = {"prompts": {"path": "x"}}
    if document.get("pairing", {}).get("mode") == "explicit":
        inputs = {}
    whole = {"output": {"path": "x"}} | inputs | document
    _validator().validate(whole)
    if name in METHOD_OPTIONS:
        RunSpec.model_validate_json(json.dumps(whole))


@cache
def _validator() -> Any:
    """`jsonschema.validate` would look through the schema itself each time."""
    schema = json_schema()
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@pytest.mark.parametrize("block", _of("sh"))
def test_a_command_exists_and_takes_its_options(block: Block) -> None:
    found = list(commands(block.text))
    assert found
    for words in found:
        verb = verb_of(words)
        if verb is not None:
            _require_verb(verb)
        elif words[0] == "make":
            _require_target(words[1:])
        elif words[0] == "pip":
            _require_extras(words)
        elif words[0] == "python":
            if words[1] not in _files_of(block.page):
                _require_script(words[1:])
        else:
            assert block.why_not_run, (
                f"{block}: {words[0]} is none of ours, and the block has no marker"
            )


def _files_of(page: str) -> set[str]:
    found = (NAMED.match(block.text) for block in BLOCKS if block.page == page)
    return {name[1] for name in found if name is not None}


def _require_verb(words: list[str]) -> None:
    """Parses options and their values; runs nothing."""
    group, (name, *rest) = command_line(), words
    found: Any = group.commands[name]
    while hasattr(found, "commands"):
        name, *rest = rest
        found = found.commands[name]
    found.make_context(name, rest)


def _require_target(words: list[str]) -> None:
    for word in words:
        name, is_set, _ = word.partition("=")
        assert re.search(rf"\$\((if \$\()?{name}\b" if is_set else rf"^{name}:", MAKEFILE, re.MULTILINE), word  # fmt: skip


def _require_extras(words: list[str]) -> None:
    assert words[1] == "install"
    for word in words[2:]:
        for extra in re.findall(r"\[([\w,-]+)\]", word):
            assert set(extra.split(",")) <= set(EXTRAS)


def _require_script(words: list[str]) -> None:
    """A file of this repository, whose folder knows the options."""
    name = words[1].replace(".", "/") if words[0] == "-m" else words[0].removesuffix(".py")
    places = [ROOT / f"{name}.py", ROOT / name / "__main__.py", ROOT / name / "__init__.py"]
    place = next(path for path in places if path.exists())
    folder = place.parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'"{option}"' in code, f"{place} has no {option}"


@pytest.mark.parametrize("block", _of("python"))
def test_code_compiles_and_its_imports_are_public_or_named(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [*_of("json"), *_of("csv")])
def test_an_example_of_data_can_be_read(block: Block) -> None:
    if block.language == "json":
        assert isinstance(json.loads(block.text), (dict, list))
    else:
        rows = list(csv.reader(io.StringIO(block.text), strict=True))
        assert len({len(row) for row in rows}) == 1


def test_every_example_manifest_and_the_charts_of_deploy_can_be_read() -> None:
    for path in (*ROOT.glob("manifests/*.yaml"), *ROOT.glob("manifests/train/*.yaml")):
        assert isinstance(parse(path.read_text(encoding="utf-8")), dict)
    for path in ROOT.glob("deploy/*.yaml"):
        assert list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_links_of_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", _page("README.md"))
    assert links
    assert all((ROOT / link).exists() for link in links)
    assert Path(ROOT / "docs/index.md").exists()
