"""Every example manifest runs on the embedded model, in fewer steps, and shows what it is there to show, and so does docs/python.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipelines.embedded.prompts import detail
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.quality.measures import lab_color_distance
from tests.support.samples import pixels_of, samples_of

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
STEPS = {"blends": 2, "img2img": 3, "panorama": 2, "stylealigned": 2, "stylealigned_reference": 2}
EXAMPLES = sorted(path.stem for path in MANIFESTS.glob("*.yaml") if path.stem != "demo")


def test_the_examples_are_these() -> None:
    names = ["img2img", "inpaint", "panorama", "stylealigned", "stylealigned_reference", "text2img"]
    assert ["blends", *names] == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_example_takes_longer_than_the_demo(name: str) -> None:
    assert plan(load_spec(MANIFESTS / f"{name}.yaml")).evaluations <= 2500


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_runs(name: str, tmp_path: Path) -> None:
    overrides = [f"method.steps={STEPS.get(name, 5)}", "engine.threads=1"]
    if name == "panorama":
        overrides.append("image.width=256")
    if name == "stylealigned_reference":
        overrides += ["method.offset=1", f"features.cache={tmp_path / 'cache'}"]
    spec = load_spec(MANIFESTS / f"{name}.yaml", overrides, output=str(tmp_path / "out"))
    result = run(spec)
    assert (result.exit_code, result.report.num_failed) == (0, 0)
    samples = samples_of(result.output)
    records = [json.loads(sample["json"]) for sample in samples]
    pictures = [pixels_of(sample["jpg"]) for sample in samples]
    assert all(picture.std() > 5 for picture in pictures)
    if name == "text2img":
        by_look = {
            word: np.mean(
                [
                    detail(p[None].astype(float))
                    for p, r in zip(pictures, records, strict=True)
                    if word in r["prompt"]
                ]
            )
            for word in ("hatching", "poster")
        }
        assert by_look["hatching"] > by_look["poster"]
    if name == "img2img":
        assert np.mean([record["structure"] for record in records]) > 0.2
    if name == "inpaint":
        kept, made = [], []
        for sample, picture in zip(samples, pictures, strict=True):
            given, mask = pixels_of(sample["image.jpg"]), pixels_of(sample["mask.jpg"])[..., 0]
            change = np.abs(given.astype(float) - picture).mean(axis=-1)
            kept.append(change[mask < 5].mean())
            made.append(change[mask > 250].mean())
        # kept latents are exact; their pixels move with the statistics of the decoder's group norms
        assert np.mean(kept) < 20 < np.mean(made)
        assert all(k < m for k, m in zip(kept, made, strict=True))
    if name == "panorama":
        assert {picture.shape for picture in pictures} == {(128, 256, 3), (128, 128, 3)}
    if name == "stylealigned_reference":
        assert {record["style"] for record in records} == {"starry night", "rock"}
        assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


@pytest.mark.slow
def test_sets_are_nearer_to_their_reference_than_to_that_of_another(tmp_path: Path) -> None:
    overrides = ["method.steps=10", "engine.threads=1"]
    spec = load_spec(MANIFESTS / "stylealigned.yaml", overrides, output=str(tmp_path / "out"))
    samples = samples_of(run(spec).output)
    records = [json.loads(sample["json"]) for sample in samples]
    references = {
        record["style"]: pixels_of(sample["reference.jpg"])
        for sample, record in zip(samples, records, strict=True)
    }
    own, others = [], []
    for sample, record in zip(samples, records, strict=True):
        if record["id"] == record["reference"]:
            continue
        for style, reference in references.items():
            distance = lab_color_distance(reference, pixels_of(sample["jpg"]))
            (own if style == record["style"] else others).append(distance)
    assert np.mean(own) < np.mean(others)


def test_low_level_example_gives_a_stylised_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(
        r"<!-- low-level -->\n```python\n(.*?)```",
        (ROOT / "docs/python.md").read_text("utf-8"),
        re.DOTALL,
    )
    assert found is not None
    code = found.group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(ROOT)
    scope: dict[str, object] = {}
    exec(code, scope)
    (pixels,) = scope["pixels"]  # type: ignore[misc]
    assert isinstance(pixels, np.ndarray)
    assert (pixels.shape, pixels.dtype) == ((128, 128, 3), np.uint8)
    assert pixels.std() > 20
