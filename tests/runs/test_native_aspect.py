"""Runs whose images keep their own proportions: whole pictures, buckets, growth, the same bytes in any order of work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylebatch.data.images import fit
from stylebatch.engine.run import run
from stylebatch.engine.worker import Worker
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.runs import digests
from tests.support.samples import pixels_of, samples_of

CONTENTS = {"wide": (90, 60), "square": (64, 64), "tall": (60, 90), "wider": (180, 120)}
STYLES = {"flat": (100, 40), "high": (40, 100), "even": (50, 50)}
FITTED = {(90, 60): (96, 64), (64, 64): (64, 64), (60, 90): (64, 96), (180, 120): (96, 64)}
"""Of about 64 x 64 pixels with sides that are multiples of 32."""


def _write(folder: Path, side: str, sizes: dict[str, tuple[int, int]]) -> None:
    (folder / side).mkdir(exist_ok=True)
    for number, (name, size) in enumerate(sizes.items()):
        picture(len(side) + number, *size).save(folder / side / f"{name}.png")


def _manifest(folder: Path, **sections: Any) -> Path:
    _write(folder, "contents", CONTENTS)
    _write(folder, "styles", STYLES)
    data = {
        "name": "aspect",
        "contents": {"path": "contents"},
        "styles": {"path": "styles"},
        "method": {"name": "styleid", "steps": 2},
        "image": {"size": 64, "mode": "fit"},
        "engine": {"name": "local", "threads": 1, "batch": 3},
        "output": {"path": str(folder / "out"), "shard_size": 4, "image": {"format": "png"}},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(data | sections))
    return path


def _without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.png").unlink()


def test_pictures_come_out_whole_in_sizes_of_their_own(tmp_path: Path) -> None:
    spec = load_spec(_manifest(tmp_path))
    resolved = plan(spec)
    assert resolved.sample_sizes == ((64, 64), (64, 96), (96, 64))
    assert "3 sizes, 64 x 64 to 96 x 64 px" in resolved.lines()[0]
    assert "sizes of contents: 4 read from headers" in resolved.notes
    result = run(spec)
    assert result.report.evaluations == resolved.evaluations
    assert not list(verify(result.output))
    samples = samples_of(result.output)
    assert len(samples) == 12
    for sample in samples:
        record = json.loads(sample["json"])
        name = Path(record["content_id"]).stem
        width, height = FITTED[CONTENTS[name]]
        assert (record["width"], record["height"]) == (width, height)
        assert (record["original_width"], record["original_height"]) == CONTENTS[name]
        assert pixels_of(sample["png"]).shape == (height, width, 3)
        # nothing is cut off: the content is the whole picture, resized
        with Image.open(tmp_path / "contents" / f"{name}.png") as image:
            whole = fit(image.convert("RGB"), (width, height), "resize")
        kept = pixels_of(sample["content.jpg"]).astype(int)
        assert np.abs(kept - whole).mean() < 4
        style = pixels_of(sample["style.jpg"])
        assert (
            style.shape[1] / style.shape[0]
            == {"flat": 3.0, "high": 1 / 3, "even": 1.0}[Path(record["style_id"]).stem]
        )
        assert -1 <= record["structure"] <= 1


def test_bytes_do_not_depend_on_who_renders_which_shard_when(tmp_path: Path) -> None:
    spec = load_spec(_manifest(tmp_path, pairing={"mode": "sample", "per_content": 2}))
    whole = run(spec).output
    resolved = plan(spec)
    assert resolved.num_shards > 2
    with Worker(resolved, Folder.at(tmp_path / "again"), threads=1) as worker:
        for shard in reversed(resolved.shards):
            worker.render(shard)
    again = digests(tmp_path / "again")
    assert again == {name: sha for name, sha in digests(whole).items() if name in again}
    assert len([name for name in again if name.endswith(".tar")]) == resolved.num_shards


def test_an_output_grows_by_pictures_of_other_sizes(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    _without(tmp_path, "styles/flat", "contents/wider")
    first = run(load_spec(manifest)).output
    before = digests(first)
    picture(40, 120, 40).save(tmp_path / "contents" / "added.png")
    picture(41, 40, 60).save(tmp_path / "contents" / "also.png")
    result = run(load_spec(manifest))
    assert result.exit_code == 0
    assert digests(first).items() >= before.items()
    assert len(samples_of(first)) == 10
    assert not list(verify(first))


def test_a_picture_of_another_size_under_a_known_name_is_refused(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    _without(tmp_path, "styles/flat", "styles/high", "contents/wider")
    assert run(load_spec(manifest)).exit_code == 0
    picture(40, 120, 40).save(tmp_path / "contents" / "wide.png")
    with pytest.raises(PlanChangedError, match=r"size or option than before \(wide\.png\)"):
        run(load_spec(manifest))


def test_a_broken_picture_fails_its_samples_alone(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, max_failed_fraction=1.0)
    _without(tmp_path, "styles/flat", "styles/high", "contents/wider")
    (tmp_path / "contents" / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    result = run(load_spec(manifest))
    assert (result.report.num_success, result.report.num_failed) == (3, 1)


def test_a_picture_that_is_mended_keeps_its_place(tmp_path: Path) -> None:
    """It was planned without a size, and is fitted to that of the run."""
    manifest = _manifest(tmp_path, max_failed_fraction=1.0)
    _without(tmp_path, "styles/flat", "styles/high", "contents/wider")
    (tmp_path / "contents" / "broken.png").write_bytes(b"no picture")
    first = run(load_spec(manifest))
    before = digests(first.output)
    picture(50, 90, 60).save(tmp_path / "contents" / "broken.png")
    again = run(load_spec(manifest), redo="failed")
    assert (again.report.num_success, again.report.num_failed) == (4, 0)
    assert set(digests(first.output).items()) & set(before.items())
    mended = [s for s in samples_of(first.output) if b"broken.png" in s["json"]]
    assert [pixels_of(sample["png"]).shape for sample in mended] == [(64, 64, 3)]


def test_cached_styles_keep_their_sizes(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    _without(tmp_path, "contents/tall", "contents/wider")
    held = run(load_spec(manifest)).output
    features = {"cache": str(tmp_path / "cache"), "source": "cached", "codec": "kv"}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"features": features}))
    for name in ("written", "read"):
        spec = load_spec(manifest, output=str(tmp_path / name))
        cached = run(spec).output
        pairs = zip(samples_of(held), samples_of(cached), strict=True)
        for one, other in pairs:
            off = np.abs(pixels_of(one["png"]).astype(int) - pixels_of(other["png"]))
            assert off.max() <= 2


@pytest.mark.parametrize("method", ["img2img", "inpaint"])
def test_prompts_take_the_size_of_their_image(tmp_path: Path, method: str) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, size in CONTENTS.items():
        Image.new("L", size, 255).save(masks / f"{name}.png")
    contents = {"path": "contents"} | ({"masks": "masks"} if method == "inpaint" else {})
    manifest = _manifest(
        tmp_path, contents=contents, method={"name": method, "steps": 2, "guidance": 1},
        prompts={"template": "a {x}", "values": {"x": ["cat", "dog"]}},
    )  # fmt: skip
    data = json.loads(manifest.read_text())
    del data["styles"]
    manifest.write_text(json.dumps(data))
    result = run(load_spec(manifest))
    assert result.report.num_success == 8
    for sample in samples_of(result.output):
        record = json.loads(sample["json"])
        size = FITTED[CONTENTS[Path(record["image"]).stem]]
        assert (record["width"], record["height"]) == size == pixels_of(sample["png"]).shape[1::-1]


def test_a_set_takes_the_size_of_its_reference(tmp_path: Path) -> None:
    _write(tmp_path, "styles", STYLES)
    rows = "\n".join(
        ("prompt,style,reference,reference_prompt", "a cat,a,styles/flat.png,waves", "a dog,a,styles/flat.png,waves",
         "a cat,b,,", "a dog,b,,")
    )  # fmt: skip
    (tmp_path / "rows.csv").write_text(rows + "\n")
    data = {
        "name": "sets",
        "prompts": {"path": "rows.csv"},
        "method": {"name": "stylealigned", "steps": 2},
        "image": {"size": 64, "mode": "fit"},
        "engine": {"name": "local", "threads": 1},
        "output": {"path": str(tmp_path / "out"), "image": {"format": "png"}},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    result = run(load_spec(tmp_path / "run.yaml"))
    sizes = {
        (json.loads(sample["json"])["style"], pixels_of(sample["png"]).shape[1::-1])
        for sample in samples_of(result.output)
    }
    assert sizes == {("a", (96, 32)), ("b", (64, 64))}


def test_padding_is_recorded(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, image={"size": 64, "mode": "pad"})
    samples = samples_of(run(load_spec(manifest)).output)
    paddings = {}
    for sample in samples:
        record = json.loads(sample["json"])
        sides = [record[f"pad_{side}"] for side in ("left", "top", "right", "bottom")]
        # grey beside a style would be part of its look
        with Image.open(tmp_path / "styles" / record["style_id"]) as style:
            middle = fit(style.convert("RGB"), 64, "center_crop")
        assert np.abs(pixels_of(sample["style.jpg"]).astype(int) - middle).mean() < 4
        paddings[Path(record["content_id"]).stem] = sides
    assert paddings == {
        "wide": [0, 10, 0, 11], "square": [0, 0, 0, 0], "tall": [10, 0, 11, 0], "wider": [0, 10, 0, 11]
    }  # fmt: skip


def test_methods_with_one_size_refuse(tmp_path: Path) -> None:
    windows = {"name": "text2img", "windows": {"stride": 4}}
    data = {
        "prompts": {"template": "a"},
        "method": windows,
        "image": {"size": 64, "mode": "keep"},
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    with pytest.raises(ManifestError, match=r"image\.mode: found keep with method\.windows"):
        plan(load_spec(tmp_path / "run.yaml"))


@pytest.mark.parametrize("mode", ["fit", "pad"])
def test_boxes_follow_their_pictures_in_every_split(tmp_path: Path, mode: str) -> None:
    """A box over the left upper quarter stays there, whatever the size; no split mixes sizes in a batch."""
    manifest = _manifest(tmp_path, image={"size": 64, "mode": mode}, split={"validation": 0.5})
    _without(tmp_path, "styles/flat", "styles/high")
    images: list[dict[str, Any]] = [
        {"id": number, "file_name": f"{name}.png", "width": width, "height": height}
        for number, (name, (width, height)) in enumerate(CONTENTS.items(), 1)
    ]
    boxes = [
        {
            "id": one["id"],
            "image_id": one["id"],
            "category_id": 1,
            "bbox": [0, 0, one["width"] / 2, one["height"] / 2],
        }
        for one in images
    ]
    coco = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": boxes}
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    contents = {"path": "contents", "annotations": "instances.json"}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"contents": contents}))
    spec = load_spec(manifest)
    resolved = plan(spec)
    told = [note for note in resolved.notes if note.startswith("sizes of contents")]
    assert told == (["sizes of contents: 4 read from headers"] if mode == "fit" else [])
    samples = samples_of(run(spec).output)
    assert len(samples) == 4
    for sample in samples:
        record = json.loads(sample["json"])
        ((x, y, width, height),) = record["objects"]["bbox"]
        padding = [record.get(f"pad_{side}", 0) for side in ("left", "top", "right", "bottom")]
        inner = (
            record["width"] - padding[0] - padding[2],
            record["height"] - padding[1] - padding[3],
        )
        assert (x, y) == tuple(padding[:2])
        assert (width, height) == pytest.approx((inner[0] / 2, inner[1] / 2))
