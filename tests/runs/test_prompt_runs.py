"""Whole runs of prompts: what is written, resume, failures, cost, and equality with the methods themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.embedded.picture_distances import psnr
from stylebatch.data.images import load_picture
from stylebatch.engine.repair import repair
from stylebatch.engine.run import RunResult, run
from stylebatch.errors import PlanChangedError
from stylebatch.manifest import load_spec
from stylebatch.methods.builtin import Text2Img
from stylebatch.methods.pixels import to_pixels
from stylebatch.methods.samples import Samples
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.resolve import plan
from stylebatch.store.verify import verify
from tests.support.images import picture
from tests.support.planned import prompts_planned
from tests.support.prompt_runs import METHODS, OPTIONS, write_prompts
from tests.support.runs import digests
from tests.support.samples import pixels_of, samples_of


@pytest.fixture(scope="module", params=METHODS)
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, eps_folder: Path
) -> tuple[str, Path, RunResult]:
    """(kind, folder, result) of an undisturbed run of each method."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, run(load_spec(write_prompts(folder, request.param, eps_folder)))


REMEMBERED = {
    "text2img": {"prompts"},
    "img2img": {"prompts", "images", "cells", "files"},
    "inpaint": {"prompts", "images", "cells", "files"},
    "stylealigned": {"prompts", "sets"},
    "reference": {"prompts", "sets", "files"},
    "panorama": {"prompts", "sets"},
}
"""What an output keeps of its inputs."""


def test_every_row_is_one_sample(done: tuple[str, Path, RunResult]) -> None:
    kind, folder, result = done
    resolved = plan(load_spec(folder / "run.yaml"))
    samples = samples_of(result.output)
    records = [json.loads(sample["json"]) for sample in samples]
    assert (result.exit_code, len(samples)) == (0, resolved.grid.num_samples)
    assert [record["prompt"] for record in records] == [
        row.prompt for row in prompts_planned(resolved)
    ]
    assert len({tuple((k, type(v).__name__) for k, v in record.items()) for record in records}) == 1
    members = {"jpg", "json", "txt", *resolved.options.input_members} | (
        {"cls"} if resolved.labels else set()
    )
    for sample, record in zip(samples, records, strict=True):
        assert None not in record.values()
        assert {name for name in sample if not name.startswith("__")} == members
        assert pixels_of(sample["jpg"]).shape == (record["height"], record["width"], 3)
        assert record["contrast"] > 1
    assert len({sample["jpg"] for sample in samples}) == len(samples)
    assert result.report.evaluations == resolved.evaluations
    assert list(verify(result.output)) == []
    inputs = {path.stem for path in (result.output / "inputs").glob("*")}
    assert inputs == REMEMBERED[kind]


def test_labels_captions_and_options_are_carried(done: tuple[str, Path, RunResult]) -> None:
    kind, _, result = done
    samples = samples_of(result.output)
    first = json.loads(samples[0]["json"])
    assert (first["method"], first["steps"], first["guidance"]) == (OPTIONS[kind]["name"], 3, 3.0)
    if kind == "text2img":
        assert [int(sample["cls"]) for sample in samples] == [0, 1, -1]
        assert (first["seed"], samples[0]["txt"]) == (3, b"a cat")
        assert json.loads(samples[1]["json"])["negative_prompt"] == "blurred"
    if kind == "img2img":
        assert (first["strength"], first["original_width"]) == (0.7, 96)
        assert -1.0 < first["structure"] < 1.0
    if kind == "inpaint":
        assert samples[0]["txt"] == b"half a cat"
        given, made = (pixels_of(samples[0][name]) for name in ("image.jpg", "jpg"))
        assert np.abs(given[:, :48].astype(float) - made[:, :48]).mean() > 10
    if kind == "panorama":
        widths = [json.loads(sample["json"])["width"] for sample in samples]
        assert widths == [128, 256, 256]  # the reference has the size of a window
    if kind in ("stylealigned", "panorama"):
        assert first["reference"] == first["id"]
        assert first["color_distance"] < 1  # its own reference, but for the encoding


def test_reports_and_loaders_take_it(done: tuple[str, Path, RunResult], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    _, _, result = done
    loaded = datasets.load_dataset(str(result.output), cache_dir=str(tmp_path))["train"]
    assert loaded.num_rows == result.report.num_success
    assert type(loaded[0]["json"]["guidance"]) is float
    with Image.open(result.output / "contact_sheet.png") as sheet:
        assert sheet.width >= 256
    page = (result.output / "gallery.html").read_text()
    assert "a cat" in page
    assert f"{result.report.num_success} of {result.report.num_success} samples rendered" in page
    card = (result.output / "README.md").read_text()
    assert f"{result.report.num_success} samples from " in card
    errors = pq.read_table(result.output / "metadata" / "errors.parquet")
    assert (errors.num_rows, "prompt" in errors.column_names) == (0, True)


def test_resume_and_repair_give_the_same_bytes(
    done: tuple[str, Path, RunResult], tmp_path: Path
) -> None:
    _, folder, result = done
    expected = digests(result.output)
    output = tmp_path / "out"
    shutil.copytree(result.output, output)
    (output / "metadata" / "train-00000_stats.json").unlink()
    again = run(load_spec(folder / "run.yaml", output=str(output)))
    assert again.num_attempted == plan(load_spec(folder / "run.yaml")).shard_size(0)
    assert digests(output) == expected
    tar = output / "data" / "train-00000.tar"
    tar.write_bytes(tar.read_bytes()[:-1000])
    assert list(verify(output))
    repair(output)
    assert digests(output) == expected


def test_a_changed_prompt_or_option_is_refused(tmp_path: Path, eps_folder: Path) -> None:
    path = write_prompts(tmp_path, "text2img", eps_folder)
    run(load_spec(path))
    with pytest.raises(PlanChangedError, match=r"method\.guidance"):
        run(load_spec(path, ["method.guidance=4"]))
    rows = tmp_path / "rows.csv"
    rows.write_text(rows.read_text().replace("a dog", "a wolf"))
    with pytest.raises(PlanChangedError, match="prompts"):
        run(load_spec(path))


def test_a_run_is_the_method_itself(
    tmp_path: Path, eps_folder: Path, eps_model: StableDiffusion
) -> None:
    image = {"format": "png"}
    output = {"path": str(tmp_path / "out"), "shard_size": 2, "image": image}
    path = write_prompts(tmp_path, "text2img", eps_folder, output=output)
    result = run(load_spec(path))
    method = Text2Img(steps=3, guidance=3.0, scheduler="euler_ancestral")
    seeds = tuple(json.loads(sample["json"])["seed"] for sample in samples_of(result.output))
    side = 128 // eps_model.latent_factor
    asked = Samples(("a cat", "a dog", "a bird"), (None, "blurred", None), seeds, (4, side, side))
    expected = to_pixels(eps_model.decode(method.render(eps_model, asked)))
    for sample, pixels in zip(samples_of(result.output), expected, strict=True):
        assert np.abs(pixels_of(sample["png"]).astype(int) - pixels).max() <= 1


def test_a_bad_image_costs_only_its_sample(tmp_path: Path, eps_folder: Path) -> None:
    path = write_prompts(tmp_path, "inpaint", eps_folder, max_failed_fraction=1.0)
    picture(5, 40, 40).convert("L").save(tmp_path / "small.png")
    (tmp_path / "torn.png").write_bytes(b"not a picture")
    (tmp_path / "rows.csv").write_text(
        "prompt,image,mask\na cat,0.png,half.png\na dog,0.png,small.png\na bird,torn.png,half.png\n"
        "a fish,none.png,half.png\na hen,1.png,half.png\n"
    )
    result = run(load_spec(path))
    assert (result.report.num_success, result.report.num_failed) == (2, 3)
    errors = pq.read_table(result.output / "metadata" / "errors.parquet").to_pylist()
    assert [(row["prompt"], row["error_code"]) for row in errors] == [
        ("a dog", "mask"),
        ("a bird", "decode"),
        ("a fish", "missing"),
    ]
    assert errors[0]["error_message"] == (
        "rows.csv: row 2: mask of 0.png: 40 x 40 pixels; accepted: the proportions of its image, 96 x 80"
    )
    assert errors[2]["error_message"] == "rows.csv: row 4: none.png: no such file"
    assert "decode" in (result.output / "gallery.html").read_text()
    (tmp_path / "half.png").unlink()
    assert run(load_spec(path, output=str(tmp_path / "none"))).report.num_success == 0


def test_a_reference_that_cannot_be_read_costs_its_set(tmp_path: Path, eps_folder: Path) -> None:
    path = write_prompts(tmp_path, "reference", eps_folder, max_failed_fraction=1.0)
    (tmp_path / "0.png").write_bytes(b"")
    result = run(load_spec(path))
    assert (result.report.num_success, result.report.failures) == (1, {"decode": 2})


def test_a_set_larger_than_a_batch_gives_the_same_images(tmp_path: Path, eps_folder: Path) -> None:
    found = []
    for batch in (16, 4):
        path = write_prompts(tmp_path / str(batch), "stylealigned", eps_folder)
        spec = load_spec(path, [f"engine.batch={batch}", "output.image.format=png"])
        assert plan(spec).grid.num_blocks == {16: 3, 4: 4}[batch]
        found.append([pixels_of(sample["png"]) for sample in samples_of(run(spec).output)])
    for one, other in zip(*found, strict=True):
        assert psnr(one, other) > 50


def test_references_are_inverted_once_and_kept_in_the_style_cache(
    tmp_path: Path, eps_folder: Path
) -> None:
    cache = tmp_path / "cache"
    path = write_prompts(tmp_path, "reference", eps_folder, features={"cache": str(cache)})
    bare = run(load_spec(write_prompts(tmp_path / "bare", "reference", eps_folder)))
    cold = run(load_spec(path))
    warm = run(load_spec(path, output=str(tmp_path / "warm")))
    assert digests(bare.output).keys() == digests(cold.output).keys()
    assert {k: v for k, v in digests(cold.output).items() if k.startswith("data")} == {
        k: v for k, v in digests(warm.output).items() if k.startswith("data")
    }
    assert (
        bare.report.evaluations - warm.report.evaluations == 2 * 3 * 2
    )  # two images, 3 steps, guided
    for tar in cache.glob("*.tar"):
        data = bytearray(tar.read_bytes())
        data[len(data) // 2] ^= 0xFF
        tar.write_bytes(bytes(data))
    again = run(load_spec(path, output=str(tmp_path / "again")))
    assert digests(again.output) == digests(warm.output)
    assert len(list(cache.glob("*.damaged-*"))) >= 2


def test_inpainting_may_keep_the_original_pixels(tmp_path: Path, eps_folder: Path) -> None:
    png = {"path": str(tmp_path / "out"), "image": {"format": "png"}}
    path = write_prompts(tmp_path, "inpaint", eps_folder, output=png)
    plain = samples_of(run(load_spec(path)).output)
    keep = load_spec(path, ["method.keep_original=true"], output=str(tmp_path / "kept"))
    kept = samples_of(run(keep).output)
    for one, other in zip(plain, kept, strict=True):
        fitted = np.asarray(load_picture(tmp_path / json.loads(other["json"])["image"], 128).pixels)
        drifted, exact = (pixels_of(sample["png"]) for sample in (one, other))
        assert np.array_equal(exact[:, 72:], fitted[:, 72:])
        assert not np.array_equal(drifted[:, 72:], fitted[:, 72:])
        assert np.array_equal(exact[:, :56], drifted[:, :56])
        assert json.loads(other["json"])["keep_original"] is True
        assert "keep_original" not in json.loads(one["json"])
    assert list(verify(tmp_path / "kept")) == []
