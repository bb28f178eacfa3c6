"""Samples: k different styles per content, every style equally often, the same pairs on any machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.grid import Groups
from stylebatch.planning.independent import IndependentGrid
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from stylebatch.planning.sampled_pools import SampledPools
from stylebatch.planning.sampling import SampleGrid
from stylebatch.spec.pairing import Pairing, Sampling
from tests.support.images import write_inputs, write_manifest


def block_grid(contents: int, styles: int, k: int, *, seed: int = 0) -> SampledPools:
    return SampledPools(contents, styles, 16, min(16, styles), Sampling(k, "block", seed))


def independent_grid(contents: int, styles: int, k: int, *, seed: int = 0) -> IndependentGrid:
    rows = 16 if styles <= 16 else max(1, 16 // k)
    groups = Groups.of_at_most(contents, rows)
    return IndependentGrid(groups, styles, min(16, styles), Sampling(k, "independent", seed))


@st.composite
def grids(draw: st.DrawFn) -> IndependentGrid:
    """Of all shapes, the cramped ones that few people will ask for included; 3000 pairs at most."""
    styles = draw(st.sampled_from([1, 2, 6, 17]) | st.integers(1, 120))
    k = draw(st.integers(1, min(styles, 6)) | st.integers(1, styles))
    contents = draw(st.integers(1, min(150, 3000 // k)))
    return independent_grid(contents, styles, k, seed=draw(st.integers(0, 2**63 - 1)))


def pairs_of(grid: SampleGrid) -> list[tuple[int, int]]:
    return [pair for number in range(grid.num_blocks) for pair in grid.block(number).cells]


def uses_of(grid: SampleGrid) -> list[int]:
    counts = Counter(style for _, style in pairs_of(grid))
    return [counts[style] for style in range(grid.num_styles)]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(grids())
def test_independent_samples_of_any_shape(grid: IndependentGrid) -> None:
    styles_of = defaultdict(list)
    before = 0
    for number in range(grid.num_blocks):
        block = grid.block(number)
        assert grid.num_samples_before(number) == before
        assert len(block.columns) <= grid.columns
        assert {style for _, style in block.cells} == set(block.columns)
        assert {content for content, _ in block.cells} <= set(block.rows)
        for content, style in block.cells:
            styles_of[content].append(style)
        before += len(block.cells)
    assert grid.num_samples_before(grid.num_blocks) == before == grid.num_samples
    k = grid.drawn.per_content
    assert sorted(styles_of) == list(range(grid.rows.total))
    for content, styles in styles_of.items():
        assert len(styles) == len(set(styles)) == k
        assert set(grid.styles_of(content)) == set(styles)
    uses = uses_of(grid)
    assert [min(uses), max(uses)] == grid.uses_per_style
    assert max(uses) - min(uses) <= 1
    assert max(len(grid.block(n).cells) for n in range(grid.num_blocks)) <= grid.samples_per_block


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize(("contents", "styles"), [(1000, 40), (1000, 17), (777, 100), (160, 6)])
def test_styles_are_used_equally_often(contents: int, styles: int, k: int) -> None:
    k = min(k, styles)
    for grid in (block_grid(contents, styles, k), independent_grid(contents, styles, k)):
        uses = uses_of(grid)
        assert max(uses) - min(uses) <= 1
        assert grid.uses_per_style == [contents * k // styles, -(-contents * k // styles)]


def test_few_contents_meet_as_many_styles_as_they_can() -> None:
    for grid in (block_grid(16, 1000, 4), independent_grid(16, 1000, 4)):
        assert uses_of(grid).count(1) == 64


def test_independent_draws_follow_the_content_alone() -> None:
    wide, narrow = independent_grid(100, 40, 3), independent_grid(100, 40, 3)
    narrow = IndependentGrid(Groups.of_at_most(100, 1), 40, 2, narrow.drawn)
    assert narrow.num_blocks > wide.num_blocks
    assert [wide.styles_of(c) for c in range(100)] == [narrow.styles_of(c) for c in range(100)]


@pytest.mark.parametrize("make", [block_grid, independent_grid])
def test_every_set_of_styles_can_be_drawn(make: Callable[..., SampleGrid]) -> None:
    """Nothing but the seed decides: over seeds a content gets every pair of styles about equally often."""
    drawn = Counter(tuple(sorted(make(8, 5, 2, seed=seed).styles_of(3))) for seed in range(1000))
    assert len(drawn) == 10
    assert all(60 <= count <= 140 for count in drawn.values())


@pytest.mark.parametrize("make", [block_grid, independent_grid])
def test_seeds_change_the_pairs(make: Callable[..., SampleGrid]) -> None:
    pairs = [pairs_of(make(100, 20, 3, seed=seed)) for seed in (0, 1, 2**63 - 1)]
    assert pairs[0] == pairs_of(make(100, 20, 3, seed=0))
    assert len({tuple(some) for some in pairs}) == 3


def test_pairs_of_a_seed_are_written_down() -> None:
    """Another numpy, machine or release must draw these pairs: a resumed run relies on it."""
    free = independent_grid(100, 40, 3, seed=5)
    assert [free.styles_of(c) for c in (0, 1, 99)] == [(21, 5, 0), (8, 25, 19), (12, 3, 10)]


@pytest.mark.parametrize("mode", ["product", "zip", "explicit"])
@pytest.mark.parametrize(("field", "value"), [("per_content", 1), ("pool", "block"), ("seed", 0)])
def test_options_of_samples_are_refused_elsewhere(mode: str, field: str, value: Any) -> None:
    data = {"mode": mode, field: value} | ({"path": "rows.csv"} if mode == "explicit" else {})
    with pytest.raises(ValidationError, match=f"`{field}`: for mode sample; mode {mode} draws"):
        Pairing.model_validate(data)


def test_samples_follow_the_seed_of_the_run_unless_they_have_their_own() -> None:
    assert Pairing(mode="sample").sampling(7) == Sampling(1, "block", 7)
    given = Pairing(mode="sample", per_content=3, pool="independent", seed=0)
    assert given.sampling(7) == Sampling(3, "independent", 0)


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    """5 contents x 4 styles, two styles for each content."""
    write_inputs(tmp_path, contents=5, styles=4)
    return write_manifest(tmp_path, eps_folder, pairing={"mode": "sample", "per_content": 2})


def planned_pairs(resolved: Plan) -> list[tuple[int, int]]:
    shards = (resolved.shard(i) for i in range(resolved.num_shards))
    return [pair for shard in shards for block in shard.blocks for pair in block.cells]


@pytest.mark.parametrize("pool", ["block", "independent"])
@pytest.mark.parametrize("shard_size", [1, 2, 4, 7, 100])
def test_plan_of_samples(manifest: Path, pool: str, shard_size: int) -> None:
    changes = [f"pairing.pool={pool}", f"output.shard_size={shard_size}"]
    resolved = plan(load_spec(manifest, changes))
    sizes = [resolved.shard(i).num_samples for i in range(resolved.num_shards)]
    assert sum(sizes) == resolved.grid.num_samples == 10
    assert max(sizes) <= shard_size
    assert sizes == [resolved.shard_size(i) for i in range(resolved.num_shards)]
    shards = (resolved.shard(i) for i in range(resolved.num_shards))
    samples = [s for shard in shards for _, part in resolved.samples(shard) for s in part]
    assert len({sample.key for sample in samples}) == 10
    assert {sample.label for sample in samples} == {"cat", "dog"}
    assert resolved.summary()["pairing"] == "sample"
    assert resolved.summary()["uses_per_style"] == [2, 3]
    assert resolved.layout.num_column_groups_held == 1


def test_more_styles_than_there_are_is_refused(manifest: Path) -> None:
    with pytest.raises(ManifestError, match=r"pairing\.per_content: found 5; accepted: 1 to 4"):
        plan(load_spec(manifest, ["pairing.per_content=5"]))
    every = plan(load_spec(manifest, ["pairing.per_content=4"]))
    assert sorted(planned_pairs(every)) == [(c, s) for c in range(5) for s in range(4)]


@pytest.mark.parametrize(
    "change", ["pairing.per_content=1", "pairing.pool=independent", "pairing.seed=1"]
)
def test_options_of_samples_are_part_of_the_plan(manifest: Path, change: str) -> None:
    assert plan(load_spec(manifest)).digest != plan(load_spec(manifest, [change])).digest


def test_the_runs_seed_is_the_default_seed_of_the_pairs(manifest: Path) -> None:
    by_run, own = (plan(load_spec(manifest, [f"{field}=3"])) for field in ("seed", "pairing.seed"))
    assert planned_pairs(by_run) == planned_pairs(own) != planned_pairs(plan(load_spec(manifest)))


def test_preview_shows_pairs_of_the_run(manifest: Path) -> None:
    whole = set(planned_pairs(plan(load_spec(manifest))))
    few = planned_pairs(plan(load_spec(manifest), limit=5))
    assert len(few) == len({content for content, _ in few}) == 5
    assert set(few) <= whole
    assert set(planned_pairs(plan(load_spec(manifest), limit=99))) == whole
