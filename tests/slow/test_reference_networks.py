"""ArtFID, FID and KID with Inception v3 and random weights in files, and the sets of StyleAligned by CLIP's and DINO's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylebatch.cli import main
from stylebatch.evaluation.embeddings import Embedder
from stylebatch.evaluation.output_pictures import OutputPictures
from stylebatch.evaluation.reference_networks import AlexNet, Inception, load_weights
from stylebatch.folder import Folder
from tests.support.clip import write_clip
from tests.support.images import write_inputs, write_manifest
from tests.support.prompt_runs import write_prompts

pytestmark = pytest.mark.slow


def _scaled(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Random weights under which activations neither vanish nor explode."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_inception_measures_take_weights_from_files(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, contents=2, styles=2)
    method = {"name": "styleid", "steps": 2}
    assert main(["run", str(write_manifest(tmp_path, eps_folder, method=method))]) == 0
    of_fid = _scaled(Inception(of_fid=True)) | {"fc.weight": torch.zeros(2, 2)}
    save_file(of_fid, tmp_path / "inception.safetensors")
    torch.save(
        _scaled(Inception(of_fid=False)) | {"AuxLogits1.fc.bias": torch.zeros(2)},
        tmp_path / "art.pth",
    )
    torch.save(_scaled(AlexNet()), tmp_path / "alexnet.pth")
    widths = (64, 192, 384, 256, 256)
    lins = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate(widths)}
    torch.save(lins, tmp_path / "lpips.pth")
    names = {
        "inception": "inception.safetensors",
        "art_inception": "art.pth",
        "alexnet": "alexnet.pth",
        "lpips": "lpips.pth",
    }
    words = [word for n, file in names.items() for word in ("--weights", f"{n}={tmp_path / file}")]
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "out"), *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["outputs"]
    measures = {name: one["value"] for name, one in found["measures"].items()}
    assert measures["fid"] > 0
    assert measures["kid"] is not None
    expected = (1 + measures["lpips"]) * (1 + measures["fid_art"])
    assert measures["art_fid"] == pytest.approx(expected)
    assert any("defined at 512 px" in note for note in found["notes"])


def test_sets_are_those_of_stylealigned(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_prompts(tmp_path / "p", "stylealigned", eps_folder)
    options = ["--set", "image.size=64", "--set", "method.steps=2"]
    assert main(["run", str(manifest), *options]) == 0
    clip = write_clip(tmp_path / "clip")
    capsys.readouterr()
    output = str(tmp_path / "p" / "out")
    assert main(["evaluate", output, "--weights", f"clip={clip}", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["outputs"]
    measures = found["measures"]
    # 4 prompts in a set, 1 in another
    assert found["num_samples"] == 5
    for name in ("set_consistency_clip", "text_alignment_clip"):
        assert -1.0 <= measures[name]["value"] <= 1.0
    samples = [
        made.result for made in OutputPictures(Folder.at(output)).made() if made.row["style"] == "s"
    ]
    embedder = Embedder(str(clip), torch.device("cpu"))
    rows = [embedder.of_image(pixels) for pixels in samples]
    unit = [row / (row @ row) ** 0.5 for row in rows]
    cosines = [float(a @ b) for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j]
    assert len(cosines) == 12
    expected = sum(cosines) / 12
    assert measures["set_consistency_clip"]["value"] == pytest.approx(expected)


def test_the_two_inceptions_differ_in_their_pooling_alone(tmp_path: Path) -> None:
    weights = _scaled(Inception(of_fid=True))
    save_file(weights, tmp_path / "w.safetensors")
    images = torch.rand(1, 3, 96, 96)
    found = []
    for of_fid in (True, False):
        network = load_weights(Inception(of_fid=of_fid), str(tmp_path / "w.safetensors"))
        found.append(network(images))
    assert found[0].shape == found[1].shape == (1, 2048)
    assert not torch.allclose(*found)
