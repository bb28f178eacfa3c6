"""The pages of an output in a real browser: filters, slider, marks, keyboard, both themes, a telephone, and output as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stylebatch.folder import Folder
from stylebatch.reports.gallery import gallery
from stylebatch.reports.page_state import MARKS_HEAD
from stylebatch.viewer import watched
from stylebatch.viewer.web_server import WebServer
from tests.support.browsers import axe_faults, chromium, until, visited
from tests.support.outputs import Pair, write_output
from tests.support.viewers import answering, serving, told

EVIL = '<img src=x onerror=alert(1)><b>"bold"</b>'
LONG = "a very long name of a picture " * 12
PAIRS = [
    Pair(
        f"{('cat', 'dog', EVIL.replace('/', ''))[n % 3]}/{n}.png",
        f"paint-{n % 4}.jpg" if n % 7 else f"{EVIL}{LONG}.jpg",
        "decode" if n % 9 == 4 else "",
        caption=EVIL if n % 2 else "",
    )
    for n in range(60)
]
SUCCESS = [n for n in range(60) if n % 9 != 4]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("viewed")
    output = write_output(folder / "out", [PAIRS[:25], PAIRS[25:]], side=48)
    with serving(output, folder / "keys.txt") as found:
        yield found


def _shown(page: Any) -> str:
    return str(page.inner_text("#count"))


def _keys(page: Any) -> list[str]:
    """Keys of the cards in sight, in order."""
    until(
        page,
        "page.grid.mounted.size && [...document.querySelectorAll('#grid .number')].every((one) => one.textContent)",
    )
    return [
        str(text)
        for text in page.eval_on_selector_all(
            "#grid article",
            "cards => cards.sort((a, b) => a.place - b.place).map(c => c.querySelector('.number').textContent.split(' ')[0])",
        )
    ]


def _key(number: int) -> str:
    return f"{0:05d}{number:04d}" if number < 25 else f"{1:05d}{number - 25:04d}"


def test_filters_search_sort_and_brushes_choose_what_the_records_say(
    browser: Any, server: WebServer
) -> None:
    with visited(browser, server.url) as page:
        until(page, "document.getElementById('count').textContent === '60 samples'")
        assert _keys(page)[:4] == [_key(n) for n in range(4)]
        page.select_option("select[data-column=label]", label="dog")
        assert _shown(page) == "20 of 60 samples"
        page.select_option("select[data-column=status]", label="failed")
        failed_dogs = [n for n in range(60) if n % 3 == 1 and n % 9 == 4]
        assert _keys(page) == [_key(n) for n in failed_dogs]
        reason = page.inner_text("#grid article .reason >> nth=0")
        assert reason == f"decode: {PAIRS[4].content}: <broken>"
        page.click("#clear")
        assert _shown(page) == "60 samples"
        page.fill("#text", "PAINT-2 cat")
        found = [n for n in range(60) if n % 3 == 0 and n % 4 == 2 and n % 7]
        until(page, f"document.getElementById('count').textContent.startsWith('{len(found)} of')")  # fmt: skip
        assert _keys(page) == [_key(n) for n in found]
        page.click("#clear")
        page.fill("#where", "contrast > 100 and status = 'success'")
        page.press("#where", "Enter")
        above = [n for n in SUCCESS if 10 * (n % 25 if n < 25 else n - 25) + 10 > 100]
        until(page, f"document.getElementById('count').textContent.startsWith('{len(above)} of')")  # fmt: skip
        page.fill("#where", "contrst > 1")
        page.press("#where", "Enter")
        until(page, "document.getElementById('where-fault').textContent.includes('did you mean contrast')")  # fmt: skip
        page.faults.clear()  # the browser itself tells of the answer 400
        page.click("#clear")
        page.select_option("#sort", label="contrast, high first")
        assert _keys(page)[0] == _key(59)
        page.fill("[aria-label='least contrast']", "200")
        page.fill("[aria-label='most contrast']", "250")
        within = [n for n in SUCCESS if 200 <= 10 * (n + 1 if n < 25 else n - 24) <= 250]
        until(page, f"document.getElementById('count').textContent.startsWith('{len(within)} of')")  # fmt: skip
        page.click("#clear")
        box = page.locator("[data-column=structure] svg").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] + 5, box["y"] + 20, steps=4)
        page.mouse.up()
        until(page, "document.getElementById('count').textContent.includes(' of 60')")
        page.wait_for_timeout(50)
        low, high = (float(page.input_value(f"[aria-label='{end} structure']")) for end in ("least", "most"))  # fmt: skip
        values = [(n + 1 if n < 25 else n - 24) / 10 for n in SUCCESS]
        count = sum(low <= one <= high for one in values)
        until(page, f"document.getElementById('count').textContent === '{count} of 60 samples'")
        page.click("[data-column=structure] svg")
        until(page, "document.getElementById('count').textContent === '60 samples'")


def test_a_sample_is_compared_zoomed_and_told_whole(browser: Any, server: WebServer) -> None:
    with visited(browser, server.url) as page:
        page.click("#grid article:nth-child(2) .open")
        until(page, "document.getElementById('after').naturalWidth === 48")
        assert page.inner_text("#sample-key") == _key(1)
        columns = page.inner_text("#columns")
        row = pq.read_table(Path(str(server.answers.watched.output)) / "metadata/train-00000.parquet")  # fmt: skip
        for name, value in row.slice(1, 1).to_pylist()[0].items():
            assert name in columns
            assert not isinstance(value, str) or value in columns
        assert "styleid" in page.inner_text("#lineage")
        assert (
            page.inner_text("#beside figure:nth-child(2) figcaption") == f"style: {PAIRS[1].style}"
        )
        assert page.inner_text("#sample-text") == EVIL
        page.eval_on_selector("#share", "one => { one.value = 25; one.dispatchEvent(new Event('input')) }")  # fmt: skip
        assert page.eval_on_selector("#before", "one => one.style.clipPath") == "inset(0px 75% 0px 0px)"  # fmt: skip
        stage = page.locator("#canvas").bounding_box()
        page.mouse.click(stage["x"] + stage["width"] * 0.6, stage["y"] + stage["height"] / 2)
        assert abs(float(page.input_value("#share")) - 60) <= 1
        page.press("#sample", "b")
        assert page.input_value("#share") == "0"
        for width in (48, 96, 192, 384):
            page.press("#sample", "z")
            assert page.eval_on_selector("#canvas", "one => one.style.width") == f"{width}px"
        page.press("#sample", "j")
        until(page, f"document.getElementById('sample-key').textContent === '{_key(2)}'")
        page.press("#sample", "j")
        page.press("#sample", "j")
        until(page, f"document.getElementById('sample-key').textContent === '{_key(4)}'")
        assert page.inner_text("#sample-fault") == f"decode: {PAIRS[4].content}: <broken>"
        page.press("#sample", "Escape")
        assert not page.is_visible("#sample")


def test_the_keyboard_reaches_all_and_marks_are_written(
    browser: Any, server: WebServer, tmp_path: Path
) -> None:
    keys = Path(server.answers.marks.where)  # type: ignore[union-attr]
    with visited(browser, server.url) as page:
        _keys(page)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("x")
        page.wait_for_selector("#grid article.marked")
        page.keyboard.press("End")
        until(page, f"document.activeElement.getAttribute('aria-label')?.startsWith('{_key(59)}')")  # fmt: skip
        page.keyboard.press("Enter")
        until(page, f"document.getElementById('sample-key').textContent === '{_key(59)}'")  # fmt: skip
        page.keyboard.press("x")
        page.wait_for_selector("#sample-mark[aria-pressed=true]")
        page.keyboard.press("Escape")
        assert keys.read_text().splitlines()[1:] == [_key(1), _key(59)]
        assert page.evaluate("document.activeElement.closest('article').place") == 59
        order = page.eval_on_selector_all("#grid article", "cards => cards.map(card => card.place)")
        assert order == sorted(order)
        page.keyboard.press("Home")
        until(page, f"document.activeElement.getAttribute('aria-label')?.startsWith('{_key(0)}')")
        order = page.eval_on_selector_all("#grid article", "cards => cards.map(card => card.place)")
        assert order == sorted(order)
        # the card is whole in sight, below the line that stays above the grid
        card, bar = (page.locator(one).bounding_box() for one in ("#grid article >> nth=0", "#bar"))
        assert card["y"] >= bar["y"] + bar["height"] - 1
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "text"
        page.keyboard.type("x")
        page.keyboard.press("Escape")
        page.click("#clear")
        page.check("#only-marked")
        until(page, "document.getElementById('count').textContent === '2 of 60 samples'")
        assert "2 marked" in page.inner_text("#marked")
        page.click("#grid article .mark >> nth=0")
        until(page, "document.getElementById('count').textContent === '1 of 60 samples'")
        page.click("#grid article .mark >> nth=0")
        until(page, "document.getElementById('count').textContent === '0 of 60 samples'")
        assert keys.read_text().splitlines()[1:] == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 720}, "device_scale_factor": 2, "has_touch": True},
        {"color_scheme": "dark", "viewport": {"width": 360, "height": 720}, "forced_colors": "active"},
    ],
    ids=["light", "dark", "telephone", "forced"],
)  # fmt: skip
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    browser: Any, server: WebServer, options: dict[str, Any]
) -> None:
    with visited(browser, server.url, **options) as page:
        _keys(page)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = options.get("color_scheme") == "dark"
        if "forced_colors" not in options:
            assert (ground == "rgb(22, 22, 24)") == is_dark
        page.eval_on_selector_all("#panel, #panel details", "all => all.forEach(one => one.open = true)")  # fmt: skip
        assert axe_faults(page) == []
        page.eval_on_selector("#grid .open", "one => one.click()")
        until(page, "document.getElementById('after').naturalWidth > 0")
        assert axe_faults(page) == []
        for name in ("document.documentElement", "document.getElementById('sample')"):
            assert page.evaluate(f"{name}.scrollWidth <= {name}.clientWidth")
        # names with markup stayed names
        assert page.evaluate("document.querySelectorAll('main b, dialog b, #panel b').length") == 0


def test_a_corrupt_shard_is_told_where_its_samples_are(browser: Any, tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", [PAIRS[:3], PAIRS[6:9]], side=48)
    path = output / "data/train-00001.tar"
    path.write_bytes(path.read_bytes()[:1100])
    with serving(output) as server, visited(browser, server.url) as page:
        until(
            page,
            "[...document.querySelectorAll('#grid .reason')].filter(one => one.textContent.includes('cannot be read')).length === 3",
        )
        page.click("#grid article:nth-child(4) .open")
        until(page, "document.getElementById('sample-fault').textContent.includes('stylebatch repair')")  # fmt: skip
        page.press("#sample", "k")
        until(page, "document.getElementById('after').naturalWidth === 48")
        assert page.inner_text("#sample-fault") == ""
        page.press("#sample", "Escape")
        assert "cannot be marked" in page.inner_text("#notices")
        assert page.faults  # the browser's own, of pictures that were refused
        page.faults.clear()


def test_a_run_under_way_shows_its_progress_and_last_pictures(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylebatch.store.run_lock import RunLock

    monkeypatch.setattr(watched, "AGAIN_S", 0.1)
    output = write_output(tmp_path / "out", [PAIRS[:3], PAIRS[6:9], PAIRS[14:17]], planned=(12, 4))
    markers = sorted(output.glob("metadata/*_stats.json"))
    kept = {path: path.read_bytes() for path in markers}
    for path in markers:
        path.unlink()
    with RunLock(Folder.at(output)), serving(output) as server:
        server.answers.watched._looked = float("-inf")
        with visited(browser, server.url) as page:
            page.wait_for_selector("#live:not([hidden])")
            until(page, "document.getElementById('count').textContent.includes('No sample')")  # fmt: skip
            for number, (path, data) in enumerate(kept.items()):
                path.write_bytes(data)
                until(page, f"page.look() && document.querySelectorAll('#newest img').length === {3 * number + 3}")  # fmt: skip
            assert page.eval_on_selector("#progress", "one => [one.value, one.max]") == [9, 12]
            until(page, "document.querySelectorAll('#grid article').length === 9")
            page.click("#newest button")
            until(page, "document.getElementById('after').naturalWidth === 32")
            page.press("#sample", "Escape")


def test_an_output_of_prompts_has_no_slider(browser: Any, tmp_path: Path) -> None:
    bare = write_output(tmp_path / "out", [PAIRS[:3]], inputs=False, side=48)
    run = json.loads((bare / "run.json").read_text()) | {"name": EVIL}
    (bare / "run.json").write_text(json.dumps(run))
    with serving(bare) as server, visited(browser, server.url) as page:
        page.click("#grid article .open >> nth=0")
        until(page, "document.getElementById('after').naturalWidth === 48")
        assert not page.is_visible("#slider")
        assert page.locator("#beside figure").count() == 0
        page.press("#sample", "Escape")
        assert page.inner_text("h1") == page.title() == EVIL


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_gallery_is_the_same_page_without_a_server(
    browser: Any, tmp_path: Path, scheme: str
) -> None:
    output = write_output(tmp_path / "out", [PAIRS[:25], PAIRS[25:]], side=48)
    url = Path(gallery(output)).as_uri()
    with visited(browser, url, color_scheme=scheme, accept_downloads=True) as page:
        until(page, "document.getElementById('count').textContent === '60 samples'")
        assert not page.is_visible("#where")
        page.fill("#text", "PAINT-2 cat")
        found = [n for n in SUCCESS if n % 3 == 0 and n % 4 == 2 and n % 7]
        failed = [n for n in range(60) if n % 3 == 0 and n % 4 == 2 and n % 7 and n % 9 == 4]
        until(page, f"document.getElementById('count').textContent.startsWith('{len(found + failed)} of')")  # fmt: skip
        assert _keys(page) == [_key(n) for n in (*found, *failed)]
        page.click("#clear")
        page.select_option("select[data-column=status]", label="failed")
        assert _keys(page)[0] == _key(4)
        assert page.inner_text("#grid .reason >> nth=0") == f"decode: {PAIRS[4].content}: <broken>"
        page.click("#clear")
        page.click("#grid article:nth-child(2) .open")
        until(page, "document.getElementById('after').naturalWidth === 48")
        until(page, "document.getElementById('before').naturalWidth === 48")
        assert page.inner_text("#sample-text") == EVIL
        assert "gamma 0.75" in page.inner_text("#lineage")
        assert axe_faults(page) == []
        page.press("#sample", "x")
        page.press("#sample", "Escape")
        assert axe_faults(page) == []
        with page.expect_download() as download:
            page.click("#marked a")
        saved = Path(download.value.path()).read_text()
        assert saved.startswith(MARKS_HEAD)
        assert saved.splitlines()[1:] == [_key(1)]
        # the viewer goes on with them
        with answering(output, Path(download.value.path())) as answers:
            assert told(answers, "/api/marks") == {"keys": [_key(1)]}
