"""Presets are names for options; a range gives each sample a value of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stylebatch.methods.method import PairMethod
from stylebatch.methods.plain.options import Img2ImgOptions, InpaintOptions, Text2ImgOptions
from stylebatch.methods.ranges import Range
from stylebatch.methods.stylealigned.options import StyleAlignedOptions
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.reports.parameters import option

METHODS = (StyleIDOptions, StyleAlignedOptions, Text2ImgOptions, Img2ImgOptions, InpaintOptions)


def with_options(kind: Any, **given_options: Any) -> Any:
    return kind(**given_options)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("preset", ["paper", "fast", "draft"])
def test_every_method_has_every_preset_and_reads_back_what_it_dumps(kind: Any, preset: str) -> None:
    found = kind(preset=preset)
    assert kind(**found.model_dump()) == found
    assert kind.model_validate_json(found.model_dump_json()) == found
    assert found.preset_words.startswith(f"preset {preset}: ")
    assert found.record_values()["preset"] == preset
    assert found.record_types()["preset"] == "string"
    steps = [kind(preset=name).steps for name in ("draft", "fast", "paper")]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("kind", METHODS)
def test_without_a_preset_dumps_and_records_are_as_ever(kind: Any) -> None:
    assert "preset" not in kind().model_dump()
    assert "preset" not in kind().record_types()
    assert kind(preset="paper").model_copy(update={"preset": None}) == kind()


class NeedsOne(PairMethod):
    """A user's method with an option that has no default."""

    needed: float


def test_a_preset_of_a_method_with_required_options_is_told() -> None:
    found = with_options(NeedsOne, preset="paper", needed=1.5, steps=3)
    assert found.preset_words == "preset paper: the defaults"
    with pytest.raises(ValidationError, match="which this method lacks; accepted: paper"):
        with_options(NeedsOne, preset="fast", needed=1.5)


def test_an_option_beside_a_preset_goes_first_also_when_it_is_a_default() -> None:
    found = StyleIDOptions(preset="fast", solver="ddim", steps=20)
    assert (found.solver, found.steps, found.grid) == ("ddim", 20, "spread")
    assert StyleIDOptions(**found.model_dump()) == found
    assert "solver ddim" in found.preset_words


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"preset": "fats"}, "'paper', 'fast' or 'draft'"),
        ({"preset": 3}, "'paper', 'fast' or 'draft'"),
        (
            {"preset": "fast", "convention": "diffusers"},
            "with convention diffusers; accepted: paper",
        ),
        ({"gamma": {"from": 0.9, "to": 0.5}}, "above `from`"),
        ({"gamma": {"from": 0.5, "to": 0.5}}, "above `from`"),
        ({"gamma": {"from": 0.5, "to": 1.5}}, "accepted: 0 to 1"),
        ({"gamma": {"from": 0.5}}, "Field required"),
        ({"gamma": {"from": 0.5, "to": float("nan")}}, "finite number"),
        ({"tau": {"from": 0.0, "to": 1.0}}, "accepted: 0.01 to 10"),
        ({"gamma": {"from": 0.1, "to": 0.2}, "site_gammas": [0.5] * 6}, "beside site_gammas"),
        ({"steps": {"from": 10, "to": 20}}, "valid integer"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        with_options(StyleIDOptions, **options)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(0, 2**63 - 1), st.floats(0.0, 0.99), st.floats(0.001, 1.0))
def test_a_sample_draws_one_value_within_the_range(seed: int, low: float, width: float) -> None:
    high = min(1.0, low + width)
    options = with_options(StyleIDOptions, gamma={"from": low, "to": high})
    found = options.drawn(seed)
    assert low <= found.gamma <= high
    assert found == options.drawn(seed)
    assert found.record_values()["gamma"] == found.gamma
    assert found.tau == options.tau


def test_values_fill_the_range_evenly_and_options_draw_apart() -> None:
    gammas = [Range(**{"from": 0.0, "to": 1.0}).drawn(seed, "gamma") for seed in range(2000)]
    taus = [Range(**{"from": 0.0, "to": 1.0}).drawn(seed, "tau") for seed in range(2000)]
    for part in range(10):
        assert 150 < sum(part / 10 <= gamma < (part + 1) / 10 for gamma in gammas) < 250
    assert sum((g < 0.5) == (t < 0.5) for g, t in zip(gammas, taus, strict=True)) < 1100


def test_a_range_is_told_in_words() -> None:
    dumped = with_options(StyleIDOptions, gamma={"from": 0.5, "to": 0.9}).model_dump(mode="json")
    assert option("gamma", dumped["gamma"]) == "gamma 0.5 to 0.9"
