"""Pipelines of diffusers on narrow twins of SD 1.x, 2.x and XL: the pixels of runs, offloading, and what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import stylebatch
from stylebatch import StyleAlignedPipeline, StyleIDPipeline
from tests.support.images import picture
from tests.support.pipeline_runs import quiet, stylealigned_both_ways, styleid_both_ways

pytestmark = pytest.mark.slow

FAMILIES = ["sd15", "sd21", "sdxl"]
SMALL = {"height": 64, "width": 64, "num_inference_steps": 2}
GIVEN = {"image": picture(0), "style_image": picture(9), "output_type": "latent", **SMALL}


@pytest.mark.parametrize("family", FAMILIES)
def test_styleid_is_that_of_a_manifest(
    family: str, twins: Callable[[str], Path], tmp_path: Path
) -> None:
    for by_run, by_call in styleid_both_ways(tmp_path, twins(family), 64):
        assert np.array_equal(by_run, by_call)


@pytest.mark.parametrize("by_image", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_stylealigned_is_that_of_a_manifest(
    family: str, by_image: bool, twins: Callable[[str], Path], tmp_path: Path
) -> None:
    for by_run, by_call in stylealigned_both_ways(tmp_path, twins(family), 64, by_image=by_image):
        assert np.array_equal(by_run, by_call)


def test_an_xl_that_is_saved_loads_again(twins: Callable[[str], Path], tmp_path: Path) -> None:
    pipe = quiet(StyleIDPipeline.from_pretrained(twins("sdxl")))
    pipe.save_pretrained(tmp_path)
    again = quiet(StyleIDPipeline.from_pretrained(tmp_path))
    assert torch.equal(again(**GIVEN).images, pipe(**GIVEN).images)
    model = stylebatch.load_model(tmp_path, device="cpu")
    assert torch.equal(
        model.embed(["a cat"]).hidden, stylebatch.load_model(pipe).embed(["a cat"]).hidden
    )


def test_an_offloaded_xl_gives_the_same_pictures(twins: Callable[[str], Path]) -> None:
    pipe = quiet(StyleIDPipeline.from_pretrained(twins("sdxl")))
    expected = pipe(**GIVEN).images
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):  # hooks are in place for a second call
        assert torch.equal(pipe(**GIVEN).images, expected)
    pipe.remove_all_hooks()
    aligned = quiet(StyleAlignedPipeline.from_pipe(pipe))
    aligned.enable_model_cpu_offload(device="cpu")
    assert len(aligned(["a cat", "a dog"], **SMALL).images) == 2
