"""Finding a checkpoint's folder and identifying it, with the way out where it cannot be had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import COMPONENTS, Checkpoint, find_checkpoint
from stylebatch.spec import ModelSpec


def test_sizes_come_from_the_configs(eps_folder: Path) -> None:
    checkpoint = Checkpoint(eps_folder)
    assert checkpoint.latent_factor == 8
    assert checkpoint.native_size == 128
    assert checkpoint.size_multiple == 64


def test_native_size_without_sample_size_is_512(
    eps_folder: Path, linked: Callable[..., Path]
) -> None:
    folder = linked(eps_folder, "copy", without=("unet/config.json",))
    config = json.loads((eps_folder / "unet" / "config.json").read_text(encoding="utf-8"))
    del config["sample_size"]
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert Checkpoint(folder).native_size == 512


def test_fingerprint_is_the_same_wherever_the_folder_lies(
    eps_folder: Path, tmp_path: Path, linked: Callable[..., Path]
) -> None:
    first = Checkpoint(eps_folder).fingerprint
    copied = tmp_path / "elsewhere" / "checkpoint"
    shutil.copytree(eps_folder, copied)
    assert Checkpoint(copied).fingerprint == first
    assert (
        Checkpoint(linked(eps_folder, "links")).fingerprint == first
    )  # as a hub snapshot stores files
    assert len(first) == 64


@pytest.mark.parametrize(
    "changed",
    [
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_fingerprint_changes_with_one_byte_of_any_part(
    eps_folder: Path, linked: Callable[..., Path], changed: str
) -> None:
    folder = linked(eps_folder, "copy", without=(changed,))
    data = bytearray((eps_folder / changed).read_bytes())
    data[-2] ^= 1
    (folder / changed).parent.mkdir(exist_ok=True)
    (folder / changed).write_bytes(data)
    assert Checkpoint(folder).fingerprint != Checkpoint(eps_folder).fingerprint


def test_fingerprint_changes_when_a_file_moves_between_parts(
    eps_folder: Path, linked: Callable[..., Path]
) -> None:
    folder = linked(eps_folder, "copy")
    (folder / "unet" / "extra.json").write_bytes(b"{}")
    first = Checkpoint(folder).fingerprint
    (folder / "unet" / "extra.json").rename(folder / "vae" / "extra.json")
    assert Checkpoint(folder).fingerprint != first


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler"])
def test_folder_without_a_part_is_refused_by_name(
    eps_folder: Path, linked: Callable[..., Path], part: str
) -> None:
    folder = linked(eps_folder, "copy", without=(part,))
    with pytest.raises(ManifestError) as caught:
        find_checkpoint(ModelSpec(path=str(folder)))
    text = str(caught.value)
    assert str(folder / part) in text
    assert all(component in text for component in COMPONENTS)
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_config_that_is_no_json_is_refused_by_name(
    eps_folder: Path, linked: Callable[..., Path]
) -> None:
    folder = linked(eps_folder, "copy", without=("vae/config.json",))
    (folder / "vae" / "config.json").write_text(
        "version https://git-lfs.github.com/spec/v1", encoding="utf-8"
    )
    with pytest.raises(ManifestError, match=r"vae/config\.json cannot be read"):
        find_checkpoint(ModelSpec(path=str(folder)))


def assert_names_the_way_out(text: str) -> None:
    assert text.startswith(
        "model.id: 'nobody/none' (revision main) could not be fetched from the hub"
    )
    assert "a local folder" in text
    assert "hf download nobody/none --local-dir FOLDER" in text
    assert "`model: {path: FOLDER}`" in text
    assert "\n" not in text


def test_offline_hub_id_names_the_local_folder_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        find_checkpoint(ModelSpec(id="nobody/none"))
    assert_names_the_way_out(str(caught.value))
    assert caught.value.exit_code == 2
    assert caught.value.__suppress_context__
    assert time.monotonic() - started < 10.0


def test_unreachable_hub_answers_quickly_with_the_same_way_out(tmp_path: Path) -> None:
    program = (
        "from stylebatch.errors import ManifestError\n"
        "from stylebatch.models.checkpoint import find_checkpoint\n"
        "from stylebatch.spec import ModelSpec\n"
        "try:\n    find_checkpoint(ModelSpec(id='nobody/none'))\n"
        "except ManifestError as error:\n    print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert_names_the_way_out(done.stdout.strip())


@pytest.mark.parametrize("repo_id", ["not an id", "a/b/c", "..", "https://example.org/a/b"])
def test_malformed_hub_id_is_one_paragraph_too(repo_id: str) -> None:
    with pytest.raises(ManifestError, match=r"^model\.id: .*could not be fetched") as caught:
        find_checkpoint(ModelSpec(id=repo_id))
    assert "\n" not in str(caught.value)
