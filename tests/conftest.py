"""One CPU thread, no network, and the small random checkpoints of the reference cases as fixtures."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.golden import GOLDEN, link_folder

if TYPE_CHECKING:
    from stylebatch.models.unet.stable_diffusion import StableDiffusion

for _variable, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_variable, _value)  # before torch and huggingface_hub are imported

# A machine that does other things draws slowly: that is no fault of a test.
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Tests run on the CPU wherever they run; those that need a GPU by `-m gpu` (make test-gpu)."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """The half million objects of the libraries outlive every test: looking through them again and again took a sixth of the suite."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the reference cases."""
    return GOLDEN


@pytest.fixture(scope="session")
def eps_folder() -> Path:
    """Pipeline folder, SD 1.x topology, random weights, 128 px, epsilon prediction."""
    return GOLDEN / "styleid_diffusers_eps" / "model"


@pytest.fixture(scope="session")
def v_folder() -> Path:
    """As `eps_folder`, v prediction."""
    return GOLDEN / "styleid_diffusers_v" / "model"


def _load(folder: Path) -> StableDiffusion:
    import torch

    from stylebatch.models.checkpoint import Checkpoint
    from stylebatch.models.loading import load_checkpoint

    torch.set_num_threads(1)
    return load_checkpoint(Checkpoint(folder), device="cpu")


@pytest.fixture(scope="session")
def eps_model(eps_folder: Path) -> StableDiffusion:
    return _load(eps_folder)


@pytest.fixture(scope="session")
def v_model(v_folder: Path) -> StableDiffusion:
    return _load(v_folder)


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest) -> StableDiffusion:
    """Both models in turn."""
    loaded: StableDiffusion = request.getfixturevalue(
        {"epsilon": "eps_model", "v_prediction": "v_model"}[request.param]
    )
    return loaded


@pytest.fixture
def linked(tmp_path: Path) -> Callable[..., Path]:
    """`linked(source, name, without=...)`: a linked copy of a folder under the test's own folder."""

    def link(source: Path, name: str, *, without: tuple[str, ...] = ()) -> Path:
        return link_folder(source, tmp_path / name, without=without)

    return link


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`twins(name)`: a folder like a published checkpoint's, with random weights and narrow layers."""
    from tests.support.checkpoints import twin

    built: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in built:
            built[name] = twin(name, tmp_path_factory.mktemp(name) / "model")
        return built[name]

    return of


@pytest.fixture(scope="session")
def twin_model(twins: Callable[[str], Path]) -> Callable[[str], StableDiffusion]:
    """`twin_model(name)`: that checkpoint, loaded on the CPU."""
    loaded: dict[str, StableDiffusion] = {}

    def of(name: str) -> StableDiffusion:
        if name not in loaded:
            loaded[name] = _load(twins(name))
        return loaded[name]

    return of
