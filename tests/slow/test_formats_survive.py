"""Outputs of rows and of files keep what tars promise: kills, growth, repair, engines, full disks; the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stylebatch.cli import main
from stylebatch.faults import POINTS
from stylebatch.folder import Folder
from stylebatch.spec.output import OutputFormat
from stylebatch.store.sinks import SINKS
from stylebatch.store.verify import verify
from tests.support.forked import forked
from tests.support.images import picture
from tests.support.runs import (
    command,
    digests,
    environment,
    leftovers,
    render,
    render_by_ranks,
    small_manifest,
)

pytestmark = pytest.mark.slow

FORMATS: tuple[OutputFormat, ...] = ("parquet", "files")
STATES = ("after open", "before rename", "after rename")
MOST_PASSAGES = 80


class Base:
    """Inputs, a manifest of a format, and what undisturbed runs make of them: `out`, and `grown` with a content more."""

    def __init__(self, folder: Path, kind: OutputFormat) -> None:
        self.folder, self.kind = folder, kind
        self.manifest = small_manifest(folder, contents=2, styles=2)
        for index, label in enumerate(("val", "tabby")):  # one is a word for a split
            (folder / "contents" / label).mkdir()
            (folder / f"contents/{index:02d}.png").rename(folder / f"contents/{label}/a.png")
        document = json.loads(self.manifest.read_text())
        document["output"]["format"] = kind
        self.manifest.write_text(json.dumps(document))
        assert self.run(folder / "out") == 0
        shutil.copytree(folder / "contents", folder / "former")
        picture(77, 48, 40).save(folder / "contents" / "tabby" / "a.bmp")
        shutil.copytree(folder / "out", folder / "grown")
        assert self.run(folder / "grown") == 0

    def words(self, output: Path) -> list[str]:
        return ["run", str(self.manifest), "--output", str(output)]

    def run(self, output: Path) -> int:
        return main(self.words(output))


@pytest.fixture(scope="module", params=FORMATS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def small(base: Base, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The manifest over the first contents, and what an undisturbed run writes."""
    document = json.loads(base.manifest.read_text())
    document["contents"]["path"] = str(base.folder / "former")
    document["styles"]["path"] = str(base.folder / "styles")
    (tmp_path / "run.json").write_text(json.dumps(document))
    manifest = (tmp_path / "run.json").rename(tmp_path / "run.yaml")
    return manifest, digests(base.folder / "out")


def _is_as(expected: Path, output: Path) -> None:
    assert digests(output) == digests(expected)
    assert leftovers(output) == []
    assert list(verify(output)) == []


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("passage", [1, 4])
def test_resuming_after_a_kill_gives_the_same_bytes(
    point: str, passage: int, small: tuple[Path, dict[str, str]], base: Base, tmp_path: Path
) -> None:
    manifest, expected = small
    output = tmp_path / "out"
    words = ("run", str(manifest), "--output", str(output))
    killed = forked(*words, STYLEBATCH_FAULT=f"{point}:{passage}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert digests(output) != expected or passage > 1
    assert main([*words]) == 0
    _is_as(base.folder / "out", output)


def test_resuming_after_kills_at_random_times(
    small: tuple[Path, dict[str, str]], base: Base, tmp_path: Path
) -> None:
    draw, output = random.Random(7), tmp_path / "out"
    kills = 0
    for _ in range(3):
        run = subprocess.Popen(
            command(small[0], output),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        deadline = time.monotonic() + 600
        while not output.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 4.0))
        run.kill()
        kills += run.wait() == -signal.SIGKILL
    assert kills > 0
    assert main(["run", str(small[0]), "--output", str(output)]) == 0
    _is_as(base.folder / "out", output)


def _end_to_end(words: list[str], fault: str) -> int:
    """Runs a command in a process of its own with a fault, then without; the first exit code."""
    first = forked(*words, STYLEBATCH_FAULT=fault)
    assert first.returncode in (0, -signal.SIGKILL), first.stderr
    assert main(words) == 0
    return first.returncode


def _grow(base: Base, output: Path, fault: str) -> int:
    shutil.copytree(base.folder / "out", output)
    return _end_to_end(base.words(output), fault)


def _payload(base: Base, output: Path, shard: str) -> list[Path]:
    """The files of a shard; of the names that it may have, one is of inputs that its samples share."""
    names = SINKS[base.kind].files(Folder.at(output), shard)
    return [output / name for name in names if (output / name).exists()]


def _repair(base: Base, output: Path, fault: str) -> int:
    """Of a grown output whose shards are damaged: one by its rungs, one without marker, one without payload."""
    shutil.copytree(base.folder / "grown", output)
    marker = output / "metadata/train-00000_stats.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"executed": [[1, 1, 1]]}))
    _payload(base, output, "train-00000")[0].write_bytes(b"")
    (output / "metadata/train-00001_stats.json").unlink()
    _payload(base, output, "train-00002")[-1].unlink()
    code = _end_to_end(["repair", str(output)], fault)
    assert json.loads(marker.read_text())["executed"] == [[1, 1, 1]]
    return code


@pytest.mark.parametrize("make", [_grow, _repair])
@pytest.mark.parametrize("point", STATES)
def test_a_kill_in_every_state_of_a_file(
    base: Base, tmp_path: Path, make: Callable[[Base, Path, str], int], point: str
) -> None:
    # every seventh file, since each takes two processes; `test_kill_grown` goes through all of tars
    for passage in range(1, MOST_PASSAGES + 1, 7):
        output = tmp_path / str(passage)
        code = make(base, output, f"{point}:{passage}")
        _is_as(base.folder / "grown", output)
        shutil.rmtree(output)
        if code == 0:
            break
    else:
        pytest.fail(f"{point} is passed more than {MOST_PASSAGES} times")
    assert passage > 1


def test_engines_write_the_same_bytes(base: Base, tmp_path: Path) -> None:
    by_ray = render(base.manifest, tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert by_ray.returncode == 0, by_ray.stderr
    by_ranks = render_by_ranks(base.manifest, tmp_path / "ranks")
    assert by_ranks.returncode == 0, by_ranks.stderr
    alone = render(base.manifest, tmp_path / "local", "--engine", "local")
    assert alone.returncode == 0, alone.stderr
    for name in ("ray", "ranks"):
        _is_as(tmp_path / "local", tmp_path / name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run_which_resumes_when_there_is_room(
    base: Base, small_disk: Path
) -> None:
    output = small_disk / "out"
    (small_disk / "filler").write_bytes(bytes(4_100_000))
    stopped = render(base.manifest, output)
    assert stopped.returncode == 5, stopped.stderr
    assert str(output) in stopped.stderr
    (small_disk / "filler").unlink()
    assert base.run(output) == 0
    assert list(verify(output)) == []


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [Path.unlink, _truncated, _flipped])
@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_damage_is_found_and_repaired(
    base: Base, tmp_path: Path, damage: Callable[[Path], None], place: int
) -> None:
    output = Path(shutil.copytree(base.folder / "grown", tmp_path / "out"))
    damage(_payload(base, output, "train-00001")[place])
    assert {problem.shard for problem in verify(output)} == {1}
    assert main(["verify", str(output)]) == 3
    assert main(["repair", str(output)]) == 0
    _is_as(base.folder / "grown", output)


def test_what_stands_in_the_place_of_the_payload_is_told(base: Base, tmp_path: Path) -> None:
    output = Path(shutil.copytree(base.folder / "grown", tmp_path / "out"))
    _folder_instead(output / SINKS[base.kind].files(Folder.at(output), "train-00001")[0])
    assert {problem.shard for problem in verify(output)} & {1}
    assert main(["repair", str(output)]) == 5


def test_a_preview_of_another_format_takes_the_place_of_the_former(
    base: Base, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for kind in (*FORMATS, "webdataset", *FORMATS):
        words = [*base.words(output), "--limit", "2", "--set", f"output.format={kind}"]
        assert main(words) == 0
        preview = tmp_path / "out-preview-2"
        assert list(verify(preview)) == []
        found = {path.name for path in preview.iterdir()} & {"data", "images", "input_images"}
        assert found == ({"images", "input_images"} if kind == "files" else {"data"})


def test_failed_samples_are_retried_when_asked(base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for side in ("contents", "styles"):
        shutil.copytree(base.folder / side, folder / side)
    bad = folder / "contents/tabby/a.bmp"
    good = bad.read_bytes()
    bad.write_bytes(b"no picture")
    manifest = Path(shutil.copy(base.manifest, folder / "run.yaml"))
    words = ["run", str(manifest), "--output", str(folder / "out")]
    assert main(words) == 3
    assert list(verify(folder / "out")) == []
    bad.write_bytes(good)
    assert main(words) == 3  # not without being asked
    assert main([*words, "--retry-failed"]) == 0
    assert list(verify(folder / "out")) == []
    assert main(["report", str(folder / "out")]) == 0
