"""Labels in any script are readable: no empty boxes, no cut letters, the order of the eye, and nothing that stops a report."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

import stylebatch.reports.fonts as fonts
import stylebatch.reports.lettering as lettering
from stylebatch.reports.canvas import Canvas, SheetLayout, broken, elide
from stylebatch.reports.fonts import OWN, has_glyph
from stylebatch.reports.lettering import JOINERS, Lettering, Run, clusters, legible, runs

TWELVE = {
    "Latin": "Kätzchen", "Greek": "γάτα", "Cyrillic": "кошка", "Arabic": "قطة صغيرة", "Hebrew": "חתול", "Devanagari": "बिल्ली",
    "Bengali": "বিড়াল", "Thai": "แมวน้ำ", "Han": "猫", "Kana": "ねこ", "Hangul": "고양이", "emoji": "🐱👩‍🚀",
}  # fmt: skip
CACHES = (
    *(fonts.font_at, fonts.font_for, fonts.has_glyph, fonts.font_files),
    *(lettering.clusters, lettering.runs),
)
texts = st.text(st.characters() | st.sampled_from("aقב猫कแ🐱 3.\u200d\u202e\u0301"), max_size=12)


@pytest.fixture
def without_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has none, and a Pillow without libraqm."""
    for cached in CACHES:
        cached.cache_clear()
    monkeypatch.setattr(fonts, "FOLDERS", ())
    monkeypatch.setattr(fonts, "PACKAGES", ())
    monkeypatch.setattr(lettering, "can_shape", lambda: False)
    yield
    for cached in CACHES:
        cached.cache_clear()


def _drawn(text: str) -> Image.Image:
    canvas = Canvas(SheetLayout(128), 400, 160)
    canvas.label((200, 20), text, 180, "ms")
    canvas.caption((200, 40), "style", text, 180)
    canvas.framed((0, 60, 128, 90), None, f"failed:\n{text}")
    canvas.paragraph((140, 10), text)
    return canvas.image


def _require_legible(text: str) -> None:
    for run in runs(legible(text)):
        for one in run.text:
            kind = unicodedata.category(one)[0]
            assert one in JOINERS or kind in "ZCM" or has_glyph(run.path, one), (text, one)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(texts)
@example("\u200d²")
@example("a\u200d²")
@example("\u200d")
@example("🐱\u200dกقب")
def test_any_text_is_drawn_without_boxes(text: str) -> None:
    _drawn(text)
    _require_legible(text)
    assert legible(legible(text)) == legible(text)
    assert "".join(clusters(text)) == text


@pytest.mark.parametrize("script", TWELVE)
def test_twelve_scripts_leave_ink(script: str) -> None:
    text = TWELVE[script]
    _require_legible(text)
    image = Image.new("L", (300, 60), "white")
    Lettering(20).draw(ImageDraw.Draw(image), (10, 30), text, "black", "lm")
    assert np.asarray(image).min() < 100
    _drawn(text)


@pytest.mark.parametrize("script", TWELVE)
@pytest.mark.usefixtures("without_fonts")
def test_without_fonts_names_are_transliterated(script: str) -> None:
    shown = legible(TWELVE[script])
    assert all(run.path == OWN for run in runs(shown))
    _require_legible(TWELVE[script])
    _drawn(TWELVE[script])
    assert shown.isascii()
    assert shown != TWELVE[script]


@pytest.mark.usefixtures("without_fonts")
def test_what_has_no_name_in_ascii_is_told_by_its_number() -> None:
    assert legible("猫.png") == "Mao.png"
    assert legible("\ue000") == "U+E000"
    assert legible("a\udcff") == "a\\xff"


def test_latin_text_looks_as_pillow_draws_it() -> None:
    ours, pillows = (Image.new("RGB", (200, 60), "white") for _ in range(2))
    Lettering(14).draw(ImageDraw.Draw(ours), (100, 30), "a name 17", "black", "ms")
    font = ImageFont.load_default(14)
    ImageDraw.Draw(pillows).text((100, 30), "a name 17", "black", font, "ms")
    assert ours.tobytes() == pillows.tobytes()


def _seen(text: str) -> list[str]:
    """Texts of the runs from left to right, as they are read."""
    return [run.text.strip() for run in runs(text) if run.text.strip()]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("אב ab גד", ["גד", "ab", "אב"]),
        ("ab אב cd", ["ab", "אב", "cd"]),
        ("אב ab 2024 גד", ["גד", "ab 2024", "אב"]),
        ("\u202eab אב", ["ab", "אב"]),
        ("אב (12) גד", ["גד", "(12)", "אב"]),
    ],
)
@pytest.mark.skipif(not fonts.can_shape(), reason="Pillow without libraqm turns nothing round")
def test_lines_of_two_directions_stand_in_the_order_of_the_eye(text: str, seen: list[str]) -> None:
    if any(fonts.font_for(one) is None for one in "אבגד"):
        pytest.skip("no font has Hebrew")
    assert _seen(text) == seen


def test_letters_are_not_cut_from_their_marks() -> None:
    class Wide:
        def getlength(self, text: str) -> float:
            return 10.0 * len(clusters(text))

    text = "ก้ข้ค้ง้" * 3
    shown = elide(text, Wide(), 60)
    head, tail = shown.split("…")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert {*clusters(head), *clusters(tail)} <= {*clusters(text)}
    lines = list(broken(f"two {text}", Wide(), 50))
    assert "".join(lines).replace(" ", "") == f"two{text}"
    assert all(Wide().getlength(line) <= 50 for line in lines)


def test_runs_are_few() -> None:
    assert runs("plain") == (Run("plain", OWN, "ltr"),)
