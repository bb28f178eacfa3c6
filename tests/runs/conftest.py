"""Runs within a test process share models, in the files that are named here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.shared_models import checks_share_networks, runs_share_models

SHARING = {
    *("test_run", "test_feature_runs", "test_split_runs", "test_verify", "test_any_manifest"),
    *(
        "test_growth",
        "test_tampered",
        "test_generations",
        "test_inputs_known",
        "test_custom_method",
    ),
    *("test_inputs_once", "test_chosen_features", "test_kill_grown"),
    *("test_prompt_runs", "test_beyond", "test_evaluate", "test_style_bank"),
    *("test_example_manifests", "test_native_aspect", "test_measure_output"),
    *("test_frozen_pixels", "test_labelled_runs", "test_second_generations", "test_row_columns"),
    *("test_source_kinds", "test_clean", "test_beginning", "test_gated_runs"),
}


@pytest.fixture(scope="session", autouse=True)
def _networks() -> Iterator[None]:
    with checks_share_networks():
        yield


@pytest.fixture(scope="module", autouse=True)
def _models(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.module.__name__.rpartition(".")[2] not in SHARING:
        yield
        return
    with runs_share_models():
        yield
