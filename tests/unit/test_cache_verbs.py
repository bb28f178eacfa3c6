"""`stylebatch cache` tells what a cache holds, finds what is wrong in it, and keeps what is in use."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from stylebatch.cli import main
from stylebatch.cli.cache_verbs import age_text, parse_size, size_text
from stylebatch.errors import ManifestError
from stylebatch.features.style_cache import StyleCache
from tests.support.styles import features, flip, latents, rows, style_key, write


@pytest.fixture
def cache(tmp_path: Path) -> StyleCache:
    return StyleCache(tmp_path / "cache")


Output = pytest.CaptureFixture[str]


def lines(output: Output) -> list[str]:
    return output.readouterr().out.splitlines()


def use(cache: StyleCache, key: str, age_s: float) -> None:
    """Pretend that `key` was last used so long ago."""
    os.utime(cache.folder / f"{key}.parquet", (0, time.time() - age_s))


def total(cache: StyleCache) -> int:
    return sum(path.stat().st_size for path in cache.folder.iterdir())


def test_ls_shows_a_line_for_each_style_and_the_total(cache: StyleCache, capsys: Output) -> None:
    keys = sorted(write(cache, style_key(codec=codec)) for codec in ("kv", "x8"))
    use(cache, keys[0], 3 * 3600 + 5)
    root = str(cache.folder)
    assert main(["cache", "ls", root]) == 0
    head, first, second, summary = lines(capsys)
    assert re.split("  +", head) == [
        "key", "size", "last used", "codec", "steps", "convention", "h x w px", "style",
    ]  # fmt: skip
    key, size, age, codec, *rest = re.split("  +", first)
    assert (key, age, rest) == (keys[0], "3 h ago", ["4", "ldm", "64 x 64", "monet.png"])
    assert re.fullmatch(r"[0-9.]+ kB", size)
    assert {codec, re.split("  +", second)[3]} == {"kv float16", "x8 float16"}
    assert summary == f"2 styles, {size_text(total(cache))} in {root}"


def test_ls_json_is_complete(cache: StyleCache, capsys: Output) -> None:
    key = write(cache, style_key())
    assert main(["cache", "ls", str(cache.folder), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["cache"], listed["size_bytes"]) == (str(cache.folder), total(cache))
    (style,) = listed["styles"]
    assert (style["key"], style["size_bytes"]) == (key, total(cache))
    assert style["metadata"]["key"] == style_key().ingredients
    assert style["metadata"]["labels"] == {"style_id": "monet.png"}


def test_ls_of_an_empty_folder_says_so(tmp_path: Path, capsys: Output) -> None:
    assert main(["cache", "ls", str(tmp_path)]) == 0
    assert lines(capsys) == [f"0 styles, 0 B in {tmp_path}"]
    assert main(["cache", "ls", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["styles"] == []


def test_ls_stays_one_line_a_style(cache: StyleCache, capsys: Output) -> None:
    """A file name with a line break, an index that cannot be read, files that are no style."""
    with cache.writer(style_key("strange"), {"style_id": "a\nb\x1b[2J"}) as writer:
        writer.append(1, features("kv", 1))
        writer.commit(latents())
    broken = write(cache, style_key("broken"))
    (cache.folder / f"{broken}.parquet").write_bytes(b"no index")
    cache.set_aside(write(cache, style_key("aside")))
    assert main(["cache", "ls", str(cache.folder)]) == 0
    shown = lines(capsys)
    assert len(shown) == 4
    assert {re.split("  +", line)[-1] for line in shown[1:3]} == {
        r"'a\nb\x1b[2J'",
        "(its index cannot be read)",
    }
    assert re.search(r"^2 styles, .* kB in other files", shown[3])


@pytest.mark.parametrize("verb", [["ls"], ["verify"], ["gc", "--max-bytes", "1"]])
def test_a_folder_that_is_not_there_exits_2(
    tmp_path: Path, verb: list[str], capsys: Output
) -> None:
    (tmp_path / "file").write_text("")
    for root in (str(tmp_path / "none"), str(tmp_path / "file"), "memory://none", "x" * 300):
        assert main(["cache", *verb, root]) == 2
        assert f"stylebatch: {root}: no such folder; accepted:" in capsys.readouterr().err
    assert main(["cache", *verb, "nosuch://x"]) == 2
    assert re.search("nosuch://x: .*Accepted: a folder, or a URL", capsys.readouterr().err)
    assert os.listdir(tmp_path) == ["file"]


def test_verify_of_a_whole_cache_exits_0(cache: StyleCache, capsys: Output) -> None:
    write(cache, style_key())
    assert main(["cache", "verify", str(cache.folder)]) == 0
    assert lines(capsys) == [f"1 style, {size_text(total(cache))}: all whole"]


def test_verify_finds_and_repairs_a_damaged_member(cache: StyleCache, capsys: Output) -> None:
    key, root = write(cache, style_key()), str(cache.folder)
    row = next(row for row in rows(cache, key) if (row.timestep, row.site) == (501, 7))
    flip(cache.folder / f"{key}.tar", row.offset + 5)
    assert main(["cache", "verify", root]) == 1
    found, summary = lines(capsys)
    fault = f"tensor {row.tensor} of site 7 in 0501.safetensors does not match its checksum"
    assert found == f"{key}.tar: damaged: {fault}"
    assert summary.startswith(
        f"1 found, 1 not repaired. Next: `stylebatch cache verify {root} --repair`"
    )
    assert main(["cache", "verify", root, "--repair"]) == 0
    found, summary = lines(capsys)
    assert found == f"{key}.tar: damaged: {fault}; set aside as {key}.damaged-1"
    assert summary.startswith("1 found, all repaired; 0 styles, 0 B left.")
    assert main(["cache", "verify", root]) == 0


def test_verify_repairs_indexes_and_removes_old_leftovers(
    cache: StyleCache, capsys: Output
) -> None:
    keys, root = [write(cache, style_key(name)) for name in "ab"], str(cache.folder)
    (cache.folder / f"{keys[0]}.parquet").unlink()
    (cache.folder / f"{keys[1]}.parquet").write_bytes(b"no index")
    old, young = cache.folder / ".tmp-old.tar-1", cache.folder / ".tmp-young.tar-2"
    old.write_bytes(bytes(1000))
    young.write_bytes(bytes(1000))
    os.utime(old, (0, time.time() - 2 * 86400))
    assert main(["cache", "verify", root]) == 1
    *found, summary = lines(capsys)
    assert [re.split(": ", line)[:2] for line in found] == [
        [old.name, "leftover"],
        *sorted([[f"{keys[0]}.parquet", "missing index"], [f"{keys[1]}.parquet", "wrong index"]]),
    ]
    assert summary.startswith("3 found, 3 not repaired.")
    assert main(["cache", "verify", root, "--repair"]) == 0
    *found, summary = lines(capsys)
    assert [line.rsplit("; ")[-1] for line in found] == ["removed", "rebuilt", "rebuilt"]
    assert summary.startswith("3 found, all repaired; 2 styles, ")
    assert young.exists()  # its writer may be at work
    assert not old.exists()
    assert main(["cache", "verify", root]) == 0


def test_gc_removes_the_least_recently_used_and_none_in_use(
    cache: StyleCache, capsys: Output
) -> None:
    keys, root = [write(cache, style_key(name)) for name in "abc"], str(cache.folder)
    size = total(cache) // 3
    reader = cache.open(keys[0])
    for age, key in zip((300, 200, 100), keys, strict=True):
        use(cache, key, age)
    assert main(["cache", "gc", root, "--max-bytes", str(2 * size + 50)]) == 0
    removed, summary = lines(capsys)
    assert removed == f"removed {keys[1]}: {size_text(size)}, last used 3 min ago, monet.png"
    assert summary == (
        f"Removed 1 style, {size_text(size)}; 2 styles, {size_text(total(cache))} left in {root}"
    )
    assert main(["cache", "gc", root, "--max-bytes", "0"]) == 0
    removed, summary, still = lines(capsys)
    assert removed.startswith(f"removed {keys[2]}: ")
    assert still.startswith(
        f"Still {size_text(size)}, above --max-bytes 0: 1 style, {size_text(size)} in use or new, 0 B in"
    )
    assert reader.at(1)
    del reader
    assert main(["cache", "gc", root, "--max-bytes", "0"]) == 0
    assert lines(capsys)[-1] == f"Removed 1 style, {size_text(size)}; 0 styles, 0 B left in {root}"


def test_gc_within_its_limit_removes_nothing(cache: StyleCache, capsys: Output) -> None:
    key = write(cache, style_key())
    assert main(["cache", "gc", str(cache.folder), "--max-bytes", "20GiB"]) == 0
    assert lines(capsys)[0].startswith("Removed 0 styles, 0 B; 1 style, ")
    assert cache.contains(key)


def test_a_remote_cache_is_listed_checked_and_shrunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = f"memory://styles-{uuid4().hex}"
    key = write(StyleCache(root, local=tmp_path / "copy"), style_key())
    assert main(["cache", "ls", root]) == 0
    assert lines(capsys)[1].startswith(key)
    filesystem, path = fsspec.core.url_to_fs(f"{root}/{key}.parquet")
    filesystem.rm_file(path)
    assert main(["cache", "verify", root]) == 1
    assert main(["cache", "verify", root, "--repair"]) == 0
    assert "; rebuilt" in capsys.readouterr().out
    assert main(["cache", "gc", root, "--max-bytes", "1kB"]) == 0
    assert "0 styles, 0 B left" in capsys.readouterr().out
    assert not (tmp_path / ".cache").exists()
    assert StyleCache(tmp_path / "copy").contains(key)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("123", 123),
        ("500MB", 500 * 10**6),
        ("20GiB", 20 * 2**30),
        ("1.5 tb", 1500 * 10**9),
        ("2kib", 2048),
        ("0.1kB", 100),
        ("7B", 7),
    ],
)
def test_sizes_are_read_with_their_units(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "20G", "-1", "1e9", "1.5", "MB", "5 EB", "1,000", "5iB"])
def test_other_sizes_are_refused_before_anything_is_removed(
    cache: StyleCache, text: str, capsys: Output
) -> None:
    key = write(cache, style_key())
    with pytest.raises(ManifestError):
        parse_size(text)
    assert main(["cache", "gc", str(cache.folder), f"--max-bytes={text}"]) == 2
    error = capsys.readouterr().err
    assert f"--max-bytes: found {text!r}; accepted: " in error
    assert "500MB or 20GiB" in error
    assert cache.contains(key)


def test_sizes_and_ages_have_the_right_unit() -> None:
    sizes = (0, 999, 1000, 27_468, 999_499, 999_500, 1_180_000_000, 5 * 10**15)
    assert [size_text(n) for n in sizes] == [
        "0 B", "999 B", "1.00 kB", "27.5 kB", "999 kB", "1.00 MB", "1.18 GB", "5000 TB",
    ]  # fmt: skip
    ages = (-5, 0, 59, 60, 7199, 86399, 86400, 40 * 86400)
    assert [age_text(1e9 - age, 1e9) for age in ages] == [
        "0 s ago", "0 s ago", "59 s ago", "1 min ago", "1 h ago", "23 h ago", "1 d ago", "40 d ago",
    ]  # fmt: skip
    assert age_text(0.0, 1e9) == "unknown"
