"""How many styles a shard has is told by the plan before, and by the report of the records after."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylebatch.planning import style_uses
from stylebatch.planning.grid import Groups, ProductGrid
from stylebatch.planning.shard_cuts import Shards, Stretch
from stylebatch.planning.style_uses import Spread, styles_per_shard
from stylebatch.reports.report import report
from tests.support.outputs import Pair, write_output


def _cut(grid: ProductGrid, blocks: int) -> Shards:
    return Shards(0, (Stretch("train", 0, grid.num_blocks, blocks, 0),))


def test_each_style_of_a_shard_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = ProductGrid(Groups(6, 3), Groups(10, 3))  # columns in groups of 3, 3 and 4
    assert styles_per_shard(grid, _cut(grid, 1)) == Spread(3, 3, 4, 9)
    assert styles_per_shard(grid, _cut(grid, 3)) == Spread(10, 10, 10, 3)
    monkeypatch.setattr(style_uses, "MOST_SHARDS", 2)
    assert styles_per_shard(grid, _cut(grid, 1)) == Spread(3, 3, 3, 2)


def test_the_median_is_one_of_the_counts() -> None:
    assert Spread.of([5]) == Spread(5, 5, 5, 1)
    assert Spread.of([9, 1, 4, 4]) == Spread(1, 4, 9, 4)
    assert Spread.of([2, 8]) == Spread(2, 2, 8, 2)
    assert Spread.of([1, 1, 7, 7, 7]).median == 7


def test_words_name_what_was_looked_at() -> None:
    assert Spread.of([16, 16]).words() == "16 styles"
    assert Spread.of([1]).words(1) == "1 style"
    assert Spread.of([16, 32, 32]).words(3) == "16 to 32 styles (median 32)"
    assert Spread.of([16, 32, 32]).words(9) == "16 to 32 styles (median 32, 3 shards looked at)"
    assert Spread.of([4, 4]).words(9) == "4 styles (2 shards looked at)"


def test_a_report_counts_styles_of_samples_that_succeeded(tmp_path: Path) -> None:
    shards = [
        [Pair("a.png", "s.jpg"), Pair("b.png", "s.jpg"), Pair("b.png", "t.jpg")],
        [Pair("c.png", "s.jpg"), Pair("c.png", "t.jpg", "decode")],
        [Pair("d.png", "t.jpg", "decode")],
    ]
    write_output(tmp_path, shards)
    found = report(tmp_path)
    assert found.styles_per_shard == Spread(1, 1, 2, 2)
    assert "styles      1 to 2 styles (median 1) in a shard" in "\n".join(found.lines())  # fmt: skip
