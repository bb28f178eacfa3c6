"""A folder is a folder wherever it is: the same names, the same refusals, whole files or none; a run needs nothing else."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from stylebatch.errors import OddFileError, StorageError
from stylebatch.folder import Folder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """A folder that is not there yet, on this machine or in a store."""
    if request.param == "local":
        yield Folder.at(tmp_path / "deep" / "place")
        return
    address = f"memory://place-{uuid4().hex}"
    yield Folder.at(address)
    _clear(address)


def _clear(address: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(address)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def test_what_is_written_is_read_listed_renamed_and_removed(folder: Folder) -> None:
    assert not folder.exists
    assert folder.names() == []
    assert folder.facts("metadata/a.json") is None
    folder.write("metadata/b.json", b"old")
    folder.write("metadata/b.json", b"newer")
    folder.write("metadata/a.json", b"")
    folder.write("run.json", b"{}")
    assert folder.exists
    assert folder.names() == ["metadata", "run.json"]
    assert list(folder.list()) == ["run.json"]
    assert folder.names("metadata/b") == ["metadata/b.json"]
    assert {name: facts.size_bytes for name, facts in folder.list("metadata/").items()} == {
        "metadata/a.json": 0,
        "metadata/b.json": 5,
    }
    inner = folder.sub("metadata")
    assert inner.names() == ["a.json", "b.json"]
    assert inner.read("b.json") == b"newer"
    assert inner.where("b.json") == folder.where("metadata/b.json")
    inner.rename("b.json", "a.json")
    assert inner.read("a.json") == b"newer"
    with pytest.raises(FileNotFoundError):
        inner.rename("b.json", "c.json")
    inner.remove("a.json")
    inner.remove("a.json")
    assert inner.names() == []


def test_a_file_appears_whole_or_not_at_all(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), folder.writing("data/x.tar") as file:  # noqa: PT012
        file.write(b"half")
        raise ZeroDivisionError
    assert folder.names("data/") == []
    with folder.writing("data/x.tar") as file:
        file.write(b"whole")
        assert folder.list("data/x") == {}
    assert folder.read("data/x.tar") == b"whole"
    (tmp_path / "here").write_bytes(b"bytes of this machine")
    told = folder.put("data/y.tar", tmp_path / "here")
    assert told is not None
    assert told.size_bytes == 21
    with folder.open("data/y.tar") as file:
        assert file.read(5) == b"bytes"
        file.seek(-7, os.SEEK_END)
        assert file.read() == b"machine"


def test_a_name_is_taken_once(folder: Folder) -> None:
    assert folder.create("lock", b"mine")
    assert not folder.create("lock", b"yours")
    assert folder.read("lock") == b"mine"
    assert folder.names() == ["lock"]


def test_nothing_and_too_much_is_not_read(folder: Folder) -> None:
    folder.write("a/file", bytes(100))
    for name in ("a/other", "b/file", "a/file/inside"):
        with pytest.raises(FileNotFoundError):
            folder.read(name)
    with pytest.raises(OddFileError, match="100 bytes; accepted: at most 99"):
        folder.read("a/file", 99)
    assert folder.read("a/file", 100) == bytes(100)
    with pytest.raises(OddFileError, match=r"not a regular file. Next"):
        folder.read("a")


def test_pipes_devices_and_loops_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "linked").symlink_to("file")
    (tmp_path / "file").write_bytes(b"x")
    folder = Folder.at(tmp_path)
    for name in ("pipe", "loop", "device"):
        with pytest.raises(OddFileError, match=name):
            folder.read(name)
    with pytest.raises(FileNotFoundError):
        folder.read("nowhere")
    assert folder.read("linked") == b"x"
    assert len(folder.names()) == 6
    assert list(folder.list()) == ["file", "linked"]


def test_a_folder_goes_to_other_processes_and_shows_no_credentials(folder: Folder) -> None:
    folder.write("a", b"x")
    assert pickle.loads(pickle.dumps(folder)).read("a") == b"x"
    secret = Folder.at("memory://user:password@host/place")
    assert "password" not in f"{secret} {secret.where('a')}"
    with pytest.raises(StorageError, match=r"nosuch://\*\*\*@x.*Accepted: a folder, or a URL"):
        Folder.at("nosuch://user:password@x")


def test_a_store_that_fails_is_told_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class LostConnection(Exception):
        """What a store's own library raises; no OSError."""

    def fail(*_: object, **__: object) -> None:
        raise LostConnection("the peer went away")

    folder = Folder.at(f"memory://fails-{uuid4().hex}")
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
    for write in (folder.write, folder.create):
        with pytest.raises(StorageError, match=r"run.json: cannot be written: the peer.*--output"):
            write("run.json", b"{}")
    monkeypatch.setattr(
        MemoryFileSystem, "ls", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "broken"))
    )
    with pytest.raises(StorageError, match="cannot be listed: broken"):
        folder.names()
