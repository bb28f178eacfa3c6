"""WebDataset tars are listed by their headers alone; what is damaged in them is named, or counted, and never misread."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from stylebatch.errors import ManifestError, SampleError
from tests.support.packed import END, encoded, member, tar

PNG = encoded(1)
SAMPLE = {"a.png": PNG, "a.cls": "3", "a.txt": "a cat"}


def listed(path: object, **options: Any) -> Listing:
    return list_images(open_source(str(path), "contents", SourceOptions(**options)))


def test_members_beside_an_image_give_label_caption_licence_and_the_rest(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "one.tar",
        {
            "cat/001.jpg": encoded(1, "JPEG"),
            "cat/001.json": {"label": "tabby", "caption": "x", "license": "cc0-1.0", "url": "u"},
            "cat/001.cls": "7",
            "cat/001.txt": " a tabby\n",
            "002.PNG": encoded(2),
            "002.cls": b"-1",
            "003.webp": encoded(3, "WEBP"),
            "003.json": {"caption": ["first", "second"], "label": 4},
        },
    )
    found = listed(path)
    assert [(i.id, i.label, i.caption, i.license) for i in found.items] == [
        ("cat/001.jpg", "tabby", "a tabby", "cc0-1.0"),
        ("002.PNG", "", "", ""),
        ("003.webp", "4", "first", ""),
    ]
    assert found.notes == ("contents: read as webdataset",)
    source, items = pickle.loads(pickle.dumps((found.sources, found.items)))
    whole = [encoded(1, "JPEG"), encoded(2), encoded(3, "WEBP")]
    assert [source.read(item.ref) for item in items] == whole
    assert [source.size(item.ref) for item in items] == [len(data) for data in whole]
    assert items[0].ref.place == f"{path}/cat/001.jpg"
    further = source.by_field["contents"].further(items[0])
    assert further["url"] == "u"
    assert source.by_field["contents"].further(items[1]) == {}


def test_tars_by_folder_braces_and_wildcard_have_the_same_ids(tmp_path: Path) -> None:
    for i in range(3):
        tar(tmp_path / f"shards/{i:04d}.tar", {"a.png": encoded(i), "b.png": encoded(9 + i)})
    (tmp_path / "shards/0000_stats.json").write_text("{}")
    found = listed(tmp_path / "shards")
    assert [i.id for i in found.items][:3] == ["0000.tar/a.png", "0000.tar/b.png", "0001.tar/a.png"]
    assert len({i.id for i in found.items}) == 6
    for pattern in ("{0000..0002}.tar", "*.tar", "000[0-2].tar", "{0000,0001,0002}.tar"):
        assert listed(tmp_path / "shards" / pattern).items == found.items
    assert [i.id for i in listed(tmp_path / "shards/{0001..0001}.tar").items] == [
        "0001.tar/a.png",
        "0001.tar/b.png",
    ]
    assert [i.id for i in listed(tmp_path / "shards/0001.tar").items] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("{0000..0003}.tar", r"found no file .*/0003\.tar, which the braces name"),
        ("{0002..0001}.tar", "accepted: an ascending range"),
        ("{0..99999999}.tar", "at most 1,000,000"),
        ("{0002}.tar", r"found \{0002\}; accepted: a range such as"),
        ("x*.tar", "found no file of that pattern"),
    ],
)
def test_patterns_that_lead_nowhere_are_refused(tmp_path: Path, pattern: str, told: str) -> None:
    tar(tmp_path / "0002.tar", SAMPLE)
    for i in range(2):
        tar(tmp_path / f"{i:04d}.tar", SAMPLE)
    with pytest.raises(ManifestError, match=r"contents\.path: .*" + told):
        listed(tmp_path / pattern)


def test_a_folder_that_holds_pictures_as_well_is_a_folder_of_pictures(tmp_path: Path) -> None:
    tar(tmp_path / "all.tar", SAMPLE)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").write_bytes(PNG)
    found = listed(tmp_path)
    assert found.notes[0] == "contents: read as folder"
    assert "1 .tar" in found.notes[1]
    assert listed(tmp_path, kind="webdataset").items[0].id == "all.tar/a.png"


def test_splits_in_file_names_are_not_mixed(tmp_path: Path) -> None:
    for name in ("train-000", "train-001", "val-000"):
        tar(tmp_path / f"{name}.tar", {f"{name}.png": PNG})
    with pytest.raises(
        ManifestError, match=r"contents\.split: .*the splits train, val;.*split: tr"
    ):
        listed(tmp_path)
    assert len(listed(tmp_path, split="train").items) == 2
    with pytest.raises(ManifestError, match=r"contents\.split: .*'test'; accepted: train, val"):
        listed(tmp_path, split="test")


def test_an_image_among_several_is_the_one_without_dots_or_the_one_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.jpg": PNG, "a.content.jpg": encoded(2), "a.depth.npy": b"x"})
    found = listed(path)
    assert [i.id for i in found.items] == ["a.jpg"]
    assert "not read: 1 .content.jpg, 1 .depth.npy" in found.notes[1]
    assert [i.id for i in listed(path, image="content.jpg").items] == ["a.content.jpg"]
    tar(path, {"a.jpg": PNG, "a.png": PNG})
    with pytest.raises(
        ManifestError, match=r"x\.tar: found the images a\.jpg, a\.png in one sample"
    ):
        listed(path)
    tar(path, {"a.jpg": PNG, "b.mp4": b"x"})
    assert "1 passed over: 1 .mp4, without an image beside it" in " ".join(listed(path).notes)
    with pytest.raises(ManifestError, match=r"contents\.image: .*found 'png'.*accepted: jpg$"):
        listed(path, image="png")
    tar(path, {"a.jpg": PNG, "a.content.jpg": PNG, "a.json": {"text": "t"}})
    for _ in range(2):  # found, and kept by an index
        with pytest.raises(
            ManifestError, match=r"mean 'content\.jpg'\? accepted: jpg, content\.jpg$"
        ):
            listed(path, image="content")


def test_keys_that_no_json_has_are_refused_with_those_that_are(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.png": PNG, "a.json": {"fine_label": "fox", "text": "t"}})
    found = listed(path, label="fine_label", caption="text").items[0]
    assert (found.label, found.caption) == ("fox", "t")
    with pytest.raises(
        ManifestError, match=r"contents\.label: .*'fine_lable' in any .*'fine_label'\?"
    ):
        listed(path, label="fine_lable")


def test_broken_sidecars_cost_no_image(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar",
        {
            "a.png": PNG, "a.json": b"{", "a.txt": b"\xff\xfe\xff", "a.cls": b"\xff",
            "b.png": PNG, "b.json": b"[" * 100_000,
            "c.png": PNG, "c.json": {"label": {"deep": 1}, "caption": None, "license": [{}]},
            "d.png": PNG, "d.txt": b"x" * (1 << 20) + b"x",
            "e.png": PNG, "e.json": b"[1]", "e.cls": "fox\0\n",
        },
    )  # fmt: skip
    found = listed(path)
    assert [(i.label, i.caption, i.license) for i in found.items] == [("", "", "")] * 4 + [
        ("fox", "", "")
    ]
    told = " ".join(found.notes)
    for note in ("3 broken .json (such as beside a.png)", "1 .txt over", "1 .cls that is no UTF-8"):
        assert note in told


def test_long_names_and_large_numbers_are_read_as_tar_programs_write_them(tmp_path: Path) -> None:
    names = ["x" * 90 + "/" + "y" * 90 + "/ä.png", "z" * 300 + ".png", "s.png"]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for number, name in enumerate(names):
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.uid = len(encoded(number)), 1e9 + 0.5, 2**31
                archive.addfile(info, io.BytesIO(encoded(number)))
        path = tmp_path / "x.tar"
        path.write_bytes(buffer.getvalue())
        found = listed(path)
        assert [i.id for i in found.items] == names
        for number, item in enumerate(found.items):
            assert found.sources.read(item.ref) == encoded(number)


def _links_and_others() -> bytes:
    kinds = {"l.png": tarfile.SYMTYPE, "h.png": tarfile.LNKTYPE, "p.png": tarfile.FIFOTYPE, "d": tarfile.DIRTYPE}  # fmt: skip
    return b"".join(
        member(name, b"", type=kind, linkname="/etc/passwd") for name, kind in kinds.items()
    )


def test_what_is_no_file_or_leads_outside_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    odd = [member(name, PNG) for name in ("../up.png", "/etc/x.png", "noext", "._a.png", "./b.png")]
    path.write_bytes(b"".join([_links_and_others(), *odd, member("a.png", PNG), END]))
    found = listed(path)
    assert [i.id for i in found.items] == ["b.png", "a.png"]
    assert found.sources.read(found.items[0].ref) == PNG
    told = " ".join(found.notes)
    for note in ("7 passed over", "2 link", "2 name that leads outside", "1 device", "1 hidden"):
        assert note in told


def _sample(key: str) -> bytes:
    return member(f"{key}.png", PNG) + member(f"{key}.cls", b"3") + member(f"{key}.txt", b"a cat")


WHOLE = _sample("a")
TWO = WHOLE + _sample("b")


def _with(offset: int, data: bytes) -> bytes:
    return TWO[:offset] + data + TWO[offset + len(data) :] + END


BROKEN = {
    "cut in a member": (TWO[: len(WHOLE) + 700], "cut short within the member b.png, behind"),
    "cut in a header": (TWO[: len(WHOLE) + 100], "cut short: its end is missing, behind the member a.txt"),
    "cut at a member": (WHOLE, "cut short: its end is missing, behind the member a.txt"),
    "empty": (b"", "cut short: its end is missing, at its beginning"),
    "gzip": (b"\x1f\x8b" + bytes(600), "it is compressed"),
    "a text": (b"<html>" * 200, "it is no tar"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 600, "Git LFS"),
    "flipped": (_with(len(WHOLE) + 5, b"?"), "found no tar header, behind the member a.txt"),
    "two joined": (WHOLE + END + WHOLE + END, "more follows behind its end"),
    "long record": (member("x", b"0" * 2000, type=b"x") + TWO + END, "cannot be read"),
    "huge name": (member("x", b"n" * 70_000, type=b"L") + TWO + END, "name or record of 70,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_tars_are_named_or_counted(tmp_path: Path, name: str) -> None:
    data, told = BROKEN[name]
    tar(tmp_path / "t/0.tar", {"z.png": PNG})
    (tmp_path / "t/1.tar").write_bytes(data)
    tar(tmp_path / "t/2.tar", {"z.png": PNG})
    with pytest.raises(ManifestError, match=r"contents\.path: .*/1\.tar: .*" + told):
        listed(tmp_path / "t")
    found = listed(tmp_path / "t", damaged="pass_over")
    assert "1 damaged tar" in " ".join(found.notes)
    ids = [i.id for i in found.items]
    assert ids[0] == "0.tar/z.png"
    assert ids[-1] == "2.tar/z.png"
    assert all(found.sources.read(i.ref) == PNG for i in found.items)


def test_two_samples_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.png": PNG})
    path.write_bytes(member("a.png", PNG) + member("b.png", PNG) + member("a.png", PNG) + END)
    with pytest.raises(ManifestError, match=r"'a\.png' stands there twice"):
        listed(path)
    path.write_bytes(member("a.png", PNG) + member("a.png", PNG) + END)
    with pytest.raises(ManifestError, match=r"x\.tar: found the member a\.png twice"):
        listed(path)


def test_a_tar_that_shrinks_after_it_was_listed_fails_its_samples(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.png": PNG, "b.png": PNG})
    found = listed(path)
    path.write_bytes(path.read_bytes()[: 512 + len(PNG) // 2])
    for item in found.items:
        assert found.sources.size(item.ref) is None
        with pytest.raises(SampleError, match="shorter than when it was listed"):
            found.sources.read(item.ref)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_gives_other_bytes_for_an_image(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A byte that changes in a header, and a cut anywhere: refused, or every image that is listed is one that was packed."""
    whole = bytearray(TWO + END)
    headers = [i for i in range(0, len(whole), 512) if whole[i + 257 : i + 262] == b"ustar"]
    at = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))
    whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = listed(path, damaged="pass_over")
    except ManifestError:
        return
    for item in found.items:
        assert found.sources.read(item.ref) == PNG


def test_an_output_is_read_by_its_committed_shards(tmp_path: Path) -> None:
    output = tmp_path / "first"
    for shard, key in enumerate(("000000000", "000010000", "000020000")):
        tar(
            output / f"data/train-{shard:05d}.tar",
            {
                f"{key}.jpg": encoded(shard, "JPEG"), f"{key}.cls": str(shard - 1),
                f"{key}.content.jpg": PNG,
                f"{key}.json": {"label": ["", "cat", "dog"][shard], "caption": "c", "style_id": "s.png"},
            },
        )  # fmt: skip
    (output / "metadata").mkdir()
    for shard in (0, 1):
        (output / f"metadata/train-{shard:05d}_stats.json").write_text("{}")
    (output / "contact_sheet.png").write_bytes(PNG)
    for path in (output, output / "data"):
        found = listed(path)
        assert [(i.id, i.label) for i in found.items] == [
            ("train-00000.tar/000000000.jpg", ""),
            ("train-00001.tar/000010000.jpg", "cat"),
        ]
        assert "1 shard of this output passed over, since not committed" in " ".join(found.notes)
    source = found.sources.by_field["contents"]
    assert source.further(found.items[1])["style_id"] == "s.png"
    with pytest.raises(ManifestError, match="belongs to first, an output"):
        listed(output / "metadata")


def test_items_are_chosen_by_label_seed_and_number(tmp_path: Path) -> None:
    labels = ["cat", "dog", "fox"] * 4
    members = {}
    for i, label in enumerate(labels):
        members |= {f"{i:02d}.png": PNG, f"{i:02d}.json": {"label": label}}
    path = tar(tmp_path / "x.tar", members)
    everything = listed(path)
    found = listed(path, labels=("cat", "dog"), limit_per_class=2)
    assert [i.id for i in found.items] == ["00.png", "01.png", "03.png", "04.png"]
    assert "4 of 12 images taken (labels: [cat, dog], limit_per_class: 2)" in found.notes[-1]
    mixed = [i.id for i in listed(path, shuffle=1).items]
    assert mixed != [i.id for i in everything.items]
    assert sorted(mixed) == [i.id for i in everything.items]
    assert [i.id for i in listed(path, shuffle=1, limit=5).items] == mixed[:5]
    assert [i.id for i in listed(path, shuffle=2).items] != mixed
    with pytest.raises(ManifestError, match=r"contents\.labels: .*'catt', which .*'cat'\?"):
        listed(path, labels=("catt",))


def test_kinds_and_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", SAMPLE)
    with pytest.raises(
        ManifestError, match=r"contents\.kind: found 'webdatset'; did you mean 'webdata"
    ):
        listed(path, kind="webdatset")
    (tmp_path / "rows.csv").write_text("path\na.png\n")
    with pytest.raises(ManifestError, match=r"contents\.image: found 'jpg', which means nothing to the kind table"):  # fmt: skip
        listed(tmp_path / "rows.csv", image="jpg")


def test_folders_above_an_image_may_be_its_label(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a/b/1.png": PNG, "a/b/1.json": json.dumps({"label": "j"})})
    labels = [listed(path, label_from=level).items[0].label for level in (0, 1, 2, 3)]
    assert labels == ["", "a", "b", ""]
