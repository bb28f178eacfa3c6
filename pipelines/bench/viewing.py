"""python -m pipelines.bench.viewing [SAMPLES]: what `stylebatch view` takes on a simulated output, in a real browser.

About two minutes for 100,000 samples; needs chromium and playwright. Prints the time to the first pictures and to all columns,
of filters, a sort and a search, of a jump to the middle, and the memory of server and page. Leaves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipelines.bench.simulated_output import simulate

TIMES = 9
LAID_OUT = "document.body.offsetHeight"
FILTERS = {
    "filter of a class": "page.selects.get('label').value = 'class 0007'; page.apply()",
    "filter of a style": "page.selects.get('style_id').value = 'painting_00031.jpg'; page.apply()",
    "brush of a measure": "page.histograms.get('structure').brush = [0.7, 0.8]; page.apply()",
    "sort by a measure": "page.part('sort').value = 'contrast -1'; page.apply()",
}


@contextmanager
def viewer(output: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Process and address of a viewer."""
    words = [sys.executable, "-m", "stylebatch", "view", str(output), "--keys", str(output / "marks.txt")]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            yield psutil.Process(process.pid), process.stdout.readline().partition(": ")[2].strip()
        finally:
            process.terminate()


def measured(output: Path) -> dict[str, Any]:
    """Seconds and bytes by what was measured."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {}
    with viewer(output) as (process, url), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])  # fmt: skip
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        page.goto(url)
        _until(page, "[...document.querySelectorAll('#grid img')].some(one => one.naturalWidth)")
        found["first pictures, s"] = time.perf_counter() - start
        _until(page, "page.state && !page.state.is_loading && page.table?.length === page.state.num_rows")  # fmt: skip
        found["all columns, s"] = time.perf_counter() - start
        found["samples"] = page.evaluate("page.table.length")
        for name, script in FILTERS.items():
            timed = f"(() => {{ const start = performance.now(); {script}; {LAID_OUT}; return performance.now() - start }})()"
            took = [page.evaluate(timed) for _ in range(TIMES)]
            found[f"{name}, ms"] = statistics.median(took)
            page.evaluate("page.clear()")
        start = time.perf_counter()
        page.evaluate("page.find('text', { text: 'photograph_0001' })")
        found["search, ms"] = 1000 * (time.perf_counter() - start)
        page.evaluate("page.clear()")
        start = time.perf_counter()
        page.evaluate("page.grid.to(page.grid.total / 2)")
        _until(page, "[...page.grid.mounted.values()].filter(one => one.querySelector('img').naturalWidth).length > 8")  # fmt: skip
        found["jump to the middle, s"] = time.perf_counter() - start
        for place in range(60):
            page.evaluate(f"page.grid.to(page.grid.total * {place / 60})")
            page.wait_for_timeout(30)
        found["cards in the page"] = page.evaluate("document.querySelectorAll('#grid article').length")  # fmt: skip
        found["memory of the page, MB"] = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        found["memory of the server, MB"] = process.memory_full_info().uss / 1e6
        browser.close()
    return found


def _until(page: Any, expression: str) -> None:
    end = time.monotonic() + 300
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(10)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        output = simulate(Path(folder) / "output", count, side=96 if count <= 200_000 else 16)
        found = measured(output)
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=1) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
