"""What README and docs/*.md show runs: page by page, in a folder of small photographs, on the embedded model.

`tests/unit/test_page_blocks.py` checks what every block says; here blocks are executed, in the order of their page.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from stylebatch.cli import main
from stylebatch.engine import run_record
from tests.support.images import picture
from tests.support.page_blocks import BLOCKS, NAMED, ROOT, Block, commands, documents, verb_of
from tests.support.runs import environment

pytestmark = pytest.mark.slow
ELSEWHERE = {
    ("data.md", "", "yaml"): "tests/unit/test_doors_in.py",
    ("splits.md", "", "yaml"): "tests/unit/test_split_sources.py",
    ("fitting.md", "", "yaml"): "tests/unit/test_fitting.py",
    ("formats.md", "Readers", "python"): "tests/runs/test_readers.py",
    ("models.md", "Ways to name one", "python"): "tests/runs/test_loading.py",
    ("writing_a_method.md", "Of prompts", "python"): "tests/runs/test_custom_method.py",
    ("writing_a_method.md", "Of prompts", "yaml"): "tests/runs/test_custom_method.py",
    ("writing_a_method.md", "Of contents and styles", "python"): "tests/runs/test_custom_method.py",
    ("writing_a_method.md", "Of contents and styles", "yaml"): "tests/runs/test_custom_method.py",
}
"""Blocks that a test of their topic takes from the page, or from a section of it, and runs, over inputs of their kind."""
OUTPUT_OF = {("formats.md", "Inputs once per shard"): ("output.inputs=reference",)}
"""How the output is rendered that the code of a heading reads."""
PRINTED = {"tutorial.md": r"photographs and stylised +(\d+)% +(\d+)%\n$"}
"""What the code of a page prints at its end."""
STAYS = ("view",)
"""Verbs that end by Ctrl-C alone."""
SMALL = {"image": {"size": 32}, "engine": {"threads": 1}, "method": {"name": "styleid", "steps": 2}}
MINE = {
    "name": "mine",
    "contents": {"path": "photos"},
    "styles": {"path": "paintings"},
    "model": "tiny",
    "output": {"path": "outputs/mine"},
}


def _is_elsewhere(block: Block) -> bool:
    return any((block.page, of, block.language) in ELSEWHERE for of in ("", block.section, block.heading))  # fmt: skip


RUN = [block for block in BLOCKS if not block.why_not_run and not _is_elsewhere(block)]


def _write_inputs(folder: Path) -> None:
    """What the pages call photos, paintings, masks, tables of them, and chosen keys."""
    manifests = folder / "manifests"
    for index in range(4):
        for kind in ("photos", "masks"):
            path = manifests / kind / ("cat", "dog", "castle", "cup")[index] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(index + 5 * (kind == "masks")).save(path)
    (manifests / "paintings").mkdir()
    for name in ("monet", "hokusai", "carpet"):
        picture(10 + len(name)).save(manifests / f"paintings/{name}.jpg")
        shutil.copy(manifests / f"paintings/{name}.jpg", manifests / f"{name}.jpg")
    (manifests / "cat.jpg").write_bytes((manifests / "photos/cat/0.jpg").read_bytes())
    blends = next(block for block in BLOCKS if block.language == "csv")
    (manifests / "styles.csv").write_text(blends.text)
    (manifests / "pairs.csv").write_text("content,style\ncat/0.jpg,dawn\n")
    pickled = {"string_to_param": {"*": torch.zeros(2, 4)}}
    torch.save(pickled, folder / "easynegative.pt")
    (folder / "pairs.csv").write_text("content,style\nmanifests/cat.jpg,manifests/monet.jpg\n")
    _write_photographs(folder)
    (manifests / "demo").symlink_to(ROOT / "manifests/demo")
    (manifests / "mine.yaml").write_text(yaml.safe_dump(SMALL | MINE))
    inputs = {"contents": {"path": "demo/contents"}, "styles": {"path": "demo/styles"}}
    demo = SMALL | MINE | inputs | {"name": "demo", "output": {"path": "outputs/demo"}}
    (manifests / "demo.yaml").write_text(yaml.safe_dump(demo))


def _write_photographs(folder: Path) -> None:
    """The demo's photographs, three overlapping parts of each, and its styles: what the tutorial begins with."""
    for path in sorted((ROOT / "manifests/demo/contents").glob("*/*.jpg")):
        with Image.open(path) as photograph:
            for index in range(3):
                left = index * (photograph.width - 200) // 2
                part = folder / "photos" / path.parent.name / f"{path.stem}{index}.jpg"
                part.parent.mkdir(parents=True, exist_ok=True)
                photograph.crop((left, 40, left + 200, 240)).save(part, quality=95)
    shutil.copytree(ROOT / "manifests/demo/styles", folder / "paintings")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a page begins: inputs, and the finished output of mine.yaml."""
    folder = tmp_path_factory.mktemp("pages")
    _write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "manifests/mine.yaml"]) == 0
    for name in ("bad_keys.txt", "keys.txt"):
        (folder / name).write_text("000000000\n")
    return folder


@pytest.fixture
def world(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which the page may change."""
    folder = tmp_path / "world"
    shutil.copytree(rendered, folder, symlinks=True)
    monkeypatch.chdir(folder)
    # other tests use the other cores, and threads that wait for each other spin
    monkeypatch.setattr(run_record, "usable_cores", lambda: 1)
    return folder


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}))
def test_a_page_runs_from_its_first_block_to_its_last(page: str, world: Path) -> None:
    printed = ""
    for block in (one for one in RUN if one.page == page):
        if block.language == "sh":
            for words in commands(block.text):
                verb = verb_of(words)
                if verb is not None and verb[0] not in STAYS:
                    _make_outputs(verb, world)
                    assert main(verb) == 0, f"{block}: {verb}"
                elif words[0] == "python" and (world / words[1]).exists():
                    printed = _run_code([str(world / words[1])], world)
        elif (name := NAMED.match(block.text)) is not None and not _is_part(block):
            _save(block, world / name[1])
        elif block.language == "python":
            _render_as_told(block, world)
            printed = _run_code(["-c", block.text], world)
        elif block.language == "yaml":
            for number, document in enumerate(documents(block)):
                _run_manifest(document, f"{block.line}-{number}", world)
    assert re.search(PRINTED.get(page, ""), printed), printed


def _make_outputs(verb: list[str], world: Path) -> None:
    """Outputs that a command reads and that no command of the page makes are copies of that of mine.yaml."""
    made = {verb[i + 1] for i, word in enumerate(verb[:-1]) if word in ("--output", "--to")}
    for word in verb[1:]:
        if word.startswith("outputs/") and word not in made and not (world / word).exists():
            shutil.copytree(world / "outputs/mine", world / word)


def _is_part(block: Block) -> bool:
    """Whether it is a manifest without an output, which the page shows in short."""
    return block.language == "yaml" and "output" not in documents(block)[0]


def _save(block: Block, path: Path) -> None:
    """A block whose first line is the name of a file becomes that file; a manifest is made small."""
    text = block.text
    if block.language == "yaml":
        document: dict[str, Any] = SMALL | documents(block)[0] | {"model": "tiny"}
        if not path.exists():  # another manifest than that which the output is of
            shutil.rmtree(document["output"]["path"], ignore_errors=True)
        text = yaml.safe_dump(document)
    path.write_text(text)


def _render_as_told(block: Block, world: Path) -> None:
    overrides = OUTPUT_OF.get((block.page, block.heading))
    if overrides is not None:
        shutil.rmtree(world / "outputs/mine")
        assert main(["run", "manifests/mine.yaml", "--set", *overrides]) == 0


def _run_code(arguments: list[str], world: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=world, env=environment(HF_HOME=str(world / "hub")), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}:\n{done.stderr}"
    return done.stdout


def _run_manifest(document: dict[str, object], name: str, world: Path) -> None:
    """One sample of it on the embedded model, whichever model it names; a part has the inputs of mine.yaml beside it."""
    inputs: dict[str, object] = {key: MINE[key] for key in ("contents", "styles")}
    if "prompts" in document:
        inputs = {}
    given = {**SMALL, **inputs, **document, "model": "tiny", "output": {"path": f"outputs/{name}"}}
    manifest = world / f"manifests/{name}.yaml"
    manifest.write_text(yaml.safe_dump(given))
    assert main(["run", str(manifest), "--limit", "1"]) == 0, document


def test_what_is_run_elsewhere_is_run_there() -> None:
    for (page, section, language), test in ELSEWHERE.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")
        blocks = [block for block in BLOCKS if (block.page, block.language) == (page, language)]
        assert any(section in ("", block.section, block.heading) for block in blocks)
