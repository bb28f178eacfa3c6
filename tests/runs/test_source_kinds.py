"""A further kind of source is one class and one row of the dict; a start lists its inputs once; what is pickled reads alike."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from stylebatch import load_spec, run
from stylebatch.data.image_section import ImageSpec
from stylebatch.data.inputs import load_input
from stylebatch.data.sources import kinds
from stylebatch.data.sources.image_folder import ImageFolder
from stylebatch.data.sources.listing import list_images
from stylebatch.data.sources.source import Source
from stylebatch.engine.worker import Worker
from stylebatch.errors import ManifestError, SampleError
from stylebatch.folder import Folder
from stylebatch.planning.growth import plan_generations
from stylebatch.planning.resolve import plan
from stylebatch.store.inputs_record import history
from tests.support.forked import forked_call
from tests.support.images import picture
from tests.support.packed import tar
from tests.support.planned import prompts_planned
from tests.support.runs import digests, small_manifest
from tests.support.zipped import ZippedImages


@pytest.fixture
def zips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS, "zip", ZippedImages)


def zipped(folder: Path) -> None:
    """`folder` as an archive beside it, in its place."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
        archive.writestr("notes.txt", "no image")
    shutil.rmtree(folder)


def tarred(folder: Path) -> None:
    """`folder` as a tar beside it, in its place."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    members = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    tar(folder.with_suffix(".tar"), members)
    shutil.rmtree(folder)


def two_by_two(folder: Path, archives: tuple[str, ...], suffix: str = ".zip") -> Path:
    """A manifest of 2 contents with masks x 2 styles; what `archives` name is packed."""
    manifest = small_manifest(folder, contents=2, styles=2)
    for i in range(2):
        (folder / "masks").mkdir(exist_ok=True)
        picture(40 + i, 48, 40).convert("L").save(folder / f"masks/{i:02d}.png")
    document = json.loads(manifest.read_text())
    document["contents"]["masks"] = "masks"
    for name in archives:
        (zipped if suffix == ".zip" else tarred)(folder / name)
    for name in ("contents", "styles"):
        document[name]["path"] += suffix if name in archives else ""
    document["contents"]["masks"] += suffix if "masks" in archives else ""
    manifest.write_text(json.dumps(document))
    return manifest


def _render(planned: Path, output: Path) -> None:
    """What the worker does."""
    plan = pickle.loads(planned.read_bytes())
    with Worker(plan, Folder.at(output), threads=1) as worker:
        for shard in plan.shards:
            worker.render(shard)


def in_a_worker(planned: Any, output: Path, folder: Path) -> None:
    """Every shard, by a process that knows no more than the pickled plan and stands elsewhere."""
    folder.mkdir()
    (folder / "plan").write_bytes(pickle.dumps(planned.anchored()))
    assert forked_call(_render, folder / "plan", output, at=folder) == 0


@pytest.mark.usefixtures("zips")
def test_a_kind_that_is_added_renders_the_bytes_of_a_folder(tmp_path: Path) -> None:
    from_folders = load_spec(two_by_two(tmp_path / "folders", ()))
    from_archives = load_spec(two_by_two(tmp_path / "archives", ("contents", "styles")))
    run(from_folders)
    result = run(from_archives)
    assert result.report.num_success == 4
    shards = digests(tmp_path / "folders/out")
    assert digests(tmp_path / "archives/out") == shards

    from_tars = load_spec(two_by_two(tmp_path / "tars", ("contents", "styles"), ".tar"))
    run(from_tars)
    assert digests(tmp_path / "tars/out") == shards

    planned = plan(from_archives)
    assert plan(from_folders).digest == plan(from_tars).digest
    assert plan(from_folders).digest == planned.digest
    assert any("1 passed over: 1 .txt" in note for note in planned.notes)
    in_a_worker(planned, tmp_path / "again", tmp_path / "elsewhere")
    of_shards = {name: one for name, one in shards.items() if "train-" in name}
    assert {name: digests(tmp_path / "again").get(name) for name in of_shards} == of_shards


@pytest.mark.usefixtures("zips")
def test_prompts_over_an_archive_read_its_images(tmp_path: Path) -> None:
    two_by_two(tmp_path / "in", ("contents", "masks"))
    data = {
        "contents": {"path": "in/contents.zip", "masks": "in/masks.zip"},
        "prompts": {"template": "a cat"},
        "method": {"name": "inpaint", "steps": 1},
        "image": {"size": 32},
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    planned = plan(load_spec(tmp_path / "run.yaml"))
    masks = {row.mask for row in prompts_planned(planned)}
    assert masks == {"masks.zip/00.png", "masks.zip/01.png"}
    assert run(load_spec(tmp_path / "run.yaml")).report.num_success == 2


@pytest.mark.usefixtures("zips")
def test_a_damaged_archive_fails_the_samples_that_need_it(tmp_path: Path) -> None:
    two_by_two(tmp_path, ("contents",))
    source = kinds.open_source(str(tmp_path / "contents.zip"), "contents")
    first, second = list_images(source).items
    whole = (tmp_path / "contents.zip").read_bytes()
    middle = whole.index(b"IDAT") + 8
    (tmp_path / "contents.zip").write_bytes(whole[:middle] + b"damage" + whole[middle + 6 :])
    with pytest.raises(SampleError, match=r"00\.png: cannot be read: Bad CRC"):
        load_input(first, source, 32, ImageSpec())
    load_input(second, source, 32, ImageSpec())
    gone = replace(second, ref=replace(second.ref, member="nowhere.png"))
    with pytest.raises(SampleError, match=r"01\.png: cannot be read: .*nowhere\.png"):
        load_input(gone, source, 32, ImageSpec())
    (tmp_path / "contents.zip").write_bytes(whole[:100])
    with pytest.raises(SampleError, match=r"01\.png: cannot be read: File is not a zip file"):
        load_input(second, source, 32, ImageSpec())


def test_what_no_kind_recognises_is_refused_with_all_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = two_by_two(tmp_path / "in", ("styles",))
    with pytest.raises(ManifestError, match=r"styles\.zip'; accepted: an image folder, a \.csv"):
        load_spec(manifest)
    monkeypatch.setitem(kinds.KINDS, "zip", ZippedImages)
    load_spec(manifest)
    (tmp_path / "in/styles.zip").rename(tmp_path / "in/styles.7z")
    with pytest.raises(ManifestError, match=r"or a \.zip of images"):
        load_spec(manifest, ["styles.path=styles.7z"])


def _sources(folder: Path) -> list[Source]:
    small_manifest(folder, contents=2, styles=2)
    rows = "".join(f"{i:02d}.png,0{1 - i}.png\n" for i in range(2))
    (folder / "contents/rows.csv").write_text(f"path,mask\n{rows}")
    (folder / "styles/rows.csv").write_text("path,blend,weight\n00.png,a,0.5\n01.png,a,0.5\n")
    shutil.copytree(folder / "contents", folder / "packed")
    zipped(folder / "packed")
    return [
        kinds.open_source(uri, field)
        for uri, field in (
            ("contents", "contents"),
            ("contents/rows.csv", "contents"),
            ("styles/rows.csv", "styles"),
            ("packed.zip", "contents"),
        )
    ]


@pytest.mark.usefixtures("zips")
def test_sources_and_their_items_mean_the_same_in_any_process_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in _sources(Path()):
        listed = list_images(source)
        assert list_images(source).items == listed.items
        assert list_images(source).notes == listed.notes
        shown = [load_input(item, source, 32, ImageSpec()) for item in listed.items]
        stored = pickle.dumps((source, listed.items))
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        other, items = pickle.loads(stored)
        assert items == listed.items
        for item, before in zip(items, shown, strict=True):
            assert load_input(item, other, 32, ImageSpec()).files == before.files
        monkeypatch.chdir(tmp_path)


def test_a_source_that_listed_many_images_is_no_larger_for_workers(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"{i:03d}.png").write_bytes(b"x")
    source = ImageFolder(str(tmp_path), "contents")
    before = len(pickle.dumps(source))
    assert len(list_images(source).items) == 300
    assert len(pickle.dumps(source)) < before + 200


_scanned: Counter[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Counts folders that are walked through. A glance at what a folder holds, which ends at its first picture, is not."""
    if _scanned is not None and event == "os.scandir" and _is_walk(sys._getframe(1)):
        _scanned[str(arguments[0])] += 1


def _is_walk(frame: FrameType) -> bool:
    return frame.f_code.co_name in ("walk", "_walk")


@contextmanager
def scans() -> Iterator[Counter[str]]:
    """Folders that this process lists meanwhile, as the interpreter reports them."""
    global _scanned
    if not hasattr(sys, "_stylebatch_watched"):
        sys.addaudithook(_watch)
        sys._stylebatch_watched = True  # type: ignore[attr-defined]
    _scanned = Counter()
    try:
        yield _scanned
    finally:
        _scanned = None


def test_a_start_lists_its_inputs_once(tmp_path: Path) -> None:
    """First, resumed, and grown; a run whose features are measured plans thrice."""
    manifest = small_manifest(tmp_path, contents=2, styles=2)
    inputs = [str(tmp_path / name) for name in ("contents", "styles")]
    for grown in (False, False, True):
        if grown:
            picture(77, 48, 40).save(tmp_path / "contents/new.png")
            picture(78, 48, 40).save(tmp_path / "styles/new.png")
        with scans() as found:
            run(load_spec(manifest))
        assert [found[folder] for folder in inputs] == [1, 1]
    with scans() as found:
        spec = load_spec(manifest)
        assert len(plan_generations(spec, history(Folder.at(tmp_path / "out")))) == 2
    assert [found[folder] for folder in inputs] == [1, 1]
