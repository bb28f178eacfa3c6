"""Spellings of a path that mean one file are one input, so that no file is in two splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.sources.listing import list_contents
from stylebatch.data.sources.pairs import PairList, list_pairs
from stylebatch.data.sources.prompt_rows import PromptRows
from stylebatch.errors import ManifestError
from stylebatch.paths import plain_path

ONE = ["cat/0.jpg", "./cat/0.jpg", "cat/../cat/0.jpg", "cat//0.jpg", "cat/./0.jpg"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        *((one, "cat/0.jpg") for one in ONE),
        ("../a/./b", "../a/b"),
        ("//a/../b", "/b"),
        ("a..b/.c/d.", "a..b/.c/d."),
        ("s3://b/./a/../c.png", "s3://b/c.png"),
        ("s3://b/a//c", "s3://b/a//c"),
        ("s3://b/../../c", "s3://b/c"),
        ("https://h/x/./y.png?u=//a/../b", "https://h/x/y.png?u=//a/../b"),
        ("file:///tmp/./x", "file:///tmp/x"),
    ],
)
def test_plain_paths(text: str, plain: str) -> None:
    assert plain_path(text) == plain
    assert plain_path(plain) == plain


def _pairs(path: Path, names: list[str]) -> list[str]:
    path.write_text("content,style\n" + "".join(f"{name},s.png\n" for name in names))
    found = list_pairs(PairList(str(path)))
    return [found.contents[cell.row].id for cell in found.pairs]


def test_pairs_take_spellings_of_a_file_for_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    others = [f"{tmp_path}/cat/0.jpg", f"../{tmp_path.name}/cat/0.jpg", "cat/1.jpg"]
    assert _pairs(path, [*ONE, *others]) == ["cat/0.jpg"] * 7 + ["cat/1.jpg"]
    assert _pairs(path, [others[0], ONE[1]]) == ["cat/0.jpg"] * 2
    # whole paths alone hold wherever the list lies
    assert _pairs(path, [others[0], f"{tmp_path}/./cat/0.jpg"]) == [others[0]] * 2
    address = ["s3://b/x.png", "s3://b/./x.png", "x.png"]
    assert _pairs(path, address) == ["s3://b/x.png"] * 2 + ["x.png"]


def test_pairs_name_given_contents_by_any_spelling(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("path\n./cat/0.jpg\ncat/1.jpg\n")
    given = list_contents(ContentSpec(path=str(tmp_path / "c.csv")))
    (tmp_path / "p.csv").write_text("content,style\ncat//0.jpg,s.png\ncat/0.jpg,s.png\n")
    found = list_pairs(PairList(str(tmp_path / "p.csv")), given)
    assert [item.id for item in found.contents] == ["cat/0.jpg"]


def test_a_table_of_contents_has_each_file_once(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    for other, told in (
        *((one, "stands there twice") for one in ONE[1:]),
        (f"{tmp_path}/cat/0.jpg", "are one file"),
        (f"../{tmp_path.name}/cat/0.jpg", "are one file"),
    ):
        for names in ([ONE[0], other], [other, ONE[0]]):
            path.write_text("\n".join(["path", *names]))
            with pytest.raises(ManifestError, match=f"{told}; accepted: each image once"):
                list_contents(ContentSpec(path=str(path)))


def test_prompts_name_an_image_by_any_spelling(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,image\n" + "".join(f"a {n},{one}\n" for n, one in enumerate(ONE)))
    items = list(PromptRows(str(path), ("image",), uses_sets=False).items())
    assert {item.extra["image"] for item in items} == {"cat/0.jpg"}
    assert len({item.ref for item in items}) == 1
