"""Names that are markup, code or terminal commands elsewhere are names here: on the terminal, in the card, in the gallery."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from stylebatch.cli import main
from stylebatch.masking import one_line, printable
from stylebatch.reports.card import code, markdown
from tests.support.images import picture, write_inputs, write_manifest
from tests.support.pages import held, shown

STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
EVIL = "document.title='HACKED'"
NAMES = {
    f"<img src=x onerror={EVIL}>.png": "</script><script>" + EVIL + "</script>",
    "a`b|c*d_e[f](g).png": "---",
    "\x1b[31mred\x07\x9b1m.png": "null: [a]",
    "\u202egnp.exe.png": "\u202eevil",
    "quote\"'&amp;.png": "yes",
    "x" * 240 + ".png": "[red]x",
    "[red]markup.png": "\x1b]0;title\x07",
}
"""Labels by file name."""


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_odd_names_reach_neither_terminal_nor_page_raw(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, contents=1, styles=1)
    with (tmp_path / "odd.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "caption", "license"])
        for number, (name, label) in enumerate(NAMES.items()):
            picture(number).save(tmp_path / name)
            rows.writerow([name, label, f"{label} {'y' * 3000}", f"`|{label}"])
        rows.writerow([f"missing<img src=x onerror={EVIL}>\x1b[2J.png", "<i>", "", ""])
    manifest = write_manifest(
        tmp_path, eps_folder, name=f"<script>{EVIL}</script> \x1b[31m`x` [a](b)", license=f"<img src=x onerror={EVIL}>",
        method={"name": "styleid", "steps": 2}, contents={"path": "odd.csv"}, max_failed_fraction=1,
    )  # fmt: skip
    assert main(["run", str(manifest)]) == 0
    assert main(["run", str(manifest), "--output", str(tmp_path / "j"), "--json-logs"]) == 0
    for verb in ("report", "verify"):
        assert main([verb, str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "\\x1b" in told.out
    assert not STEERING.search(told.out + told.err)
    assert main(["plan", "--json", str(manifest)]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["run", str(tmp_path / "no\x1b[2Jmanifest.yaml")]) == 2
    assert not STEERING.search(capsys.readouterr().err)

    _, header, body = re.split(
        r"(?m)^---\n", (tmp_path / "out" / "README.md").read_text(), maxsplit=2
    )
    card = yaml.safe_load(header)
    (labels,) = (f for f in card["dataset_info"]["features"] if f["name"] == "cls")
    assert set(labels["dtype"]["class_label"]["names"].values()) == {*NAMES.values(), "<i>"}
    assert not STEERING.search(header + body)
    assert not re.search(r"(?<!\\)<(script|img|i)", body)

    gallery = tmp_path / "out" / "gallery.html"
    page = Page(gallery.read_text())
    assert page.tags.count("script") == 7
    assert len(shown(held(gallery))) == len(NAMES)
    assert not page.handlers
    assert not STEERING.search(gallery.read_text())
    if (browser := shutil.which("chromium")) is not None:
        dumped = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom", gallery.as_uri()],
            capture_output=True, text=True, timeout=120, check=False,
        ).stdout  # fmt: skip
        assert "<title>HACKED" not in dumped
        assert f">{len(held(gallery)['rows'])} samples<" in dumped, "the page's own script ran"


def test_text_in_markdown_is_no_markup() -> None:
    assert markdown("a_b\n# <b> [x](y) `c` | \u202e") == r"a\_b\\n\# \<b> \[x\](y) \`c\` \| \\u202e"
    assert code("x") == "`x`"
    assert code("a``b`") == "``` a``b` ```"
    assert len(markdown("y" * 100_000)) < 1000


def test_what_steers_a_terminal_is_spelt_out() -> None:
    text = "\x1b[2J\x9b\x07\b\r\x7f\u202e\u2066\udcff"
    assert printable(text) == r"\x1b[2J\x9b\x07\x08\r\x7f\u202e\u2066\udcff"
    assert printable("naïve 日本 👩‍👩‍👧 \t\n") == "naïve 日本 👩‍👩‍👧 \t\n"
    assert one_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"
