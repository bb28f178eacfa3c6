"""Blends of styles and masks of contents: tables that name them, what is refused, runs that render them."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import stylebatch
from stylebatch import RunSpec
from stylebatch.data.image_section import ContentSpec, ImageSpec
from stylebatch.data.inputs import load_input
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_contents, list_images
from stylebatch.errors import ManifestError, PlanChangedError, SampleError
from stylebatch.planning.resolve import plan
from tests.support.images import picture
from tests.support.pages import held

MANIFESTS = Path(__file__).parents[2] / "manifests"
TABLE = """blend,path,weight,license
dawn,a.png,0.7,cc0-1.0
dawn,b.png,0.3,cc-by-4.0
,c.png,,
dusk,b.png,0.5,
dusk,c.png,0.5,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for side in ("contents", "styles"):
        (tmp_path / side).mkdir()
        for i, name in enumerate("abc"):
            picture(20 * len(side) + i, 40, 40).save(tmp_path / side / f"{name}.png")
    (tmp_path / "styles" / "styles.csv").write_text(TABLE)
    (tmp_path / "styles" / "c.csv").write_text("path\nc.png\n")
    return tmp_path


def output(path: Path) -> dict[str, Any]:
    return {"path": str(path), "image": {"format": "png"}}


def spec(folder: Path, styles: str = "styles/styles.csv", **changes: Any) -> RunSpec:
    contents = changes.pop("contents", "contents")
    return RunSpec.model_validate(
        {
            "contents": {"path": str(folder / contents)},
            "styles": {"path": str(folder / styles)},
            "method": {"name": "styleid", "steps": 2},
            "image": {"size": 32},
            "engine": {"threads": 1},
            "output": output(folder / "out"),
            **changes,
        }
    )


def images(path: Path, field: str) -> Listing:
    return list_images(open_source(str(path), field))


def test_rows_of_one_name_are_one_style(folder: Path) -> None:
    styles = images(folder / "styles" / "styles.csv", "styles").items
    assert [style.id for style in styles] == ["dawn", "c.png", "dusk"]
    root = folder / "styles"
    assert [
        (part.id, part.ref.place, part.ref.source, part.weight) for part in styles[0].parts
    ] == [
        ("a.png", str(root / "a.png"), "styles", 0.7),
        ("b.png", str(root / "b.png"), "styles", 0.3),
    ]
    assert styles[0].license == "cc0-1.0 and cc-by-4.0"
    assert styles[1].parts == ()


def test_a_folder_of_styles_has_no_blends(folder: Path) -> None:
    assert not any(item.parts for item in images(folder / "styles", "styles").items)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("dawn,a.png,0.7\ndawn,b.png,0.4", r"blend 'dawn': found 2 images with weights of sum 1.1"),
        ("dawn,a.png,1.0", r"found 1 image with weights of sum 1; accepted: two images or more"),
        ("dawn,a.png,0\ndawn,b.png,1", r"row 1: weight: found '0'; accepted: a number above 0"),
        ("dawn,a.png,much\ndawn,b.png,1", r"row 1: weight: found 'much'"),
        ("dawn,a.png,0.5\ndawn,a.png,0.5", r"row 2: 'a.png' stands twice in blend 'dawn'"),
        (",a.png,0.5", r"row 1: weight 0.5 without a blend; accepted: a name in `blend`"),
        ("a.png,b.png,0.5\na.png,c.png,0.5\n,a.png,", r"'a.png' stands there twice"),
    ],
)
def test_what_is_no_blend_is_refused_by_row(folder: Path, rows: str, message: str) -> None:
    table = folder / "styles" / "other.csv"
    table.write_text(f"blend,path,weight\n{rows}\n")
    with pytest.raises(ManifestError, match=message):
        images(table, "styles")


def test_picture_of_a_blend_shows_its_images_by_weight(folder: Path) -> None:
    listed = images(folder / "styles" / "styles.csv", "styles")
    shown = load_input(listed.items[0], listed.sources, 40, ImageSpec())
    a, b = (np.asarray(Image.open(folder / "styles" / name)) for name in ("a.png", "b.png"))
    assert np.array_equal(shown.pixels[:, :28], a[:, :28])
    assert np.array_equal(shown.pixels[:, 28:], b[:, 28:])
    assert [part.weight for part in shown.components] == [0.7, 0.3]
    assert np.array_equal(shown.components[1].pixels, b)


def test_a_blend_with_an_unreadable_image_fails_by_its_name(folder: Path) -> None:
    (folder / "styles" / "b.png").write_bytes(b"")
    listed = images(folder / "styles" / "styles.csv", "styles")
    with pytest.raises(SampleError, match=r"b.png: the file is empty"):
        load_input(listed.items[0], listed.sources, 32, ImageSpec())


def test_each_image_of_a_block_is_counted_once(folder: Path) -> None:
    planned = plan(spec(folder))
    assert planned.evaluations == 2 * (3 + 3 + 9)  # contents, images a b c, pairs
    assert planned.layout.column_evaluations == 6


def test_weights_and_masks_are_part_of_the_plan(folder: Path) -> None:
    before = plan(spec(folder)).digest
    table = folder / "styles" / "styles.csv"
    table.write_text(TABLE.replace("0.7", "0.6").replace("0.3", "0.4"))
    assert plan(spec(folder)).digest != before


def test_a_plan_without_them_has_the_digest_that_it_had(folder: Path) -> None:
    table = folder / "styles" / "plain.csv"
    table.write_text("path\na.png\nc.png\n")
    planned = plan(spec(folder, "styles/plain.csv"))
    assert planned.identity["method"] == {
        "name": "styleid", "gamma": 0.75, "tau": 1.5, "convention": "ldm", "steps": 2,
        "sites": [6, 7, 8, 9, 10, 11], "start": "level", "init_adain": True, "inject": True,
    }  # fmt: skip


def records(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(
        next(output.glob("metadata/*00.parquet"))
    ).to_pylist()
    return rows


def pictures(output: Path) -> dict[str, np.ndarray]:
    """Pictures by content of an output with one style and one shard."""
    by_key = {row["key"]: row["content_id"] for row in records(output)}
    with tarfile.open(next(output.glob("data/*.tar"))) as tar:
        members = {name.split(".")[0]: name for name in tar.getnames() if name.endswith(".png")}
        read = {key: tar.extractfile(members[key]) for key in by_key}
        return {
            by_key[key]: np.asarray(Image.open(file)).astype(float)
            for key, file in read.items()
            if file is not None
        }


def test_blends_render_as_styles_of_the_grid(folder: Path) -> None:
    result = stylebatch.run(spec(folder))
    assert result.exit_code == 0
    rows = records(folder / "out")
    assert Counter(row["style_id"] for row in rows) == {"dawn": 3, "c.png": 3, "dusk": 3}
    assert {row["status"] for row in rows} == {"success"}
    assert len({row["sha256"] for row in rows}) == 9


def test_records_tell_what_a_sample_was_made_with(folder: Path) -> None:
    with_masks(folder, {"a.png": Image.new("L", (40, 40), 255)})
    options = {"name": "styleid", "steps": 2, "gamma_schedule": "cosine", "site_gammas": [0.5, 1]}
    method = {**options, "sites": [10, 11], "blend": "outputs"}
    output = stylebatch.run(spec(folder, contents="contents/contents.csv", method=method)).output
    rows = {(row["content_id"], row["style_id"]): row for row in records(output)}
    masked, plain = rows["a.png", "dawn"], rows["b.png", "c.png"]
    told = {
        "gamma_schedule": "cosine", "gamma_end_share": 0.5, "site_gammas": [0.5, 1.0], "grid": "stride",
        "solver": "ddim", "inversion": "ddim", "blend": "outputs",
    }  # fmt: skip
    assert told.items() <= masked.items()
    assert told.items() <= plain.items()
    assert (masked["style_images"], masked["style_weights"]) == (["a.png", "b.png"], [0.7, 0.3])
    assert (plain["style_images"], plain["style_weights"]) == (["c.png"], [1.0])
    assert (masked["mask_id"], plain["mask_id"]) == ("mask_a.png", "")
    with tarfile.open(next(output.glob("data/*.tar"))) as tar:
        member = tar.extractfile(f"{masked['key']}.json")
        assert member is not None
        assert told.items() <= json.loads(member.read()).items()
    made = "style images a.png and b.png, style weights 0.7 and 0.3, mask id mask_a.png"
    lineage = held(output / "gallery.html")["lineage"]
    assert any(word == "made with" and made in text for one in lineage for word, text in one)
    features = yaml.safe_load((output / "README.md").read_text().split("---")[1])["dataset_info"]
    fields = next(f["struct"] for f in features["features"] if f["name"] == "json")
    assert {"name": "style_weights", "list": "float64"} in fields


def test_a_run_without_them_has_the_columns_that_it_had(folder: Path) -> None:
    planned = plan(spec(folder, "styles/c.csv"))
    assert planned.input_columns == ()
    assert "columns" not in planned.identity


def test_listed_pairs_name_blends_and_masked_contents(folder: Path) -> None:
    (folder / "pairs.csv").write_text(
        "content,style,label\nb.png,dusk,\na.png,dawn,cat\nb.png,c.png,\n"
    )
    listed = {"mode": "explicit", "path": str(folder / "pairs.csv")}
    run = spec(folder, pairing=listed)
    masks = masks_folder(folder, ("a", "b", "c"))
    run = RunSpec.model_validate(run.model_dump() | {"contents": masks})
    planned = plan(run)
    assert [row.id for row in planned.images(1)] == ["c.png", "dawn", "dusk"]
    assert planned.evaluations == 2 * (2 + 3 + 3)  # contents a b, images a b c, pairs
    assert planned.digest != plan(spec(folder, pairing=listed)).digest
    rows = {
        (row["content_id"], row["style_id"]): row for row in records(stylebatch.run(run).output)
    }
    assert list(rows) == [("a.png", "dawn"), ("b.png", "c.png"), ("b.png", "dusk")]
    assert {row["status"] for row in rows.values()} == {"success"}
    assert [row["row"] for row in rows.values()] == [2, 3, 1]
    dawn = rows["a.png", "dawn"]
    assert (dawn["style_weights"], dawn["label"]) == ([0.7, 0.3], "cat")
    assert dawn["mask_id"].endswith("masks/a.webp")


def test_a_pair_that_names_no_style_is_told_by_row(folder: Path) -> None:
    (folder / "pairs.csv").write_text("content,style\na.png,dawn\na.png,dask\n")
    listed = {"mode": "explicit", "path": str(folder / "pairs.csv")}
    with pytest.raises(ManifestError, match=r"row 2: style: found 'dask'; did you mean 'dusk'\?"):
        plan(spec(folder, pairing=listed))


def test_the_example_plans_two_blends_of_four_images() -> None:
    planned = plan(stylebatch.load_spec(MANIFESTS / "blends.yaml"))
    assert [row.id for row in planned.images(1)] == [
        "night and carpet", "bridge and fireworks", "styles/starry_night.jpg",
    ]  # fmt: skip
    assert planned.evaluations == 16 * (6 + 4 + 18)


def test_a_cache_holds_the_images_and_gives_the_same_pictures(folder: Path) -> None:
    held = spec(folder, features={"source": "held", "codec": "x"})
    stylebatch.run(held)
    cache = {"source": "cached", "codec": "x", "cache": str(folder / "cache")}
    cached = spec(folder, features=cache, output=output(folder / "cached"))
    stylebatch.run(cached)
    assert len(list((folder / "cache").glob("*.tar"))) == 3  # a, b, c
    structure = [[row["structure"] for row in records(folder / name)] for name in ("out", "cached")]
    assert structure[0] == pytest.approx(structure[1], abs=1e-2)


def with_masks(folder: Path, masks: dict[str, Image.Image]) -> None:
    rows = ["path,mask"]
    for name in ("a.png", "b.png", "c.png"):
        mask = masks.get(name)
        if mask is not None:
            mask.save(folder / "contents" / f"mask_{name}")
        rows.append(f"{name},{f'mask_{name}' if mask is not None else ''}")
    (folder / "contents" / "contents.csv").write_text("\n".join(rows) + "\n")


def test_a_mask_changes_its_own_picture_alone(folder: Path) -> None:
    left = Image.new("L", (40, 40))
    left.paste(255, (0, 0, 20, 40))
    with_masks(folder, {"a.png": left})
    stylebatch.run(spec(folder, "styles/c.csv", contents="contents/contents.csv"))
    stylebatch.run(spec(folder, "styles/c.csv", output=output(folder / "plain")))
    masked, whole = (pictures(folder / name) for name in ("out", "plain"))
    for content in ("b.png", "c.png"):
        assert np.abs(masked[content] - whole[content]).max() <= 2
    assert np.abs(masked["a.png"] - whole["a.png"]).mean() > 4


def test_a_mask_of_other_proportions_is_a_failed_sample(folder: Path) -> None:
    with_masks(folder, {"a.png": Image.new("L", (40, 30))})
    listed = images(folder / "contents" / "contents.csv", "contents")
    with pytest.raises(SampleError, match=r"mask of a.png: 40 x 30 pixels; accepted: the prop"):
        load_input(listed.items[0], listed.sources, 32, ImageSpec())


def masks_folder(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """`contents` with a folder of masks whose left halves are white, and labels as folders."""
    left = Image.new("L", (40, 40))
    left.paste(255, (0, 0, 20, 40))
    for name in names:
        (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        left.save(folder / "masks" / f"{name}.webp", lossless=True)
    return {"path": str(folder / "contents"), "masks": str(folder / "masks")}


def masks_of(source: ContentSpec) -> list[str]:
    return [Path(item.mask.place).name for item in list_contents(source).items if item.mask]


def test_a_folder_of_masks_is_that_of_rows(folder: Path) -> None:
    source = ContentSpec(**masks_folder(folder, ("a", "b", "c", "of-no-content")))
    assert masks_of(source) == ["a.webp", "b.webp", "c.webp"]
    (folder / "contents" / "contents.csv").write_text("path,mask\na.png,b.png\nc.png,\n")
    table = source.model_copy(update={"path": str(folder / "contents" / "contents.csv")})
    assert masks_of(table) == ["b.png", "c.webp"]
    plain = spec(folder, "styles/c.csv")
    planned = plan(RunSpec.model_validate(plain.model_dump() | {"contents": source}))
    assert planned.input_columns == ("mask_id",)
    assert planned.identity["inputs"] != plan(plain).identity["inputs"]


def test_contents_without_a_mask_are_named(folder: Path) -> None:
    source = ContentSpec(**masks_folder(folder, ("a",)))
    with pytest.raises(
        ManifestError, match=r"for 2 of 3 contents \(b.png, c.png\).*such as .*b.png"
    ):
        list_contents(source)
    Image.new("L", (40, 40)).save(folder / "masks" / "a.png")
    with pytest.raises(ManifestError, match=r"found a.png and a.webp, which name one content"):
        list_contents(source)
    with pytest.raises(ManifestError, match=r"contents.masks: found no folder .*nowhere"):
        list_contents(source.model_copy(update={"masks": str(folder / "nowhere")}))


def test_masks_for_an_output_that_grows_without_are_refused(folder: Path) -> None:
    (folder / "contents" / "contents.csv").write_text("path\na.png\n")
    run = spec(folder, "styles/c.csv", contents="contents/contents.csv")
    stylebatch.run(run)
    (folder / "contents" / "contents.csv").write_text("path,mask\na.png,\nb.png,c.png\n")
    with pytest.raises(PlanChangedError, match="further columns mask_id, the former have none"):
        stylebatch.run(run)


def test_styles_take_no_masks(folder: Path) -> None:
    table = folder / "styles" / "other.jsonl"
    table.write_text(json.dumps({"path": "a.png", "mask": "b.png"}) + "\n")
    (style,) = images(table, "styles").items
    assert style.mask is None
    assert style.extra == {"mask": "b.png"}
