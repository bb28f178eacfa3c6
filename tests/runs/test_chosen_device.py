"""Which device a run takes, what it says of it, and what keeps Apple's GPU usable; tests that need one skip without it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylebatch import usable_cores
from stylebatch.cli import main
from stylebatch.diffusion.attention import attend, attend_blended
from stylebatch.diffusion.noise import draw
from stylebatch.engine import chosen_device
from stylebatch.engine.chosen_device import chosen
from stylebatch.engine.ladder import is_out_of_memory
from stylebatch.engine.measure import find_place
from stylebatch.errors import ManifestError
from stylebatch.manifest import load_spec
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.loading import load_model
from stylebatch.models.samplers import StockSampler, unconverted
from stylebatch.planning.resolve import plan

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "manifests/demo.yaml")
on_cpu_alone = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")
needs_mps = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs Apple's GPU")


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return load_model("tiny", device="cpu")


@on_cpu_alone
def test_a_cpu_is_told_with_cores_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen_device, "usable_cores", lambda: 4)
    spec = load_spec(DEMO, ["engine.threads=4"])
    place, line = chosen(spec, "local")
    assert place == find_place("auto")
    assert line.startswith("device: cpu, 4 cores, float32, local engine; ")
    assert line.endswith(("no CUDA device found", "no CUDA or MPS device found", "finds no device"))
    _, line = chosen(load_spec(DEMO, ["engine.threads=1", "engine.device=cpu"]), "local")
    assert line == "device: cpu, 1 thread on 4 cores, float32, local engine; as engine.device says"
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "accelerate engine, 3 ranks; " in chosen(spec, "accelerate")[1]


@pytest.mark.parametrize(("has_ray", "engine", "wanted"), [
    (False, "local", "; 1 of 4 GPUs; for all of them pip install 'stylebatch[ray]', or torchrun"),
    (True, "ray", ""),
])  # fmt: skip
def test_gpus_that_are_left_unused_are_told(
    has_ray: bool, engine: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = chosen_device.ComputePlace("cuda", "float16", 70.0)
    monkeypatch.setattr(chosen_device, "find_place", lambda *_: place)
    monkeypatch.setattr(chosen_device, "has_ray", lambda: has_ray)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    line = chosen(load_spec(DEMO, []), engine)[1]
    assert line == f"device: NVIDIA H200 (cuda), float16, {engine} engine{wanted}"


@on_cpu_alone
@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_device_that_is_not_there_is_refused_before_work(
    kind: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = ["--set", f"engine.device={kind}", "--output", str(output)]
    assert main([verb, DEMO, *options]) == 2
    told = capsys.readouterr().err
    assert f"engine.device: found {kind}, and torch" in told
    assert "accepted on this machine: auto, cpu. Next: --set engine.device=auto, or " in told
    assert not output.exists()


@pytest.mark.parametrize("line", ["device: cuda", "model: {name: tiny, device: cuda}"])
def test_a_device_in_another_place_is_led_to_its_own(line: str, tmp_path: Path) -> None:
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(f"contents: {{path: .}}\nstyles: {{path: .}}\n{line}\n")
    with pytest.raises(ManifestError, match=r"device: unknown key .*did you mean 'engine\.device'"):
        load_spec(manifest)


def test_the_device_is_no_part_of_what_a_plan_is() -> None:
    auto, named = (plan(load_spec(DEMO, [f"engine.device={kind}"])) for kind in ("auto", "cpu"))
    assert auto.digest == named.digest


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000\n", 2), ("10000 100000", 1), ("max 100000", 6), ("", 6), ("x", 6), ("900000 100000", 6)],
)  # fmt: skip
def test_cores_of_a_container_are_those_it_may_use(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(usable_cores, "QUOTA", str(tmp_path / "cpu.max"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert usable_cores.usable_cores() == cores


def test_apples_out_of_memory_is_one() -> None:
    text = "MPS backend out of memory (MPS allocated: 9.05 GiB, other allocations: 1 KiB). Tried to"
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("MPS backend: unsupported"))


class NoWideTensors(TorchDispatchMode):
    """Fails where latents, features or pixels (three or more dimensions) become float64, which Apple's GPU lacks.

    Tables of a schedule are float64 on purpose, on the CPU; timesteps are where diffusers is not on Apple's GPU.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor) and one.ndim > 2:
                assert one.dtype != torch.float64, f"{func} made float64 of {tuple(one.shape)}"
        return found


def test_that_guard_sees_what_it_should() -> None:
    with NoWideTensors(), pytest.raises(AssertionError, match="made float64"):
        torch.zeros(2, 2, 2).double()


def styled(model: Denoiser, device: str) -> torch.Tensor:
    """Latents of a content in a style, on the CPU."""
    images = draw([1, 2], (3, 64, 64)).clamp(-1, 1).to(device)
    method = StyleID(steps=4)
    content = method.invert(model, model.encode(images[:1]), "query")
    style = method.invert(model, model.encode(images[1:]), "key_value")
    return method.stylise(model, content, style).cpu()


def walked(model: Denoiser, name: str) -> torch.Tensor:
    """Latents of one empty prompt after three steps of a sampler."""
    streams = [torch.Generator().manual_seed(0)]
    sampler = StockSampler(name, model.schedule, 3, 3, streams)  # type: ignore[arg-type]
    raw, cond = unconverted(model), model.embed([""])
    x = sampler.begin(draw([0], (model.latent_channels, 16, 16)).to(model.device))
    for index in range(sampler.num_steps):
        x = sampler.step(lambda y, step: raw.predict_noise(y, step.t, cond), x, index)
    return x.cpu()


SAMPLERS = ("euler", "euler_ancestral", "dpmpp", "unipc")


@torch.inference_mode()
def test_nothing_wide_reaches_the_device(model: Denoiser) -> None:
    """What Apple's GPU would refuse, asked on a CPU: StyleID and the samplers of prompts hold float32 at most."""
    with NoWideTensors():
        assert styled(model, "cpu").isfinite().all()
        for name in SAMPLERS:
            assert walked(model, name).isfinite().all()


@pytest.fixture(scope="module")
def apple() -> Denoiser:
    return load_model("tiny", device="mps")


@needs_mps
def test_apple_takes_single_precision() -> None:
    assert find_place("auto", "mps").dtype == "float32"
    assert find_place("float16", "mps").dtype == "float16"


@needs_mps
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_apples_attention_takes_the_temperature(dtype: torch.dtype) -> None:
    q, k, v = (draw([seed], (2, 40, 16)).to(dtype) for seed in (1, 2, 3))
    exact = attend(q.float(), k.float(), v.float(), tau=1.5)
    there = attend(*(x.to("mps") for x in (q, k, v)), tau=1.5).float().cpu()
    within = 1e-5 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(there, exact, atol=within, rtol=within)
    blended = []
    for device in ("cpu", "mps"):
        query, *others = (x.to(device).float() for x in (q, k, v))
        keys, values = ([x[0], x[0].flip(0)] for x in others)
        blended.append(attend_blended(query, keys, values, [0.25, 0.75], tau=1.5).cpu())
    torch.testing.assert_close(blended[1], blended[0], atol=1e-5, rtol=1e-5)


@needs_mps
@torch.inference_mode()
def test_apple_stylises_as_the_cpu_does(model: Denoiser, apple: Denoiser) -> None:
    ours, theirs = styled(model, "cpu"), styled(apple, "mps")
    assert float((ours - theirs).square().mean().sqrt()) < 0.01 * float(ours.std())
    for name in SAMPLERS:
        torch.testing.assert_close(walked(apple, name), walked(model, name), atol=0.02, rtol=0.02)


@needs_mps
def test_apple_renders_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", "pairing={mode: zip}", "--set", "method.steps=2", "--set", "engine.device=mps"]
    assert main(["run", DEMO, "--output", str(tmp_path / "out"), *few]) == 0
    assert "device: Apple GPU (mps), float32, local engine" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["resolved"]["device"] == "mps"
