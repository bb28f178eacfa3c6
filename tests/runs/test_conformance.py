"""The reference cases of the authors' code pass; perturbed ones do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from stylebatch.conformance import Comparison, run_cases
from stylebatch.conformance.stylealigned import run_prompts
from stylebatch.errors import ManifestError
from tests.support.golden import link_folder


@pytest.mark.parametrize(
    ("case", "num_tensors"),
    [
        ("styleid_ldm_imageio", 2),
        ("styleid_diffusers_eps", 25),
        ("styleid_diffusers_v", 25),
        ("styleid_ldm", 51),
        ("stylealigned_panorama", 6),
        ("stylealigned_sdxl", 6),
    ],
)
def test_reference_case_is_reproduced(golden: Path, case: str, num_tensors: int) -> None:
    found = list(run_cases(golden / case))
    assert [comparison.line() for comparison in found if not comparison.ok] == []
    assert len(found) == num_tensors


def perturbed(
    linked: Callable[..., Path], source: Path, change: Callable[[dict[str, Any]], object]
) -> dict[str, Comparison]:
    """Run a copy of the 10-step case with changed options."""
    folder = linked(source, "case", without=("options.json",))
    options = json.loads((source / "options.json").read_text(encoding="utf-8"))
    del options["cases"]["steps20"]
    change(options["cases"]["steps10"])
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    return {comparison.name: comparison for comparison in run_cases(folder)}


@pytest.mark.parametrize(
    ("change", "start_ok"),
    [
        ({"gamma": 0.25}, True),
        ({"tau": 1.0}, True),
        ({"sites": [7, 8, 9, 10]}, True),
        ({"inject": False}, True),
        ({"init_adain": False}, False),
    ],
    ids=str,
)
def test_a_wrong_option_fails_the_result_but_not_what_precedes_it(
    linked: Callable[..., Path], golden: Path, change: dict[str, Any], start_ok: bool
) -> None:
    found = perturbed(linked, golden / "styleid_diffusers_eps", lambda case: case.update(change))
    assert found["content/z0"].ok
    assert found["case/steps10/x_T"].ok is start_ok
    final = found["case/steps10/final_pred_x0"]
    assert not final.ok
    assert final.rel_l2 is not None
    assert 0.01 < final.rel_l2 < 10.0
    assert final.line().endswith("FAILED")


ALIGNED = "case/t2i_default_args/final"


def aligned(folder: Path, change: dict[str, Any], **others: Any) -> Path:
    """The options of a case of StyleAligned, with those of its default arguments changed, and that case alone."""
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    case = options["cases"]["t2i_default_args"]
    options["cases"] = {"t2i_default_args": {**case, **change}}
    options["tolerances"] = {ALIGNED: {"max_abs": 0.001, "rel_l2": 2e-5}}
    (folder / "options.json").unlink()  # a link to the reference case
    (folder / "options.json").write_text(json.dumps(options | others), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """A case of two steps: what it expects is what the code does that reproduces the authors' ten."""
    name = "stylealigned_sdxl"
    folder = link_folder(golden / name, tmp_path_factory.mktemp("two") / name)
    aligned(folder, {}, steps=2)
    (folder / "expected.safetensors").unlink()
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    save_file({ALIGNED: run_prompts(folder, options)[ALIGNED]}, folder / "expected.safetensors")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"share_group_norm": False},
        {"adain_queries": False},
        {"adain_keys": False},
        {"adain_values": True},
        {"shared_score_shift": 0.6931471805599453},
        {"shared_score_scale": 1.2},
        {"full_attention_share": True},
        {"only_self_level": 0.5},
    ],
    ids=str,
)
def test_a_wrong_option_of_style_aligned_fails(
    linked: Callable[..., Path], two_steps: Path, change: dict[str, Any]
) -> None:
    (found,) = run_cases(aligned(linked(two_steps, "case"), change))
    assert not found.ok
    assert found.rel_l2 is not None
    assert 1e-3 < found.rel_l2 < 10.0


def test_a_wrong_guidance_fails_the_case_of_the_authors(
    linked: Callable[..., Path], golden: Path
) -> None:
    (found,) = run_cases(aligned(linked(golden / "stylealigned_sdxl", "case"), {"guidance": 4.9}))
    assert not found.ok
    assert found.rel_l2 is not None
    assert 1e-3 < found.rel_l2 < 10.0


def test_a_tensor_that_was_not_produced_fails(linked: Callable[..., Path], golden: Path) -> None:
    found = perturbed(linked, golden / "styleid_diffusers_eps", lambda case: None)
    missing = [comparison for name, comparison in found.items() if name.startswith("case/steps20/")]
    assert missing
    assert all(not comparison.ok and comparison.max_abs == float("inf") for comparison in missing)
    assert all(
        comparison.ok for name, comparison in found.items() if not name.startswith("case/steps20/")
    )


def test_a_perturbed_picture_fails(linked: Callable[..., Path], golden: Path) -> None:
    source = golden / "styleid_ldm_imageio"
    folder = linked(source, "case", without=("options.json",))
    options = json.loads((source / "options.json").read_text(encoding="utf-8"))
    options["cases"]["portrait"]["image"] = options["cases"]["landscape_odd"]["image"]
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    found = {comparison.name: comparison.ok for comparison in run_cases(folder)}
    assert found == {"landscape_odd/pixels": True, "portrait/pixels": False}


@pytest.mark.parametrize(
    ("max_abs", "rel_l2", "ok"),
    [
        (0.5, 0.5, True),
        (1.0, 1.0, True),
        (1.5, 0.5, False),
        (0.5, 1.5, False),
        (float("nan"), 0.5, False),
        (0.5, float("nan"), False),
        (float("inf"), float("inf"), False),
    ],
)
def test_both_tolerances_must_hold_and_nan_never_does(
    max_abs: float, rel_l2: float, ok: bool
) -> None:
    comparison = Comparison("x", max_abs, 1.0, rel_l2, 1.0)
    assert comparison.ok is ok
    assert comparison.line().endswith("ok" if ok else "FAILED")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"kind": "instantstyle"}, "found 'instantstyle'"),
        ({"kind": "styleid", "convention": "sdxl"}, "(convention 'sdxl')"),
        ({}, "found None"),
        ({"kind": "image_load", "crop": "pad", "resample": "lanczos"}, "found crop 'pad'"),
    ],
)
def test_a_kind_that_is_not_built_is_an_error_that_says_so(
    tmp_path: Path, options: dict[str, Any], found: str
) -> None:
    (tmp_path / "options.json").write_text(json.dumps(options), encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        list(run_cases(tmp_path))
    assert caught.value.exit_code == 2
    assert str(tmp_path / "options.json") in str(caught.value)
    assert found in str(caught.value)
    assert "accepted: " in str(caught.value)


@pytest.mark.parametrize("content", [None, "{", "[1, 2]"])
def test_a_folder_that_is_no_case_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "options.json").write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match=r"options\.json"):
        list(run_cases(tmp_path))
