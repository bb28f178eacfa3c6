"""A folder in S3: whole or not there, made once, taken over once, whatever network and store do meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from stylebatch import object_store
from stylebatch.data.one_look import one_look
from stylebatch.data.places import entries_of, is_file, is_folder
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
from stylebatch.errors import ManifestError, OutputLockedError, SampleError, StorageError
from stylebatch.folder import Folder
from stylebatch.paths import require_place
from stylebatch.store import run_lock
from stylebatch.store.ledger import Ledger
from stylebatch.store.lock_owner import Owner, activity, read_lock
from stylebatch.store.run_lock import RunLock
from tests.support.images import picture
from tests.support.s3 import BUCKET, Fault, Request, proxied, s3_server, short_pauses, store

SECRET = "hunter2Xq"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url, short_pauses():
        yield url


@pytest.fixture
def address(s3: str) -> str:
    """Of a folder that nobody else uses; nothing is there yet."""
    return f"s3://{BUCKET}/{uuid4().hex}/deep"


def once(action: str, where: Callable[[Request], bool]) -> Fault:
    """One fault, at the first such request."""
    left = [action]

    def fault(request: Request) -> str:
        return left.pop() if left and where(request) else "pass"

    return fault


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [job.result() for job in [pool.submit(job) for job in jobs]]


def test_what_is_written_is_read_listed_renamed_and_removed(address: str) -> None:
    folder = Folder.at(address)
    assert not folder.exists
    assert (folder.names(), folder.facts("metadata/a.json")) == ([], None)
    folder.write("metadata/b.json", b"old")
    folder.write("metadata/b.json", b"newer")
    folder.write("metadata/a.json", b"")
    folder.write("run.json", b"{}")
    assert folder.exists
    assert folder.names() == ["metadata", "run.json"]
    assert list(folder.list()) == ["run.json"]
    assert folder.names("metadata/b") == ["metadata/b.json"]
    assert folder.sub("metadata").names() == ["a.json", "b.json"]
    assert sorted(name for name, _ in folder.find()) == [
        "metadata/a.json",
        "metadata/b.json",
        "run.json",
    ]
    assert (folder.read("metadata/a.json"), folder.read("metadata/b.json")) == (b"", b"newer")
    with pytest.raises(StorageError, match="5 bytes; accepted: at most 4"):
        folder.read("metadata/b.json", 4)
    folder.rename("metadata/b.json", "metadata/a.json")
    assert folder.read("metadata/a.json") == b"newer"
    for missing in (
        lambda: folder.rename("metadata/b.json", "c"),
        lambda: folder.read("metadata/b.json"),
        lambda: folder.open("metadata/b.json").__enter__(),
    ):
        with pytest.raises(FileNotFoundError):
            missing()
    folder.remove("metadata/a.json")
    folder.remove("metadata/a.json")
    assert folder.names("metadata/") == []
    odd = "a/x%20y +ü?#&.txt"
    folder.write(odd, b"1")
    assert folder.names("a/") == [odd]
    assert folder.read(odd) == b"1"


def test_a_file_appears_under_its_name_alone_and_whole(address: str) -> None:
    folder = Folder.at(address)
    with pytest.raises(ZeroDivisionError), folder.writing("data/x.tar") as file:  # noqa: PT012
        file.write(b"half")
        raise ZeroDivisionError
    assert not folder.exists
    with folder.writing("data/x.tar") as file:
        file.write(b"whole")
        assert list(folder.find()) == []
    with folder.open("data/x.tar") as file:
        assert file.read(2) == b"wh"
        file.seek(-1, 2)
        assert file.read() == b"e"
    assert [name for name, _ in folder.find()] == ["data/x.tar"]


FAULTS = ("500", "503", "reset", "lost", "slow")


def test_every_request_survives_every_fault(
    s3: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation meets each fault at its first request; all at the same time, since pauses take long."""
    impatient = {"config_kwargs": {**object_store.S3_CONFIG, "read_timeout": 0.7}}
    monkeypatch.setitem(fsspec.config.conf, "s3", impatient)
    met: set[str] = set()
    guard = threading.Lock()

    def fault(request: Request) -> str:
        """The name of a fault stands in the path, or in the listing's prefix."""
        with guard:
            for kind in FAULTS:
                key = f"{request.method} {request.path.split('?')[0]}"
                if f"-{kind}-" in request.path and key not in met:
                    met.add(key)
                    return kind
        return "pass"

    with proxied(s3, fault) as proxy:
        folders = {kind: Folder.at(f"{address}/at-{kind}-x") for kind in FAULTS}

        def work(folder: Folder) -> None:
            folder.write("run.json", b"{}")
            assert folder.create("lock", b"mine")
            assert not folder.create("lock", b"yours")
            assert folder.swap("lock", lambda name: folder.read(name) == b"mine", b"taken")
            assert not folder.swap("lock", lambda name: folder.read(name) == b"mine", b"again")
            assert folder.read("lock") == b"taken"
            assert folder.names() == ["lock", "run.json"]
            folder.remove("run.json")
            assert folder.facts("run.json") is None

        at_once([lambda folder=folder: work(folder) for folder in folders.values()])
    assert {action for _, _, action in proxy.seen} == {"pass", *FAULTS}
    assert len(met) >= 6 * len(FAULTS)


def test_an_answer_cut_or_changed_is_asked_for_again(s3: str, address: str) -> None:
    with proxied(s3) as proxy:
        folder = Folder.at(address)
        data = bytes(range(256)) * 2000
        folder.write("tar", data)
        proxy.fault = once("cut", lambda request: request.method == "GET")
        assert folder.read("tar") == data
        proxy.fault = once("cut", lambda request: request.method == "GET")
        with folder.open("tar") as file:
            assert file.read() == data
        proxy.fault = once("damaged", lambda request: request.method == "GET")
        assert folder.read("tar") == data
    assert [action for _, _, action in proxy.seen if action != "pass"] == ["cut", "cut", "damaged"]


def test_bytes_that_changed_on_their_way_are_sent_again(s3: str, address: str) -> None:
    with proxied(s3, once("damaged", lambda request: request.method == "PUT")) as proxy:
        folder = Folder.at(address)
        store(address).filesystem.retries = 1  # what was damaged on its way there stays so
        folder.write("a", b"as meant")
        assert folder.read("a") == b"as meant"
        proxy.fault = lambda request: "damaged" if request.method == "PUT" else "pass"
        with pytest.raises(StorageError, match="a: cannot be written: the store holds other bytes"):
            folder.write("a", b"as meant")


def test_of_many_callers_one_makes_a_file_and_one_takes_it_over(s3: str, address: str) -> None:
    with proxied(s3):  # which serialises uploads, as a store does; moto's threads do not
        folder = Folder.at(address)
        made = at_once([lambda i=i: folder.create("lock", b"%d" % i) for i in range(8)])
        assert sum(made) == 1
        former = folder.read("lock")
        assert former == b"%d" % made.index(True)

        def take(i: int) -> bool:
            return folder.swap("lock", lambda name: folder.read(name) == former, b"by %d" % i)

        took = at_once([lambda i=i: take(i) for i in range(8)])
        assert sum(took) == 1
        assert folder.read("lock") == b"by %d" % took.index(True)


def test_a_large_file_goes_in_parts_and_leaves_none_behind(
    s3: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 5 << 20)
    local = tmp_path / "large"
    local.write_bytes(hashlib.shake_128(b"x").digest(11 << 20))
    with proxied(s3, once("503", lambda request: "partNumber=2" in request.path)) as proxy:
        folder = Folder.at(address)
        told = folder.put("data/train-00000.tar", local)
        assert told is not None
        assert told.size_bytes == 11 << 20
        assert folder.read("data/train-00000.tar") == local.read_bytes()
        assert proxy.asked("GET", "data/train-00000.tar") == 1  # by its ETag, not read back
    filesystem, key = store(address).filesystem, address.removeprefix(f"s3://{BUCKET}/")
    for name in ("data/train-00001.tar", "of-somebody-else.tar"):
        filesystem.call_s3("create_multipart_upload", Bucket=BUCKET, Key=f"{key}/{name}")
    folder.drop_unfinished(lambda name: name.startswith("data/train-"))
    left = filesystem.call_s3("list_multipart_uploads", Bucket=BUCKET)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{key}/of-somebody-else.tar"]


def test_a_misspelt_bucket_is_an_error_and_not_made(s3: str) -> None:
    folder = Folder.at("s3://buckett/x")
    for ask in (folder.names, lambda: folder.write("a", b"1"), lambda: folder.create("a", b"1")):
        with pytest.raises(StorageError, match="there is no bucket buckett"):
            ask()
    assert [
        each["Name"] for each in store("s3://b").filesystem.call_s3("list_buckets")["Buckets"]
    ] == [BUCKET]


def test_a_store_that_stays_away_is_told_with_the_next_step(
    s3: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_only = {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 1}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", once_only)
    with (
        proxied(s3, lambda _: "500"),
        pytest.raises(StorageError, match=r"run.json: cannot be written: later. Check the address"),
    ):
        Folder.at(address).write("run.json", b"{}")


def test_one_run_writes_and_a_dead_owner_is_replaced(
    s3: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(run_lock, "WATCHED_S", 0.3)
    monkeypatch.setattr(run_lock, "_LOOK_EVERY_S", 0.05)
    output = Folder.at(address)
    with RunLock(output):
        with pytest.raises(OutputLockedError, match=r"is being written by process \d+ on "):
            RunLock(output).__enter__()
        before = read_lock(output)
        deadline = threading.Event()
        while read_lock(output) == before:
            deadline.wait(0.05)
    assert output.names() == []
    dead = (
        b'{"host": "gone", "machine": "m", "pid": 1, "started": "1", "token": "t", "heartbeat": 5}'
    )
    output.write(".run.lock", dead)
    said: list[str] = []
    with RunLock(output, note=said.append):
        holder = read_lock(output)
        assert isinstance(holder, Owner)
        assert holder.is_here
        found = activity(output, None)
        assert found is not None
        assert found.is_live
    assert "process 1 on gone; watching for" in said[0]
    assert list(output.find()) == []


def test_a_listing_asks_for_no_more_than_it_names(s3: str, address: str) -> None:
    with proxied(s3) as proxy:
        folder = Folder.at(address)
        for name in ("data/a.tar", "data/b.tar"):
            folder.write(name, b"1")
        before = len(proxy.seen)
        assert folder.names("data/.tmp-") == []
        assert folder.read("data/a.tar") == b"1"
        assert Ledger(folder).shards_with(".parquet") == []
        assert len(proxy.seen) - before == 3


def _pictures(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            picture(number, 8, 8).save(path)
        else:
            path.write_bytes(b"{}")


def test_a_stored_folder_lists_what_the_same_folder_on_disk_lists(
    s3: str, address: str, tmp_path: Path
) -> None:
    here = tmp_path / "photos"
    _pictures(
        here,
        [
            "z.png", "cat/b.png", "cat/a.png", "cat/deep/x.png", "cat/a/y.png", "cat-2/a.png", "Dog/ü 1.PNG.png", "notes.txt",
            ".hidden/a.png", "cat/.b.png", "empty/readme.md", "old/metadata/train-00000_stats.json", "old/contact_sheet.png",
        ],
    )  # fmt: skip
    there = Folder.at(address)
    for path in sorted(here.rglob("*")):
        if path.is_file():
            there.put(path.relative_to(here).as_posix(), path)
    mark = f"{address.removeprefix(f's3://{BUCKET}/')}/cat/"  # what consoles make of a folder
    store(address).filesystem.call_s3("put_object", Bucket=BUCKET, Key=mark, Body=b"")
    on_disk, stored = (
        list_images(open_source(place, "contents")) for place in (str(here), address)
    )
    told = [[(item.id, item.label) for item in listing.items] for listing in (on_disk, stored)]
    assert told[0] == told[1]
    said = [sorted(re.split(", |: |; ", "; ".join(each.notes))) for each in (on_disk, stored)]
    kinds = [[text for text in each if text.startswith("read as ")] for each in said]
    assert kinds == [["read as folder"], ["read as store"]]
    assert set(said[0]) - set(kinds[0]) == set(said[1]) - set(kinds[1])
    reader = stored.sources
    assert [reader.read(item.ref) for item in stored.items] == [
        (here / item.id).read_bytes() for item in on_disk.items
    ]
    table = tmp_path / "rows.csv"
    rows = [
        f"{address}/z.png",
        "photos/z.png",
        "https://169.254.169.254/x.png",
        f"{address}/no.png",
    ]
    table.write_text("path\n" + "\n".join(rows))
    listed = list_images(open_source(str(table), "contents"))
    found = [listed.sources.read(item.ref) for item in listed.items[:2]]
    assert found[0] == found[1]
    with pytest.raises(SampleError, match="an address of the web, which is not asked"):
        listed.sources.read(listed.items[2].ref)
    with pytest.raises(FileNotFoundError):
        listed.sources.read(listed.items[3].ref)
    for inside in (f"{address}/old", f"{address}/old/metadata"):
        with pytest.raises(ManifestError, match="belongs to old, an output of this program"):
            list_images(open_source(inside, "contents"))


def test_a_file_and_a_folder_may_have_one_name(s3: str, address: str, tmp_path: Path) -> None:
    """Object stores know no folders: `cat` may stand beside `cat/a.png`."""
    there = Folder.at(address)
    _pictures(tmp_path, ["a.png"])
    there.put("cat/a.png", tmp_path / "a.png")
    for name in ("cat", "notes"):
        there.write(name, b"12345")
    assert there.names() == ["cat", "notes"]
    assert {name: facts.size_bytes for name, facts in there.list().items()} == {
        "cat": 5,
        "notes": 5,
    }
    with one_look():
        assert is_file(f"{address}/cat")
        assert is_folder(f"{address}/cat")
        assert entries_of(address) == {"cat": False, "notes": False}
    listed = list_images(open_source(address, "contents"))
    assert [(item.id, item.label) for item in listed.items] == [("cat/a.png", "cat")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"s3://user:{SECRET}@bucket/x", "holds credentials"),
        (f"s3://{SECRET}@bucket/x", "holds credentials"),
        ("s3:/bucket/x", "is not the address of a folder"),
        ("s3:bucket", "is not the address of a folder"),
        ("s3://", "is not the address of a folder"),
        ("simplecache::s3://bucket/x", "is not the address of a folder"),
        (f"s3://bucket/x?X-Amz-Signature={SECRET}", "is not the address of a folder"),
        ("https://host/x", "an address of the web"),
        ("a\0b", "NUL"),
    ],
)
def test_places_that_are_none_are_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        require_place(text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["out", "/tmp/out", "C:/out", "s3://bucket/x/", "gs://b", "memory://x", "file:///tmp/x"]
)
def test_places_are_taken(text: str) -> None:
    assert require_place(text) == text


def test_a_process_without_credentials_is_told_before_work(
    s3: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        if name not in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    store(address).filesystem.clear_instance_cache()
    try:
        with pytest.raises(ManifestError, match="Next: give this process the store's credentials"):
            Folder.at(f"{address}-other").read("run.json")
    finally:
        monkeypatch.undo()
        store(address).filesystem.clear_instance_cache()
