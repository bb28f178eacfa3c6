"""Checkpoints that are not whole, or not understood, are refused by file and name; what stock diffusers reads is read alike."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylebatch.cli import main
from stylebatch.doctor.model import diagnose
from stylebatch.doctor.prediction import check_prediction, picture, residuals
from stylebatch.errors import ManifestError
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.denoiser import Conditioning
from stylebatch.models.loading import check_model, load_model
from stylebatch.models.model_section import LoraSpec, ModelSpec
from stylebatch.models.pipeline_files import TINY
from stylebatch.models.unet.edits import decoder_sites
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.checkpoints import configs_only, twin, with_config
from tests.support.single_files import write_single_file


@pytest.fixture(autouse=True)
def _quick_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Devices are measured in no time, and profiles lie in a home of the test."""
    monkeypatch.setattr("stylebatch.doctor.profiling.SECONDS", 0.0)
    monkeypatch.setattr("stylebatch.doctor.profiling.FEWEST", 1)
    monkeypatch.setattr(
        "stylebatch.doctor.model.profiles_folder", lambda: str(tmp_path / "profiles")
    )


def weights_of(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, copy_function=shutil.copyfile))


@pytest.mark.parametrize("name", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_any_tensor_that_lacks_or_is_left_over_or_of_another_shape_is_named(
    name: str, twins: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(twins(name), tmp_path / "m")
    spec, draw = ModelSpec(path=str(folder)), random.Random(1)
    check_model(spec)
    for part in ("unet", "vae", *Checkpoint(folder).family.tokenizers.values()):
        path = weights_of(folder, part)
        whole = load_file(path)
        key = draw.choice(sorted(whole))
        for state, told in (
            ({k: v for k, v in whole.items() if k != key}, "lacks"),
            (whole | {"left.over.weight": torch.zeros(2)}, "holds left.over.weight"),
            (whole | {key: torch.zeros(3, 7)}, "shape (3, 7)"),
            (whole | {key: torch.zeros_like(whole[key], dtype=torch.int8)}, "is I8"),
        ):
            save_file(state, path)
            with pytest.raises(ManifestError) as caught:
                check_model(spec)
            assert told in str(caught.value)
            assert str(path) in str(caught.value)
            assert "left" in told or key.removeprefix("text_model.") in str(caught.value)
        save_file(whole, path)
    extra = load_file(weights_of(folder, "text_encoder"))
    extra |= {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "logit_scale": torch.ones(()),
    }
    save_file(extra, weights_of(folder, "text_encoder"))
    check_model(spec)


@pytest.mark.parametrize(
    "name",
    [
        "sd21",
        pytest.param("sd15", marks=pytest.mark.slow),
        pytest.param("sdxl", marks=pytest.mark.slow),
    ],
)
def test_single_files_are_whole_in_every_part_and_their_marks_are_read(
    name: str, twins: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write_single_file(twins(name), tmp_path / "m.safetensors")
    spec = ModelSpec(path=str(path), config=str(configs_only(twins(name), tmp_path / "c")))
    whole = load_file(path)
    harmless = {
        "model_ema.decay": torch.ones(()),
        "safety_checker.x": torch.ones(1),
        "optimizer.y": torch.ones(1),
    }
    save_file(whole | harmless, path)
    check_model(spec)
    first = {key.split(".")[0]: key for key in sorted(whole) if key.endswith("bias")}
    for key in (value for value in first.values() if "position_ids" not in value):
        save_file({k: v for k, v in whole.items() if k != key}, path)
        with pytest.raises(ManifestError, match="lacks"):
            check_model(spec)
    for mark in ("ztsnr", "edm_mean", *(() if name == "sd21" else ("v_pred",))):
        save_file(whole | {mark: torch.ones(1)}, path)
        with pytest.raises(ManifestError, match=f"holds {mark}, a mark that"):
            check_model(spec)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unet", {"in_channels": 9}, "in_channels: found 9"),
    ("unet", {"time_cond_proj_dim": 16}, "time_cond_proj_dim"),
    ("unet", {"num_class_embeds": 10}, "num_class_embeds"),
    ("unet", {"encoder_hid_dim": 8}, "encoder_hid_dim"),
    ("unet", {"addition_embed_type": "image"}, "addition_embed_type"),
    ("unet", {"_class_name": "UNet3DConditionModel"}, "_class_name"),
    ("unet", {"layers_per_block": [2, 2]}, "layers_per_block"),
    ("unet", {"transformer_layers_per_block": [[1, 1], 1, 1, 1]}, "reverse_transformer_layers"),
    ("vae", {"latents_std": [1.0] * 4}, "latents_std"),
    ("vae", {"scaling_factor": float("nan")}, "scaling_factor: found NaN"),
    ("vae", {"_class_name": "AutoencoderTiny"}, "_class_name"),
    ("text_encoder", {"model_type": "t5"}, "model_type"),
    ("text_encoder", {"vocab_size": 5}, "vocab_size"),
    ("text_encoder", {"layer_norm_eps": [1]}, "text_encoder/config.json"),
    ("scheduler", {"_class_name": "LCMScheduler"}, "LCMScheduler"),
    ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
    ("scheduler", {"_class_name": ["DDIMScheduler"]}, "_class_name"),
    ("scheduler", {"thresholding": True}, "thresholding"),
    ("scheduler", {"beta_start": float("nan")}, "beta_start: found NaN"),
    ("scheduler", {"trained_betas": [0.1, float("nan")]}, "trained_betas"),
    ("scheduler", {"timestep_type": "continuous"}, "timestep_type"),
    ("scheduler", {"use_flow_sigmas": True}, "use_flow_sigmas"),
    ("scheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps"),
    ("model_index", {"scheduler": ["diffusers", "EDMEulerScheduler"]}, "EDMEulerScheduler"),
    ("tokenizer", {"model_max_length": "77"}, "model_max_length"),
    ("tokenizer", {"tokenizer_class": "T5Tokenizer"}, "tokenizer_class"),
]  # fmt: skip
FILES = {"scheduler": "scheduler/scheduler_config.json", "model_index": "model_index.json"}
FILES |= {"tokenizer": "tokenizer/tokenizer_config.json"}


def test_configs_that_are_not_understood_are_refused_by_field(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    for number, (part, change, told) in enumerate(REFUSED):
        name = FILES.get(part, f"{part}/config.json")
        folder = with_config(twins("sd15"), tmp_path / str(number), name, **change)
        with pytest.raises(ManifestError) as caught:
            check_model(ModelSpec(path=str(folder)))
        assert told in str(caught.value), change
        assert name in str(caught.value), change


def test_doctor_ends_with_findings_whatever_a_file_holds(tmp_path: Path) -> None:
    """Drawn files and values: a finding or a sound model, never another exception."""
    draw = random.Random(7)
    values = [None, True, -1, 10**30, 1.5, float("inf"), "x", [], [1], ["a"], {}, [[1], [2]]]
    for number in range(12):
        folder = copied(TINY, tmp_path / str(number))
        path = draw.choice(
            [p for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".safetensors")]
        )
        if draw.random() < 0.6 and path.suffix == ".json":
            config = json.loads(path.read_text("utf-8"))
            path.write_text(json.dumps(config | {draw.choice(sorted(config)): draw.choice(values)}))
        elif draw.random() < 0.2:
            path.unlink()
            path.mkdir()
        else:
            data = path.read_bytes()
            path.write_bytes(
                draw.choice([b"", b"[]", b"null", b"[" * 9999, data[: len(data) // 2]])
            )
        diagnose(ModelSpec(path=str(folder)), measure="no")
        shutil.rmtree(folder)


SHAPES: tuple[dict[str, Any], ...] = (
    {"layers_per_block": [1, 2, 3, 2]},
    {"transformer_layers_per_block": [1, 2, 3, 1]},
    {"only_cross_attention": [False, True, False, False]},
    {
        "transformer_layers_per_block": [[1, 2], [2, 1], 1, 1],
        "reverse_transformer_layers_per_block": [1, [1, 2, 3], [3, 2, 1], 2],
        "mid_block_type": "UNetMidBlock2D",
    },
    {"cross_attention_dim": [64] * 4, "sample_size": [24, 32]},
)


@pytest.mark.parametrize("change", SHAPES, ids=lambda change: next(iter(change)))
def test_lists_mean_what_they_mean_in_diffusers(change: dict[str, Any], tmp_path: Path) -> None:
    folder = with_config(TINY, tmp_path / "m", "unet/config.json", **change)
    checkpoint = Checkpoint(folder)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(checkpoint.config("unet"))
    layers: dict[int, list[Any]] = {}
    for number, layer in decoder_sites(unet).items():
        layers.setdefault(number % 12, []).append(layer)
    shapes = checkpoint.family.site_shapes(128)
    assert [shape.site for shape in shapes] == sorted(layers)
    for shape in shapes:
        found = layers[shape.site]
        assert (shape.layers, shape.heads) == (len(found), found[0].heads)
        assert shape.channels == found[0].to_q.in_features
    assert checkpoint.family.sizes.native_sides == (
        (128, 96) if "sample_size" in change else (128, 128)
    )


def test_mixed_variants_load_as_stock_does(tmp_path: Path) -> None:
    folder = twin("sd15", tmp_path / "m")
    path = weights_of(folder, "unet")
    half = {key: x.half() for key, x in load_file(path).items()}
    save_file(half, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    model = load_model(ModelSpec(path=str(folder), variant="fp16"), device="cpu")
    assert torch.equal(model.unet.conv_in.weight, half["conv_in.weight"].float())
    with pytest.raises(ManifestError, match="of variant bf16"):
        check_model(ModelSpec(path=str(folder), variant="bf16"))


def test_an_index_names_every_file_that_is_read(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(twins("sd15"), tmp_path / "m")
    path = weights_of(folder, "unet")
    state = load_file(path)
    names = sorted(state)
    parts = [f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for i, part in enumerate(parts):
        save_file({key: state[key] for key in names[i::2]}, path.with_name(part))
    index = {"metadata": {}, "weight_map": {key: parts[i % 2] for i, key in enumerate(names)}}
    path.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    path.unlink()
    check_model(ModelSpec(path=str(folder)))
    loaded = load_model(folder, device="cpu")
    assert torch.equal(loaded.unet.conv_in.weight, state["conv_in.weight"])
    path.with_name(parts[1]).unlink()
    with pytest.raises(ManifestError, match=f"names {parts[1]}, which is not there"):
        check_model(ModelSpec(path=str(folder)))


KINDS_OF_LORA = ("hada_w1_a", "lokr_w1", "diff", "diff_b", "w_norm", "dora_scale", "lora_mid.weight", "oft_blocks")  # fmt: skip


def test_lora_files_of_other_kinds_are_refused_by_file_and_key(tmp_path: Path) -> None:
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    plain = {
        f"{layer}.lora_down.weight": torch.ones(2, 96),
        f"{layer}.lora_up.weight": torch.ones(96, 2),
    }
    path = tmp_path / "mine.safetensors"
    spec = ModelSpec(name="tiny", lora=(LoraSpec(path=str(path)),))
    save_file(plain | {f"{layer}.alpha": torch.tensor(1.0)}, path)
    check_model(spec)
    for kind in KINDS_OF_LORA:
        save_file(plain | {f"{layer}.{kind}": torch.ones(2, 2)}, path)
        with pytest.raises(ManifestError, match=rf"mine\.safetensors: found {layer}\.{kind}"):
            check_model(spec)
    for state in (
        plain | {f"{layer.replace('attn1', 'attn9')}.lora_down.weight": torch.ones(2, 96)},
        {key: x.T.contiguous() for key, x in plain.items()},
        {key: x * torch.nan for key, x in plain.items()},
        {f"{layer}.lora_up.weight": torch.ones(96, 2)},
    ):
        save_file(state, path)
        with pytest.raises(ManifestError, match=r"mine\.safetensors: "):
            load_model(spec, device="cpu")


class AnswersAs(StableDiffusion):
    """The embedded network, whose answer is turned into another kind of prediction."""

    kind = "epsilon"

    def predict_noise(
        self, x: Tensor, t: float, cond: Conditioning, *, level: float | None = None
    ) -> Tensor:
        eps = super().predict_noise(x, t, cond)
        signal, noise = self.schedule.signal(t), self.schedule.noise(t)
        clean = (x - noise * eps) / signal
        return {"epsilon": eps, "v_prediction": signal * eps - noise * clean, "sample": clean}[
            self.kind
        ]


def test_what_a_network_predicts_is_measured() -> None:
    tiny = load_model("tiny", device="cpu")
    model = AnswersAs(
        tiny.unet,
        tiny.schedule,
        vae=tiny.vae,
        text_encoder=tiny.text_encoder,
        tokenizer=tiny.tokenizer,
    )
    latents, cond = model.encode(picture(128)), model.embed([""])
    for kind in ("epsilon", "v_prediction", "sample"):
        model.kind = kind
        found = residuals(model, cond, latents)
        for told in found:
            problems = [
                one.message for one in check_prediction(found, told) if one.level == "problem"
            ]
            assert bool(problems) == (told != kind), (kind, told, found)
            assert all(f"the network predicts {kind}" in text for text in problems)


def test_a_mislabelled_model_is_a_problem_and_a_missing_tensor_ends_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = "scheduler/scheduler_config.json"
    folder = with_config(TINY, tmp_path / "v", scheduler, prediction_type="v_prediction")
    assert main(["doctor", str(folder)]) == 2
    assert "the network predicts epsilon" in capsys.readouterr().out
    folder = copied(TINY, tmp_path / "m")
    state = load_file(weights_of(folder, "unet"))
    del state["conv_in.bias"]
    save_file(state, weights_of(folder, "unet"))
    manifest = {"name": "m", "prompts": {"template": "a cat"}, "model": {"path": str(folder)}}
    manifest |= {
        "method": {"name": "text2img", "steps": 2},
        "output": {"path": str(tmp_path / "o")},
    }
    (tmp_path / "m.yaml").write_text(json.dumps(manifest), "utf-8")
    for verb in ("plan", "run"):
        assert main([verb, str(tmp_path / "m.yaml")]) == 2
        assert "the unet lacks conv_in.bias" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
