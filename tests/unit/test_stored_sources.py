"""Tars, Parquet and tables in a store are listed and read as the same files on this machine are, by as few requests as they need."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylebatch import object_store
from stylebatch.data.image_section import ContentSpec, SourceOptions
from stylebatch.data.one_look import one_look
from stylebatch.data.places import StoredFile, is_file, part_of
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_contents, list_images
from stylebatch.data.sources.pairs import PairList, list_pairs
from stylebatch.data.sources.splitting import SplitBy
from stylebatch.errors import ManifestError, SampleError, StorageError
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from tests.support.beside_images import write_beside
from tests.support.packed import END, encoded, member, tar
from tests.support.s3 import BUCKET, proxied, s3_server, short_pauses
from tests.support.saved import listed, save_dataset, told


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url, short_pauses():
        yield url


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of a tar from another test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of container, untidy as they come."""
    here = tmp_path_factory.mktemp("here")
    for shard in range(3):
        members: dict[str, Any] = {"readme": "x"}
        for i, label in enumerate(("cat", "dog", "fox")):
            key = f"{label}/{shard}{i}"
            members |= {f"{key}.png": encoded(i + shard), f"{key}.cls": "3", f"{key}.txt": " a \n"}
            members[f"{key}.json"] = {"label": label, "width": i, "url": "u"}
        tar(here / f"shards/{shard:05d}.tar", members)
    (here / "shards/00000_stats.json").write_text("{}")
    (here / "shards/.hidden.tar").write_bytes(b"no tar")
    rows = [{"bytes": encoded(i), "path": None} for i in range(7)]
    for split in ("train", "test"):
        path = here / f"hub/data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"image": rows, "label": list("abcabca"), "score": [1.5] * 7})
        pq.write_table(table, path, row_group_size=3)
    for i in range(3):
        path = here / f"photos/cat/ü {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    names = [f"photos/cat/ü {i}.png" for i in (2, 0, 1)]
    (here / "rows.csv").write_text("path;label\n" + "".join(f"{name};l\n" for name in names))
    (here / "rows.jsonl").write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    (here / "deep").mkdir()
    pq.write_table(pa.table({"path": [f"../{name}" for name in names]}), here / "deep/rows.parquet")
    (here / "pairs.tsv").write_text(f"content\tstyle\n{names[0]}\t{names[1]}\n")
    sample = {"0.jpg": encoded(1), "0.style.jpg": encoded(2), "0.json": {"label": "cat"}}
    for shard in range(2):
        tar(here / f"outputs/first/data/train-{shard:05d}.tar", sample)
    (here / "outputs/first/metadata").mkdir()
    (here / "outputs/first/metadata/train-00000_stats.json").write_text("{}")
    write_beside(here)
    save_dataset(here / "saved", 3, 4, 0)
    return here


@pytest.fixture(scope="module")
def there(s3: str, here: Path) -> str:
    """The same in the store."""
    address = f"s3://{BUCKET}/{uuid4().hex}/deep"
    folder = Folder.at(address)
    for path in sorted(here.rglob("*")):
        if path.is_file():
            folder.put(path.relative_to(here).as_posix(), path)
    return address


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("shards", {}, 9),
        ("shards/00001.tar", {}, 3),
        ("shards/{00000..00001}.tar", {"label_from": 1}, 6),
        ("shards/*.tar", {"label": "width"}, 9),
        ("**/000*.tar", {}, 9),
        ("hub", {"split": "test"}, 7),
        ("hub/data/train-00000-of-00001.parquet", {}, 7),
        ("hub/data/t*.parquet", {"split": "train"}, 7),
        ("rows.csv", {}, 3),
        ("rows.jsonl", {}, 3),
        ("deep/rows.parquet", {}, 3),
        ("outputs/first", {}, 1),
        ("outputs/first/data", {"image": "style.jpg"}, 1),
        ("saved", {"captions": "drawn"}, 9),
        ("beside", {}, 7),
        ("beside", {"captions": "drawn"}, 7),
        ("beside", {"label_from": 1, "carry": ()}, 7),
        ("beside", {"split": "cat"}, 5),
        ("rowed", {"caption": "text"}, 3),
        ("00000", {}, 1),
        ("set", {"split": "val"}, 3),
        ("set", {"annotations": "set/data.yaml", "split": "train"}, 1),
        ("set/images", {"annotations": "set/labels"}, 4),
        ("set/images", {"annotations": "set/labels", "split": "val"}, 3),
        ("set", {"kind": "coco", "split": "val"}, 1),
        ("set/images", {"annotations": "set/voc"}, 4),
        ("set/images", {"annotations": "set/coco", "split": "val"}, 1),
        ("set/images/train", {"annotations": "set/coco/instances_train2017.json"}, 1),
        ("set/images", {"annotations": "set/coco/*_*.json", "split": "train"}, 1),
    ],
)
def test_a_store_lists_and_reads_what_this_machine_does(
    here: Path, there: str, name: str, options: dict[str, Any], count: int
) -> None:
    on_disk, stored = both(here, there, name, **options)
    assert told(stored) == told(on_disk)
    assert len(stored.items) == count
    assert [i.regions for i in stored.items] == [i.regions for i in on_disk.items]
    assert [i.captions for i in stored.items] == [i.captions for i in on_disk.items]
    notes = [
        note.replace(there, str(here)).replace("as store", "as folder") for note in stored.notes
    ]
    assert notes == list(on_disk.notes)


def both(here: Path, there: str, name: str, **options: Any) -> tuple[Listing, Listing]:
    """What is listed here and there; annotations by their path from either."""
    given = options.pop("annotations", None)
    found = []
    for root in (str(here), there):
        more = {} if given is None else {"annotations": f"{root}/{given}"}
        found.append(listed(f"{root}/{name}", **options, **more))
    return found[0], found[1]


@pytest.mark.parametrize("name", ["beside", "set/images"])
def test_folders_of_splits_are_those_of_a_store(here: Path, there: str, name: str) -> None:
    options = {"annotations": "set/labels"} if name == "set/images" else {}
    found = []
    for root in (str(here), there):
        given = {key: f"{root}/{value}" for key, value in options.items()}
        spec = ContentSpec(path=f"{root}/{name}", **given)
        items = list_contents(spec, SplitBy(source=True)).items
        found.append([(item.id, item.split, item.label) for item in items])
    assert found[0] == found[1]
    assert len({split for _, split, _ in found[0]}) == 2


def test_paths_that_are_a_folder_off_are_told_in_a_store(there: str) -> None:
    for path, of, meant in (
        ("set", "set/labels", "path: {}/set/images"),
        ("set/images/val", "set/labels", "path: {}/set/images"),
        ("set", "set/coco/instances_val2017.json", "path: {}/set/images/"),
    ):
        with pytest.raises(ManifestError, match=f"did you mean `{meant.format(there)}"):
            listed(f"{there}/{path}", annotations=f"{there}/{of}")


def test_files_beside_images_are_asked_for_once_each(s3: str, there: str) -> None:
    with proxied(s3) as proxy:
        listed(f"{there}/beside")
        asked = [path for method, path, _ in proxy.seen if method == "GET" and "/cat/" in path]
        asked += [path for method, path, _ in proxy.seen if method == "GET" and "/dog/" in path]
        endings = sorted(path.partition("?")[0][-5:] for path in asked if "list-type" not in path)
        assert endings == [".json", ".json", "0.txt", "1.txt", "2.cls", "3.txt"]


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [("outputs/first", {}, 10), ("hub", {"split": "test"}, 9), ("beside", {}, 14), ("set", {"split": "val"}, 12)],
)  # fmt: skip
def test_a_listing_asks_a_store_for_each_thing_once(
    s3: str, there: str, name: str, options: dict[str, Any], most: int
) -> None:
    spec = ContentSpec(path=f"{there}/{name}", **options)
    with proxied(s3) as proxy:
        found = list_contents(spec)
        looks = [(method, path) for method, path, _ in proxy.seen]
        # `continuation-token` and the like are not in these: each of the folders fits a page
        assert max(Counter(looks).values()) <= 2
        assert len(looks) <= most
        assert list_contents(spec).items == found.items
        assert len(proxy.seen) > len(looks)  # what was told is not kept for the next plan


def test_a_folder_of_more_files_than_a_page_tells_is_asked_by_name(
    s3: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "PAGE", 2)
    with one_look(), proxied(s3) as proxy:
        assert is_file(f"{there}/beside/cat/4.png")
        assert not is_file(f"{there}/beside/cat/gone.png")
        assert proxy.asked("HEAD", ".png") == 2
        monkeypatch.setattr(object_store, "PAGE", 1000)
        assert is_file(f"{there}/rowed/b/1.png")
        assert not is_file(f"{there}/rowed/b")
        assert not is_file(f"{there}/rowed/b/gone.png")
        assert proxy.asked("HEAD") == 2
        Folder.at(f"{there}/rowed").write("late.txt", b"x")
        assert not is_file(f"{there}/rowed/late.txt")
    assert is_file(f"{there}/rowed/late.txt")
    Folder.at(f"{there}/rowed").remove("late.txt")


def test_a_random_member_is_one_ranged_request(s3: str, there: str) -> None:
    found = listed(f"{there}/shards")
    with proxied(s3) as proxy:
        for item in random.Random(1).sample(found.items, 5):
            before = len(proxy.seen)
            assert found.sources.size(item.ref)
            found.sources.read(item.ref)
            assert [method for method, _, _ in proxy.seen[before:]] == ["GET"]
        before = len(proxy.seen)
        again = listed(f"{there}/shards")
        # Of each tar its facts and all its headers at once.
        assert proxy.asked("GET", ".tar") <= 5 + len({item.ref.uri for item in again.items})


def test_a_kind_that_is_named_holds_for_a_store(there: str) -> None:
    assert listed(f"{there}/photos", kind="folder").notes[0] == "contents: read as store"
    assert listed(f"{there}/shards", kind="webdataset").notes[0] == "contents: read as webdataset"
    with pytest.raises(ManifestError, match=r"contents.path: .*found no \.parquet file"):
        listed(f"{there}/shards", kind="parquet")


def test_what_is_wrong_in_a_store_is_told_as_on_this_machine(here: Path, there: str) -> None:
    stored = Folder.at(f"{there}/broken")
    whole = (here / "shards/00000.tar").read_bytes()
    broken = {
        "cut.tar": whole[: len(whole) // 2], "no.tar": b"x" * 2000, "empty.tar": b"", "no.parquet": b"PAR1",
        "wrong.csv": b"pathh,label\na,b\n", "out.csv": b"path\n../../../../other/x.png\n", "abs.csv": b"path\n/etc/passwd\n",
    }  # fmt: skip
    (here / "broken").mkdir(exist_ok=True)
    for name, data in broken.items():
        stored.write(name, data)
        (here / "broken" / name).write_bytes(data)
        faults = [_fault(place, f"broken/{name}") for place in (str(here), there)]
        if name in ("out.csv", "abs.csv"):
            assert "accepted: a path from the table's folder" in faults[1]
        else:
            assert faults[0] == faults[1]
            assert "listed" not in faults[0]
    with pytest.raises(ManifestError, match=r"found no file .*/shards/00003\.tar"):
        listed(f"{there}/shards/{{00000..00009}}.tar")
    found = listed(f"{there}/shards/00000.tar")
    Folder.at(f"{there}/shards").write("00000.tar", whole[:700])
    try:
        with pytest.raises(SampleError, match="shorter than when it was listed"):
            found.sources.read(found.items[-1].ref)
    finally:
        Folder.at(f"{there}/shards").write("00000.tar", whole)


def _fault(place: str, name: str) -> str:
    """What is said of it on either side; what was listed where nothing is."""
    try:
        return f"listed {listed(f'{place}/{name}').items}"
    except ManifestError as error:
        return str(error).replace(place, "PLACE")


def test_a_store_that_does_not_answer_is_no_damage(s3: str, there: str) -> None:
    """Else `damaged: pass_over` would render a part of a dataset and say that it is whole."""
    names = ("shards/00000.tar", "hub/data/test-00000-of-00001.parquet", "saved", "rows.csv")
    sources = [
        open_source(f"{there}/{name}", "contents", SourceOptions(damaged=damaged))
        for name in names[:3]
        for damaged in ("refuse", "pass_over")
    ]
    labels = SourceOptions(annotations=f"{there}/set/labels", damaged="pass_over")
    coco = SourceOptions(annotations=f"{there}/set/coco", split="val")
    sources += [
        open_source(f"{there}/{names[3]}", "contents"),
        open_source(f"{there}/beside", "contents"),
        open_source(f"{there}/set/images", "contents", labels),
        open_source(f"{there}/set/images", "contents", coco),
    ]
    with proxied(s3, lambda request: "500" if "Range" in request.headers else "pass"):
        for source in sources:
            with pytest.raises(StorageError):
                list_images(source)


def test_manifests_take_files_of_a_store(here: Path, there: str, tmp_path: Path) -> None:
    manifest = tmp_path / "run.yaml"
    for contents in ("shards/{00000..00002}.tar", "rows.csv", "shards/00000.tar", "hub/data"):
        path, split = f"{there}/{contents}", ", split: train" if contents == "hub/data" else ""
        manifest.write_text(
            f"name: x\ncontents: {{path: '{path}'{split}}}\nstyles: {{path: '{there}/photos', kind: folder}}\noutput: {{path: out}}\n"
        )
        spec = load_spec(manifest)
        assert spec.contents is not None
        assert spec.contents.path == path
    with pytest.raises(ManifestError, match=r"contents.path: found 's3://.*no\.tar', which does"):
        load_spec(manifest, [f"contents.path={there}/no.tar"])
    with pytest.raises(ManifestError, match=r"output.path: .*lies inside contents\.path"):
        load_spec(manifest, [f"contents={{path: '{there}/shards'}}"], output=f"{there}/shards/out")
    pairs = (
        f"name: x\npairing: {{mode: explicit, path: '{there}/pairs.tsv'}}\noutput: {{path: out}}\n"
    )
    manifest.write_text(pairs)
    pairing = load_spec(manifest).pairing
    found = list_pairs(PairList(str(pairing.path)))
    assert found.sources.read(found.contents[0].ref) == encoded(2)
    assert found.sources.read(found.styles[0].ref) == encoded(0)


NAMES = st.sampled_from(["a", "b.c", "d/e", ".f", "ü", "a" * 120, "g h", ""])
ENDINGS = st.sampled_from(["png", "jpg", "json", "cls", "txt", "content.jpg", "npy", ""])
DATA = st.binary(max_size=40) | st.sampled_from([encoded(1), b'{"label": "x"}', bytes(20_000)])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(NAMES, ENDINGS, DATA), max_size=6),
    st.integers(0, 100) | st.none(),
    st.sampled_from(["refuse", "pass_over"]),
)
def test_any_tar_is_the_same_tar_in_a_store(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[tuple[str, str, bytes]],
    cut: int | None,
    damaged: str,
) -> None:
    data = b"".join(member(f"{name}.{ending}", body) for name, ending, body in members) + END
    data = data if cut is None else data[: len(data) * cut // 100]
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.tar").write_bytes(data)
    address = f"memory://any-{uuid4().hex}"
    Folder.at(address).write("x.tar", data)
    found: list[Any] = []
    for place in (str(folder), address):
        try:
            listing = listed(f"{place}/x.tar", damaged=damaged)
            found.append((told(listing), listing.notes))
        except ManifestError as error:
            found.append(str(error).replace(place, "PLACE"))
    assert found[0] == found[1]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200))))
def test_a_stored_file_reads_as_one_of_this_machine(
    data: bytes, asked: list[tuple[int, int]]
) -> None:
    address = f"memory://files-{uuid4().hex}"
    Folder.at(address).write("x", data)
    stored, plain = StoredFile(f"{address}/x"), io.BytesIO(data)
    for offset, count in asked:
        assert stored.seek(offset) == plain.seek(offset)
        assert stored.read(count) == plain.read(count)
        assert stored.tell() == max(plain.tell(), offset)
        assert part_of(f"{address}/x", offset, count) == data[offset : offset + count]
    assert stored.seek(-1, 2) == len(data) - 1 if data else True


def test_the_examples_of_the_documentation_are_read_as_they_say(here: Path, there: str) -> None:
    text = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    found = re.findall(r"(contents: \{.*s3://.*\}) +# read as (\w+)", text)
    assert {kind for _, kind in found} == {
        "webdataset",
        "parquet",
        "saved",
        "table",
        "store",
        "yolo",
        "coco",
    }
    for example, kind in found:
        contents = yaml.safe_load(example.replace("s3://bucket/mine", there))["contents"]
        spec = ContentSpec.model_validate(contents)
        assert list_contents(spec).notes[0] == f"contents: read as {kind}"
