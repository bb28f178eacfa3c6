"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from stylebatch.errors import StorageError
from stylebatch.local_files import (
    atomic_file,
    create_exclusive,
    start_writing,
    storage_error,
    write_bytes,
)


def test_failure_while_writing_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(ValueError), atomic_file(path) as file:  # noqa: PT012
        file.write(b"half of the new")
        raise ValueError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_file_is_not_visible_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    with atomic_file(path) as file:
        file.write(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_one_of_many_creators_wins(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    barrier = threading.Barrier(8)
    won: list[int] = []

    def create(number: int) -> None:
        barrier.wait()
        if create_exclusive(path, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == str(won[0]).encode()
    assert os.listdir(tmp_path) == ["lock"]


def test_storage_errors_name_path_and_next_step(tmp_path: Path) -> None:
    full = storage_error(tmp_path / "x.tar", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert isinstance(full, StorageError)
    assert full.exit_code == 5
    assert "x.tar" in str(full)
    assert "Free space" in str(full)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file.*cannot be written"):
        write_bytes(tmp_path / "file" / "inside.bin", b"x")
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(StorageError, match=r"x\.tar.*Move what stands in its place away"):
        write_bytes(tmp_path / "x.tar", b"x")


def test_writing_that_was_asked_for_early_changes_nothing(tmp_path: Path) -> None:
    path, data = tmp_path / "a", bytes(range(256)) * 8192
    with atomic_file(path) as file:
        file.write(data[:1_000_000])
        start_writing(file, 0, 1_000_000)
        file.write(data[1_000_000:])
        start_writing(file, 1_000_000, len(data))
    assert path.read_bytes() == data
