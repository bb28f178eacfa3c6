"""Feature sources: the cheapest way that fits is taken, told, recorded and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylebatch.features.bandwidth import cache_room, measure_bandwidth
from stylebatch.manifest import load_spec
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.planning.batches import batch_rows, value_bytes
from stylebatch.planning.choice import (
    FeatureSources,
    Measurements,
    candidates,
    choose,
    kept_choice,
    needs_measuring,
)
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from tests.support.images import write_inputs, write_manifest

HELD = FeatureSources("held", "held", "kv")


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path)
    return write_manifest(tmp_path, eps_folder)


Resolve = Callable[..., Plan]


@pytest.fixture
def resolve(manifest: Path) -> Resolve:
    """Plan of the manifest in as many times one image's queries of memory as `images` says."""

    def resolve(*changes: str, images: float = 1000.0, **more: Any) -> Plan:
        wide = plan(load_spec(manifest, ["method.steps=50"]))
        memory = images * wide.identity["feature_bytes"] / 2**30
        always = [
            "method.steps=50",
            "output.shard_size=100",
            f"engine.feature_gb={memory}",
        ]
        return plan(load_spec(manifest, [*always, *changes]), **more)

    return resolve


def test_features_are_held_where_memory_suffices(resolve: Resolve) -> None:
    resolved = resolve()
    assert resolved.choice == HELD
    assert list(resolved.chosen.costs) == [HELD]


def test_short_memory_takes_the_way_of_fewest_evaluations(resolve: Resolve) -> None:
    chosen = resolve(images=4.5)
    ways = [
        resolve(
            f"features.source={c.styles}", f"features.contents={c.contents}",
            f"features.codec={c.codec}", images=4.5,
        )
        for c in candidates(chosen.spec)
    ]  # fmt: skip
    assert chosen.choice != HELD
    assert chosen.evaluations == min(way.evaluations for way in ways)
    assert chosen.evaluations < max(way.evaluations for way in ways)
    assert "against" in chosen.chosen.reason


def test_choice_follows_what_was_measured(resolve: Resolve, tmp_path: Path) -> None:
    def chosen(**conditions: Any) -> FeatureSources:
        return resolve(
            f"features.cache={tmp_path / 'cache'}", conditions=Measurements(**conditions)
        ).choice

    slow_network = {"evaluation_s": 1.0, "read_bytes_s": 1e9, "write_bytes_s": 1e9}
    assert chosen() == chosen(**slow_network) == FeatureSources("cached", "held", "x")
    slow_disk = {"evaluation_s": 1e-6, "read_bytes_s": 1e3, "write_bytes_s": 1e3}
    assert chosen(**slow_disk) == HELD
    need = resolve(f"features.cache={tmp_path / 'cache'}").layout.cache_bytes
    assert need > 0
    assert chosen(**slow_network, room_bytes=need) == FeatureSources("cached", "held", "x")
    assert chosen(**slow_network, room_bytes=need - 1) == FeatureSources("cached", "held", "x8")
    assert chosen(**slow_network, room_bytes=1000) == HELD


def test_latents_are_cached_where_features_are_too_large_or_the_disk_too_slow(
    resolve: Resolve, tmp_path: Path
) -> None:
    cache = f"features.cache={tmp_path / 'cache'}"
    latents = FeatureSources("cached", "held", "trajectory")
    alone = resolve(cache, "features.codec=trajectory")
    assert candidates(alone.spec)[0] == alone.choice == latents
    assert not needs_measuring(alone.spec)
    room = alone.layout.cache_bytes
    # without seconds to weigh by: what fits
    source = "features.source=cached"
    assert resolve(cache, source, conditions=Measurements(room_bytes=room)).choice == latents
    need = resolve(cache, source, "features.codec=x8").layout.cache_bytes
    for room, codec in ((need, "x8"), (need - 1, "trajectory")):
        found = resolve(cache, source, conditions=Measurements(room_bytes=room)).choice
        assert found.codec == codec

    def chosen(bytes_s: float) -> FeatureSources:
        measured = Measurements(evaluation_s=1.0, read_bytes_s=bytes_s, write_bytes_s=bytes_s)
        # little memory, so that holding styles costs blocks
        return resolve(cache, images=4.5, conditions=measured).choice

    assert chosen(1e9).codec == "x"
    assert chosen(1e4) == latents


def test_latents_alone_go_with_either_source_of_contents(resolve: Resolve, tmp_path: Path) -> None:
    given = (f"features.cache={tmp_path / 'cache'}", "features.source=cached")
    room = Measurements(room_bytes=resolve(*given, "features.codec=trajectory").layout.cache_bytes)
    # little memory, so that holding queries costs blocks
    for codec, conditions in (("trajectory", Measurements()), ("auto", room)):
        found = resolve(*given, f"features.codec={codec}", images=2.0, conditions=conditions)
        assert set(found.chosen.costs) >= {
            FeatureSources("cached", contents, "trajectory") for contents in ("held", "recomputed")
        }
        assert found.choice == FeatureSources("cached", "recomputed", "trajectory")


def test_latents_cost_an_evaluation_per_style_block_and_timestep(
    resolve: Resolve, tmp_path: Path
) -> None:
    cache, size = f"features.cache={tmp_path / 'cache'}", "output.shard_size=6"
    whole, latents = (
        resolve(cache, "features.source=cached", f"features.codec={codec}", size)
        for codec in ("x", "trajectory")
    )
    blocks = range(latents.grid.num_blocks)
    visits = sum(len(latents.grid.block(number).columns) for number in blocks)
    assert latents.grid.num_blocks == whole.grid.num_blocks > 1
    assert latents.evaluations - whole.evaluations == 49 * visits
    # the break-even with inverting anew: 49 for a style and block against 50 for a style and inversion
    anew = resolve("features.source=recomputed", size).layout
    num_styles = len(latents.images(1))
    assert anew.column_evaluations == 50 * num_styles
    assert (
        anew.evaluations - anew.column_evaluations
        == latents.evaluations - latents.layout.column_evaluations
    )


def in_memories(resolve: Resolve, device: float, host: float, *changes: str) -> Plan:
    """As `resolve` with batches of a block, and memory of the machine for as many times one image's queries as `host` says."""
    one = resolve().identity["feature_bytes"] / 2**30
    return resolve(f"engine.host_gb={host * one}", "engine.batch=12", *changes, images=device)


@pytest.mark.parametrize(
    ("device", "host", "expected"),
    [
        (1000.0, 1000.0, ("held", "held", "kv")),
        # 4 contents, 3 styles: all queries are 4 times one image's, all k and v 6 times
        (6.5, 4.1, ("held", "hosted", "kv")),
        (3.5, 4.1, ("held", "hosted", "x")),
        (1.2, 10.1, ("hosted", "hosted", "kv")),
        (1.2, 7.1, ("hosted", "hosted", "x")),
    ],
)
def test_features_go_to_the_machines_memory_where_the_device_is_short(
    resolve: Resolve, device: float, host: float, expected: tuple[Any, Any, Any]
) -> None:
    found = in_memories(resolve, device, host)
    assert found.choice == FeatureSources(*expected)
    assert found.layout.sides == (4, 3)
    assert found.evaluations == resolve().evaluations
    engine = found.spec.engine
    rooms = engine.feature_gb * 2**30, engine.host_gb * 2**30
    assert all(part <= room for part, room in zip(found.layout.kept_bytes, rooms, strict=True))
    assert (found.layout.kept_bytes.host > 0) == ("hosted" in expected)


def test_blocks_are_cut_to_either_memory(resolve: Resolve) -> None:
    hosted = [f"features.{field}=held" for field in ("source", "contents")]
    whole, cut = (
        in_memories(resolve, 0.6, host, *hosted, "features.codec=x8") for host in (10.0, 2.9)
    )
    assert whole.choice == cut.choice == FeatureSources("hosted", "hosted", "x8")
    assert whole.layout.sides == (4, 3)
    # 4 contents and 3 styles of a quarter each would take 4.75
    rows, columns = cut.layout.sides
    assert rows + columns / 4 <= 2.9 < rows + 1 + columns / 4
    assert cut.evaluations >= whole.evaluations


def test_sources_that_are_held_may_be_held_in_either_memory(resolve: Resolve) -> None:
    both = ["features.source=held", "features.contents=held"]
    assert in_memories(resolve, 1.2, 10.1, *both).choice == FeatureSources("hosted", "hosted", "kv")
    found = in_memories(resolve, 1.2, 10.1, *both, "features.codec=x8")
    assert found.choice == FeatureSources("held", "hosted", "x8")
    found = in_memories(resolve, 4.5, 10.1, "features.source=recomputed")
    assert found.choice == FeatureSources("recomputed", "held", "kv")


def test_of_ways_that_cost_the_same_the_one_of_fuller_batches_is_taken(resolve: Resolve) -> None:
    changes = ["pairing.mode=sample", "pairing.per_content=1", "engine.batch=4"]
    alone, beside = resolve(*changes, images=1.5), in_memories(resolve, 1.5, 10.0, *changes)
    assert beside.evaluations == alone.evaluations
    assert beside.layout.num_batches < alone.layout.num_batches
    assert "hosted" in (beside.choice.styles, beside.choice.contents)


@pytest.mark.parametrize("images", [4.5, 1000.0])
def test_int8_is_not_weighed_where_the_disk_holds_the_exact_form(
    resolve: Resolve, tmp_path: Path, images: float
) -> None:
    cache = f"features.cache={tmp_path / 'cache'}"
    slow_disk = Measurements(
        evaluation_s=1e-3, read_bytes_s=1e6, write_bytes_s=1e6, room_bytes=10**12
    )
    costs = resolve(cache, images=images, conditions=slow_disk).chosen.costs
    assert any(choice.styles == "cached" and choice.codec == "x" for choice in costs)
    assert all(choice.codec != "x8" for choice in costs)


def test_explicit_fields_leave_nothing_to_choose(resolve: Resolve, tmp_path: Path) -> None:
    fixed = ["features.source=recomputed", "features.contents=recomputed", "features.codec=x8"]
    resolved = resolve(*fixed, f"features.cache={tmp_path}")
    assert candidates(resolved.spec) == [FeatureSources("recomputed", "recomputed", "x8")]
    assert resolved.choice == FeatureSources("recomputed", "recomputed", "x8")


def test_cached_source_is_kept_though_the_disk_seems_full(resolve: Resolve, tmp_path: Path) -> None:
    changes = [f"features.cache={tmp_path}", "features.source=cached", "features.codec=x"]
    resolved = resolve(*changes, conditions=Measurements(room_bytes=0))
    assert resolved.choice.styles == "cached"


def test_kept_choice_must_still_be_allowed(manifest: Path) -> None:
    spec = load_spec(manifest, ["features.contents=held"])
    kept = {"styles": "recomputed", "contents": "held", "codec": "kv"}
    assert kept_choice(spec, kept) == FeatureSources("recomputed", "held", "kv")
    assert kept_choice(spec, kept | {"contents": "recomputed"}) is None
    assert kept_choice(spec, None) is None


def test_batches_are_cut_to_a_memory_budget(manifest: Path) -> None:
    spec = load_spec(manifest, ["engine.batch=16"])
    checkpoint = find_checkpoint(spec.model)
    size = plan(spec).image_size[0]
    memory = checkpoint.family.memory((size, size), value_bytes(spec))
    row_gb = memory.row / 2**30
    assert plan(spec).batch == 16
    for rows in (1, 3, 16):
        asked = load_spec(manifest, ["engine.batch=16", f"engine.batch_gb={rows * row_gb * 1.01}"])
        assert plan(asked).batch == plan(asked).identity["batch"] == rows
    tight = load_spec(manifest, [f"engine.batch_gb={row_gb / 2}"])
    assert plan(tight).batch == 1
    assert batch_rows(spec, memory, batch_gb=2.5 * row_gb) == 2
    asked = load_spec(manifest, ["engine.batch=16", f"engine.batch_gb={3.5 * row_gb}"])
    assert batch_rows(asked, memory, batch_gb=1.0) == 3


def test_bandwidth_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    found = measure_bandwidth(tmp_path / "cache", num_bytes=1 << 20)
    assert min(found.read, found.write) > 0
    assert list((tmp_path / "cache").iterdir()) == []
    remote = measure_bandwidth(f"memory://{tmp_path.name}", num_bytes=1 << 16)
    assert min(remote.read, remote.write) > 0


def test_room_counts_what_the_cache_holds_already(tmp_path: Path) -> None:
    before = cache_room(tmp_path / "deep" / "cache")
    assert before is not None
    assert before > 0
    assert cache_room(f"memory://{tmp_path.name}") is None


def test_the_cheapest_is_chosen_by_seconds(resolve: Resolve) -> None:
    """Reading that the network does not hide is what it costs."""
    spec = resolve("features.cache=styles").spec
    seen: list[FeatureSources] = []

    def layout(choice: FeatureSources) -> Any:
        seen.append(choice)
        laid = resolve("features.cache=styles", choice=choice).layout
        return laid

    conditions = Measurements(evaluation_s=0.01, read_bytes_s=1e9, write_bytes_s=1e9)
    fast = choose(spec, layout, conditions)
    rendering = layout(fast.choice).rendering_evaluations * 0.01
    slow = replace(conditions, read_bytes_s=layout(fast.choice).read_bytes / (rendering + 10.0))
    costs = choose(spec, layout, slow).costs
    assert costs[fast.choice] == pytest.approx(fast.costs[fast.choice] + 10.0, rel=1e-6)
