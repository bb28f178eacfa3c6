"""The measurement of listing makes its inputs, and lists all of them."""

from __future__ import annotations

import pytest

from pipelines.bench.listing import main

KINDS = ("webdataset", "saved")


def test_each_kind_is_listed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "200", "--kinds", *KINDS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" items")[0] for line in lines] == [f"{kind}: 200" for kind in KINDS]
