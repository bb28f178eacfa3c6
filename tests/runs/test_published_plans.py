"""Published checkpoints are planned without their files: from what is published of them, and never rendered so."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from stylebatch.cli import main
from stylebatch.models.checkpoint import Checkpoint, checkpoint_to_plan
from stylebatch.models.model_section import MODEL_IDS, ModelSpec
from stylebatch.models.unet.published import published_checkpoints
from tests.support.runs import small_manifest


@pytest.fixture(autouse=True)
def _no_network_and_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> NoReturn:
        pytest.fail("a plan went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def _plan(manifest: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    words = [word for option in options for word in ("--set", option)]
    assert main(["plan", str(manifest), "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", MODEL_IDS)
def test_figures_are_those_of_the_files(name: str, tmp_path: Path) -> None:
    published = published_checkpoints()[name]
    for part, config in published.configs.items():
        (tmp_path / part).mkdir()
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        (tmp_path / part / file).write_text(json.dumps(config))
    size = published.native_size
    spec = ModelSpec(name=name, vae_tiling=name == "sd21")  # type: ignore[arg-type]
    files = Checkpoint(tmp_path, vae_passes=("tiling",) if name == "sd21" else ()).family
    known = checkpoint_to_plan(spec)
    family = known.family
    assert family.sizes == files.sizes
    assert family.sizes.native == size
    assert family.site_shapes(size) == files.site_shapes(size)
    for shape in ((size, size), (size + 64, size - 128)):
        assert family.memory(shape, 2) == files.memory(shape, 2)
    assert family.num_timesteps == files.num_timesteps
    assert known.fingerprint == ""
    about = family.about()
    assert name in about.published
    assert about.parameters == published.parameters


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_a_plan_needs_neither_weights_nor_network(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = small_manifest(tmp_path, contents=3, styles=2, steps=50)
    published = published_checkpoints()[name]
    options = (f"model={name}", "image={}", "engine={}")
    found = _plan(manifest, capsys, *options)
    assert found["width"] == found["height"] == published.native_size
    assert found["fewest_evaluations"] == 49 * 6 + 50 * 3 + 50 * 2
    weights = 4 * sum(published.parameters.values())
    assert weights < found["forecast"]["peak_bytes"] < 4 * weights
    assert (found["model"], found["model_is_here"], "digest" in found) == (name, False, False)
    noted = next(note for note in found["notes"] if note.startswith("model: published figures"))
    assert published.title in noted
    assert "weights are not here" in noted
    # by its id it is the same; the run needs the weights, and says how to get them
    assert _plan(manifest, capsys, f"model={{id: {MODEL_IDS[name]}}}", *options[1:]) == found | {
        "model": MODEL_IDS[name]
    }


def test_16_styles_stay_on_a_card_of_24_gb_beside_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = small_manifest(tmp_path, contents=16, styles=16, steps=50)
    engine = "engine={host_gb: 10.0, batch_gb: 6.0}"
    options = ("model={name: sd15, dtype: float16}", "image={size: 512}", "output.shard_size=256")
    found = _plan(manifest, capsys, engine, "features.codec=x8", *options)
    assert found["block"] == [16, 16]
    assert found["evaluations"] == found["fewest_evaluations"]
    assert found["features"] == {"styles": "held", "contents": "hosted", "codec": "x8"}
    forecast = found["forecast"]
    # a number of 5.9 million at 49 timesteps: int8 of styles, float16 of contents
    of_styles, of_contents = 16 * 49 * 5_898_240, 16 * 49 * 5_898_240 * 2
    assert forecast["host_bytes"] == of_contents
    assert of_styles < forecast["peak_bytes"] < 16e9
    alone = _plan(manifest, capsys, "engine={batch_gb: 6.0}", "features.codec=x8", *options)
    assert alone["evaluations"] > found["evaluations"]
    assert alone["forecast"]["host_bytes"] == 0


def test_a_run_stops_with_the_command_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = small_manifest(tmp_path)
    assert main(["run", str(manifest), "--set", "model=sd15"]) == 2
    assert f"`hf download {MODEL_IDS['sd15']} --local-dir FOLDER`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("sd-15", "accepted: tiny, sd14, sd15"),
        ("{id: stable-diffusion-v1-5/Stable-Diffusion-v1-5}", "could not be fetched"),
        ("{id: stable-diffusion-v1-5/stable-diffusion-v1-5, revision: old}", "could not be fetched"),
        ("{name: sd15, lora: [{path: gone.safetensors}]}", "gone.safetensors"),
    ],
)  # fmt: skip
def test_only_what_is_published_is_known(
    model: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = small_manifest(tmp_path)
    assert main(["plan", str(manifest), "--set", f"model={model}"]) == 2
    assert what in capsys.readouterr().err


def test_prompts_are_planned_without_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "ein Bild von Würfeln, " * 40
    (tmp_path / "rows.csv").write_text(f'prompt,seed\n"{long}",3\nkurz,\n', encoding="utf-8")
    manifest = tmp_path / "run.yaml"
    manifest.write_text(
        json.dumps(
            {
                "prompts": {"path": "rows.csv", "long_prompts": "refuse"},
                "method": {"name": "text2img", "steps": 20},
                "model": "sdxl",
                "output": {"path": str(tmp_path / "out")},
            }
        )
    )
    found = _plan(manifest, capsys)
    assert (found["num_samples"], found["evaluations"]) == (2, 2 * 20 * 2)


def test_an_output_of_another_program_is_refused_nevertheless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = small_manifest(tmp_path, size=64)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert main(["plan", str(manifest), "--set", "model=sd15"]) == 2
    assert "holds no run.json" in capsys.readouterr().err
