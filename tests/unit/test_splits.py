"""Splits: what a plan puts where, whatever the pairing, and what stays where it was as contents are added."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from stylebatch.data.sources.source import NOWHERE, Item
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.plan import Plan, Sample
from stylebatch.planning.resolve import plan
from stylebatch.planning.shard_names import ShardName, parsed_name
from stylebatch.planning.split_axes import portions_of, splits_of_images
from stylebatch.spec import SplitSpec
from stylebatch.spec.splits import short_form
from stylebatch.store.output_record import Generation
from tests.support.tables import PAIRINGS, manifest, table, tables


def _samples(resolved: Plan) -> Iterator[tuple[str, Sample]]:
    """Each sample with the split that its shard's name tells."""
    for number in resolved.shards:
        name = parsed_name(resolved.shard_name(number))
        assert name is not None
        assert name.number == number
        shard = resolved.shard(number)
        assert shard.num_samples == resolved.shard_size(number) > 0
        for _, samples in resolved.samples(shard):
            yield from ((name.split, sample) for sample in samples)


def _cells(resolved: Plan) -> Counter[tuple[int, int]]:
    return Counter((sample.row, sample.column) for _, sample in _samples(resolved))


@pytest.mark.parametrize("pairing", PAIRINGS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_each_sample_is_once_in_the_split_of_its_content(
    pairing: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, eps_folder: Path
) -> None:
    """The cells of all splits are those of the run without any; with disjoint styles, those within a split."""
    folder = tmp_path_factory.mktemp("splits")
    contents = data.draw(st.integers(12, 60))
    styles = contents if pairing == "zip" else data.draw(st.integers(12, 40))
    tables(folder, contents, styles, contents)
    draw = random.Random(styles)
    pairs = [(f"c{draw.randrange(contents)}.jpg", f"s{draw.randrange(styles)}.jpg") for _ in range(90)]  # fmt: skip
    (folder / "pairs.csv").write_text("content,style\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    sections = PAIRINGS[pairing] | {"output": {"path": "out", "shard_size": data.draw(st.integers(1, 40))}}  # fmt: skip
    plain = plan(load_spec(manifest(folder, eps_folder, **sections)))
    disjoint = "styles" not in PAIRINGS[pairing] and data.draw(st.booleans())
    split = {"validation": 0.4, "seed": data.draw(st.integers(0, 9)), "styles": disjoint}
    spec = load_spec(manifest(folder, eps_folder, **sections, split=split))
    try:
        resolved = plan(spec)
    except ManifestError as error:
        # a hash may leave a split without style or pair
        if re.search(r"split\.validation|per_content", str(error)):
            return
        raise
    samples = list(_samples(resolved))
    keys = [sample.key for _, sample in samples]
    assert keys == sorted(set(keys), key=keys.index)
    assert len(samples) == resolved.grid.num_samples
    of_content: dict[str, set[str]] = {}
    for name, sample in samples:
        of_content.setdefault(resolved.images(0)[sample.row].id, set()).add(name)
    assert all(len(splits) == 1 for splits in of_content.values())
    assert {name for name, _ in samples} == {"train", "validation"}
    rows = resolved.axes[0].splits
    assert all(rows[sample.row] == name for name, sample in samples)
    if disjoint:
        assert all(resolved.axes[1].splits[s.column] == name for name, s in samples)
    if "sample" in str(sections.get("pairing")):
        per_content = Counter(sample.row for _, sample in samples)
        assert set(per_content.values()) == {2}
        assert len(per_content) == contents
        pairs_drawn = Counter((sample.row, sample.column) for _, sample in samples)
        assert set(pairs_drawn.values()) == {1}
    else:
        within = {
            cell: count
            for cell, count in _cells(plain).items()
            if not disjoint or rows[cell[0]] == resolved.axes[1].splits[cell[1]]
        }
        assert _cells(resolved) == within
    counted = resolved.summary()["splits"]
    found = Counter(name for name, _ in samples)
    assert {name: one["num_samples"] for name, one in counted.items()} == found


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=80, unique=True),
    seed=st.integers(0, 2**63 - 1),
    data=st.data(),
)  # fmt: skip
def test_contents_that_are_added_move_no_other(
    ids: list[str], seed: int, data: st.DataObject
) -> None:
    split = SplitSpec.model_validate(short_form({"validation": 0.2, "test": 0.3, "seed": seed}))
    order = data.draw(st.permutations(ids))
    few = order[: data.draw(st.integers(0, len(order)))]

    def splits(names: list[str]) -> dict[str, str]:
        axis = ImageAxis("content", tuple(Item(name, NOWHERE) for name in names))
        return dict(zip(names, splits_of_images(split, axis, {}), strict=True))

    whole = splits(ids)
    assert splits(list(few)).items() <= whole.items()
    assert set(whole.values()) <= {"train", "validation", "test"}


def test_classes_have_their_share_as_well_as_a_hash_allows(
    tmp_path: Path, eps_folder: Path
) -> None:
    names = [f"{label}/{i:05d}.jpg" for label in "abcde" for i in range(2000)]
    table(tmp_path / "contents.csv", names, label=[name[0] for name in names])
    table(tmp_path / "styles.csv", ["s.jpg"])
    path = manifest(tmp_path, eps_folder, split={"validation": 0.2, "test": 0.05})
    resolved = plan(load_spec(path))
    counts = Counter(
        (item.label, split)
        for item, split in zip(resolved.images(0), resolved.axes[0].splits, strict=True)
    )
    for label in "abcde":
        for split, share in (("validation", 0.2), ("test", 0.05)):
            deviation = math.sqrt(2000 * share * (1 - share))
            assert abs(counts[label, split] - 2000 * share) < 4 * deviation
    assert resolved.labels == tuple("abcde")  # one list of classes for all splits


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    later=st.lists(st.integers(0, 12), min_size=12, max_size=12),
    fractions=st.sampled_from(
        [
            {"validation": 0.2},
            {"validation": 0.2, "test": 0.1},
            {"a": 0.5, "b": 0.25, "train": 0.25},
        ]
    ),
)
def test_exact_splits_give_each_class_its_share_and_keep_what_is_there(
    sizes: list[int], later: list[int], fractions: dict[str, float]
) -> None:
    split = SplitSpec.model_validate({"fractions": fractions, "exact": True})

    def axis(counts: list[int]) -> ImageAxis:
        items = [Item(f"{label}/{i}", NOWHERE, str(label)) for label, n in enumerate(counts) for i in range(n)]  # fmt: skip
        return ImageAxis("content", tuple(items))

    def shares(axis: ImageAxis, splits: tuple[str, ...]) -> Counter[tuple[str, str]]:
        return Counter(zip((item.label for item in axis.items), splits, strict=True))

    first = axis(sizes)
    splits = splits_of_images(split, first, {})
    counts, total = shares(first, splits), len(first)
    for name, share in split.shares.items():
        assert abs(splits.count(name) - share * total) <= 2
        for label, size in enumerate(sizes):
            assert abs(counts[str(label), name] - share * size) <= 2
    former = dict(zip((item.id for item in first.items), splits, strict=True))
    grown = axis([size + more for size, more in zip(sizes, later, strict=False)])
    now = splits_of_images(split, grown, former)
    assert former.items() <= dict(zip((item.id for item in grown.items), now, strict=True)).items()
    for name, share in split.shares.items():
        assert abs(now.count(name) - share * len(grown)) <= 2


def test_the_order_of_names_and_another_run_seed_change_nothing(
    tmp_path: Path, eps_folder: Path
) -> None:
    tables(tmp_path, 40, 3)
    path = manifest(tmp_path, eps_folder, split={"validation": 0.4})
    first, other = plan(load_spec(path)), plan(load_spec(path, ["seed=5"]))
    assert first.axes[0].splits == other.axes[0].splits
    assert plan(load_spec(path, ["split.seed=5"])).axes[0].splits != first.axes[0].splits


def test_copies_and_sets_of_prompts_stay_together(tmp_path: Path, eps_folder: Path) -> None:
    prompts = {"template": "a {look}", "values": {"look": [f"look {i}" for i in range(30)]}, "per_prompt": 3}  # fmt: skip
    sections = {"contents": None, "styles": None, "split": {"validation": 0.4}}
    method = {"name": "text2img", "steps": 2}
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, **sections, method=method, prompts=prompts)))  # fmt: skip
    found: dict[str, set[str]] = {}
    for split, sample in _samples(resolved):
        assert sample.prompt is not None
        found.setdefault(sample.prompt.prompt, set()).add(split)
    assert len(found) == 30
    assert all(len(splits) == 1 for splits in found.values())
    assert set().union(*found.values()) == {"train", "validation"}
    rows = [f"prompt {i},set {i % 12}" for i in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["prompt,style", *rows]) + "\n")
    method = {"name": "stylealigned", "steps": 2}
    sets = plan(load_spec(manifest(tmp_path, eps_folder, **sections, method=method, prompts={"path": "rows.csv"})))  # fmt: skip
    of_sets: dict[int, set[str]] = {}
    for split, sample in _samples(sets):
        of_sets.setdefault(sample.column, set()).add(split)
    assert len(of_sets) == 12
    assert all(len(splits) == 1 for splits in of_sets.values())
    assert sum(len(list(samples)) for _, samples in _by_block(sets)) == 40


def _by_block(resolved: Plan) -> Iterator[tuple[int, list[Sample]]]:
    for number in resolved.shards:
        for block, samples in resolved.samples(resolved.shard(number)):
            # a set's block is one column's, so that its reference is prepared once
            assert len(block.columns) == 1
            yield number, samples


@pytest.mark.parametrize("pairing", ["product", "sample", "listed"])
@pytest.mark.parametrize("disjoint", [False, True])
def test_a_preview_shows_every_split(
    pairing: str, disjoint: bool, tmp_path: Path, eps_folder: Path
) -> None:
    tables(tmp_path, 40, 20)
    rows = "".join(f"c{i}.jpg,s{j}.jpg\n" for i in range(40) for j in range(20))
    (tmp_path / "pairs.csv").write_text(f"content,style\n{rows}")
    split = {"validation": 0.3, "test": 0.2, "styles": disjoint}
    spec = load_spec(manifest(tmp_path, eps_folder, **PAIRINGS[pairing], split=split))
    shown = list(_samples(plan(spec, limit=9)))
    assert len(shown) == 9
    assert {split for split, _ in shown} == {"train", "validation", "test"}


def test_plans_of_a_large_product_stay_arithmetic(tmp_path: Path, eps_folder: Path) -> None:
    tables(tmp_path, 20_000, 5_000)
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, split={"validation": 0.1})))
    assert resolved.grid.num_samples == 10**8
    portions = {portion.split: portion for portion in portions_of(resolved.axes)}
    last = resolved.shards[-1]
    assert resolved.split_of(last) == "validation"
    rows = set(portions["validation"].rows.tolist())
    assert all(row in rows for block in resolved.shard(last).blocks for row, _ in block.cells)
    assert resolved.evaluations > 10**8


# names


@given(
    split=st.from_regex(r"[A-Za-z0-9_]{1,64}", fullmatch=True), number=st.integers(0, 10**12 - 1)
)
def test_names_of_shards_are_read_back(split: str, number: int) -> None:
    name = ShardName(split, number, max(5, len(str(number))))
    assert parsed_name(str(name)) == name


@pytest.mark.parametrize("stem", ["train", "train-1", "train-00000_stats", "a/b-00000", "-00000", "errors", "träin-00000"])  # fmt: skip
def test_other_names_are_no_shards(stem: str) -> None:
    assert parsed_name(stem) is None


def test_records_of_splits_are_checked() -> None:
    record = {"first_shard": 2, "num_shards": 3, "digest": "0" * 64}
    splits = [{"name": "train", "num_shards": 2}, {"name": "test", "num_shards": 1}]
    part = Generation.model_validate(record | {"splits": splits})
    assert [part.shard_name(number) for number in part.shards] == ["train-00002", "train-00003", "test-00004"]  # fmt: skip
    for bad in ([{"name": "../x", "num_shards": 3}], splits[:1]):
        with pytest.raises(ValidationError, match="splits"):
            Generation.model_validate(record | {"splits": bad})


@pytest.mark.parametrize("pairing", ["product", "sample", "listed"])
def test_splits_of_images_in_several_sizes(pairing: str, tmp_path: Path, eps_folder: Path) -> None:
    """A block is of one split and of one size."""
    for number in range(24):
        path = tmp_path / "contents" / f"c{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", ((96, 64), (64, 96), (64, 64))[number % 3]).save(path)
    (tmp_path / "styles").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64)).save(tmp_path / "styles" / f"s{number}.png")
    pairs = "".join(f"c{i}.png,s{i % 4}.png\n" for i in range(24))
    (tmp_path / "pairs.csv").write_text(f"content,style\n{pairs}")
    sections = PAIRINGS[pairing] | {
        "contents": {"path": "contents"}, "styles": {"path": "styles"},
        "image": {"size": 256, "mode": "fit"}, "split": {"validation": 0.4},
    }  # fmt: skip
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, **sections)))
    rows, blocks = resolved.axes[0], 0
    assert isinstance(rows, ImageAxis)
    for number in resolved.shards:
        for block in resolved.shard(number).blocks:
            blocks += 1
            assert {rows.splits[row] for row in block.rows} == {resolved.split_of(number)}
            assert len({rows.size_of(row) for row in block.rows}) == 1
    sizes = len({rows.size_of(row) for row in range(24)})
    assert sizes > 1
    assert blocks >= 2 * sizes
    expected = {"product": 96, "sample": 48, "listed": 24}[pairing]
    assert len(list(_samples(resolved))) == expected
    assert resolved.evaluations > expected
