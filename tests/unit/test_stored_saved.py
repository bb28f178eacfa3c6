"""Saved datasets in a store are listed and read as on this machine, a picture by a request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from stylebatch.errors import ManifestError, SampleError
from stylebatch.folder import Folder
from tests.support.packed import encoded
from tests.support.s3 import BUCKET, Request, proxied, s3_server, short_pauses
from tests.support.saved import listed, save_dataset, told, upload


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url, short_pauses():
        yield url


@pytest.fixture
def there(s3: str) -> str:
    return f"s3://{BUCKET}/{uuid4().hex}"


def test_splits_and_label_images_of_a_saved_dataset_in_a_store(tmp_path: Path, there: str) -> None:
    save_dataset(tmp_path / "set/train", 3, 4, 0)
    save_dataset(tmp_path / "set/test", 1, 4, 0)
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    upload(tmp_path / "set", f"{there}/parts")
    for split, count in (("train", 9), ("test", 3)):
        stored, on_disk = (
            listed(place, split=split) for place in (f"{there}/parts", str(tmp_path / "set"))
        )
        assert told(stored) == told(on_disk)
        labels = [
            [found.sources.read(i.segmentation) for i in found.items if i.segmentation]
            for found in (stored, on_disk)
        ]
        assert labels[0] == labels[1]
        assert len(labels[0]) == count
    with pytest.raises(ManifestError, match=r"contents\.split: .*splits train, test"):
        listed(f"{there}/parts")


def test_of_a_saved_dataset_in_a_store_pictures_are_asked_for_alone(
    s3: str, tmp_path: Path, there: str
) -> None:
    save_dataset(tmp_path / "set", 3, 16, 150_000)
    upload(tmp_path / "set", f"{there}/large")
    whole = (tmp_path / "set/data-00000-of-00001.arrow").stat().st_size
    ranges: list[int] = []

    def counting(request: Request) -> str:
        first, _, last = request.headers.get("Range", "").partition("=")[2].partition("-")
        is_data = last and ".arrow" in request.path
        ranges.extend([int(last) + 1 - int(first)] if is_data else [])
        return "pass"

    with proxied(s3, counting) as proxy:
        found = listed(f"{there}/large")
        assert len(found.items) == 45
        assert sum(ranges) < whole / 3
        assert proxy.asked("GET", ".arrow") <= 1 + 2 * 3
        before = len(proxy.seen)
        item = found.items[7]
        assert found.sources.read(item.ref).startswith(encoded(8))
        assert [method for method, _, _ in proxy.seen[before:]] == ["GET"]
        assert ranges[-1] < 200_000
        rows = [found.sources.by_field["contents"].further(item) for item in found.items[:15]]
        assert rows[7] == {"score": 4.0, "note": "n8"}
        assert len(proxy.seen) - before <= 1 + 4


def test_a_saved_dataset_in_a_store_that_is_damaged_is_named(there: str, tmp_path: Path) -> None:
    save_dataset(tmp_path / "set", 2, 4, 0)
    upload(tmp_path / "set", f"{there}/cut")
    name, stored = "data-00000-of-00001.arrow", Folder.at(f"{there}/cut")
    whole = (tmp_path / "set" / name).read_bytes()
    before = listed(f"{there}/cut")
    odd = [whole[:length] for length in (len(whole) - 8, len(whole) - 300, len(whole) // 2, 300, 4, 0)]  # fmt: skip
    odd += [b"\xff\xff\xff\xff\xff\xff\xff\x7f" + whole[8:], b"PAR1" + whole, bytes(len(whole))]
    for data in odd:
        stored.write(name, data)
        with pytest.raises(ManifestError, match=r"contents\.path: .*\.arrow: cannot be read"):
            listed(f"{there}/cut")
    assert len(data) == len(whole)
    stored.write(name, whole[:700])
    with pytest.raises(SampleError, match="shorter than when it was listed"):
        before.sources.read(before.items[-1].ref)
    stored.write("state.json", b"{}")
    with pytest.raises(ManifestError, match=r"state\.json: found no list `_data_files`"):
        listed(f"{there}/cut")
