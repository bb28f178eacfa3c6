"""Outputs as sources of a further generation: where the splits of one go, those of the next go as well."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.sources.listing import list_contents
from stylebatch.data.sources.splitting import SplitBy
from stylebatch.engine.run import run
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from stylebatch.spec.output import OutputFormat
from tests.support.exported import rows_of
from tests.support.generations import generation
from tests.support.images import picture
from tests.support.tables import manifest, table

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
NAMES = ["cat/1.png", "cat/1.jpg", "Cat/1.png", "dog/1.png", "1.png", "a/b/c.png", "ü ß.png", "x--y.png"]  # fmt: skip
ORIGINALS = NAMES + [f"many/{number:03d}.png" for number in range(30)]


def _splits(resolved: Plan, origin: dict[str, str]) -> dict[str, set[str]]:
    """Splits of each original; `origin`: of ids."""
    rows = resolved.axes[0]
    assert isinstance(rows, ImageAxis)
    found: dict[str, set[str]] = defaultdict(set)
    for item, split in zip(rows.items, rows.splits, strict=True):
        found[origin.get(item.id, item.id)].add(split)
    return found


def _copies(draw: random.Random) -> list[dict[str, Any]]:
    """Several samples of each original, shuffled."""
    rows = [{"content_id": name, "style_id": f"s/{n}.jpg"} for name in ORIGINALS for n in range(draw.randint(1, 3))]  # fmt: skip
    draw.shuffle(rows)
    return rows


def _ids(output: Path, field: dict[str, Any]) -> dict[str, str]:
    """The original of each item that an output lists."""
    spec = ContentSpec.model_validate_json(json.dumps(field | {"path": str(output)}))
    listed = list_contents(spec, SplitBy(origins=True))
    return {item.id: item.origin for item in listed.items}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("exact", [False, True], ids=["drawn", "exact"])
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_no_original_is_in_two_splits(
    kind: OutputFormat, exact: bool, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, eps_folder: Path
) -> None:  # fmt: skip
    """Of one generation; drawn splits are those of the first generation as well."""
    folder = tmp_path_factory.mktemp("generations")
    seed = data.draw(st.integers(0, 2**63 - 1))
    split = {"validation": 0.3, "test": 0.2, "seed": seed, "exact": exact}
    table(folder / "contents.csv", ORIGINALS)
    table(folder / "styles.csv", ["s.jpg"])
    first = plan(load_spec(manifest(folder, eps_folder, split=split)))
    generation(folder / "first", _copies(random.Random(seed)), kind)
    section = {"path": "first"} | data.draw(st.sampled_from([{}, {"carry": []}, {"carry": ["gamma"]}]))  # fmt: skip
    section |= {"image": "image"} if kind == "parquet" else {}
    second = plan(load_spec(manifest(folder, eps_folder, split=split, contents=section)))
    origin = _ids(folder / "first", section | {"path": str(folder / "first")})
    assert set(origin.values()) == set(ORIGINALS)
    found = _splits(second, origin)
    assert all(len(splits) == 1 for splits in found.values())
    if not exact:
        assert found == _splits(first, {})
    assert any("of 38 originals is in one split" in note for note in second.notes)
    assert ("origin_id", "string") in [(one.column, one.kind) for one in second.carried]


@pytest.mark.parametrize(
    ("columns", "read", "expected"),
    [
        ({"image": "cat/2.png"}, None, "cat/2.png"),
        ({"prompt": "a cat", "style": "set 1"}, None, "set 1"),
        ({"prompt": "a cat"}, None, "a cat"),
        ({"origin_id": "a.png", "image": "train-00000.tar/0.jpg"}, None, "a.png"),
    ],
)
def test_samples_without_contents_follow_what_their_split_followed(
    columns: dict[str, str], read: str | None, expected: str, tmp_path: Path
) -> None:
    """Of images with prompts the image, of StyleAligned the set, of prompts their text."""
    import io
    import tarfile

    source = generation(tmp_path / "first", [{"content_id": "x"}])
    file = source / "data/train-00000.tar"
    with tarfile.open(file) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    row = json.loads(members["000000000.json"]) | columns
    members["000000000.json"] = json.dumps({k: v for k, v in row.items() if k != "content_id"}).encode()  # fmt: skip
    copied = tmp_path / "copied"  # copies are known by their records, wherever they lie
    copied.mkdir()
    with tarfile.open(copied / "a.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert list(_ids(copied, {}).values()) == [expected]


def test_a_column_of_that_name_elsewhere_means_nothing(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", ["a.jpg", "b.jpg"], content_id=["1", "1"], key=["a", "b"])
    assert set(_ids(tmp_path / "t.csv", {}).values()) == {""}


def test_styles_of_samples_follow_their_styles(tmp_path: Path, eps_folder: Path) -> None:
    rows = [{"content_id": f"{n % 7}.png", "style_id": f"s/{n % 30}.jpg"} for n in range(90)]
    generation(tmp_path / "first", rows)
    table(tmp_path / "contents.csv", [f"c{n}.jpg" for n in range(20)])
    split = {"validation": 0.4, "styles": True}
    resolved = plan(
        load_spec(manifest(tmp_path, eps_folder, split=split, styles={"path": "first"}))
    )
    styles = resolved.axes[1]
    assert isinstance(styles, ImageAxis)
    found: dict[str, set[str]] = defaultdict(set)
    for item, name in zip(styles.items, styles.splits, strict=True):
        found[item.origin].add(name)
    assert len(found) == 30
    assert all(len(splits) == 1 for splits in found.values())
    assert "style_origin_id" in [one.column for one in resolved.carried]


@pytest.mark.parametrize("kind", FORMATS)
def test_splits_of_the_first_generation_are_taken_over(
    kind: OutputFormat, tmp_path: Path, eps_folder: Path
) -> None:
    """Of any names, by `split: source`; one of them by `contents.split`; several are never mixed."""
    names = ("train", "validation", "Fold_3")
    rows = [{"content_id": f"{n}.png"} for n in range(9)]
    generation(tmp_path / "first", rows, kind, splits=[names[n % 3] for n in range(9)])
    table(tmp_path / "styles.csv", ["s.jpg"])
    section = {"path": "first"} | ({"image": "image"} if kind == "parquet" else {})
    path = manifest(tmp_path, eps_folder, contents=section, split="source")
    counts = plan(load_spec(path)).summary()["splits"]
    assert {name: one["num_samples"] for name, one in counts.items()} == dict.fromkeys(names, 3)
    one = section | {"path": str(tmp_path / "first"), "split": "Fold_3"}
    assert set(_ids(tmp_path / "first", one).values()) == {"2.png", "5.png", "8.png"}
    with pytest.raises(ManifestError, match=r"contents.split: .*Fold_3.*Next: add `split: "):
        plan(load_spec(manifest(tmp_path, eps_folder, contents=section)))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("exact", [False, True], ids=["drawn", "exact"])
def test_an_output_of_several_splits_is_split_anew(
    kind: OutputFormat, exact: bool, tmp_path: Path, eps_folder: Path
) -> None:
    """By `split: all`. Each original stays in one split, though the first generation has samples of it in all."""
    names = ("train", "validation", "Fold_3")
    rows = [{"content_id": f"{n // 3}.png"} for n in range(30)]
    generation(tmp_path / "first", rows, kind, splits=[names[n % 3] for n in range(30)])
    table(tmp_path / "styles.csv", ["s.jpg"])
    section = {"path": "first", "split": "all"} | ({"image": "image"} if kind == "parquet" else {})
    split = {"validation": 0.4, "seed": 2, "exact": exact}
    resolved = plan(load_spec(manifest(tmp_path, eps_folder, contents=section, split=split)))
    axis = resolved.axes[0]
    assert isinstance(axis, ImageAxis)
    assert len({item.id for item in axis.items}) == len(axis) == 30
    found = _splits(resolved, {item.id: item.origin for item in axis.items})
    assert len(found) == 10
    assert all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "validation"}
    assert any(" as one" in note for note in resolved.notes)


@pytest.mark.slow
def test_a_third_generation_knows_the_originals(tmp_path: Path) -> None:
    """Rendered for real, with splits by name in between and nothing carried."""
    for side, count in (("contents", 8), ("styles", 2)):
        (tmp_path / side).mkdir()
        for number in range(count):
            picture(number + 50 * (side == "styles"), 40, 32).save(
                tmp_path / side / f"{number}.png"
            )

    def render(name: str, **sections: Any) -> None:
        document = {
            "contents": {"path": "contents"}, "styles": {"path": "styles"}, "split": {"validation": 0.4, "seed": 4},
            "method": {"name": "styleid", "steps": 2}, "image": {"size": 32}, "engine": {"threads": 1},
            "output": {"path": str(tmp_path / name)},
        } | sections  # fmt: skip
        (tmp_path / "run.yaml").write_text(json.dumps(document))
        assert run(load_spec(tmp_path / "run.yaml")).exit_code == 0

    render("first")
    render("second", contents={"path": "first", "carry": []}, split="source", styles={"path": "styles", "limit": 1})  # fmt: skip
    render(
        "third",
        contents={"path": "second", "split": "validation", "carry": []},
        split=None,
        styles={"path": "styles", "limit": 1},
    )
    splits: dict[str, set[str]] = defaultdict(set)
    for row in [*rows_of(tmp_path / "first"), *rows_of(tmp_path / "second")]:
        splits[row.get("origin_id", row["content_id"])].add(row["split"])
    assert {tuple(names) for names in splits.values()} == {("train",), ("validation",)}
    assert len(splits) == 8
    third = {row["origin_id"] for row in rows_of(tmp_path / "third")}
    assert third == {name for name, names in splits.items() if names == {"validation"}}
    assert all(row["content_id"].startswith("validation-") for row in rows_of(tmp_path / "third"))
