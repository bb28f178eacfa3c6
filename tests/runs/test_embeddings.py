"""CLIP and DINO as folders of transformers: small random ones, prepared as the library prepares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, ViTConfig, ViTModel

from stylebatch.errors import ManifestError
from stylebatch.evaluation.embeddings import Embedder
from tests.support.clip import SMALL, write_clip, write_preprocessing
from tests.support.images import picture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def test_clip_embeds_pictures_and_texts_in_one_space(clip: Path) -> None:
    embedder = Embedder(str(clip), CPU)
    image = embedder.of_image(np.asarray(picture(1)))
    text = embedder.of_text("a cat")
    assert image.shape == text.shape == (16,)
    assert not np.allclose(text, embedder.of_text("a dog"))
    # a picture that needs no resizing, prepared by hand
    pixels = np.asarray(picture(2, 38, 38))
    cut = (pixels[4:34, 4:34] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    values = torch.from_numpy(cut).permute(2, 0, 1)[None].float()
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.inference_mode():
        pooled = model.vision_model(pixel_values=values).pooler_output
        expected = model.visual_projection(pooled)[0].double().numpy()
    np.testing.assert_allclose(embedder.of_image(pixels), expected, rtol=1e-5, atol=1e-6)


def test_dino_embeds_by_its_class_token(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = ViTModel(
        ViTConfig(**SMALL, image_size=24, patch_size=8), add_pooling_layer=False
    ).eval()
    model.save_pretrained(tmp_path)
    write_preprocessing(tmp_path, 24)
    pixels = np.asarray(picture(3, 32, 32))
    cut = (pixels[4:28, 4:28] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    with torch.inference_mode():
        states = model(torch.from_numpy(cut).permute(2, 0, 1)[None].float()).last_hidden_state
    embedder = Embedder(str(tmp_path), CPU)
    expected = states[0, 0].double().numpy()
    np.testing.assert_allclose(embedder.of_image(pixels), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ManifestError, match="no text encoder"):
        embedder.of_text("a cat")


def test_a_folder_that_is_no_model_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="preprocessor_config"):
        Embedder(str(tmp_path), CPU)
    shutil.copy(clip / "preprocessor_config.json", tmp_path)
    with pytest.raises(ManifestError, match="cannot be loaded"):
        Embedder(str(tmp_path), CPU)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for change in ({"size": {"height": "x"}}, {"image_mean": None}, {"resample": 99}, {"size": []}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | change))
        with pytest.raises(ManifestError, match="cannot be used"):
            Embedder(str(tmp_path), CPU)
