"""Rows of several sizes: every cell as without them, no block of two sizes, and counts that are those of the blocks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.rows import Cell
from stylebatch.methods.method import BlockSize
from stylebatch.planning.bucketed_samples import BucketedSamples
from stylebatch.planning.choice import FeatureSources
from stylebatch.planning.grid import Block
from stylebatch.planning.layout import Layout
from stylebatch.planning.work import Extent, Work
from stylebatch.spec import RunSpec

CHOICES = [
    FeatureSources("held", "held", "kv"),
    FeatureSources("recomputed", "recomputed", "kv"),
    FeatureSources("cached", "held", "x"),
]
CELLS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=60)


def _work(
    buckets: Sequence[int], num_styles: int, pairing: dict[str, Any], shard_size: int = 100
) -> Work:
    sections = {
        "contents": {"path": "c"},
        "styles": {"path": "s"},
        "pairing": pairing,
        "output": {"path": "out", "shard_size": shard_size},
    }
    return Work(
        spec=RunSpec.model_validate_json(json.dumps(sections)),
        axes=("content", "style"),
        counts=(len(buckets), num_styles),
        size=BlockSize(0, 8, 8, 4, 8),
        feature_bytes=1000,
        buckets=tuple(buckets),
    )


def _blocks(layout: Layout) -> list[Block]:
    grid = layout.grid
    found = [grid.block(number) for number in range(grid.num_blocks)]
    assert [block.number for block in found] == list(range(len(found)))
    before = [grid.num_samples_before(number) for number in range(grid.num_blocks + 1)]
    assert (before[0], before[-1]) == (0, grid.num_samples)
    assert [b - a for a, b in pairwise(before)] == [len(block.cells) for block in found]
    return found


def _check(layout: Layout, buckets: Sequence[int]) -> Counter[tuple[int, int]]:
    """The cells of all blocks, each of one bucket, whose counted visits are those of a walk over them."""
    blocks = _blocks(layout)
    for block in blocks:
        assert block.cells
        assert len({buckets[row] for row in block.rows}) == 1
        assert list(block.rows) == sorted(set(block.rows))
        assert {row for row, _ in block.cells} <= set(block.rows)
        assert {column for _, column in block.cells} <= set(block.columns)
    counted, walked = layout._counted, layout._count_blocks()
    if (
        layout.choice == CHOICES[0]
        and layout.grid.num_blocks
        and isinstance(layout.grid, BucketedSamples)
    ):
        assert counted == walked
    assert counted[0].samples == walked[0].samples
    assert (counted[0].rows, counted[0].columns) == (walked[0].rows, walked[0].columns)
    assert counted[1:] == walked[1:]
    return Counter(cell for block in blocks for cell in block.cells)


buckets = st.lists(st.integers(0, 3), min_size=1, max_size=70)


@settings(max_examples=60, deadline=None)
@given(buckets, st.integers(1, 40), st.sampled_from(CHOICES), st.integers(1, 300))
def test_a_product_is_whole(
    buckets: list[int], num_styles: int, choice: FeatureSources, shard_size: int
) -> None:
    layout = Layout.of(_work(buckets, num_styles, {"mode": "product"}, shard_size), choice)
    found = _check(layout, buckets)
    assert found == Counter((c, s) for c in range(len(buckets)) for s in range(num_styles))
    assert layout.row_evaluations == len(buckets) * 50


@settings(max_examples=60, deadline=None)
@given(
    buckets,
    st.integers(1, 40),
    st.data(),
    st.sampled_from(["block", "independent"]),
    st.sampled_from(CHOICES),
)
def test_samples_are_those_of_any_rows_and_as_well_balanced(
    buckets: list[int], num_styles: int, data: st.DataObject, pool: str, choice: FeatureSources
) -> None:
    k = data.draw(st.integers(1, min(num_styles, 20)))
    pairing = {"mode": "sample", "per_content": k, "pool": pool}
    layout = Layout.of(_work(buckets, num_styles, pairing), choice)
    found = _check(layout, buckets)
    assert set(found.values()) == {1}
    assert Counter(c for c, _ in found) == Counter(dict.fromkeys(range(len(buckets)), k))
    uses = Counter(s for _, s in found)
    counts = [uses[s] for s in range(num_styles)]
    assert max(counts) - min(counts) <= 1
    grid = layout.grid
    assert isinstance(grid, BucketedSamples)
    for content in range(len(buckets)):
        assert {(content, s) for s in grid.styles_of(content)} <= set(found)


@settings(max_examples=60, deadline=None)
@given(buckets, st.integers(1, 30), CELLS, st.sampled_from(["pools", "listed"]), st.randoms())
def test_a_list_is_whole_in_any_order(
    buckets: list[int], num_styles: int, drawn: list[tuple[int, int]], order: str, random: Any
) -> None:
    def cells(pairs: Sequence[tuple[int, int]]) -> tuple[Cell, ...]:
        return tuple(
            Cell(c % len(buckets), s % num_styles, number=i) for i, (c, s) in enumerate(pairs, 1)
        )

    pairing = {"mode": "explicit", "path": "pairs.csv", "order": order}
    work = _work(buckets, num_styles, pairing, shard_size=9)
    layout = Layout.of(replace(work, listed=cells(drawn)), CHOICES[0])
    found = _check(layout, buckets)
    assert found == Counter((cell.row, cell.column) for cell in cells(drawn))
    if order == "listed":
        numbers = [
            number for block in _blocks(layout) for number in (cell.number for cell in block.listed)
        ]
        assert numbers == list(range(1, len(drawn) + 1))
        return
    other = list(drawn)
    random.shuffle(other)
    again = Layout.of(replace(work, listed=cells(other)), CHOICES[0])
    assert [(b.rows, b.columns, b.cells) for b in _blocks(again)] == [
        (b.rows, b.columns, b.cells) for b in _blocks(layout)
    ]


@settings(max_examples=40, deadline=None)
@given(
    buckets, buckets, st.integers(1, 20), st.integers(0, 9), st.sampled_from(["product", "sample"])
)
def test_what_is_added_renders_what_was_not(
    before: list[int], added: list[int], num_styles: int, more: int, mode: str
) -> None:
    more = more if mode == "product" else 0
    every = [*before, *added]
    first = _check(Layout.of(_work(before, num_styles, {"mode": mode}), CHOICES[0]), before)
    grown = replace(
        _work(every, num_styles + more, {"mode": mode}), former=Extent(len(before), num_styles)
    )
    second = _check(Layout.of(grown, CHOICES[0]), every)
    assert not set(first) & set(second)
    if mode == "product":
        assert first + second == Counter(
            (c, s) for c in range(len(every)) for s in range(num_styles + more)
        )
    else:
        assert {c for c, _ in second} == set(range(len(before), len(every)))


def test_pools_cost_hardly_more_than_with_one_size() -> None:
    """20,000 contents of 12 sizes and 3,000 styles: only blocks at the seams are split."""
    sizes = [number * 7919 % 12 for number in range(20_000)]
    plain, mixed = (
        Layout.of(_work(one, 3000, {"mode": "sample"}, 1000), CHOICES[0])
        for one in ([0] * 20_000, sizes)
    )
    assert mixed.evaluations == plain.evaluations
    assert mixed.grid.num_blocks - plain.grid.num_blocks <= 11


@pytest.mark.parametrize("mode", ["product", "sample"])
def test_rows_of_one_size_follow_one_another(mode: str) -> None:
    sizes = [number % 3 for number in range(100)]
    blocks = _blocks(Layout.of(_work(sizes, 5, {"mode": mode}), CHOICES[0]))
    met = [sizes[block.rows[0]] for block in blocks]
    assert [size for size, _ in groupby(met)] == [0, 1, 2]
