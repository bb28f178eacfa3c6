"""Single files in the original layout give the numbers of their folder; what cannot be used is refused with the way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stylebatch.diffusion.noise import draw
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.models.checkpoint import Checkpoint, find_checkpoint
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import ModelSpec, describe_model
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.checkpoints import configs_only, with_config
from tests.support.single_files import write_single_file


@pytest.fixture(scope="module")
def single(
    twins: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ModelSpec]:
    """`single(name)`: a twin's weights as one file, its configs in a folder without weights."""
    made: dict[str, ModelSpec] = {}

    def of(name: str) -> ModelSpec:
        if name not in made:
            folder = tmp_path_factory.mktemp(f"{name}-file")
            path = write_single_file(twins(name), folder / "model.safetensors")
            configs = configs_only(twins(name), folder / "configs")
            made[name] = ModelSpec(path=str(path), config=str(configs))
        return made[name]

    return of


def refusal(spec: ModelSpec) -> str:
    with pytest.raises(ManifestError) as caught:
        load_model(spec, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(source: ModelSpec, path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> ModelSpec:  # fmt: skip
    """The single file with other tensors."""
    state = load_file(str(source.path))
    change(state)
    save_file(state, path)
    return ModelSpec(path=str(path), config=source.config)


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_a_single_file_gives_the_numbers_of_its_folder(
    name: str,
    twin_model: Callable[[str], StableDiffusion],
    single: Callable[[str], ModelSpec],
) -> None:
    folder, file = twin_model(name), load_model(single(name), device="cpu")
    pairs = zip(folder.unet.state_dict().items(), file.unet.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    x, image = draw([1], (4, 8, 8)), draw([2], (3, 64, 64)).clamp(-1, 1)
    one, other = folder.embed(["a cat"]), file.embed(["a cat"])
    torch.testing.assert_close(one.hidden, other.hidden, rtol=1e-5, atol=1e-5)
    if one.pooled is not None and other.pooled is not None:
        torch.testing.assert_close(one.pooled, other.pooled, rtol=1e-5, atol=1e-5)
    assert (one.pooled is None) == (other.pooled is None) == (name != "sdxl")
    found = file.predict_noise(x, 301, other)
    torch.testing.assert_close(folder.predict_noise(x, 301, one), found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folder.encode(image), file.encode(image), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(folder.decode(x), file.decode(x), rtol=1e-5, atol=1e-5)
    assert file.schedule.prediction_type == folder.schedule.prediction_type


def test_fingerprint_follows_content_and_not_place(
    single: Callable[[str], ModelSpec], tmp_path: Path
) -> None:
    spec = single("sd15")
    first = find_checkpoint(spec).fingerprint
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(Path(str(spec.path)).read_bytes())
    assert find_checkpoint(ModelSpec(path=str(moved), config=spec.config)).fingerprint == first
    data = bytearray(moved.read_bytes())
    data[-1] ^= 1
    moved.write_bytes(data)
    assert find_checkpoint(ModelSpec(path=str(moved), config=spec.config)).fingerprint != first
    other = with_config(
        Path(str(spec.config)), tmp_path / "c", "scheduler/scheduler_config.json", steps_offset=0
    )
    assert find_checkpoint(ModelSpec(path=spec.path, config=str(other))).fingerprint != first


def test_weights_in_the_config_folder_do_not_count(
    twins: Callable[[str], Path], single: Callable[[str], ModelSpec]
) -> None:
    spec = single("sd15")
    full = ModelSpec(path=spec.path, config=str(twins("sd15")))
    assert find_checkpoint(full).fingerprint == find_checkpoint(spec).fingerprint


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"path": "m.safetensors"}, "`config` is missing: a single file"),
        ({"path": "m.ckpt"}, r"found 'm\.ckpt', pickled weights, which may run any code"),
        ({"path": "m.BIN"}, "pickled weights"),
        ({"path": "folder", "config": "c"}, "`config` belongs to a `path`"),
        ({"name": "tiny", "config": "c"}, "`config` belongs to a `path`"),
        ({"path": "m.safetensors", "config": "c", "variant": "fp16"}, "`variant` belongs to"),
    ],
)
def test_specs_that_cannot_be_meant_are_refused(values: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ModelSpec(**values)  # type: ignore[arg-type]


def test_a_pickled_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "m.ckpt")
    with pytest.raises(ManifestError, match="pickled weights") as caught:
        load_model(tmp_path / "m.ckpt")
    assert "docs/models.md" in str(caught.value)
    with pytest.raises(ValueError, match="`config` is missing"):
        describe_model("m.safetensors")


def test_configs_of_another_family_are_refused(
    twins: Callable[[str], Path], single: Callable[[str], ModelSpec]
) -> None:
    for file, config, told in (
        ("sd15", "sd21", "describes Stable Diffusion 2.x, but model.path"),
        ("sd21", "sdxl", "describes Stable Diffusion xl, but model.path"),
        ("sdxl", "sd15", "describes Stable Diffusion 1.x, but model.path"),
    ):
        spec = ModelSpec(path=single(file).path, config=str(twins(config)))
        assert told in refusal(spec)


def test_config_folder_without_an_index_or_configs_is_refused(
    single: Callable[[str], ModelSpec], linked: Callable[..., Path]
) -> None:
    spec = single("sd15")
    folder = linked(Path(str(spec.config)), "c", without=("model_index.json",))
    assert "holds no model_index.json" in refusal(ModelSpec(path=spec.path, config=str(folder)))
    folder = linked(Path(str(spec.config)), "d", without=("vae",))
    text = refusal(ModelSpec(path=spec.path, config=str(folder)))
    assert text.startswith("model.config: ")
    assert "vae/config.json cannot be read" in text


def test_files_of_other_kinds_are_told_apart(
    single: Callable[[str], ModelSpec], tmp_path: Path
) -> None:
    source = single("sd15")
    part, size = torch.zeros(2), torch.zeros(20, 9, 3, 3)

    def only(prefix: str) -> Callable[[dict[str, torch.Tensor]], object]:
        return lambda state: [state.pop(key) for key in list(state) if not key.startswith(prefix)]

    def replace(new: dict[str, torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], object]:
        return lambda state: (state.clear(), state.update(new))

    for change, told in (
        (replace({"lora_unet_down.lora_up.weight": part}), "holds LoRA weights"),
        (replace({"down_blocks.0.x": part}), "is one part of a pipeline folder"),
        (replace({"weird.key": part}), "found keys that begin with weird, without"),
        (only("model.diffusion_model."), "without first_stage_model.*"),
        (only(("model.", "first_stage_model.")), "without a text encoder that is known"),  # type: ignore[arg-type]
        (lambda s: s.update({"model.diffusion_model.input_blocks.0.0.weight": size}), "takes 9 channels"),
    ):  # fmt: skip
        assert told in refusal(changed(source, tmp_path / "m.safetensors", change))
    refiner = {
        f"{prefix}.a": part.clone()
        for prefix in (
            "model.diffusion_model",
            "first_stage_model",
            "conditioner.embedders.0.model",
        )
    }
    found = refusal(changed(source, tmp_path / "m.safetensors", replace(refiner)))
    assert "found the XL refiner" in found


def test_missing_and_left_over_tensors_are_refused(
    single: Callable[[str], ModelSpec], tmp_path: Path
) -> None:
    source, key = single("sd15"), "model.diffusion_model.output_blocks.5.0.in_layers.2.weight"
    text = refusal(changed(source, tmp_path / "a.safetensors", lambda state: state.pop(key)))
    assert "the unet lacks up_blocks.1.resnets.2.conv1.weight" in text
    assert key in text
    extra = {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4, 4)}
    text = refusal(changed(source, tmp_path / "b.safetensors", lambda state: state.update(extra)))
    assert "the unet holds model.diffusion_model.label_emb.0.0.weight, which model.config" in text
    assert "accepted: the configs of the file's own family" in text


def test_widths_of_another_checkpoint_are_refused(
    single: Callable[[str], ModelSpec], tmp_path: Path
) -> None:
    source = single("sd15")
    config = with_config(
        Path(str(source.config)), tmp_path / "c", "unet/config.json", cross_attention_dim=48
    )
    assert "cross_attention_dim: found 48" in refusal(
        ModelSpec(path=source.path, config=str(config))
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[: len(data) // 2], "and its header describes"),
        (lambda data: data[:500], "no safetensors file, or its header is cut off"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (lambda data: b"", "no safetensors file"),
    ],
)
def test_damaged_files_are_told(
    single: Callable[[str], ModelSpec],
    tmp_path: Path,
    change: Callable[[bytes], bytes],
    told: str,
) -> None:
    source = single("sd15")
    path = tmp_path / "m.safetensors"
    path.write_bytes(change(Path(str(source.path)).read_bytes()))
    assert told in refusal(ModelSpec(path=str(path), config=source.config))


def test_manifest_paths_are_joined_to_its_folder(
    single: Callable[[str], ModelSpec], tmp_path: Path
) -> None:
    source = single("sd15")
    (tmp_path / "contents").mkdir()
    (tmp_path / "m.safetensors").symlink_to(str(source.path))
    (tmp_path / "configs").symlink_to(str(source.config))
    model = {"path": "m.safetensors", "config": "configs"}
    manifest = {"contents": {"path": "contents"}, "styles": {"path": "contents"}}
    manifest |= {"model": model, "output": {"path": str(tmp_path / "out")}}
    (tmp_path / "run.yaml").write_text(json.dumps(manifest), encoding="utf-8")
    spec = load_spec(tmp_path / "run.yaml")
    assert find_checkpoint(spec.model) == Checkpoint(
        tmp_path / "configs", weights=tmp_path / "m.safetensors"
    )
    with pytest.raises(ManifestError, match=r"model: `config` is missing: a single file"):
        load_spec(tmp_path / "run.yaml", ["model={path: m.safetensors}"])
