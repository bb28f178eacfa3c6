"""Samples: k different styles per content, every style equally often, the same pairs on any machine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset
from pydantic import ValidationError

from stylebatch.cli import main
from stylebatch.data.grid import Groups
from stylebatch.data.plan import Plan, plan
from stylebatch.data.sampling import SampleGrid
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.spec import Pairing, Sampling
from tests.images import write_inputs, write_manifest


def block_grid(
    contents: int, styles: int, k: int, *, rows: int = 16, columns: int = 16, seed: int = 0
) -> SampleGrid:
    groups = Groups.of_at_most(contents, rows)
    return SampleGrid(groups, styles, min(columns, styles), Sampling(k, "block", seed))


def independent_grid(contents: int, styles: int, k: int, *, seed: int = 0) -> SampleGrid:
    rows = 16 if styles <= 16 else max(1, 16 // k)
    groups = Groups.of_at_most(contents, rows)
    return SampleGrid(groups, styles, min(16, styles), Sampling(k, "independent", seed))


def random_grids(number: int) -> list[SampleGrid]:
    """Grids of all shapes, the cramped ones that few people will ask for included."""
    draw = random.Random(0)
    grids = []
    while len(grids) < number:
        contents, styles = draw.randint(1, 150), draw.choice([1, 2, 6, 17, draw.randint(1, 120)])
        k = draw.randint(1, styles if draw.random() < 0.4 else min(styles, 6))
        rows, columns = draw.choice([1, 2, 16, draw.randint(1, 16)]), draw.choice([1, 5, 16])
        if contents * k > 3000:
            continue
        if draw.random() < 0.3:
            grids.append(independent_grid(contents, styles, k, seed=len(grids)))
        else:
            grids.append(
                block_grid(contents, styles, k, rows=rows, columns=columns, seed=len(grids))
            )
    return grids


def pairs_of(grid: SampleGrid) -> list[tuple[int, int]]:
    return [pair for number in range(grid.num_blocks) for pair in grid.block(number).pairs]


def uses_of(grid: SampleGrid) -> list[int]:
    counts = Counter(style for _, style in pairs_of(grid))
    return [counts[style] for style in range(grid.num_styles)]


@pytest.mark.parametrize("grid", random_grids(120), ids=str)
def test_samples_of_any_shape(grid: SampleGrid) -> None:
    styles_of = defaultdict(list)
    before = 0
    for number in range(grid.num_blocks):
        block = grid.block(number)
        assert grid.num_pairs_before(number) == before
        assert len(block.styles) <= grid.columns
        assert {style for _, style in block.pairs} == set(block.styles)
        assert {content for content, _ in block.pairs} <= set(block.contents)
        for content, style in block.pairs:
            styles_of[content].append(style)
        before += len(block.pairs)
    assert grid.num_pairs_before(grid.num_blocks) == before == grid.num_pairs
    k = grid.drawn.per_content
    assert sorted(styles_of) == list(range(grid.rows.total))
    for content, styles in styles_of.items():
        assert len(styles) == len(set(styles)) == k
        assert set(grid.styles_of(content)) == set(styles)
    uses = uses_of(grid)
    assert [min(uses), max(uses)] == grid.uses_per_style
    met = [count for count in uses if count]
    assert max(met) - min(met) <= 1
    if grid.drawn.pool == "independent":
        assert max(uses) - min(uses) <= 1


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize(("contents", "styles"), [(1000, 40), (1000, 17), (777, 100), (160, 6)])
def test_styles_are_used_equally_often(contents: int, styles: int, k: int) -> None:
    k = min(k, styles)
    for grid in (block_grid(contents, styles, k), independent_grid(contents, styles, k)):
        uses = uses_of(grid)
        assert max(uses) - min(uses) <= 1
        assert grid.uses_per_style == [contents * k // styles, -(-contents * k // styles)]


def test_a_row_shares_a_pool_no_wider_than_a_block() -> None:
    grid = block_grid(800, 300, 4)
    blocks = [grid.block(number) for number in range(grid.num_blocks)]
    assert grid.num_blocks == 50
    assert all(10 <= len(block.styles) <= 16 for block in blocks)
    assert len({block.styles for block in blocks}) == 50


def test_contents_of_a_row_are_kept_over_its_blocks() -> None:
    """A content inverted for one block must serve the others, when k is more than a block's columns."""
    grid = block_grid(12, 30, 10, rows=6, columns=4)
    contents = [grid.block(number).contents for number in range(grid.num_blocks)]
    assert sorted(contents) == contents
    assert len(set(contents)) == 2
    assert len(contents) >= 6


def test_few_rows_leave_styles_out_rather_than_widen_their_blocks() -> None:
    grid = block_grid(16, 1000, 4)
    uses = uses_of(grid)
    assert grid.num_blocks == 1
    assert sorted(set(uses)) == [0, 4]
    assert uses_of(independent_grid(16, 1000, 4)).count(1) == 64


def test_independent_draws_follow_the_content_alone() -> None:
    wide, narrow = independent_grid(100, 40, 3), independent_grid(100, 40, 3)
    narrow = SampleGrid(Groups.of_at_most(100, 1), 40, 2, narrow.drawn)
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
    pooled, free = block_grid(100, 40, 3, seed=5), independent_grid(100, 40, 3, seed=5)
    contents = (0, 1, 99)
    assert [pooled.styles_of(c) for c in contents] == [(6, 32, 19), (13, 33, 3), (39, 31, 21)]
    assert [free.styles_of(c) for c in contents] == [(21, 5, 0), (8, 25, 19), (12, 3, 10)]


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
    return [pair for shard in shards for block in shard.blocks for pair in block.pairs]


def test_another_process_draws_the_same_pairs(manifest: Path) -> None:
    program = (
        "import sys; from stylebatch.data.plan import plan; from stylebatch.manifest import load_spec\n"
        "grid = plan(load_spec(sys.argv[1])).grid\n"
        "print([grid.block(number).pairs for number in reversed(range(grid.num_blocks))][::-1])"
    )
    grid = plan(load_spec(manifest)).grid
    expected = str([grid.block(number).pairs for number in range(grid.num_blocks)])
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(manifest)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("pool", ["block", "independent"])
@pytest.mark.parametrize("shard_size", [1, 2, 4, 7, 100])
def test_plan_of_samples(manifest: Path, pool: str, shard_size: int) -> None:
    changes = [f"pairing.pool={pool}", f"output.shard_size={shard_size}"]
    resolved = plan(load_spec(manifest, changes))
    sizes = [resolved.shard(i).num_samples for i in range(resolved.num_shards)]
    assert sum(sizes) == resolved.grid.num_pairs == 10
    assert max(sizes) <= shard_size
    assert sizes == [resolved.shard_size(i) for i in range(resolved.num_shards)]
    shards = (resolved.shard(i) for i in range(resolved.num_shards))
    samples = [s for shard in shards for _, part in resolved.samples(shard) for s in part]
    assert len({sample.key for sample in samples}) == 10
    assert {sample.label for sample in samples} == {"cat", "dog"}
    assert resolved.summary()["pairing"] == "sample"
    assert resolved.summary()["uses_per_style"] == [2, 3]
    assert resolved.num_style_groups_held == 1


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


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["pairing.pool=independent"],
        ["pairing.per_content=3", "output.shard_size=2"],
        ["features.source=recomputed"],
        ["features.cache=CACHE", "pairing.per_content=1"],
    ],
    ids=str,
)
def test_runs_render_the_samples_at_the_planned_cost(
    manifest: Path, tmp_path: Path, changes: list[str]
) -> None:
    changes = [change.replace("CACHE", str(tmp_path / "cache")) for change in changes]
    spec = load_spec(manifest, ["method.steps=2", *changes])
    result, resolved = run(spec), plan(spec)
    shards = sorted(map(str, result.output.glob("data/*.tar")))
    styles_of = defaultdict(list)
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        styles_of[sample["json"]["content_id"]].append(sample["json"]["style_id"])
    k = resolved.spec.pairing.sampling(0).per_content
    assert len(styles_of) == 5
    assert all(len(styles) == len(set(styles)) == k for styles in styles_of.values())
    assert result.exit_code == 0
    assert result.report.evaluations == resolved.evaluations


def test_a_run_does_not_continue_with_other_samples(manifest: Path) -> None:
    run(load_spec(manifest, ["method.steps=2"]))
    with pytest.raises(PlanChangedError, match=r"pairing\.per_content: 2 -> 3"):
        run(load_spec(manifest, ["method.steps=2", "pairing.per_content=3"]))
    assert run(load_spec(manifest, ["method.steps=2"])).num_attempted == 0


def test_plan_tells_how_often_a_style_is_used(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["pairing.mode=sample", "pairing.per_content=2"]
    assert main(["plan", str(manifest), *(a for c in changes for a in ("--set", c))]) == 0
    least, most = plan(load_spec(manifest, changes)).summary()["uses_per_style"]
    assert f"sample pairing (each style {least} to {most} times)" in capsys.readouterr().out
