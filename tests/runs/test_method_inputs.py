"""What a user's method is given and gives back beside `render`: masks, the images of blends, prepared images, finished pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stylebatch
from stylebatch import RunSpec
from stylebatch.errors import ManifestError, StylebatchError
from stylebatch.methods.pixels import to_pixels, to_tensor
from stylebatch.models.loading import load_model
from stylebatch.planning.resolve import plan
from tests.support.images import picture
from tests.support.samples import pixels_of, samples_of

LAID = """import torch
from stylebatch import PairMethod


class Laid(PairMethod):
    takes_masks = True
    takes_blends = True

    def render(self, model, pairs, *, batch):
        done = []
        for part in pairs.split(2):
            styles = torch.stack([sum(share * x for share, x in one) for one in part.parts])
            done.append(part.contents + part.masks * (styles - part.contents))
        return torch.cat(done)
"""
STYLES = (
    "blend,path,weight\ndawn,a.png,0.7\ndawn,b.png,0.3\n,c.png,\ndusk,c.png,0.25\ndusk,b.png,0.75\n"
)
WEIGHTS = {"dawn": {"a": 0.7, "b": 0.3}, "c.png": {"c": 1.0}, "dusk": {"c": 0.25, "b": 0.75}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Contents of which `b` has a mask with a white left half; styles of which two are blends that share an image."""
    for side, first in (("contents", 0), ("styles", 7)):
        (tmp_path / side).mkdir()
        for i, name in enumerate("abc"):
            picture(first + i, 32, 32).save(tmp_path / side / f"{name}.png")
    left = Image.new("L", (32, 32))
    left.paste(255, (0, 0, 16, 32))
    left.save(tmp_path / "contents" / "left.png")
    (tmp_path / "contents" / "rows.csv").write_text("path,mask\na.png,\nb.png,left.png\nc.png,\n")
    (tmp_path / "styles" / "rows.csv").write_text(STYLES)
    return tmp_path


def spec(folder: Path, code: str = LAID, **changes: Any) -> RunSpec:
    (folder / "laid.py").write_text(code)
    return RunSpec.model_validate(
        {
            "contents": {"path": str(folder / "contents" / "rows.csv")},
            "styles": {"path": str(folder / "styles" / "rows.csv")},
            "method": {"path": f"{folder}/laid.py:Laid", "steps": 1},
            "image": {"size": 32},
            "engine": {"threads": 1},
            "output": {"path": str(folder / "out"), "image": {"format": "png"}},
            **changes,
        }
    )


def test_masks_and_the_images_of_blends_reach_the_method(folder: Path) -> None:
    run = spec(folder)
    assert stylebatch.run(run).exit_code == 0
    model = load_model(run.model)

    def encoded(side: str, name: str) -> torch.Tensor:
        return model.encode(to_tensor([np.asarray(Image.open(folder / side / f"{name}.png"))]))

    samples = samples_of(folder / "out")
    assert len(samples) == 9
    for sample in samples:
        record = json.loads(sample["json"])
        parts = WEIGHTS[record["style_id"]].items()
        style = torch.stack([share * encoded("styles", one) for one, share in parts]).sum(dim=0)
        content = encoded("contents", record["content_id"][0])
        if record["content_id"] == "b.png":
            half = content.shape[-1] // 2
            style = torch.cat([style[..., :half], content[..., half:]], dim=-1)
        (expected,) = to_pixels(model.decode(style))
        # batches of other sizes differ in the last bits
        found = pixels_of(sample["png"]).astype(int)
        assert np.abs(found - expected.astype(int)).max() <= 1, sample["__key__"]


def test_they_are_refused_where_the_method_does_not_say_that_it_heeds_them(folder: Path) -> None:
    for flag, refusal in (
        ("takes_masks", "contents: b.png: found a mask"),
        ("takes_blends", "styles: dawn: found a blend"),
    ):
        with pytest.raises(ManifestError, match=refusal):
            plan(spec(folder, LAID.replace(f"    {flag} = True\n", "")))


def test_a_flag_that_would_not_be_heeded_is_refused(folder: Path) -> None:
    for line, accepted in (
        ("keeps_features = True", "False"),
        ("takes_masks = 1", "True or False"),
        ("takes_blends = None", "True or False"),
    ):
        flag, value = line.split(" = ")
        was = f"{flag} = True" if flag in LAID else "takes_masks = True"
        with pytest.raises(ValueError, match=f"{flag}: found {value}; accepted: {accepted}"):
            spec(folder, LAID.replace(was, line))


NEGATIVE = """from stylebatch import PromptMethod


class Laid(PromptMethod):
    inputs = ("image", "mask")

    def prepare(self, model, images, *, batch):
        with open(__file__ + ".log", "a") as file:
            file.write(f"{len(images['image'])} ")
        return {"start": model.encode(images["image"]) * (images["mask"].mean() > 0)}

    def render(self, model, samples, *, batch):
        assert set(samples.images) == {"start"}
        return samples.images["start"]

    def finished(self, pixels, original, mask):
        return 255 - pixels if mask.any() and original.shape == pixels.shape else pixels
"""


def over_images(folder: Path, code: str = NEGATIVE) -> RunSpec:
    prompts = {"template": "a {look}", "values": {"look": ["b", "c", "d"]}}
    rows = folder / "contents" / "rows.csv"
    rows.write_text("path,mask\na.png,left.png\nb.png,left.png\n")
    return spec(folder, code, prompts=prompts, styles=None)


def test_an_image_is_prepared_once_for_its_prompts_and_its_pictures_are_finished(
    folder: Path,
) -> None:
    run = over_images(folder)
    assert stylebatch.run(run).exit_code == 0
    assert (folder / "laid.py.log").read_text().split() == ["2"]  # and three prompts with each
    model, samples = load_model(run.model), samples_of(folder / "out")
    assert len(samples) == 6
    for sample in samples:
        name = json.loads(sample["json"])["image"]
        image = to_tensor([np.asarray(Image.open(folder / "contents" / name))])
        (expected,) = to_pixels(model.decode(model.encode(image)))
        found = pixels_of(sample["png"]).astype(int)
        assert np.abs(255 - found - expected.astype(int)).max() <= 1


STARTS = '{"start": model.encode(images["image"]) * (images["mask"].mean() > 0)}'


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        (STARTS, "[1, 2]", "prepare returned list; accepted: a dict of tensors by name"),
        (STARTS, '{"start": images["mask"][:1]}', r"prepare returned start: \(1, .* of 2 images"),
        (STARTS, '{"start": None}', "prepare returned start: NoneType; accepted: a tensor with a"),
        ("255 - pixels", "pixels[:8]", r"finished returned \(8, 32, 3\) uint8; accepted: "),
        ("255 - pixels", "pixels / 255", r"finished returned .* float64; accepted: .* uint8"),
    ],
)
def test_what_a_member_returns_is_named_where_it_is_wrong(
    folder: Path, was: str, becomes: str, told: str
) -> None:
    assert was in NEGATIVE
    with pytest.raises(StylebatchError, match=rf"laid\.py:\d+: method laid: {told}"):
        stylebatch.run(over_images(folder, NEGATIVE.replace(was, becomes)))
