"""What a start found in tars, the next one need not find again; and what changed since is found anew."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources import tar_index, tars
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from tests.support.packed import END, encoded, member, tar
from tests.support.s3 import BUCKET, proxied, s3_server, short_pauses

YEAR_S = 365 * 24 * 3600.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where indexes are kept, of small tars too."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tar_index, "LEAST_ITEMS", 1)
    return tmp_path / "home/.cache/stylebatch/tars"


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the tars that are walked."""
    seen: list[str] = []

    class Seen(tars.TarWalk):
        def items(self, file: Any) -> Iterator[Any]:
            seen.append(os.path.basename(self.path))
            return super().items(file)

    monkeypatch.setattr(tars, "TarWalk", Seen)
    return seen


def listed(path: object, **options: Any) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))


def aged(path: Path, seconds: float = 60.0) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def samples(shard: int) -> dict[str, Any]:
    found: dict[str, Any] = {"readme": "x", ".hidden.png": b"", "no/image.txt": "x"}
    for i in range(4):
        found |= {f"ü/{shard}{i}.png": encoded(i), f"ü/{shard}{i}.txt": f"caption {i}"}
        found[f"ü/{shard}{i}.json"] = {"label": f"l{i % 2}", "license": "cc0", "of": shard}
        found[f"ü/{shard}{i}.npy"] = b"1"
    return found | {"broken.png": encoded(9), "broken.json": b"{", "bare.png": encoded(8)}


def test_a_second_start_walks_no_tar_and_lists_the_same(
    tmp_path: Path, home: Path, walks: list[str]
) -> None:
    for shard in range(3):
        aged(tar(tmp_path / f"shards/{shard:05d}.tar", samples(shard)))
    first = listed(tmp_path / "shards")
    assert walks == ["00000.tar", "00001.tar", "00002.tar"]
    again = listed(tmp_path / "shards")
    assert len(walks) == 3
    assert (again.items, again.notes) == (first.items, first.notes)
    source = again.sources.by_field["contents"]
    assert [source.read(i.ref) for i in again.items] == [source.read(i.ref) for i in first.items]
    assert [source.further(i).get("of") for i in again.items][:4] == [0] * 4
    # Ids depend on where the tar is named; what was found in it does not.
    alone = listed(tmp_path / "shards/00001.tar")
    assert len(walks) == 3
    assert [i.id for i in alone.items] == [
        i.id.removeprefix("00001.tar/") for i in first.items[6:12]
    ]
    aged(tar(tmp_path / "shards/00001.tar", samples(7)))
    assert listed(tmp_path / "shards").items[6].id == "00001.tar/ü/70.png"
    assert walks[3:] == ["00001.tar"]


def test_other_options_are_found_anew(tmp_path: Path, home: Path, walks: list[str]) -> None:
    path = aged(tar(tmp_path / "a.tar", samples(0)))
    given: list[dict[str, Any]] = [{}, {"label": "of"}, {"label_from": 1}, {"image": "png"}, {"caption": "license"}]  # fmt: skip
    found = [listed(path, **options) for options in given]
    assert len(walks) == len(given)
    assert [listed(path, **options).items for options in given] == [one.items for one in found]
    assert len(walks) == len(given)
    # Those that choose among what was found need no walk of their own.
    assert [i.label for i in listed(path, labels=("l1",), shuffle=3).items] == ["l1", "l1"]
    assert len(walks) == len(given)
    # A key that no JSON has is an error on every start.
    for _ in range(2):
        with pytest.raises(ManifestError, match="found no key 'lable'"):
            listed(path, label="lable")


def test_spans_are_read_as_they_were_written(tmp_path: Path, home: Path) -> None:
    """Whether the JSON follows the image or not, and whatever their bytes leave of a block."""
    for size in (0, 1, 511, 512, 513, 5000):
        image, told = bytes(size), {"of": size}
        for members in (
            {"a.png": image, "a.json": told}, {"a.json": told, "a.png": image}, {"a.png": image, "a.txt": "x", "a.json": told},
        ):  # fmt: skip
            found = listed(tar(tmp_path / "spans.tar", members))
            source = found.sources.by_field["contents"]
            assert source.read(found.items[0].ref) == image
            assert source.further(found.items[0])["of"] == size


def test_a_tar_that_changed_behind_its_time_is_found_anew(tmp_path: Path, home: Path) -> None:
    path = aged(tar(tmp_path / "a.tar", {"a.png": encoded(1), "a.txt": "one"}), YEAR_S)
    before = path.stat()
    assert listed(path).items[0].caption == "one"
    tar(path, {"a.png": encoded(1), "a.txt": "two"})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert listed(path).items[0].caption == "two"


def test_what_may_change_or_is_lost_is_not_kept(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(tar(tmp_path / "new.tar", samples(0)))
    cut = aged(tar(tmp_path / "cut.tar", samples(0)))
    cut.write_bytes(cut.read_bytes()[:-600])
    listed(aged(cut), damaged="pass_over")
    odd = aged(tar(tmp_path / "odd.tar", {"a.png": encoded(1), "a.txt": "x\x1fy"}))
    assert listed(odd).items[0].caption == listed(odd).items[0].caption == "x\x1fy"
    assert not home.exists()
    monkeypatch.setattr(tar_index, "LEAST_ITEMS", 1000)
    listed(aged(tar(tmp_path / "small.tar", samples(0))))
    assert not home.exists()


def test_a_home_that_cannot_be_written_costs_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aged(tar(tmp_path / "a.tar", samples(0)))
    expected = listed(path).items
    for place in ("/proc/nobody", str(path), ""):
        monkeypatch.setenv("HOME", place)
        assert listed(path).items == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_index_is_not_read(
    tmp_path: Path, home: Path, walks: list[str], seed: int
) -> None:
    path = aged(tar(tmp_path / "a.tar", samples(0)))
    expected, draw = listed(path), random.Random(seed)
    (index,) = home.iterdir()
    whole = index.read_bytes()
    for turn in range(12):
        data = bytearray(whole)
        if turn % 2:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            del data[draw.randrange(len(data)) :]
        index.write_bytes(bytes(data))
        found = listed(path)
        assert (found.items, found.notes) == (expected.items, expected.notes)
        assert len(walks) == turn + 2


def test_what_no_start_uses_for_a_month_is_removed(tmp_path: Path, home: Path) -> None:
    for name in ("old", "used"):
        listed(aged(tar(tmp_path / f"{name}.tar", samples(0))))
    assert len(list(home.iterdir())) == 2
    for index in home.iterdir():
        aged(index, YEAR_S)
    listed(tmp_path / "used.tar")
    listed(aged(tar(tmp_path / "new.tar", samples(1))))
    assert len(list(home.iterdir())) == 2


def test_tars_of_a_store_are_streamed_once(tmp_path: Path, home: Path) -> None:
    with s3_server() as url, short_pauses(), proxied(url) as proxy:
        address = f"s3://{BUCKET}/{uuid4().hex}"
        folder = Folder.at(address)
        for shard in range(3):
            folder.put(f"{shard}.tar", tar(tmp_path / f"{shard}.tar", samples(shard)))
        first = listed(address)
        before, gets = len(proxy.seen), proxy.asked("GET", ".tar")
        again = listed(address)
        assert (again.items, again.notes) == (first.items, first.notes)
        assert proxy.asked("GET", ".tar") == gets
        assert len(proxy.seen) - before < 20 + 2 * 3  # what is there, then each tar's state
        folder.put("1.tar", tar(tmp_path / "1.tar", samples(5)))
        assert listed(address).items[6].id == "1.tar/ü/50.png"


TEXT = st.sampled_from(["a", "b/c", "./d", "ü" * 40, "g h", "x.y", "..", "", "e\x1e", "🐈"])
ENDINGS = st.sampled_from(["png", "PNG", "json", "cls", "txt", "content.png", "npy", ""])
DATA = st.sampled_from(
    [b"", b"\xff", encoded(1), b"7", b" a text\n", json.dumps({"label": "ü\x1f", "caption": ["x"]}).encode(), b'{"label": "\\ud800"}', b"{"]
)  # fmt: skip


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(TEXT, ENDINGS, DATA), min_size=1, max_size=7),
    st.sampled_from([{}, {"label_from": 1}, {"image": "png"}, {"image": "content.png"}]),
)
def test_any_tar_is_listed_alike_twice(
    tmp_path_factory: pytest.TempPathFactory,
    home: Path,
    members: list[tuple[str, str, bytes]],
    options: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("any")
    data = b"".join(member(f"{name}.{ending}", body) for name, ending, body in members) + END
    (folder / "x.tar").write_bytes(data)
    aged(folder / "x.tar")
    found: list[Any] = []
    for _ in range(2):
        try:
            listing = listed(folder, **options)
            told = vars(listing.sources.by_field["contents"])
            # Whatever else a walk teaches the source must be kept as well.
            public = {name: value for name, value in told.items() if name[0] != "_"}
            found.append((listing.items, listing.notes, public))
        except ManifestError as error:
            found.append(str(error))
    assert found[0] == found[1]
