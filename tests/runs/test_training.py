"""Training: exact resume, one process or two, real data formats, and errors that name the field."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from stylebatch.cli import main
from stylebatch.errors import ManifestError, PlanChangedError
from stylebatch.manifest import load_document
from stylebatch.training.captioned import read
from stylebatch.training.spec import TrainData, TrainSpec, join_inputs
from stylebatch.training.trainer import train
from tests.support.forked import Forked
from tests.support.images import picture


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": _png(i), "path": None} for i in range(count)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "text": [f"a photo of number {i}" for i in range(count)],
            "group": [i % 2 for i in range(count)],
        }
    )
    path = folder / "rows.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture
def config(tmp_path: Path, eps_folder: Path) -> dict[str, Any]:
    """Four steps of the UNet on six pictures, with borrowed keys and values."""
    return {
        "stage": "unet",
        "model": {"path": str(eps_folder)},
        "data": {"path": str(_parquet(tmp_path / "data")), "group": "group", "size": 64},
        "steps": 4,
        "phases": [
            {"until": 0.5, "windows": [{"size": 32, "batch": 3}]},
            {"until": 1.0, "windows": [{"size": 64, "batch": 2}, {"size": 32, "batch": 3}]},
        ],
        "accumulation": 2,
        "optimizer": {"name": "muon", "rate": 1e-3},
        "ema": 0.9,
        "unet": {"drop_prompt": 0.5, "borrow": {"share": 0.34}, "snr_gamma": 5.0},
        "validation": {"every": 4, "steps": 2, "count": 1, "prompts": ["a photo"]},
        "checkpoints": {"every": 2},
        "threads": 1,
        "output": str(tmp_path / "out"),
    }


def _spec(config: dict[str, Any], **changes: Any) -> TrainSpec:
    return TrainSpec.model_validate_json(json.dumps(config | changes))


def _weights(out: Path, part: str = "unet") -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(
        str(out / "model" / part / "diffusion_pytorch_model.safetensors")
    )
    return loaded


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _write(config: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def test_killed_run_continues_with_the_weights_of_an_undisturbed_one(
    config: dict[str, Any], tmp_path: Path
) -> None:
    train(_spec(config))
    assert not _equal(_weights(tmp_path / "out"), load_file(_base(config, "unet")))
    path = _write(config | {"output": str(tmp_path / "again")}, tmp_path / "train.yaml")
    process = Forked("train", str(path))
    checkpoint = tmp_path / "again" / "checkpoints" / "step-0000002"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.signal(signal.SIGKILL)
    assert process.end().returncode == -signal.SIGKILL
    assert not (tmp_path / "again" / "model").exists()
    assert main(["train", str(path)]) == 0
    assert _equal(_weights(tmp_path / "out"), _weights(tmp_path / "again"))


def _base(config: dict[str, Any], part: str) -> str:
    return str(Path(config["model"]["path"]) / part / "diffusion_pytorch_model.safetensors")


def test_terminated_run_leaves_a_checkpoint_of_the_step_it_was_in(
    config: dict[str, Any], tmp_path: Path
) -> None:
    path = _write(config | {"steps": 4000, "checkpoints": {"every": 4000}}, tmp_path / "train.yaml")
    process = Forked("train", str(path))
    log = tmp_path / "out" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.signal(signal.SIGTERM)
    done = process.end(60)
    assert done.returncode == 143, done.stderr
    assert "Run the same command again" in done.stderr
    assert len(list((tmp_path / "out" / "checkpoints").glob("step-*"))) == 1


@pytest.mark.slow
def test_two_processes_train_and_agree(config: dict[str, Any], tmp_path: Path) -> None:
    path = _write(config, tmp_path / "train.yaml")
    torchrun = Path(sys.executable).with_name("torchrun")
    result = subprocess.run(
        [str(torchrun), "--nproc_per_node", "2", "-m", "stylebatch", "train", str(path)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=180,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Trained unet for 4 steps") == 1
    assert json.loads((tmp_path / "out" / "run.json").read_text())["processes"] == 2
    with pytest.raises(PlanChangedError, match="processes: was 2, is 1"):
        train(_spec(config))


def test_changed_settings_are_refused_with_the_difference(
    config: dict[str, Any], tmp_path: Path
) -> None:
    train(_spec(config, steps=2))
    _forget(tmp_path / "out" / "run.json", "model", "clip_skip")
    with pytest.raises(PlanChangedError, match=r"settings:\n  spec\.seed: was 0, is 3\nNext"):
        train(_spec(config, seed=3))
    assert train(_spec(config, steps=3)).steps == 3


def _forget(record: Path, section: str, field: str) -> None:
    """As an earlier version wrote it, which did not know the field."""
    found = json.loads(record.read_text())
    del found["spec"][section][field]
    record.write_text(json.dumps(found))


@pytest.mark.parametrize("name", ["vae", "embeddings", "clip_skip"])
def test_what_is_added_to_a_model_is_refused(name: str, config: dict[str, Any]) -> None:
    """What training writes has the checkpoint's own parts."""
    path = config["model"]["path"]
    value = {"vae": path, "embeddings": [{"path": "x.safetensors"}], "clip_skip": 1}[name]
    with pytest.raises(ValueError, match=rf"model\.{name}: accepted: none"):
        _spec(config, model=config["model"] | {name: value})


def test_config_that_failed_does_not_block_the_corrected_one(config: dict[str, Any]) -> None:
    wrong = config["data"] | {"caption": "words"}
    with pytest.raises(ManifestError, match=r"data\.caption"):
        train(_spec(config, data=wrong, steps=1))
    assert train(_spec(config, steps=1)).steps == 1


def test_trained_folder_is_a_pipeline_that_renders(config: dict[str, Any], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    out = tmp_path / "out"
    train(_spec(config, export_dtype="float16"))
    pipeline = StableDiffusionPipeline.from_pretrained(str(out / "model"), safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert np.isfinite(pipeline("x", num_inference_steps=1, output_type="np").images).all()
    assert {v.dtype for v in _weights(out).values()} == {torch.float16}
    assert len({file.stat().st_mode for file in (out / "model" / "unet").iterdir()}) == 1
    assert _equal(_weights(out, "vae"), load_file(_base(config, "vae")))
    with Image.open(out / "samples" / "step-0000004.png") as samples:
        assert samples.size == (128, 128)
    with Image.open(out / "loss.png") as curve:
        assert curve.width > 300
    assert list((out / "log").rglob("events.out.tfevents.*"))


def test_autoencoder_learns_and_its_latents_are_standardised(
    config: dict[str, Any], tmp_path: Path
) -> None:
    from diffusers import AutoencoderKL

    changes = {"stage": "vae", "steps": 16, "vae": {"noise": 0.1}, "ema": None, "accumulation": 1}
    train(_spec(config | changes, optimizer={"rate": 3e-3}, checkpoints={"every": 100}))
    lines = [json.loads(s) for s in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    vae = AutoencoderKL.from_pretrained(str(tmp_path / "out" / "model" / "vae"))
    assert vae.config.scaling_factor == 1.0
    pixels = torch.from_numpy(np.array(picture(0).resize((64, 64)))).permute(2, 0, 1)[None]
    posterior = vae.encode(pixels / 127.5 - 1).latent_dist
    torch.testing.assert_close(posterior.std, torch.full_like(posterior.std, 0.1))
    assert 0.3 < float(posterior.mean.detach().std()) < 3.0


def test_v_prediction_trains(config: dict[str, Any], v_folder: Path) -> None:
    result = train(_spec(config, model={"path": str(v_folder)}, steps=1, tracker=None))
    assert np.isfinite(result.measures["loss"])


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
def test_captions_of_every_format_are_found(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    if kind == "parquet":
        _parquet(source, 3)
    elif kind == "folder":
        source.mkdir()
        for i in range(3):
            (source / f"{i}.png").write_bytes(_png(i))
        rows = "\n".join(f"{i}.png,a photo of number {i}" for i in range(3))
        (source / "metadata.csv").write_text(f"file_name,text\n{rows}\n")
    else:
        source.mkdir()
        with tarfile.open(source / "a.tar", "w") as tar:
            for i in range(3):
                for name, data in (
                    (f"{i}.png", _png(i)),
                    (f"{i}.txt", b"a photo of number %d" % i),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    images = read(TrainData(path=str(source), size=32), tmp_path / "cache")
    assert images.captions == tuple(f"a photo of number {i}" for i in range(3))
    crop = images.crop(1, np.random.default_rng(0))
    assert crop.shape == (32, 32, 3)
    assert crop.std() > 5


def test_classes_of_a_folder_become_captions(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        picture(1).save(tmp_path / "images" / name / "1.png")
    images = read(TrainData(path=str(tmp_path / "images"), size=32), tmp_path / "cache")
    assert sorted(images.captions) == ["a photo of cat", "a photo of dog"]


def test_broken_image_is_passed_over(config: dict[str, Any], tmp_path: Path) -> None:
    table = pq.read_table(config["data"]["path"])
    rows = table.to_pylist()
    rows[2]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), config["data"]["path"])
    train(_spec(config, steps=2, tracker=None))
    assert json.loads((tmp_path / "out" / "latents" / "latents.json").read_text())["missing"] == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.path=nowhere", "data.path: found .*nowhere.*does not exist; accepted"),
        (
            "data.caption=words",
            "data.caption: found 'words', which is no column; accepted: image, text",
        ),
        ("optimizer.rat=1", "optimizer.rat: unknown key .*did you mean 'rate'"),
        ("steps=0", "steps: found 0"),
        ("phases=[{until: 0.5, windows: [{size: 64, batch: 1}]}]", "the last is 1.0"),
        ("data.group=null", "unet.borrow pairs rows of one group; give `data.group`"),
    ],
)
def test_mistakes_are_named(
    config: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    message: str,
) -> None:
    path = _write(config, tmp_path / "train.yaml")
    assert main(["train", str(path), "--set", change]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_batch_is_short_for_a_phase(config: dict[str, Any], tmp_path: Path) -> None:
    del config["phases"]
    path = _write(config | {"batch": 5}, tmp_path / "train.yaml")
    spec = load_document(path, [], TrainSpec, join_inputs)
    assert [(w.size, w.batch) for w in spec.phases[0].windows] == [(64, 5)]
    with pytest.raises(ManifestError, match="no such manifest"):
        load_document(tmp_path / "none.yaml", [], TrainSpec, join_inputs)


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[2] / "manifests/train").glob("*.yaml")),
    ids=lambda p: p.stem,
)
def test_published_recipe_is_valid(path: Path) -> None:
    assert load_document(path, [], TrainSpec, join_inputs).steps > 0
