"""`stylebatch doctor`: figures that are so, problems with what to do, exit codes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.proofs import real_scale as proof
from pipelines.proofs.published import PUBLISHED
from stylebatch.cli import main
from stylebatch.doctor import environment
from stylebatch.doctor.environment import TESTED, inspect_machine
from stylebatch.doctor.model import diagnose
from stylebatch.errors import ManifestError
from stylebatch.features.codecs import Codec
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.checkpoints import configs_only, with_config
from tests.support.single_files import write_single_file

ROOT = Path(__file__).parents[2]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def _quick_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Devices are measured in no time, and profiles lie in a home of the test."""
    monkeypatch.setattr("stylebatch.doctor.profiling.SECONDS", 0.0)
    monkeypatch.setattr("stylebatch.doctor.profiling.FEWEST", 1)
    monkeypatch.setattr(
        "stylebatch.doctor.model.profiles_folder", lambda: str(tmp_path / "profiles")
    )


def told(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = main(["doctor", *args])
    return code, capsys.readouterr().out


def test_a_sound_checkpoint_is_described_and_measured(
    twins: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = told(capsys, str(twins("sd21")), "--size", "64")
    assert code == 0
    assert "family      Stable Diffusion 2.x" in text
    assert "predicts    v_prediction" in text
    assert "size        768 px native; accepted: multiples of 64" in text
    assert re.search(r"Speed: [0-9.e+]+ evaluations/s on cpu in float32, \d+ thread", text)
    assert text.rstrip().endswith("No problems found.")


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_parameters_and_sites_are_those_of_the_loaded_network(
    name: str, twins: Callable[[str], Path], twin_model: Callable[[str], StableDiffusion]
) -> None:
    found, model = diagnose(ModelSpec(path=str(twins(name))), measure="no"), twin_model(name)
    assert found.parameters["unet"] == sum(x.numel() for x in model.unet.parameters())
    assert found.parameters["vae"] == sum(x.numel() for x in model.vae.parameters())
    encoders = getattr(model, "text_encoders", None) or (model.text_encoder,)
    for part, encoder in zip(("text_encoder", "text_encoder_2"), encoders, strict=False):
        assert found.parameters[part] == sum(x.numel() for x in encoder.parameters())
    assert len(found.parameters) == 2 + len(encoders)
    assert tuple(shape.site for shape in found.sites) == model.sites
    assert found.styled == (tuple(range(6)) if name == "sdxl" else tuple(range(6, 12)))
    assert found.measured is None
    assert found.is_sound


def test_bytes_are_those_that_the_proof_at_real_scale_found_on_disk(tmp_path: Path) -> None:
    """Full-size configs without weights: figures need none, and say so."""
    published = PUBLISHED["sd15"]
    for part, config in published.configs.items():
        (tmp_path / part).mkdir()
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (tmp_path / part / name).write_text(json.dumps(dict(config)), encoding="utf-8")
    (tmp_path / "tokenizer" / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    (tmp_path / "tokenizer" / "merges.txt").write_text("", encoding="utf-8")
    found = diagnose(ModelSpec(path=str(tmp_path)))
    assert found.published == ("sd14", "sd15")
    sums = proof.Arithmetic(proof.UNET["block_out_channels"], 64)
    for name, dtype in (("kv", "float16"), ("x", "float32"), ("x8", "float16")):
        expected = 49 * sums.stored(Codec(name, dtype))  # type: ignore[arg-type]
        assert found.feature_bytes[name][dtype] == expected
    assert not found.is_sound
    assert found.measured is None
    assert found.parameters == {"unet": 0, "text_encoder": 0, "vae": 0}
    assert [f.message for f in found.findings] == [
        f"{tmp_path / part} holds no safetensors weights without a variant"
        for part in ("unet", "text_encoder", "vae")
    ]


def test_latents_of_a_style_are_as_many_as_its_inversion_keeps(
    twins: Callable[[str], Path], twin_model: Callable[[str], StableDiffusion]
) -> None:
    model, method = twin_model("sd15"), StyleID()
    found = diagnose(ModelSpec(path=str(twins("sd15"))), size=64, measure="no")
    steps = method.trajectory(model).inversion
    kept = 4 * 8 * 8 * 4
    assert found.feature_bytes["trajectory"]["float16"] == (len(steps) + 1) * kept


def test_a_single_file_is_described_as_its_folder(
    twins: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sd15", "sd21", "sdxl"):
        path = write_single_file(twins(name), tmp_path / f"{name}.safetensors")
        configs = configs_only(twins(name), tmp_path / name)
        args = [str(path), "--config", str(configs), "--no-measure", "--json"]
        code, text = told(capsys, *args)
        file, folder = (
            json.loads(text),
            json.loads(told(capsys, str(twins(name)), "--no-measure", "--json")[1]),
        )
        assert code == 0
        assert file["sound"]
        if name == "sd15":
            assert file["parameters"] == folder["parameters"]
        for part in ("unet", "vae"):
            assert file["parameters"][part] == folder["parameters"][part]
        for key in ("layout", "prediction_type", "sites", "feature_bytes", "native_size"):
            assert file[key] == folder[key], key


@pytest.mark.parametrize(
    ("name", "change", "message", "step"),
    [
        ("unet/config.json", {"cross_attention_dim": 33}, "cross_attention_dim: found 33", "one checkpoint"),
        ("unet/config.json", {"in_channels": 9}, "in_channels: found 9", "text-to-image"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr: found true", "false"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "found 'flow'", "epsilon, v_prediction"),
    ],
)  # fmt: skip
def test_configs_that_do_not_fit_are_problems(
    twins: Callable[[str], Path], tmp_path: Path, name: str, change: Any, message: str, step: str
) -> None:
    folder = with_config(twins("sd15"), tmp_path / "model", name, **change)
    found = diagnose(ModelSpec(path=str(folder)), measure="no")
    assert not found.is_sound
    assert message in found.findings[0].message
    assert step in found.findings[0].message
    assert "another checkpoint" in found.findings[0].next_step


def test_added_features_of_xl_are_checked(twins: Callable[[str], Path], tmp_path: Path) -> None:
    name, change = "unet/config.json", {"projection_class_embeddings_input_dim": 160}
    folder = with_config(twins("sdxl"), tmp_path / "model", name, **change)
    finding = diagnose(ModelSpec(path=str(folder)), measure="no").findings[0]
    assert "projection_class_embeddings_input_dim: found 160" in finding.message
    assert "176, pooled text and six sizes" in finding.message


def test_a_768_px_network_that_says_epsilon_is_noted(
    twins: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "scheduler/scheduler_config.json"
    folder = with_config(twins("sd21"), tmp_path / "model", name, prediction_type="epsilon")
    found = diagnose(ModelSpec(path=str(folder)), measure="no")
    assert [finding.level for finding in found.findings] == ["note"]
    assert found.is_sound


def test_missing_weights_name_what_is_there(
    twins: Callable[[str], Path], linked: Callable[..., Path], tmp_path: Path
) -> None:
    folder = linked(twins("sd15"), "model", without=(WEIGHTS,))
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").symlink_to(
        twins("sd15") / WEIGHTS
    )
    found = diagnose(ModelSpec(path=str(folder)), measure="no").findings
    assert "--variant fp16" in found[0].next_step
    mixed = ModelSpec(path=str(folder), variant="fp16")
    assert diagnose(mixed, measure="no").is_sound  # as stock loads it
    found = diagnose(ModelSpec(path=str(folder), variant="bf16"), measure="no").findings
    assert [finding.next_step for finding in found][1:] == ["leave `variant` out"] * 2
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickled")
    assert "convert" in diagnose(ModelSpec(path=str(folder))).findings[0].next_step
    (folder / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    finding = diagnose(ModelSpec(path=str(folder))).findings[0]
    assert "Git LFS pointer" in finding.message
    assert "git lfs pull" in finding.next_step


def test_values_that_are_not_finite_are_a_problem(
    twins: Callable[[str], Path], linked: Callable[..., Path]
) -> None:
    folder = linked(twins("sd15"), "model", without=(WEIGHTS,))
    weights = load_file(twins("sd15") / WEIGHTS)
    weights["conv_out.bias"][0] = torch.nan
    save_file(weights, folder / WEIGHTS)
    found = diagnose(ModelSpec(path=str(folder)), size=64)
    assert "not finite in float32" in found.findings[0].message


def test_more_than_the_memory_there_is_is_a_problem(
    twins: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylebatch.doctor.model.free_memory", lambda device: 50_000_000)
    found = diagnose(ModelSpec(path=str(twins("sd15"))))
    assert "weights and one row need" in found.findings[0].message
    assert "offload" in found.findings[0].next_step
    assert found.measured is None


def test_what_names_no_model_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], twins: Callable[[str], Path]
) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"pickled")
    for args, message in (
        ([str(tmp_path / "nothing")], "no such model; accepted: tiny"),
        (["x" * 300], "no such model; accepted: tiny"),
        (["tinny"], "no such model; did you mean 'tiny'"),
        ([str(tmp_path / "model.ckpt")], "pickled weights"),
        (["tiny", "--size", "100"], "--size: found 100; accepted by this model: multiples of 32"),
        (["tiny", "--dtype", "int8"], "dtype: Input should be 'auto'"),
        (["tiny", "--config", "c"], "`config` belongs to a `path`"),
    ):
        assert main(["doctor", *args]) == 2
        assert message in capsys.readouterr().err
    assert main(["doctor", str(tmp_path)]) == 2  # a folder, and no pipeline


def test_a_hub_id_that_cannot_be_fetched_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code, text = told(capsys, "nobody/none")
    assert code == 2
    assert "could not be fetched from the hub" in text
    assert "hf download nobody/none --local-dir FOLDER" in text


def test_tested_versions_are_those_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_environment_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = told(capsys)
    assert code in (0, 1)
    assert f"Python {sys.version.split()[0]}" in text
    assert "cpu   CPU, " in text
    found = json.loads(told(capsys, "--json")[1])
    assert {library["name"] for library in found["libraries"]} == set(TESTED)
    assert found["devices"][-1]["free_bytes"] > 0


def test_libraries_that_are_missing_or_old_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment._installed
    versions = {"ray": "", "pyarrow": "", "diffusers": "0.20.0", "numpy": "2.99.0"}
    monkeypatch.setattr(environment, "_installed", lambda name: versions.get(name, here(name)))
    assert here("stylebatch"), "requirements are known where stylebatch is installed"
    found = inspect_machine({"RAY_ADDRESS": "auto"})
    lines = [finding.line() for finding in found.findings]
    assert any(line.startswith("problem: pyarrow is missing") for line in lines)
    assert not any("ray is missing" in line for line in lines), "an extra"
    assert any(line.startswith("problem: diffusers 0.20.0 is outside >=") for line in lines)
    assert any(line.startswith("note: numpy 2.99.0; ") for line in lines)
    assert "pip install 'stylebatch[ray]'" in found.ray
    assert not found.is_sound


def test_more_threads_than_cores_are_noted() -> None:
    found = list(environment._check_threads(environment.usable_cores() + 1))
    assert found[0].level == "note"
    assert not list(environment._check_threads(1))


def test_a_problem_makes_a_diagnosis_unsound(twins: Callable[[str], Path]) -> None:
    found = diagnose(ModelSpec(path=str(twins("sd15"))), measure="no")
    assert found.is_sound
    broken = environment.problem("something", "do this")
    assert not replace(found, findings=(broken,)).is_sound
    with pytest.raises(ManifestError, match="--size: found 65"):
        diagnose(ModelSpec(path=str(twins("sd15"))), size=65)
