"""Reports read the records of an output once, in shards of any size, and choose the same rows however the shards are cut."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch import folder
from stylebatch.engine.run import run
from stylebatch.local_files import open_regular
from stylebatch.manifest import load_spec
from stylebatch.reports.chosen import (
    FirstOfSets,
    FirstPairs,
    Spread,
    SpreadOfSuccess,
    spread_indices,
)
from stylebatch.reports.committed import CommittedShard, ShardRows
from stylebatch.spec.output import OutputFormat
from stylebatch.store.output_record import ShardStats
from stylebatch.store.sinks import SINKS
from stylebatch.store.sinks.tar_samples import read_members
from stylebatch.store.verify import verify
from tests.support.outputs import Pair, write_output
from tests.support.runs import small_manifest

OPENED = """
import json, sys
from collections import Counter
from pathlib import Path
from stylebatch.reports.report import report
opened = Counter()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened[arguments[0]] += 1
sys.addaudithook(hook)
for output in sys.argv[1:]:
    report(output)
print(json.dumps(opened))
"""


def test_a_report_opens_each_file_of_a_shard_once_in_every_format(tmp_path: Path) -> None:
    pairs = [Pair(f"{n}.png", f"{n}.jpg", "decode" if n == 3 else "") for n in range(12)]
    shards = [pairs[:4], pairs[4:8], pairs[8:]]
    outputs = [write_output(tmp_path / kind, shards, kind=kind) for kind in SINKS]
    done = subprocess.run(
        [sys.executable, "-c", OPENED, *map(str, outputs)],
        capture_output=True,
        text=True,
        check=True,
    )
    opened = Counter(json.loads(done.stdout))
    for output in outputs:
        records = [
            *output.glob("metadata/train-*"),
            *output.glob("data/*"),
            *output.glob("images/train/*.png"),
        ]
        assert len(records) > 6
        assert {opened[str(file)] for file in records} == {1}, opened


def _members(path: Path, wanted: list[str]) -> list[tuple[str, dict[str, bytes]]]:
    with path.open("rb") as file:
        return list(read_members(file, wanted))


def _shards(rows: list[dict[str, Any]], cuts: list[int]) -> list[ShardRows]:
    """The rows as committed shards that end at these places."""
    ends = sorted({cut for cut in cuts if 0 < cut < len(rows)} | {len(rows)})
    shards, start = [], 0
    for end in ends:
        part = rows[start:end]
        good = sum(row["status"] == "success" for row in part)
        before = sum(row["status"] == "success" for row in rows[:start])
        stats = ShardStats(
            plan_digest="", num_samples=len(part), num_success=good, num_failed=len(part) - good,
            sha256="", bytes=0, metadata_sha256="0" * 64,
        )  # fmt: skip
        shard = CommittedShard(f"train-{start:05d}", stats, start, before)
        shards.append(ShardRows(shard, pa.Table.from_pylist(part)))
        start = end
    return shards


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]


@settings(deadline=None, max_examples=60)
@given(
    ids=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=1, max_size=60
    ),
    cuts=st.lists(st.integers(1, 59), max_size=5),
    limit=st.integers(1, 8),
)
def test_rows_are_chosen_alike_however_the_shards_are_cut(
    ids: list[tuple[int, int, bool]], cuts: list[int], limit: int
) -> None:
    rows = [
        {"key": f"{n:03d}", "a": f"a{one}", "style": f"s{two}", "status": "success" if good else "failed"}
        for n, (one, two, good) in enumerate(ids)
    ]  # fmt: skip
    good, bad = (
        [r for r in rows if (r["status"] == "success") == is_good] for is_good in (True, False)
    )
    spread, sets = Spread(len(rows), limit), FirstOfSets(limit, 2)
    success = SpreadOfSuccess(len(good), limit, 3)
    pairs = FirstPairs(("a", "style"), (limit, limit))
    for shard in _shards(rows, cuts):
        for collector in (spread, sets, success, pairs):
            collector.add(shard)
    assert _keys(spread.rows) == [rows[place]["key"] for place in spread_indices(len(rows), limit)]
    assert _keys(success.rows) == [good[place]["key"] for place in spread_indices(len(good), limit)]
    assert _keys(success.failed) == _keys(bad[:3])

    first_sets, shown = list(dict.fromkeys(row["style"] for row in rows))[:limit], Counter[str]()
    stop = next(
        (n for n, row in enumerate(rows) if row["style"] not in first_sets), len(rows)
    )  # the set after the last that is shown
    expected = []
    for row in rows[:stop]:
        shown[row["style"]] += 1
        expected += [row["key"]] if shown[row["style"]] <= 2 else []
    assert _keys(sets.rows) == expected

    first = list(dict.fromkeys(row["a"] for row in rows))[:limit]
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["a"] in first and row["style"] in first_sets:
            found.setdefault((row["a"], row["style"]), row["key"])
    assert [list(ids) for ids in pairs.ids] == [first, first_sets]
    assert {pair: row["key"] for pair, row in pairs.pairs.items()} == found


def _tar(path: Path, members: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 0.5  # a fraction makes an extended header
            tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def test_samples_of_a_tar_are_found_and_a_cut_tar_is_never_half_read(tmp_path: Path) -> None:
    draw = random.Random(1)
    samples = {
        f"{n:09d}": {member: draw.randbytes(draw.choice((0, 1, 511, 512, 513, 2000)))
                     for member in ("png", "json", "content.jpg")}
        for n in range(20)
    }  # fmt: skip
    path = tmp_path / "a.tar"
    flat = {f"{key}.{name}": data for key, files in samples.items() for name, data in files.items()}
    whole = _tar(path, flat)
    wanted = draw.sample(sorted(samples), 6)
    assert dict(_members(path, wanted)) == {key: samples[key] for key in sorted(wanted)}
    last = sorted(samples)[-1]
    for cut in (draw.randrange(len(whole.rstrip(b"\0"))) for _ in range(40)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="ends before byte"):
            list(_members(path, [last]))
    path.write_bytes(b"no tar" * 1000)
    with pytest.raises(ValueError):
        list(_members(path, [last]))


@pytest.mark.parametrize("kind", SINKS)
def test_the_end_of_a_run_reads_what_was_committed_once(
    kind: OutputFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, opened = small_manifest(tmp_path, contents=2, styles=1), Counter[str]()

    def counting(path: Path) -> IO[bytes]:
        file = open_regular(path)
        opened[path.name] += path.parent.name == "metadata"
        return file

    monkeypatch.setattr(folder, "open_regular", counting)
    result = run(load_spec(manifest, [f"output.format={kind}"]))
    assert result.report.num_shards_committed == 2
    records = [path.name for path in (tmp_path / "out/metadata").glob("train-*")]
    assert len(records) == 4
    assert {opened[name] for name in records} == {1}, opened
    assert list(verify(result.output)) == []
