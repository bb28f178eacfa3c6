"""The tables of weights beside each other: their differences, the interval, and one model through all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.embedded.compare_weights import Measured, interval, main, tables
from tests.support.images import picture


def test_last_column_is_the_last_less_the_first_and_the_interval_is_of_pairs() -> None:
    rng = np.random.default_rng(1)
    before = rng.random((6, 5)).astype(np.float32)
    made = [
        Measured({"psnr": value}, {"agreement after stylising": value}, agreed, [])
        for value, agreed in ((1.0, before), (9.0, rng.random((6, 5))), (1.5, before + 0.25))
    ]
    text = tables(["tiny", "a/middle/model", "b"], made)
    assert "| tiny | middle | b | last less first |" in text
    assert "| psnr | 1.000 | 9.000 | 1.500 | +0.500 |" in text
    assert "+0.500 (+0.250 to +0.250)" in text
    assert "last less first" not in tables(["tiny"], made[:1])


def test_interval_is_wider_where_contents_differ_than_where_pairs_do() -> None:
    rng = np.random.default_rng(2)
    contents = np.broadcast_to(rng.normal(size=8), (8, 8)).astype(np.float32)
    pairs = rng.normal(size=(8, 8)).astype(np.float32)
    (low, high), (lower, higher) = interval(contents), interval(pairs)
    assert low < contents.mean() < high
    assert high - low > 1.5 * (higher - lower)


@pytest.mark.slow
def test_a_model_beside_itself_differs_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("contents", "styles", "none"):
        (tmp_path / name).mkdir()
    picture(1).save(tmp_path / "contents" / "a.PNG")
    picture(2).save(tmp_path / "styles" / "b.png")
    given = ["--contents", str(tmp_path / "contents"), "--steps", "2", "--out", str(tmp_path)]
    asked = ["compare_weights", "tiny", "tiny", *given, "--styles"]
    monkeypatch.setattr(sys, "argv", [*asked, str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"holds no picture; accepted: \.jpeg, \.jpg, "):
        main()
    monkeypatch.setattr(sys, "argv", [*asked, str(tmp_path / "styles")])
    main()
    rows = [line for line in capsys.readouterr().out.splitlines() if "+0.000" in line]
    assert len(rows) == 17
    with Image.open(tmp_path / "compared.png") as shown:
        assert shown.size == (128, 256)
