"""A hundred thousand samples in the viewer: what the page promises at that size, by bounds that a busy machine keeps too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.bench.simulated_output import NUM_STYLES, simulate
from pipelines.bench.viewing import measured, viewer
from tests.support.browsers import chromium, until, visited

COUNT = 100_000

pytestmark = pytest.mark.slow


def test_a_hundred_thousand_samples_are_looked_through(tmp_path: Path) -> None:
    with chromium():
        pass
    output = simulate(tmp_path / "output", COUNT, side=48)
    found = measured(output)
    assert found["samples"] == COUNT
    assert found["first pictures, s"] < 10
    assert (
        max(value for name, value in found.items() if name.startswith(("filter", "brush"))) < 1000
    )
    assert found["cards in the page"] < 100
    assert found["memory of the page, MB"] < 100
    assert found["memory of the server, MB"] < 600
    with viewer(output) as (_, url), chromium() as browser, visited(browser, url) as page:
        until(page, f"page.table?.length === {COUNT} && !page.state.is_loading")
        # more styles than a list may hold are suggested while one types
        page.fill("input[data-column=style_id]", "painting_00031")
        assert page.locator("#names-style_id option").count() == 1
        page.fill("input[data-column=style_id]", "painting_00031.jpg")
        count = COUNT // NUM_STYLES
        until(
            page, f"document.getElementById('count').textContent === '{count} of 100,000 samples'"
        )
