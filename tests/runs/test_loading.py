"""Ways of loading: variants in half precision, offload, a VAE in slices and tiles; what changes numbers and what does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stylebatch
from stylebatch.diffusion.attention import attend
from stylebatch.diffusion.noise import draw
from stylebatch.errors import ManifestError
from stylebatch.methods.styleid.features import Recorder
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.offload import Turns
from stylebatch.models.unet.parts import read_unet
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.checkpoints import configs_only, twin, with_config
from tests.support.images import write_inputs, write_manifest
from tests.support.single_files import write_single_file


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A twin whose only weights are of the fp16 variant."""
    folder = tmp_path_factory.mktemp("half") / "model"
    return twin("sd15", folder, dtype=torch.float16, variant="fp16")


def test_an_fp16_variant_holds_the_rounded_weights(
    half: Path, twin_model: Callable[[str], StableDiffusion]
) -> None:
    whole = twin_model("sd15")
    loaded = load_model(ModelSpec(path=str(half), variant="fp16"), device="cpu")
    assert loaded.unet.dtype == torch.float32  # a CPU's; the variant is how weights are stored
    for part in ("unet", "vae", "text_encoder"):
        rounded, exact = getattr(loaded, part).state_dict(), getattr(whole, part).state_dict()
        for key, weight in exact.items():
            if weight.is_floating_point():
                assert torch.equal(rounded[key], weight.half().float()), (part, key)
    x = draw([1], (4, 8, 8))
    found = loaded.predict_noise(x, 301, loaded.embed(["a cat"]))
    expected = whole.predict_noise(x, 301, whole.embed(["a cat"]))
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.01


def test_a_variant_that_is_not_there_is_refused(half: Path, twins: Callable[[str], Path]) -> None:
    for spec in (ModelSpec(path=str(half)), ModelSpec(path=str(twins("sd15")), variant="fp16")):
        with pytest.raises(
            ManifestError, match=r"unet holds no safetensors weights .*; next: "
        ) as caught:
            load_model(spec, device="cpu")
        assert "\n" not in str(caught.value)


def test_fingerprint_knows_its_variant_and_shards(half: Path, tmp_path: Path) -> None:
    chosen = Checkpoint(half, "fp16")
    first = chosen.fingerprint
    assert first != Checkpoint(half).fingerprint
    assert [path.name for path in chosen.weight_files("unet")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    (half / "unet" / "other.safetensors").write_bytes(b"of no variant")
    assert Checkpoint(half, "fp16").fingerprint == first
    (half / "unet" / "other.safetensors").unlink()
    shard = half / "unet" / "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"
    shard.write_bytes(b"a part of the weights")
    assert Checkpoint(half, "fp16").fingerprint == first  # in no index
    index = half / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": shard.name}}), "utf-8")
    assert Checkpoint(half, "fp16").weight_files("unet") == [shard]
    assert Checkpoint(half, "fp16").fingerprint != first
    shard.unlink(), index.unlink()


def numbers(model: StableDiffusion) -> dict[str, Any]:
    """What a run computes: text, latents, noise, edited noise, features, pixels."""
    x, image = draw([1], (4, 8, 8)), draw([2], (3, 64, 64)).clamp(-1, 1)
    cond = model.embed(["a cat"])
    recorder = Recorder("key_value", attend)
    found = {"text": cond.hidden, "latents": model.encode(image), "pixels": model.decode(x)}
    found["noise"] = model.predict_noise(x, 301, cond)
    with model.editing(recorder, model.sites):
        found["edited"] = model.predict_noise(x, 301, cond)
    for site, kept in recorder.take().items():
        found |= {f"{name} at {site}": tensor for name, tensor in kept.items()}
    with model.sharing_norms(lambda rows: torch.zeros(rows, dtype=torch.long)):
        found["shared"] = model.predict_noise(x, 301, cond)
    return found


@pytest.mark.parametrize(
    ("name", "offload"), [("sd15", "model"), ("sd15", "sequential"), ("sdxl", "sequential")]
)
def test_offload_changes_no_number(
    name: str,
    offload: Any,
    twins: Callable[[str], Path],
    twin_model: Callable[[str], StableDiffusion],
) -> None:
    """On a CPU weights have nowhere else to be, but accelerate's hooks move them all the same."""
    loaded = load_model(ModelSpec(path=str(twins(name)), offload=offload), device="cpu")
    assert loaded.device == torch.device("cpu")
    expected, found = numbers(twin_model(name)), numbers(loaded)
    assert expected.keys() == found.keys()
    assert [key for key, x in expected.items() if not torch.equal(x, found[key])] == []
    asleep = {weight.device.type for weight in loaded.unet.parameters()}
    assert asleep == {"meta" if offload == "sequential" else "cpu"}


def test_networks_take_turns() -> None:
    """The one that is called is there, the one before it has gone; the same one again moves nothing."""
    moved: list[tuple[str, str]] = []

    class Network(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def to(self, device: Any) -> Any:  # type: ignore[override]
            moved.append((self.name, str(device)))
            return self

    vae, unet = Network("vae"), Network("unet")
    turns = Turns(torch.device("meta"))
    for network in (vae, unet, unet, vae):
        args, _ = turns.pre_forward(network, torch.zeros(1))
        assert args[0].device.type == "meta"
    assert moved == [
        ("vae", "meta"), ("vae", "cpu"), ("unet", "meta"), ("unet", "cpu"), ("vae", "meta"),
    ]  # fmt: skip


def test_vae_in_slices_gives_the_same(
    twins: Callable[[str], Path], twin_model: Callable[[str], StableDiffusion]
) -> None:
    spec = ModelSpec(path=str(twins("sd15")), vae_slicing=True)
    sliced, whole = load_model(spec, device="cpu"), twin_model("sd15")
    assert sliced.vae.use_slicing
    images, x = draw([1, 2, 3], (3, 64, 64)).clamp(-1, 1), draw([1, 2, 3], (4, 8, 8))
    torch.testing.assert_close(sliced.encode(images), whole.encode(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sliced.decode(x), whole.decode(x), rtol=1e-4, atol=1e-5)


def test_vae_in_tiles_bounds_what_is_decoded_at_once(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    """Tiles are as large as the VAE's `sample_size`, here 64 px."""
    folder = with_config(twins("sd15"), tmp_path / "model", "vae/config.json", sample_size=64)
    tiled = load_model(ModelSpec(path=str(folder), vae_tiling=True), device="cpu")
    whole = load_model(folder, device="cpu")
    small, wide = draw([1], (4, 8, 4)), draw([1], (4, 8, 12))
    assert torch.equal(tiled.decode(small), whole.decode(small))
    sides: list[int] = []
    hook = tiled.vae.decoder.register_forward_pre_hook(
        lambda _, inputs: sides.append(max(inputs[0].shape[-2:]))
    )
    pixels = tiled.decode(wide)
    hook.remove()
    assert len(sides) > 1
    assert max(sides) == 8
    assert pixels.shape == (1, 3, 64, 96)
    assert not torch.equal(pixels, whole.decode(wide))


def test_what_changes_numbers_changes_the_fingerprint(twins: Callable[[str], Path]) -> None:
    path = str(twins("sd15"))
    prints = [
        find_checkpoint(ModelSpec(path=path, vae_slicing=slicing, vae_tiling=tiling)).fingerprint
        for slicing in (False, True)
        for tiling in (False, True)
    ]
    assert len(set(prints)) == 4
    for offload in ("model", "sequential"):
        spec = ModelSpec(path=path, offload=offload)  # type: ignore[arg-type]
        assert find_checkpoint(spec).fingerprint == prints[0]


def test_a_run_of_an_offloaded_single_file_gives_the_pixels_of_the_folder(
    tmp_path: Path, twins: Callable[[str], Path]
) -> None:
    write_inputs(tmp_path, contents=1, styles=1)
    method = {"name": "styleid", "steps": 2}
    manifest = write_manifest(tmp_path, twins("sd15"), method=method)
    path = write_single_file(twins("sd15"), tmp_path / "model.safetensors")
    configs = configs_only(twins("sd15"), tmp_path / "configs")
    single = f"{{path: {path}, config: {configs}, offload: sequential}}"
    pixels = []
    for output, overrides in (("a", []), ("b", [f"model={single}"])):
        spec = stylebatch.load_spec(manifest, overrides, output=str(tmp_path / output))
        assert stylebatch.run(spec).exit_code == 0
        with tarfile.open(tmp_path / output / "data" / "train-00000.tar") as tar:
            image = tar.extractfile("000000000.jpg")
            assert image is not None
            pixels.append(np.asarray(Image.open(image), dtype=int))
    assert pixels[0].std() > 1
    # weights at other addresses differ in the last bits, which may move a coefficient of the JPEG by one step
    difference = np.abs(pixels[0] - pixels[1])
    assert difference.mean() < 0.05
    assert difference.max() <= 12


def test_the_documented_conversion_of_pickled_weights_works(
    tmp_path: Path, twins: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    program = text.split("<!-- convert -->\n```python\n")[1].split("```")[0]
    weights = load_file(write_single_file(twins("sd15"), tmp_path / "given.safetensors"))
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "model.ckpt")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/models.md", "exec"), {})
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], x) for name, x in weights.items())


def test_unreachable_hub_answers_quickly_with_the_same_way_out(tmp_path: Path) -> None:
    program = (
        "from stylebatch.errors import ManifestError\n"
        "from stylebatch.models.checkpoint import find_checkpoint\n"
        "from stylebatch.models.model_section import ModelSpec\n"
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
    (told,) = done.stdout.splitlines()
    assert told.startswith(
        "model.id: 'nobody/none' (revision main) could not be fetched from the hub"
    )
    assert "hf download nobody/none --local-dir FOLDER" in told
    assert "`model: {path: FOLDER}`" in told


def test_weights_that_the_library_would_draw_at_random_are_refused(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(twins("sd15") / "unet", tmp_path / "unet")
    (file,) = (tmp_path / "unet").glob("*.safetensors")
    weights = load_file(file)
    # as a version of diffusers that names this layer otherwise would find the file
    weights["conv_first.weight"] = weights.pop("conv_in.weight")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(
        ManifestError,
        match=r"unet of .* lacks 1 of the weights .* conv_in\.weight; next: `pip check`",
    ):
        read_unet(tmp_path / "unet")
