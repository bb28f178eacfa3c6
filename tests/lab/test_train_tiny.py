"""Installing trained weights, whole or mixed with those that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.embedded.train_tiny import install

NAME = "diffusion_pytorch_model.safetensors"


def _part(folder: Path, value: float) -> Path:
    folder.mkdir()
    save_file({"weight": torch.full((3,), value).half()}, folder / NAME)
    (folder / "config.json").write_text(f'{{"value": {value}}}')
    return folder


@pytest.mark.parametrize(("share", "expected"), [(1.0, 3.0), (0.25, 1.5), (0.0, 1.0)])
def test_weights_are_mixed_by_their_share(share: float, expected: float, tmp_path: Path) -> None:
    there, trained = _part(tmp_path / "there", 1.0), _part(tmp_path / "trained", 3.0)
    install(trained, there, share)
    assert load_file(there / NAME)["weight"].tolist() == [expected] * 3
    assert load_file(there / NAME)["weight"].dtype == torch.float16
    assert (there / "config.json").read_text() == (trained / "config.json").read_text()
    assert load_file(trained / NAME)["weight"].tolist() == [3.0] * 3
