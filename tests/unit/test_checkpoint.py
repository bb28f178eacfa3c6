"""Finding a checkpoint's folder and identifying it, with the way out where it cannot be had."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stylebatch import load_spec, plan
from stylebatch.errors import ManifestError
from stylebatch.models import pipeline_files as files
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.pipeline_files import COMPONENTS
from tests.support.runs import small_manifest


def test_sizes_come_from_the_configs(eps_folder: Path) -> None:
    checkpoint = Checkpoint(eps_folder)
    assert checkpoint.family.sizes.latent_factor == 8
    assert checkpoint.family.sizes.native == 128
    assert checkpoint.family.sizes.multiple == 64


def test_native_size_without_sample_size_is_512(
    eps_folder: Path, linked: Callable[..., Path]
) -> None:
    folder = linked(eps_folder, "copy", without=("unet/config.json",))
    config = json.loads((eps_folder / "unet" / "config.json").read_text(encoding="utf-8"))
    del config["sample_size"]
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert Checkpoint(folder).family.sizes.native == 512


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


@pytest.mark.parametrize("repo_id", ["not an id", "a/b/c", "..", "https://example.org/a/b"])
def test_malformed_hub_id_is_one_paragraph_too(repo_id: str) -> None:
    with pytest.raises(ManifestError, match=r"^model\.id: .*could not be fetched") as caught:
        find_checkpoint(ModelSpec(id=repo_id))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_a_process_reads_the_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_hashes", {})
    spec = load_spec(small_manifest(tmp_path, contents=1, styles=1))
    size = sum(path.stat().st_size for path in files.TINY.rglob("*.safetensors"))
    before = bytes_read()
    assert len({plan(spec).digest for _ in range(4)}) == 1
    assert size <= bytes_read() - before < 1.5 * size


def bytes_read() -> int:
    """What this process has asked the system to read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_weights_of_the_same_size_and_time_are_read_again(
    eps_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    folder = tmp_path / "copy"
    shutil.copytree(eps_folder, folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    before, times = Checkpoint(folder).fingerprint, weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    time.sleep(0.05)  # more than a tick of the file system's clock
    weights.write_bytes(data)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Checkpoint(folder).fingerprint != before
