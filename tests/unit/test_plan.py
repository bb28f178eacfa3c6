"""Names, shards and identity are fixed by the plan, before any work."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import ImageFormat
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.grid import Groups, ProductGrid
from stylebatch.planning.plan import Plan
from stylebatch.planning.prompts import sample_seed
from stylebatch.planning.resolve import plan
from stylebatch.planning.sample_bytes import sample_bytes
from stylebatch.planning.zip_grid import ZipGrid
from stylebatch.spec import OutputSpec
from stylebatch.store.loaders import loader_hints
from tests.support.images import write_inputs, write_manifest


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
    assert {(s.row, s.column) for s in samples} == {(c, s) for c in range(4) for s in range(3)}


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
        0, resolved.images(0)[samples[0].row].id, resolved.images(1)[samples[0].column].id
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
        "output.format=parquet",
        "output.format=files",
        "model.compile=default",
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
        for pair in block.cells
    ]
    assert len({c for c, _ in pairs}) == len({s for _, s in pairs}) == 3
    assert preview.spec.output.path.endswith("out-preview-3")
    assert plan(load_spec(manifest), limit=1000).grid.num_samples == 12
    with pytest.raises(ManifestError, match="--limit"):
        plan(load_spec(manifest), limit=0)


def test_zip_needs_lists_of_equal_length(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="zip over 4 contents and 3 styles"):
        plan(load_spec(manifest, ["pairing.mode=zip"]))
    (manifest.parent / "contents" / "cat" / "3.png").unlink()
    zipped = plan(load_spec(manifest, ["pairing.mode=zip"]))
    assert isinstance(zipped.grid, ZipGrid)
    assert zipped.grid.num_samples == 3
    # the digest is that of the list of these pairs, as earlier versions wrote it
    rows = "".join(f"{i}\0{i}\0\0\n" for i in range(3))
    assert zipped.identity["listed"] == hashlib.sha256(rows.encode()).hexdigest()


def test_size_must_fit_the_model(manifest: Path) -> None:
    with pytest.raises(
        ManifestError,
        match=r"image\.size: found 100; accepted by this model: multiples of 64, such as 128",
    ):
        plan(load_spec(manifest, ["image.size=100"]))
    assert plan(load_spec(manifest, ["image.size=null"])).image_size == (128, 128)


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
    assert resolved.shard(resolved.num_shards - 1).blocks[-1].cells[-1] == (999_999, 999)
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
    assert narrow.layout.num_column_groups_held == 1
    assert narrow.evaluations > wide.evaluations
    assert narrow.grid.num_samples == 12


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
    assert [len(resolved.grid.block(n).cells) for n in range(resolved.grid.num_blocks)] == [
        16,
        16,
        8,
    ]
    assert resolved.layout.num_column_groups_held == 1


@pytest.mark.parametrize("output", ["out/", "out", "./out"])
def test_preview_never_lies_inside_the_output(manifest: Path, output: str) -> None:
    resolved = plan(load_spec(manifest, output=output), limit=2)
    assert resolved.spec.output.path == "out-preview-2"


def test_shards_are_told_by_the_largest(tmp_path: Path, eps_folder: Path) -> None:
    """Of groups of uneven sizes the first is the smallest."""
    write_inputs(tmp_path, contents=5, styles=2)
    resolved = plan(load_spec(write_manifest(tmp_path, eps_folder)))
    assert [resolved.shard_size(shard) for shard in resolved.shards] == [2, 4, 4]
    assert "shards of up to 4 samples" in resolved.lines()[1]


def test_fewer_shards_than_workers_are_told_with_a_way_out(manifest: Path) -> None:
    def hints(*changes: str) -> list[str]:
        return loader_hints(plan(load_spec(manifest, changes)))

    whole = hints("output.shard_size=100")
    assert whole == [
        "one shard: loaders share out whole shards, so one worker at most will have work"
    ]
    assert hints("output.format=files", "output.shard_size=100") == []
    blocks = ("engine.feature_gb=0.00001",)
    (line,) = hints("output.shard_size=6", *blocks)
    assert line.startswith("2 shards: ")
    wanted = re.search(r"output.shard_size: ([0-9]+)$", line)
    assert wanted is not None
    assert hints(f"output.shard_size={wanted[1]}", *blocks) == []


def test_avif_in_folders_is_refused_since_readers_pass_over_it(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="accepted with format files: jpg, png, webp"):
        load_spec(manifest, ["output.format=files", "output.image.format=avif"])
    assert load_spec(manifest, ["output.image.format=avif"]).output.image.format == "avif"


def test_small_outputs_have_shards_for_loaders_where_that_costs_nothing(
    tmp_path: Path, eps_folder: Path
) -> None:
    def planned(contents: int, styles: int, *changes: str) -> Plan:
        write_inputs(tmp_path, contents=contents, styles=styles)
        path = write_manifest(tmp_path, eps_folder, output={"path": "out"})
        return plan(load_spec(path, ["engine.batch=8", *changes]))

    whole, cut = planned(8, 8, "output.shard_size=256"), planned(8, 8)
    assert (whole.num_shards, cut.num_shards) == (1, 4)
    assert cut.evaluations == whole.evaluations
    assert loader_hints(cut) == []
    assert cut.digest == planned(8, 8, "output.shard_size=16").digest  # as if it had been given
    # a batch is never cut, nor anything for which images would be inverted again
    assert planned(8, 8, "engine.batch=64").num_shards == 1
    held = ["engine.feature_gb=0.004"]
    tight = planned(8, 8, *held)
    assert tight.evaluations <= planned(8, 8, *held, "output.shard_size=256").evaluations


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["jpg", "png", "webp", "avif"]),
    quality=st.integers(1, 100),
    side=st.sampled_from([64, 128, 512, 1024]),
    wanted=st.integers(1, 10**9),
)
def test_shards_by_bytes_follow_an_estimate(
    kind: Any, quality: int, side: int, wanted: int
) -> None:
    image = ImageFormat.model_construct(format=kind, quality=quality)
    output = OutputSpec.model_construct(path="x", image=image, inputs=True, shard_bytes=wanted)
    each = sample_bytes(output, (side, side), 2)
    better = ImageFormat.model_construct(format=kind, quality=min(100, quality + 1))
    assert each <= sample_bytes(output.model_copy(update={"image": better}), (side, side), 2)
    assert each > sample_bytes(output.model_copy(update={"inputs": False}), (side, side), 2)
    assert each > sample_bytes(output, (side // 2, side // 2), 2)


def test_shards_by_bytes(tmp_path: Path, eps_folder: Path) -> None:
    write_inputs(tmp_path, contents=16, styles=16)
    path = write_manifest(tmp_path, eps_folder, output={"path": "out", "shard_bytes": "1 MB"})
    resolved = plan(load_spec(path))
    each = sample_bytes(resolved.spec.output, (64, 64), 2)
    assert resolved.spec == load_spec(path)
    sizes = [resolved.shard_size(shard) for shard in resolved.shards]
    assert max(sizes) * each <= 10**6 < 2 * (max(sizes) + 16) * each
    (told,) = [note for note in resolved.notes if "estimate" in note]
    assert f"shards of 1,000,000 bytes: {resolved.samples_per_shard} samples" in told
    assert resolved.identity["output"]["shard_bytes"] == 10**6
    assert "shard_bytes" not in plan(load_spec(path, ["output.shard_bytes=null"])).identity["output"]  # fmt: skip
    assert plan(load_spec(path, ["output.shard_bytes=1"])).num_shards == 256
