"""Profiles of devices: what is written is read, what is damaged is passed over, the nearest is taken."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.cli.arguments import size_in_bytes
from stylebatch.errors import ManifestError
from stylebatch.planning.forecast import Forecast, require_within
from stylebatch.planning.profiles import Profile, find_profile, save_profile

ONE = Profile(
    model="tiny",
    fingerprint="ab" * 32,
    device="cpu",
    name="",
    dtype="float32",
    threads=2,
    size=128,
    row_s={1: 0.5, 4: 0.25, 16: 0.125},
    related_row_s={1: 0.5, 4: 0.375, 16: 0.25},
    encode_s=0.01,
    decode_s=0.02,
    sample_s=0.003,
    load_s=2.0,
    measured="2026-01-31",
)


def test_the_profile_nearest_in_size_is_found_and_the_last_of_several(tmp_path: Path) -> None:
    for one in (
        ONE,
        replace(ONE, size=512),
        replace(ONE, threads=4, measured="2026-02-01"),
        replace(ONE, fingerprint="cd" * 32),
        replace(ONE, device="cuda", dtype="float16", measured="2026-01-01"),
    ):
        save_profile(str(tmp_path), one)
    found = find_profile(str(tmp_path), ONE.fingerprint, 128)
    assert found == replace(ONE, threads=4, measured="2026-02-01")
    assert found.row_s == {1: 0.5, 4: 0.25, 16: 0.125}
    assert find_profile(str(tmp_path), ONE.fingerprint, 1024) == replace(ONE, size=512)
    on_gpu = find_profile(str(tmp_path), ONE.fingerprint, 512, device="cuda")
    assert on_gpu is not None
    assert on_gpu.dtype == "float16"
    assert find_profile(str(tmp_path), ONE.fingerprint, 128, dtype="bfloat16") is None
    assert find_profile(str(tmp_path), "ef" * 32, 128) is None
    assert find_profile(str(tmp_path / "none"), ONE.fingerprint, 128) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_profile_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("profiles")
    save_profile(str(folder), ONE)
    path = folder / ONE.file
    good = json.dumps(asdict(ONE))
    cut = good[: data.draw(st.integers(0, len(good) - 1))]
    edited = {
        **asdict(ONE),
        data.draw(st.sampled_from(sorted(asdict(ONE)))): data.draw(st.none() | st.just([])),
    }
    wrong = [{"row_s": {"1": -1.0}}, {"row_s": {"-3": 0.1}}, {"row_s": {"1": 0.0}}, {"size": 0}]
    negative = asdict(ONE) | data.draw(st.sampled_from(wrong))
    path.write_text(data.draw(st.sampled_from([cut, json.dumps(edited), json.dumps(negative)])))
    assert find_profile(str(folder), ONE.fingerprint, 128) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200))
def test_a_row_takes_what_the_nearest_batch_took(batch: int) -> None:
    assert ONE.row_seconds(batch) in ONE.row_s.values()
    assert [ONE.row_seconds(rows) for rows in (1, 4, 16, 200)] == [0.5, 0.25, 0.125, 0.125]
    assert [ONE.row_seconds(rows, related=True) for rows in (1, 4, 200)] == [0.5, 0.375, 0.25]


def test_limits_refuse_in_advance() -> None:
    found = Forecast(
        device_s=7200.0, workers=2, output_bytes=10_000, cache_bytes=5_000, peak_bytes=10**9, host_bytes=0,
        profile=ONE, is_scaled=False,
    )  # fmt: skip
    require_within(found, None, None)
    require_within(found, 1.0, 15_000)
    with pytest.raises(
        ManifestError, match=r"--max-hours: found 0\.5, and the run takes about 1 hours"
    ):
        require_within(found, 0.5, None)
    with pytest.raises(
        ManifestError, match="--max-bytes: found 14,999, and the run writes about 15,000"
    ):
        require_within(found, None, 14_999)
    unknown = replace(found, device_s=None, profile=None)
    with pytest.raises(ManifestError, match="has no profile of the model; next: stylebatch doctor"):
        require_within(unknown, 0.5, None)
    assert (found.cost(3.0), unknown.cost(3.0)) == (6.0, None)
    assert "6.00 at 3 an hour" in found.lines(3.0)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10KB", 10_000), ("1.5 TB", 1.5e12), ("20GiB", 20 * 2**30), ("15000", 15_000)],
)
def test_bounds_on_bytes_have_units(text: str, expected: float) -> None:
    assert size_in_bytes(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "0MB", "ten", "10XB", "1e9", "", "nan"])
def test_bounds_that_are_no_bytes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"found .*; accepted: a number of bytes"):
        size_in_bytes(text)
