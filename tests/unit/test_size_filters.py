"""Images are passed over by size and proportions: as a look at each would do it, from headers alone."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.choosing import chosen
from stylebatch.data.sources.image_folder import ImageFolder
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.data.sources.source import Ref
from stylebatch.errors import ManifestError
from tests.support.packed import tar

ORIENTATION = 0x0112


def _encoded(width: int, height: int, kind: str = "JPEG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def _listed(path: Path, **options: object) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(
    pictures=st.lists(
        st.tuples(
            st.integers(8, 64), st.integers(8, 64), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(1, 8),
        ),
        min_size=1,
        max_size=12,
    ),
    min_side=st.none() | st.integers(8, 48),
    aspect=st.none() | st.tuples(st.floats(0.2, 1.0), st.floats(1.0, 4.0)),
    limit=st.none() | st.integers(1, 6),
    per_class=st.none() | st.integers(1, 4),
)  # fmt: skip
def test_what_stays_is_what_a_look_at_each_would_leave(
    pictures: list[tuple[int, int, str, int]],
    min_side: int | None,
    aspect: tuple[float, float] | None,
    limit: int | None,
    per_class: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    expected, counts = [], Counter[str]()
    for number, (width, height, kind, orientation) in enumerate(pictures):
        label = "ab"[number % 2]
        path = folder / label / f"{number:02d}.{kind.lower()}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_encoded(width, height, kind, orientation))
    for path in sorted(folder.rglob("*.*")):
        width, height, _, orientation = pictures[int(path.stem)]
        shown = height / width if orientation >= 5 else width / height
        is_wide_enough = min_side is None or min(width, height) >= min_side
        has_aspect = aspect is None or aspect[0] - 1e-9 <= shown <= aspect[1] + 1e-9
        label = path.parent.name
        if is_wide_enough and has_aspect and counts[label] < (per_class or 99):
            counts[label] += 1
            expected.append(path.relative_to(folder).as_posix())
    options = {"min_side": min_side, "aspect": aspect, "limit": limit, "limit_per_class": per_class}
    if not expected:
        with pytest.raises(ManifestError, match="found no image with"):
            _listed(folder, **options)
        return
    assert [item.id for item in _listed(folder, **options).items] == expected[:limit]


def test_what_is_passed_over_is_counted_and_told(tmp_path: Path) -> None:
    for name, size in (("a", (64, 64)), ("b", (64, 20)), ("c", (20, 20)), ("d", (300, 90))):
        (tmp_path / f"{name}.jpg").write_bytes(_encoded(*size))
    (tmp_path / "e.jpg").write_bytes(b"\xff\xd8\xff no picture")
    listed = _listed(tmp_path, min_side=32, aspect=(0.5, 2))
    assert [item.id for item in listed.items] == [
        "a.jpg",
        "e.jpg",
    ]  # its samples tell what is wrong
    assert listed.notes[-2:] == (
        "contents: 2 of 5 images taken (min_side: 32, aspect: [0.5, 2.0])",
        "contents: passed over: 2 with a side under 32 px (such as b.jpg), 1 with width / height outside 0.5 to 2 (such as d.jpg)",
    )
    assert listed.items[0].size == (64, 64)
    (tmp_path / "e.jpg").unlink()
    with pytest.raises(ManifestError, match=r"contents.min_side: .*sides of 999 px or more"):
        _listed(tmp_path, min_side=999)


def test_members_of_tars_and_heads_behind_large_metadata(tmp_path: Path) -> None:
    large = io.BytesIO()
    Image.new("RGB", (50, 30)).save(large, "JPEG", comment=b"x" * 60_000, exif=b"Exif\0\0" + b"y" * 60_000)  # fmt: skip
    members = {"0.jpg": _encoded(40, 20), "1.jpg": large.getvalue(), "2.png": _encoded(9, 90, "PNG")}  # fmt: skip
    tar(tmp_path / "a.tar", members)
    listed = _listed(tmp_path / "a.tar", min_side=25)
    assert [(item.id, item.size) for item in listed.items] == [("1.jpg", (50, 30))]


class _Counting(ImageFolder):
    asked = 0

    def head(self, ref: Ref, count: int) -> bytes:
        type(self).asked += 1
        return super().head(ref, count)


def test_headers_are_read_where_they_are_needed(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03d}.jpg").write_bytes(_encoded(40, 30))
    for options, asked in (
        ({}, 0),
        ({"limit": 10}, 0),
        ({"min_side": 20, "limit": 10}, 64),
        ({"min_side": 20}, 300),
    ):
        _Counting.asked = 0
        source = _Counting(str(tmp_path), "contents", SourceOptions(**options))  # type: ignore[arg-type]
        chosen(list(source.items()), source)
        assert _Counting.asked == asked
