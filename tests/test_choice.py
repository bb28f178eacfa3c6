"""Feature sources: the cheapest way that fits is taken, told, recorded and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylebatch.cli import main
from stylebatch.data.choice import Choice, Conditions, candidates, choose, kept_choice
from stylebatch.data.plan import Plan, plan
from stylebatch.data.sides import batch_rows, row_bytes
from stylebatch.engine.run import run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.models.checkpoint import find_checkpoint
from stylebatch.progress import Progress
from stylebatch.store.bandwidth import cache_room, measure_bandwidth
from tests.images import write_inputs, write_manifest

HELD = Choice("held", "held", "kv")


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
    def chosen(**conditions: Any) -> Choice:
        return resolve(
            f"features.cache={tmp_path / 'cache'}", conditions=Conditions(**conditions)
        ).choice

    slow_network = {"evaluation_s": 1.0, "read_bytes_s": 1e9, "write_bytes_s": 1e9}
    assert chosen() == chosen(**slow_network) == Choice("cached", "held", "x")
    slow_disk = {"evaluation_s": 1e-6, "read_bytes_s": 1e3, "write_bytes_s": 1e3}
    assert chosen(**slow_disk) == HELD
    need = resolve(f"features.cache={tmp_path / 'cache'}").layout.cache_bytes
    assert need > 0
    assert chosen(**slow_network, room_bytes=need) == Choice("cached", "held", "x")
    assert chosen(**slow_network, room_bytes=need - 1) == Choice("cached", "held", "x8")
    assert chosen(**slow_network, room_bytes=1000) == HELD


@pytest.mark.parametrize("images", [4.5, 1000.0])
def test_int8_is_not_weighed_where_the_disk_holds_the_exact_form(
    resolve: Resolve, tmp_path: Path, images: float
) -> None:
    cache = f"features.cache={tmp_path / 'cache'}"
    slow_disk = Conditions(
        evaluation_s=1e-3, read_bytes_s=1e6, write_bytes_s=1e6, room_bytes=10**12
    )
    costs = resolve(cache, images=images, conditions=slow_disk).chosen.costs
    assert any(choice.styles == "cached" and choice.codec == "x" for choice in costs)
    assert all(choice.codec != "x8" for choice in costs)


def test_explicit_fields_leave_nothing_to_choose(resolve: Resolve, tmp_path: Path) -> None:
    fixed = ["features.source=recomputed", "features.contents=recomputed", "features.codec=x8"]
    resolved = resolve(*fixed, f"features.cache={tmp_path}")
    assert candidates(resolved.spec) == [Choice("recomputed", "recomputed", "x8")]
    assert resolved.choice == Choice("recomputed", "recomputed", "x8")


def test_cached_source_is_kept_though_the_disk_seems_full(resolve: Resolve, tmp_path: Path) -> None:
    changes = [f"features.cache={tmp_path}", "features.source=cached", "features.codec=x"]
    resolved = resolve(*changes, conditions=Conditions(room_bytes=0))
    assert resolved.choice.styles == "cached"


def test_recomputed_contents_render_the_same_and_cost_what_the_plan_says(
    manifest: Path, tmp_path: Path
) -> None:
    outputs = []
    for contents in ("held", "recomputed"):
        output = tmp_path / contents
        changes = [f"features.contents={contents}", "output.image.format=png"]
        spec = load_spec(manifest, changes, output=str(output))
        result = run(spec)
        assert result.report.evaluations == plan(spec).evaluations
        tars = sorted((output / "data").glob("*.tar"))
        outputs.append([tar.read_bytes() for tar in tars])
    assert outputs[0] == outputs[1]
    held, recomputed = (
        plan(load_spec(manifest, [f"features.contents={c}"])) for c in ("held", "recomputed")
    )
    blocks = range(held.grid.num_blocks)
    visits = sum(len(held.grid.block(n).contents) for n in blocks)
    steps = held.spec.method.num_reverse_evaluations
    assert recomputed.evaluations - held.evaluations == steps * visits


class Notes(Progress):
    """Progress that keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_measured_choice_is_told_recorded_and_kept(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    changes = [f"features.cache={tmp_path / 'cache'}"]
    notes = Notes()
    run(load_spec(manifest, changes, output=str(output)), progress=notes)
    told = [line for line in notes.told if line.startswith("Features: ")]
    assert len(told) == 1
    assert "ms per row" in told[0]
    assert "MB/s" in told[0]
    record = json.loads((output / "run.json").read_text())["resolved"]
    assert record["measured"]["evaluation_s"] > 0
    assert told == [record["reason"]]
    assert not list((tmp_path / "cache").glob("*bandwidth*"))

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a resumed run measures nothing")

    monkeypatch.setattr("stylebatch.engine.local.measure", never)
    next((output / "metadata").glob("*_stats.json")).unlink()
    resumed = run(load_spec(manifest, changes, output=str(output)))
    assert resumed.num_attempted > 0
    assert json.loads((output / "run.json").read_text())["resolved"] == record
    source = "held" if record["features"]["styles"] == "cached" else "cached"
    with pytest.raises(PlanChangedError, match=r"features\.styles"):
        run(load_spec(manifest, [*changes, f"features.source={source}"], output=str(output)))


def test_kept_choice_must_still_be_allowed(manifest: Path) -> None:
    spec = load_spec(manifest, ["features.contents=held"])
    kept = {"styles": "recomputed", "contents": "held", "codec": "kv"}
    assert kept_choice(spec, kept) == Choice("recomputed", "held", "kv")
    assert kept_choice(spec, kept | {"contents": "recomputed"}) is None
    assert kept_choice(spec, None) is None


def test_batches_are_cut_to_a_memory_budget(manifest: Path) -> None:
    spec = load_spec(manifest, ["engine.batch=16"])
    checkpoint = find_checkpoint(spec.model)
    size = plan(spec).size
    row_gb = row_bytes(spec, checkpoint, size) / 2**30
    assert plan(spec).batch == 16
    for rows in (1, 3, 16):
        asked = load_spec(manifest, ["engine.batch=16", f"engine.batch_gb={rows * row_gb * 1.01}"])
        assert plan(asked).batch == plan(asked).identity["batch"] == rows
    tight = load_spec(manifest, [f"engine.batch_gb={row_gb / 2}"])
    assert plan(tight).batch == 1
    assert batch_rows(spec, checkpoint, size, batch_gb=2.5 * row_gb) == 2
    asked = load_spec(manifest, ["engine.batch=16", f"engine.batch_gb={3.5 * row_gb}"])
    assert batch_rows(asked, checkpoint, size, batch_gb=1.0) == 3


def test_plan_shows_sources_and_batch(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(manifest)]) == 0
    assert (
        "features: styles held (kv), contents held; batches of up to 4" in capsys.readouterr().out
    )
    assert main(["plan", str(manifest), "--set", "features.cache=styles"]) == 0
    assert "unless a run measures otherwise" in capsys.readouterr().out


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
    seen: list[Choice] = []

    def layout(choice: Choice) -> Any:
        seen.append(choice)
        laid = resolve("features.cache=styles", choice=choice).layout
        return laid

    conditions = Conditions(evaluation_s=0.01, read_bytes_s=1e9, write_bytes_s=1e9)
    fast = choose(spec, layout, conditions)
    rendering = layout(fast.choice).rendering_evaluations * 0.01
    slow = replace(conditions, read_bytes_s=layout(fast.choice).read_bytes / (rendering + 10.0))
    costs = choose(spec, layout, slow).costs
    assert costs[fast.choice] == pytest.approx(fast.costs[fast.choice] + 10.0, rel=1e-6)
