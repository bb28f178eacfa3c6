"""Whole runs whose style features are held, cached or recomputed: cost, bytes, and what `precompute` leaves to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stylebatch.cli import main
from stylebatch.engine import local_engine, measure, worker
from stylebatch.engine.precompute import precompute
from stylebatch.engine.run import run
from stylebatch.errors import PlanChangedError
from stylebatch.features.style_bank import Style, StyleBank
from stylebatch.features.style_cache import StyleCache
from stylebatch.manifest import load_spec
from stylebatch.models.loading import load_model
from stylebatch.models.model_section import ModelSpec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.resolve import plan
from tests.support.images import write_inputs, write_manifest


@pytest.fixture
def manifest(tmp_path: Path, eps_folder: Path) -> Path:
    write_inputs(tmp_path, contents=2)
    return write_manifest(tmp_path, eps_folder, method={"name": "styleid", "steps": 2})


def _digests(output: Path) -> list[str]:
    return [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("data/*.tar"))
    ]


def test_cold_and_warm_cache_give_the_same_shards(manifest: Path, tmp_path: Path) -> None:
    cache = f"features.cache={tmp_path / 'cache'}"
    cold = load_spec(manifest, [cache], output=str(tmp_path / "cold"))
    assert plan(cold).evaluations == plan(load_spec(manifest)).evaluations
    result = run(cold)
    assert result.report.evaluations == plan(cold).evaluations
    num_styles = len(plan(cold).images(1))
    assert len(StyleCache(tmp_path / "cache").ls()) == num_styles
    warm = run(load_spec(manifest, [cache], output=str(tmp_path / "warm")))
    saved = num_styles * cold.method.num_inversion_evaluations
    assert warm.report.evaluations == result.report.evaluations - saved
    assert _digests(tmp_path / "cold") == _digests(tmp_path / "warm")


def test_cache_may_be_a_url(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where copies of a remote cache lie
    changes = [f"features.cache=memory://{tmp_path.name}/styles"]
    cold = load_spec(manifest, changes, output=str(tmp_path / "cold"))
    assert run(cold).report.evaluations == plan(cold).evaluations
    assert len(StyleCache(str(cold.features.cache)).ls()) == len(plan(cold).images(1))
    shutil.rmtree(tmp_path / "home")
    warm = run(load_spec(manifest, changes, output=str(tmp_path / "warm")))
    assert warm.report.evaluations < plan(cold).evaluations
    assert _digests(tmp_path / "cold") == _digests(tmp_path / "warm")


def test_cached_latents_give_the_pictures_of_recomputed_features(
    manifest: Path, tmp_path: Path
) -> None:
    # a cache inverts styles one at a time; several at once have other last bits
    for number in (1, 2):
        (tmp_path / "styles" / f"{number}.png").unlink()
    changes = ["output.image.format=png", "output.shard_size=2"]
    latents = [*changes, "features.codec=trajectory", f"features.cache={tmp_path / 'cache'}"]
    planned = plan(load_spec(manifest, latents))
    names = ("cold", "warm")
    cold, warm = (run(load_spec(manifest, latents, output=str(tmp_path / name))) for name in names)
    assert cold.report.evaluations == planned.evaluations
    saved = len(planned.images(1)) * planned.spec.method.num_inversion_evaluations
    assert warm.report.evaluations == planned.evaluations - saved
    assert main(["cache", "verify", str(tmp_path / "cache")]) == 0
    without = load_spec(
        manifest, [*changes, "features.source=recomputed"], output=str(tmp_path / "none")
    )
    assert run(without).report.evaluations == planned.evaluations
    assert _digests(tmp_path / "cold") == _digests(tmp_path / "warm") == _digests(tmp_path / "none")


@pytest.mark.parametrize("start", ["paper", "level", None])
def test_the_plan_knows_the_bytes_of_cached_latents(
    manifest: Path, tmp_path: Path, start: str | None
) -> None:
    options = {"convention": "diffusers"} if start is None else {"start": start}
    changes = [f"method.{name}={value}" for name, value in options.items()]
    changes += ["features.codec=trajectory", f"features.cache={tmp_path / 'cache'}"]
    spec = load_spec(manifest, changes)
    assert precompute(spec).num_built == len(plan(spec).images(1))
    cache = StyleCache(tmp_path / "cache")
    kept = [cache.open(entry.key).trajectory() for entry in cache.ls()]
    assert all(
        {str(latent.dtype) for latent in latents.values()} == {"float32"} for latents in kept
    )
    stored = sum(latent.nbytes for latents in kept for latent in latents.values())
    assert plan(spec).layout.cache_bytes == stored


@pytest.mark.parametrize(
    "changes", [(), ("features.source=held", "features.cache=x"), ("features.source=recomputed",)]
)
def test_latents_are_kept_by_a_cache_alone(
    manifest: Path, capsys: pytest.CaptureFixture[str], changes: tuple[str, ...]
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    assert main(["plan", str(manifest), "--set", "features.codec=trajectory", *words]) == 2
    assert "features: codec: found trajectory with source" in capsys.readouterr().err


def test_an_output_keeps_its_codec(manifest: Path, tmp_path: Path) -> None:
    changes = [f"features.cache={tmp_path / 'cache'}", "features.source=cached"]
    first, other = (
        load_spec(manifest, [*changes, f"features.codec={codec}"], output=str(tmp_path / "out"))
        for codec in ("trajectory", "x8")
    )
    run(first)
    with pytest.raises(PlanChangedError, match=r"features\.codec"):
        run(other)


def test_cache_serves_runs_without_injection(manifest: Path, tmp_path: Path) -> None:
    changes = ["method.inject=false"]
    cache = f"features.cache={tmp_path / 'cache'}"
    run(load_spec(manifest, [*changes, cache], output=str(tmp_path / "cold")))
    run(load_spec(manifest, [*changes, cache], output=str(tmp_path / "warm")))
    assert _digests(tmp_path / "cold") == _digests(tmp_path / "warm")


def test_precompute_leaves_no_style_to_invert(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "styles" / "broken.png").write_bytes(b"no image")
    arguments = [str(manifest), "--set", f"features.cache={tmp_path / 'cache'}"]
    styles = len(list((tmp_path / "styles").iterdir())) - 1
    assert main(["precompute", *arguments]) == 0
    shown = capsys.readouterr()
    assert f"{styles} styles written" in shown.out
    assert "0 were there, 1 image cannot be used" in shown.out
    assert main(["precompute", *arguments]) == 0
    assert "0 styles written in 0:0" in capsys.readouterr().out
    spec = load_spec(manifest, arguments[2:], output=str(tmp_path / "out"))
    result = run(spec)
    method = spec.method
    contents = len(plan(spec).images(0))
    assert result.report.evaluations == (
        method.num_inversion_evaluations * contents
        + method.num_reverse_evaluations * contents * styles
    )


def test_a_measured_run_loads_its_model_once(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []

    def counting(spec: ModelSpec, **options: Any) -> StableDiffusion:
        loaded.append(spec)
        return load_model(spec, **options)

    for module in (local_engine, measure, worker):
        monkeypatch.setattr(module, "load_model", counting)
    spec = load_spec(manifest, [f"features.cache={tmp_path / 'cache'}"], output=str(tmp_path / "o"))
    result = run(spec)
    assert result.exit_code == 0
    resolved = json.loads((tmp_path / "o" / "run.json").read_text())["resolved"]
    assert resolved["measured"]["evaluation_s"] > 0
    assert resolved["measured"]["read_bytes_s"] > 0
    assert len(loaded) == 1


def test_precompute_inverts_with_the_threads_of_a_run(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, build = torch.get_num_threads(), StyleBank.build
    seen: list[int] = []

    def watched(bank: StyleBank, style: Style) -> None:
        seen.append(torch.get_num_threads())
        build(bank, style)

    monkeypatch.setattr(StyleBank, "build", watched)
    changes = ["engine.threads=3", "features.source=cached"]
    precompute(load_spec(manifest, [*changes, f"features.cache={tmp_path / 'before'}"]))
    assert torch.get_num_threads() == before
    during = [*changes, f"features.cache={tmp_path / 'during'}"]
    run(load_spec(manifest, during, output=str(tmp_path / "out")))
    assert set(seen) == {3}
    tars = [sorted((tmp_path / name).glob("*.tar")) for name in ("before", "during")]
    assert [path.read_bytes() for path in tars[0]] == [path.read_bytes() for path in tars[1]]


def test_precompute_without_a_cache_says_what_to_give(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["precompute", str(manifest)]) == 2
    assert "--set features.cache=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("codec", ["kv", "x", "x8"])
def test_recomputed_features_cost_what_the_plan_says(
    manifest: Path, tmp_path: Path, codec: str
) -> None:
    changes = ["features.source=recomputed", f"features.codec={codec}", "output.shard_size=6"]
    spec = load_spec(manifest, changes, output=str(tmp_path / "out"))
    result = run(spec)
    assert result.report.num_failed == 0
    assert result.report.evaluations == plan(spec).evaluations
    assert plan(spec).evaluations > plan(load_spec(manifest, changes[2:])).evaluations


def test_cached_styles_leave_room_for_larger_blocks(manifest: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    changes = ["output.shard_size=100", "method.steps=50"]
    wide = plan(load_spec(manifest, changes))
    memory = f"engine.feature_gb={wide.identity['feature_bytes'] * 4.5 / 2**30}"
    held = plan(load_spec(manifest, [*changes, memory, "features.source=held"]))
    cache = f"features.cache={tmp_path / 'cache'}"
    cached = plan(load_spec(manifest, [*changes, memory, cache]))
    assert cached.grid.num_blocks < held.grid.num_blocks


def test_other_source_is_another_plan(manifest: Path) -> None:
    digests = {
        plan(load_spec(manifest, [f"features.source={source}"])).digest
        for source in ("auto", "held", "recomputed")
    }
    assert len(digests) == 2
