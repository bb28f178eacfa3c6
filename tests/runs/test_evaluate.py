"""`evaluate` measures what an output holds, says what it cannot measure and why, and counts the rest of a damaged output."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stylebatch.cli import evaluate_verb, main
from stylebatch.evaluation.colour_histogram import histogram_loss, rgb_uv_histogram
from stylebatch.evaluation.definitions import DEFINITIONS
from stylebatch.evaluation.distances import frechet_distance
from stylebatch.evaluation.evaluate import Request, evaluate
from stylebatch.evaluation.pareto import plot
from stylebatch.evaluation.reference_networks import AlexNet, Vgg19
from stylebatch.quality.imagenet_network import load_network
from tests.support.images import picture, write_inputs, write_manifest
from tests.support.prompt_runs import write_prompts

LITE = "efficientnet_lite0"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, eps_folder: Path) -> Path:
    """3 contents x 2 styles, a shard for each content; sources beside it."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_inputs(folder, contents=3, styles=2)
    manifest = write_manifest(
        folder, eps_folder, method={"name": "styleid", "steps": 2},
        output={"path": str(folder / "out"), "shard_size": 2},
        engine={"name": "local", "threads": 1, "batch": 2, "feature_gb": 0.00001},
    )  # fmt: skip
    assert main(["run", str(manifest)]) == 0
    return folder


@pytest.fixture
def output(rendered: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(rendered / "out", tmp_path / "out"))


def _measures(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *words, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "stylebatch evaluation"
    first: dict[str, Any] = found["outputs"][0]
    return first


def _members(output: Path) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    found: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for tar in sorted(output.glob("data/*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, _, name = member.name.partition(".")
                if name.endswith("jpg"):
                    data = archive.extractfile(member)
                    assert data is not None
                    image = Image.open(io.BytesIO(data.read())).convert("RGB")
                    found.setdefault(key, {})[name] = np.asarray(image)
    return found


def test_figures_are_those_of_the_pictures_in_the_tars(
    rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _measures(capsys, str(rendered / "out"))
    assert (found["num_samples"], found["num_styles"], found["faults"]) == (6, 2, [])
    measures, samples = found["measures"], _members(rendered / "out")
    losses = [
        histogram_loss(rgb_uv_histogram(one["jpg"]), rgb_uv_histogram(one["style.jpg"]))
        for one in samples.values()
    ]
    assert measures["histogram_loss"]["value"] == pytest.approx(np.mean(losses))
    network = load_network()
    results, styles = (
        network.features([one[name] for one in samples.values()]).astype(float)
        for name in ("jpg", "style.jpg")
    )
    expected = frechet_distance(results, styles, np.ones(6), np.ones(6))
    frechet = measures[f"fid_{LITE}"]
    assert frechet["value"] == pytest.approx(expected)
    assert frechet["low"] <= frechet["value"] <= frechet["high"]
    perceptual = measures[f"perceptual_distance_{LITE}"]["value"]
    assert measures[f"art_fid_{LITE}"]["value"] == pytest.approx(
        (1 + frechet["value"]) * (1 + perceptual)
    )
    assert not frechet["published_definition"]
    for one in DEFINITIONS:
        if one.is_published and one.needs:
            # never replaced by another network
            assert measures[one.name]["value"] is None
            assert re.search("get it from|no prompts", measures[one.name]["unavailable"])
    assert any("2,048" in note for note in found["notes"])
    assert any("none of the published numbers" in note for note in found["notes"])


def test_inputs_that_an_output_does_not_store_come_from_their_sources(
    rendered: Path, tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    options = ["--set", "output.inputs=false", "--set", "output.format=parquet"]
    assert main(["run", str(rendered / "run.yaml"), "--output", str(bare), *options]) == 0
    stored = _measures(capsys, str(rendered / "out"), "--bootstrap", "0")["measures"]
    fresh = _measures(capsys, str(bare), "--bootstrap", "0")["measures"]
    for name, figure in stored.items():
        if figure["value"] is not None:
            assert "low" not in figure
            # stored inputs are JPEG
            assert fresh[name]["value"] == pytest.approx(figure["value"], rel=0.25, abs=0.05), name
    spec = json.loads((bare / "run.json").read_text())
    spec["spec"]["contents"]["path"] = str(tmp_path / "gone")
    (bare / "run.json").write_text(json.dumps(spec))
    found = _measures(capsys, str(bare), "--bootstrap", "0", code=3)
    assert "sources cannot be read" in found["faults"][0]
    assert found["measures"]["histogram_loss"]["value"] is None
    assert found["measures"][f"set_consistency_{LITE}"]["value"] is not None


def test_of_a_damaged_output_the_rest_counts(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _measures(capsys, str(output), "--bootstrap", "0")["num_samples"]
    tars = sorted(output.glob("data/*.tar"))
    assert len(tars) == 3
    tars[1].write_bytes(tars[1].read_bytes()[:2000])
    found = _measures(capsys, str(output), "--bootstrap", "0", code=3)
    assert 0 < found["num_samples"] < whole
    assert any(tars[1].stem in fault for fault in found["faults"])
    changed = bytearray(tars[2].read_bytes())
    with tarfile.open(tars[2]) as archive:
        member = next(one for one in archive if re.fullmatch(r"\d+\.jpg", one.name))
    changed[member.offset_data + member.size // 2] ^= 1
    tars[2].write_bytes(changed)
    found = _measures(capsys, str(output), "--bootstrap", "0", code=3)
    assert found["num_samples"] == whole - 3
    assert any("other bytes than were committed" in fault for fault in found["faults"])
    metadata = sorted(output.glob("metadata/train-*.parquet"))[0]
    metadata.write_bytes(b"no longer")
    found = _measures(capsys, str(output), "--bootstrap", "0", code=3)
    assert any(metadata.stem in fault for fault in found["faults"])
    for path in output.glob("metadata/*_stats.json"):
        path.unlink()
    assert main(["evaluate", str(output)]) == 2
    assert "no committed shard" in capsys.readouterr().err


def test_prompts_have_no_contents(
    tmp_path: Path, eps_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_prompts(tmp_path / "p", "text2img", eps_folder)
    assert main(["run", str(manifest), "--set", "image.size=64", "--set", "method.steps=1"]) == 0
    place = str(tmp_path / "p" / "out")
    found = _measures(capsys, place, "--bootstrap", "0")["measures"]
    reasons = {name: one["unavailable"] for name, one in found.items() if one["value"] is None}
    assert reasons[f"perceptual_distance_{LITE}"] == "the samples were made from no content"
    assert "--against DIR" in reasons[f"fid_{LITE}"]
    assert "no style in common" in reasons[f"set_consistency_{LITE}"]
    others = tmp_path / "others"
    others.mkdir()
    for number in range(3):
        picture(number).save(others / f"{number}.png")
    (others / "broken.png").write_bytes(b"no picture")
    words = [place, "--against", str(others), "--bootstrap", "0"]
    found = _measures(capsys, *words, code=3)
    assert found["reference"] == str(others)
    assert found["measures"][f"fid_{LITE}"]["value"] > 0
    assert found["measures"]["histogram_loss"]["value"] is None
    assert any("broken.png" in fault for fault in found["faults"])


def _weights(folder: Path) -> list[str]:
    """Random weights in the files that a user would name, of the two small networks."""
    torch.manual_seed(0)
    later = {"features.12.weight": torch.zeros(1), "classifier.0.bias": torch.zeros(1)}
    save_file(Vgg19().state_dict() | later, folder / "vgg.safetensors")
    torch.save(
        AlexNet().state_dict() | {"classifier.1.weight": torch.zeros(2)}, folder / "alex.pth"
    )
    widths = (64, 192, 384, 256, 256)
    lins = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate(widths)}
    torch.save(lins, folder / "lins.pth")
    names = {"vgg19": "vgg.safetensors", "alexnet": "alex.pth", "lpips": "lins.pth"}
    return [word for n, file in names.items() for word in ("--weights", f"{n}={folder / file}")]


def test_published_measures_take_the_weights_that_a_user_names(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(rendered / "out"), "--limit", "2", "--bootstrap", "0", *_weights(tmp_path)]
    measures = _measures(capsys, *words)["measures"]
    assert measures["lpips"]["value"] > 0
    assert measures["cfsd"]["value"] > 0
    assert measures["lpips"]["published_definition"]
    # half of what ArtFID needs is no ArtFID
    assert "art_inception" in measures["art_fid"]["unavailable"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("vgg=FILE", "--weights vgg: accepted: inception, art_inception"),
        ("vgg19", "accepted: NAME=PLACE"),
        ("vgg19=", "accepted: NAME=PLACE"),
        ("vgg19=NOWHERE", "does not exist"),
        ("vgg19=FILE", r"found other weights than Vgg19 has \(lacks features\.0"),
        ("vgg19=TEXT", "cannot be read"),
        ("vgg19=CODE", "cannot be read"),
        ("dino=TEXT", r"preprocessor_config\.json: cannot be used"),
    ],
)
def test_weights_that_are_none_are_refused(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, expected: str
) -> None:
    files = {name: tmp_path / f"{name}.pth" for name in ("FILE", "TEXT", "CODE", "NOWHERE")}
    torch.save({"other": torch.zeros(3)}, files["FILE"])
    files["TEXT"].write_text("no weights")
    # pickles that would run code, or hold anything but tensors
    torch.save({"one": Path}, files["CODE"])
    for name, path in files.items():
        given = given.replace(name, str(path))
    assert main(["evaluate", str(rendered / "out"), "--limit", "1", "--weights", given]) == 2
    told = capsys.readouterr().err
    assert re.search(expected, told), told


def _closed(*_: object) -> None:
    raise BrokenPipeError(32, "Broken pipe")


def test_several_outputs_make_a_table_and_a_front(
    rendered: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["evaluate", str(rendered / "out"), str(rendered / "out"), "--limit", "3"]
    words += ["--bootstrap", "50"]
    place = tmp_path / "told"
    assert main([*words, "--to", str(place)]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^fid_{LITE} +lower +[\d.]+ \[", shown, re.MULTILINE)
    names = ["evaluation.json", "evaluation.md", "pareto.png"]
    assert sorted(path.name for path in place.iterdir()) == names
    text = (place / "evaluation.md").read_text()
    assert "| measure | better | 1 | 2 |" in text
    assert "## Unavailable" in text
    with Image.open(place / "pareto.png") as image:
        assert image.format == "PNG"
    before = (place / "evaluation.json").read_bytes()
    with monkeypatch.context() as closed:  # a reader such as `head` that has seen enough
        closed.setattr(evaluate_verb, "print", _closed, raising=False)
        assert main([*words, "--to", str(tmp_path / "piped")]) != 0
    assert sorted(path.name for path in (tmp_path / "piped").iterdir()) == names
    assert main([*words, "--to", str(place)]) == 0
    assert (place / "evaluation.json").read_bytes() == before
    (place / "evaluation.json").write_text("mine")
    assert main([*words, "--to", str(place)]) == 2
    assert (place / "evaluation.json").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    for wrong in (
        ["--limit", "0"],
        ["--bootstrap", "-1"],
        ["--bootstrap", "19"],
        ["--device", "gpu9"],
        ["--device", "meta"],
        ["--to", str(place / "evaluation.md")],
        ["--against", str(tmp_path / "empty")],
        ["--against", str(tmp_path / "nowhere")],
    ):
        capsys.readouterr()
        assert main(["evaluate", str(rendered / "out"), *wrong]) == 2
        told = capsys.readouterr()
        assert told.err.startswith(f"stylebatch: {wrong[-1] if wrong[0] == '--to' else wrong[0]}:")
        assert not told.out
    assert main(["evaluate", str(tmp_path / "nothing")]) == 2


def test_outputs_of_the_same_samples_are_compared_draw_by_draw(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, place = str(tmp_path / "flat"), str(rendered / "out")
    options = ["--set", "method.gamma=0.1", "--set", "output.shard_size=6"]
    assert main(["run", str(rendered / "run.yaml"), "--output", other, *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", place, other, place, "--bootstrap", "80", "--json"]) == 0
    first, second, same = (o["measures"] for o in json.loads(capsys.readouterr().out)["outputs"])
    assert "difference_from_first" not in first["structure"]
    for name, figure in second.items():
        if "low" in figure:
            gap = figure["difference_from_first"]
            assert gap["low"] <= figure["value"] - first[name]["value"] <= gap["high"], name
            assert same[name]["difference_from_first"] == pytest.approx({"low": 0.0, "high": 0.0})
    # what inputs do to both outputs is left out: it would hide the difference
    gap = second["structure"]["difference_from_first"]
    assert gap["high"] - gap["low"] < second["structure"]["high"] - second["structure"]["low"]


def test_outputs_that_share_no_measure_have_no_plot(rendered: Path) -> None:
    found = evaluate([rendered / "out"], Request(limit=1, draws=0))
    assert plot(found) is not None
    assert found[0].value(f"fid_{LITE}") is None  # a single picture has no covariance
