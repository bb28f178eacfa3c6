"""Names, shards and identity are fixed by the plan, before any work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stylebatch.data.grid import Groups, ProductGrid
from stylebatch.data.plan import plan, sample_seed
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from tests.images import write_inputs, write_manifest


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path)
    return write_manifest(tmp_path, eps_folder)


def test_keys_are_unique_ordered_and_without_dots(manifest: Path) -> None:
    resolved = plan(load_spec(manifest))
    samples = [
        s
        for i in range(resolved.num_shards)
        for _, part in resolved.samples(resolved.shard(i))
        for s in part
    ]
    keys = [sample.key for sample in samples]
    assert len(keys) == 12
    assert keys == sorted(set(keys))
    assert keys[0] == "000000000"
    assert all(len(key) == 9 and key.isdigit() for key in keys)
    assert {(s.content, s.style) for s in samples} == {(c, s) for c in range(4) for s in range(3)}


def test_shards_hold_whole_blocks_near_the_wanted_size(manifest: Path) -> None:
    resolved = plan(load_spec(manifest, ["output.shard_size=7"]))
    sizes = [resolved.shard(i).num_samples for i in range(resolved.num_shards)]
    assert sum(sizes) == 12
    assert max(sizes) <= 7
    assert sizes == [resolved.shard_size(i) for i in range(resolved.num_shards)]


def test_labels_are_carried_and_seeds_belong_to_the_pair(manifest: Path) -> None:
    resolved = plan(load_spec(manifest))
    assert resolved.labels == ("cat", "dog")
    _, samples = next(resolved.samples(resolved.shard(0)))
    assert {sample.label for sample in samples} <= {"cat", "dog"}
    assert samples[0].seed == sample_seed(
        0, resolved.contents[samples[0].content].id, resolved.styles[samples[0].style].id
    )
    assert len({sample_seed(r, c, s) for r in (0, 1) for c in ("a", "b") for s in ("a", "b")}) == 8


@pytest.mark.parametrize(
    "change",
    [
        "method.gamma=0.5",
        "image.size=128",
        "output.shard_size=5",
        "seed=1",
        "output.image.quality=90",
    ],
)
def test_what_affects_pixels_or_names_changes_the_digest(manifest: Path, change: str) -> None:
    assert plan(load_spec(manifest)).digest != plan(load_spec(manifest, [change])).digest


@pytest.mark.parametrize(
    "change",
    [
        "engine.threads=2",
        "output.path=elsewhere",
        "name=other",
        "max_failed_fraction=0.5",
        "license=cc0-1.0",
    ],
)
def test_what_does_not_affect_pixels_keeps_the_digest(manifest: Path, change: str) -> None:
    assert plan(load_spec(manifest)).digest == plan(load_spec(manifest, [change])).digest


def test_another_input_changes_the_digest(manifest: Path) -> None:
    before = plan(load_spec(manifest)).digest
    (manifest.parent / "contents" / "dog" / "0.png").rename(
        manifest.parent / "contents" / "cat" / "0.png"
    )
    assert plan(load_spec(manifest)).digest != before


def test_evaluations_agree_with_the_cost_model(manifest: Path) -> None:
    resolved = plan(load_spec(manifest, ["method.steps=50", "method.start=paper"]))
    assert resolved.evaluations == 49 * 12 + 50 * 4 + 50 * 3
    assert plan(load_spec(manifest, ["method.steps=20"])).evaluations == 20 * (12 + 4 + 3)


def test_preview_is_spread_and_lies_in_its_own_directory(manifest: Path) -> None:
    preview = plan(load_spec(manifest), limit=3)
    pairs = [
        pair
        for i in range(preview.num_shards)
        for block in preview.shard(i).blocks
        for pair in block.pairs
    ]
    assert len({c for c, _ in pairs}) == len({s for _, s in pairs}) == 3
    assert preview.spec.output.path.endswith("out-preview-3")
    assert plan(load_spec(manifest), limit=1000).grid.num_pairs == 12
    with pytest.raises(ManifestError, match="--limit"):
        plan(load_spec(manifest), limit=0)


def test_zip_needs_lists_of_equal_length(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="zip over 4 contents and 3 styles"):
        plan(load_spec(manifest, ["pairing.mode=zip"]))
    (manifest.parent / "contents" / "cat" / "3.png").unlink()
    assert plan(load_spec(manifest, ["pairing.mode=zip"])).grid.num_pairs == 3


def test_size_must_fit_the_model(manifest: Path) -> None:
    with pytest.raises(
        ManifestError,
        match=r"image\.size: found 100; accepted by this model: multiples of 64, such as 128",
    ):
        plan(load_spec(manifest, ["image.size=100"]))
    assert plan(load_spec(manifest, ["image.size=null"])).size == 128


def test_rows_file_is_a_manifest(manifest: Path) -> None:
    rows = manifest.parent / "pairs.csv"
    rows.write_text(
        "content,style,label,caption\ncontents/cat/1.png,styles/0.png,tom,a cat\ncontents/dog/0.png,styles/2.png,,\n"
    )
    resolved = plan(load_spec(rows))
    assert resolved.spec.output.path == "outputs/pairs"
    assert resolved.has_captions
    _, samples = next(resolved.samples(resolved.shard(0)))
    assert [(s.label, s.caption) for s in samples] == [("tom", "a cat"), ("", "")]


def test_large_products_are_planned_without_a_table(manifest: Path) -> None:
    resolved = plan(load_spec(manifest))
    rows, columns = Groups.of_at_most(1_000_000, 16), Groups.of_at_most(1_000, 16)
    object.__setattr__(resolved.layout, "grid", ProductGrid(rows, columns))
    started = time.monotonic()
    assert resolved.shard_size(resolved.num_shards - 1) > 0
    assert resolved.num_shards == resolved.grid.num_blocks
    assert resolved.shard(resolved.num_shards - 1).blocks[-1].pairs[-1] == (999_999, 999)
    assert time.monotonic() - started < 5.0


def test_blocks_shrink_to_the_memory_for_features(manifest: Path) -> None:
    wide = plan(load_spec(manifest, ["output.shard_size=100"]))
    assert wide.identity["block"] == [4, 3]
    image_gb = wide.identity["feature_bytes"] / 2**30
    narrow = plan(
        load_spec(
            manifest,
            [
                "output.shard_size=100",
                f"engine.feature_gb={image_gb * 4.5}",
                "features.source=held",
                "features.contents=held",
                "features.codec=kv",
            ],
        )
    )
    rows, columns = narrow.identity["block"]
    assert rows + 2 * columns <= 4.5
    assert narrow.num_style_groups_held == 1
    assert narrow.evaluations > wide.evaluations
    assert narrow.grid.num_pairs == 12


def test_whole_number_labels_are_classes_in_numeric_order(manifest: Path) -> None:
    rows = manifest.parent / "pairs.csv"
    lines = [f"contents/cat/1.png,styles/0.png,{label}\n" for label in (10, 2, 1, 0, 11)]
    rows.write_text("content,style,label\n" + "".join(lines))
    assert plan(load_spec(rows)).labels == ("0", "1", "2", "10", "11")


def test_pair_lists_fill_their_blocks_and_hold_one_group_of_styles(manifest: Path) -> None:
    rows = manifest.parent / "pairs.csv"
    lines = [f"contents/cat/{i}.png,styles/{i}.png\n" for i in range(40)]
    rows.write_text("content,style\n" + "".join(lines))
    resolved = plan(load_spec(rows, ["output.shard_size=18"]))
    assert [len(resolved.grid.block(n).pairs) for n in range(resolved.grid.num_blocks)] == [
        16,
        16,
        8,
    ]
    assert resolved.num_style_groups_held == 1


@pytest.mark.parametrize("output", ["out/", "out", "./out"])
def test_preview_never_lies_inside_the_output(manifest: Path, output: str) -> None:
    resolved = plan(load_spec(manifest, output=output), limit=2)
    assert resolved.spec.output.path == "out-preview-2"
