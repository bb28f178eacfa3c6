"""Every test here runs on the CPU in the default suite, and on a CUDA device with `-m gpu` (make test-gpu)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.unet.stable_diffusion import StableDiffusion

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    ],
)
"""Of a parameter `device`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What libraries warn of in their own paths for CUDA is no failure of ours."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="module", params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    torch.set_num_threads(1)
    return torch.device("cuda:0" if request.param == "cuda" else "cpu")


@pytest.fixture(scope="module")
def cuda() -> torch.device:
    """For tests that have nothing to do on a CPU; they are marked `gpu` themselves."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device("cuda:0")


@pytest.fixture(scope="module")
def on_device(device: torch.device, eps_folder: Path) -> Callable[[str], StableDiffusion]:
    """`on_device(dtype)`: the small random checkpoint of the reference cases there, loaded once per dtype."""
    loaded: dict[str, StableDiffusion] = {}

    def of(dtype: str) -> StableDiffusion:
        if dtype not in loaded:
            loaded[dtype] = load_checkpoint(Checkpoint(eps_folder), dtype=dtype, device=device)
        return loaded[dtype]

    return of
