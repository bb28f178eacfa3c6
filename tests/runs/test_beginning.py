"""`stylebatch init` writes manifests that run, or says why not and writes nothing, whatever lies in the folders."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stylebatch.cli import main
from stylebatch.doctor.machine import Device
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.survey.proposal import drafted
from stylebatch.survey.roles import Places
from stylebatch.survey.wishes import Wishes
from tests.support.images import picture
from tests.support.layouts import coco, put, roboflow
from tests.support.outputs import Pair, write_output
from tests.support.packed import encoded, tar
from tests.support.s3 import BUCKET, s3_server
from tests.support.untidy import CONTENTS, STYLES, UntidyFolder

QUICK = ("--set", "method.steps=2", "--set", "engine.threads=1")
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, an empty one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _emptied(folder: Path) -> None:
    os.chdir(folder.parent)
    shutil.rmtree(folder)
    folder.mkdir()
    os.chdir(folder)


def _pictures(folder: str, *names: str, sides: tuple[int, int] = (48, 40)) -> None:
    for number, name in enumerate(names):
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, *sides).save(path)


def _data(name: str = "manifest.yaml") -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(Path(name).read_text())
    return found


@settings(max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=SHARED)
@given(
    contents=CONTENTS,
    styles=STYLES,
    by_flags=st.booleans(),
    place=st.sampled_from([".", "sub dir"]),
)
def test_what_it_writes_is_planned_and_else_it_writes_nothing(
    here: Path, contents: UntidyFolder, styles: UntidyFolder, by_flags: bool, place: str
) -> None:
    _emptied(here)
    parts = [contents.write(Path(".")), styles.write(Path("."))]
    manifest = os.path.join(place, "mine.yaml")
    flags = ["--contents", f"./{parts[0]}", "--styles", f"./{parts[1]}"]
    places = flags if by_flags else [f"./{part}" for part in parts]
    before = sorted(here.rglob("*"))
    code = main(["init", *places, "-m", manifest])
    if code:
        assert code == 2
        assert sorted(here.rglob("*")) == before
        return
    assert contents.num_readable
    assert styles.num_readable
    spec = load_spec(manifest)
    assert spec.contents is not None
    assert os.path.samefile(spec.contents.path, parts[0])
    assert spec.styles is not None
    assert os.path.samefile(spec.styles.path, parts[1])
    assert main(["plan", manifest]) == 0
    # all pictures were looked at, so that no run ends with exit code 3
    assert main(["run", manifest, "--set", "image.size=64", *QUICK]) == 0


def test_two_folders_with_readable_pictures_always_get_a_manifest(here: Path) -> None:
    names = ("no", "1e3", "a: b", "{a}", "line\nbreak", "~home", "*", "s3:x", "\x85next", "名前")
    for number, name in enumerate(names):
        _pictures(name, "1.png", "2.png")
        _pictures("paintings", "1.png")
        assert main(["init", f"./{name}", "paintings", "-m", f"{number}.yaml"]) == 0
        assert main(["plan", f"{number}.yaml"]) == 0


@pytest.mark.parametrize(
    ("names", "contents"),
    [
        (("photos", "paintings"), "photos"),
        (("paintings", "photos"), "photos"),
        (("style_images", "images"), "images"),
        (("ContentImages", "x"), "ContentImages"),
        (("contnets", "x"), "contnets"),
        (("Styels", "x"), "x"),
        (("stlye", "pohtos"), "pohtos"),
        (("x", "wikiart_train"), "x"),
        (("pictures", "x"), "pictures"),
    ],
)
def test_names_tell_contents_from_styles(here: Path, names: tuple[str, str], contents: str) -> None:
    for name in names:
        _pictures(name, "1.png", "2.png")
    for number, order in enumerate((names, names[::-1])):
        assert main(["init", *order, "-m", f"{number}.yaml"]) == 0
        data = _data(f"{number}.yaml")
        assert data["contents"] == {"path": contents}
        assert data["styles"] == {"path": next(name for name in names if name != contents)}


def test_a_misspelt_name_is_told_as_it_was_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Styels", "contetns"):
        _pictures(name, "1.png")
    assert main(["init"]) == 0
    told = "(contetns is read as content, styels is read as style)"
    assert (
        f"Styels is taken for styles, by its name; contetns for contents {told}"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_left_out_of_names_as_they_are_read(
    here: Path, capsys: pytest.CaptureFixture[str], form: Literal["NFC", "NFD"]
) -> None:
    photos, paintings = (unicodedata.normalize(form, name) for name in ("phötos é", "päintings"))
    for name in (photos, paintings):
        _pictures(name, "1.png", "2.png")
    assert main(["init", paintings, photos]) == 0
    assert "is read as" not in capsys.readouterr().out
    data = _data()
    assert data["contents"] == {"path": photos}
    assert data["name"] == "photos-e-paintings"


def test_classes_tell_contents_where_names_do_not(here: Path) -> None:
    _pictures("b", "1.png", "2.png")
    _pictures("a", "cat/1.png", "dog/2.png")
    assert main(["init", "b", "a"]) == 0
    assert _data()["contents"] == {"path": "a"}


def test_two_folders_that_are_alike_need_flags(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pictures("a", "1.png", "2.png")
    _pictures("b", "1.png", "2.png")
    assert main(["init", "a", "b"]) == 2
    told = capsys.readouterr().err
    assert "which are contents and which styles cannot be told" in told
    assert "stylebatch init --contents FOLDER --styles FOLDER" in told
    assert not Path("manifest.yaml").exists()
    assert main(["init", "a", "--styles", "b"]) == 0


def test_a_person_is_asked_on_a_terminal_alone(here: Path) -> None:
    _pictures("a", "1.png", "2.png")
    _pictures("b", "1.png", "2.png")
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "stylebatch", "init", "a", "b"],
        stdin=follower, stdout=subprocess.PIPE, stderr=follower, text=True,
    ) as process:  # fmt: skip
        os.write(leader, b"x\n1\n")
        out, _ = process.communicate(timeout=120)
    os.close(follower)
    told = os.read(leader, 10_000).decode()
    os.close(leader)
    assert process.returncode == 0, told
    assert "Which of them lends its style?" in told
    assert "accepted: 1 to 2" in told
    assert "a is taken for styles, as you said" in out
    assert _data()["contents"] == {"path": "b"}


def test_a_manifest_is_never_written_over_unless_forced(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pictures("photos", "1.png")
    _pictures("paintings", "1.png")
    Path("manifest.yaml").write_text("mine: 1\n")
    assert main(["init", "photos", "paintings"]) == 2
    assert Path("manifest.yaml").read_text() == "mine: 1\n"
    assert "--force" in capsys.readouterr().err
    assert main(["init", "photos", "--styles", "pantings"]) == 2
    assert (
        "'pantings': there is no such file or folder; did you mean paintings?"
        in capsys.readouterr().err
    )
    assert main(["init", "photos", "paintings", "--force"]) == 0
    Path("other.yaml").symlink_to("nowhere.yaml")
    assert main(["init", "photos", "paintings", "-m", "other.yaml", "--force"]) == 2
    assert not Path("nowhere.yaml").exists()


def test_without_folders_it_looks_where_it_is(here: Path) -> None:
    _pictures("photos", "1.png")
    _pictures("paintings", "1.png")
    _pictures(".venv", "1.png")
    Path("src").mkdir()
    assert main(["init"]) == 0
    assert _data()["contents"] == {"path": "photos"}
    # one folder above both does as well, and paths are relative to the manifest
    os.chdir("..")
    assert main(["init", "here", "-m", "here/other.yaml"]) == 0
    assert _data("here/other.yaml")["styles"] == {"path": "paintings"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "found no folders or tables of images"),
        (["nowhere"], "there is no such file or folder"),
        (["photo"], "did you mean photos?"),
        (["photos"], "styles: found none"),
        (["photos", "photos"], "is given twice"),
        (["photos", "empty"], "found no image files"),
        (["photos", "photos2", "empty"], "found images in"),
        (["notes.txt"], "is nothing that holds images"),
        (["photos", "--styles", "photos"], "for contents and styles"),
        (["https://example.org/photos", "photos"], "an address of the web"),
        (["--masks", "photos", "--prompts", "prompts.csv"], "found masks without contents"),
        (["--styles", "photos", "--prompts", "prompts.csv"], "found styles beside prompts"),
        (["photos", "--styles", "photos2", "--split", "2"], "--split: found '2'"),
        (["photos", "--styles", "photos2", "--size", "7"], "image.size: found 7"),
        (["photos", "--styles", "photos2", "--per-content", "9"], "pairing.per_content: found 9"),
        (["photos", "--styles", "photos2", "--mode", "crop"], 'image.mode: found "crop"'),
        (["photos", "--styles", "photos2", "--output", "photos/out"], "lies inside contents.path"),
        (["photos", "--styles", "photos2", "-m", "mine.txt"], "--manifest: found 'mine.txt'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(
    here: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments:
        _pictures("photos", "1.png")
        _pictures("photos2", "1.png")
        Path("empty").mkdir()
        Path("notes.txt").write_text("notes")
        Path("prompts.csv").write_text("prompt\na cat\n")
    assert main(["init", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(here.glob("*.yaml"))


def test_proposals_follow_the_images(here: Path) -> None:
    _pictures("photos", *(f"{label}/{n}.png" for label in ("a", "b") for n in range(30)))
    _pictures("paintings", *(f"{n}.png" for n in range(10)))
    assert main(["init"]) == 0
    data = _data()
    assert data["pairing"] == {"mode": "sample", "per_content": 8}
    assert data["split"] == {"validation": 0.1}
    assert data["image"] == {"size": 128, "mode": "center_crop"}
    assert data["model"] == "tiny"
    assert "sd15" in Path("manifest.yaml").read_text()
    _pictures("photos", *(f"a/{n}.png" for n in range(30)), sides=(80, 40))
    flags = ["--split", "none", "--pairing", "product", "--per-content", "1"]
    assert main(["init", "--force", *flags[:2]]) == 0
    assert _data()["image"] == {"size": 128, "mode": "fit"}
    assert "split" not in _data()


def test_splits_and_annotations_that_are_there_are_kept(here: Path) -> None:
    _pictures("photos", "train/cat/1.png", "train/dog/2.png", "val/cat/3.png")
    _pictures("paintings", "1.png")
    assert main(["init"]) == 0
    assert _data()["split"] == "source"
    put(here / "coco", "images/1.jpg", "images/2.jpg", annotations__json=coco("1.jpg", "2.jpg"))
    assert main(["init", "coco", "paintings", "-m", "coco.yaml"]) == 0
    assert _data("coco.yaml")["contents"] == {
        "path": "coco/images",
        "annotations": "coco/annotations.json",
    }
    _pictures("plain", "images/1.png", "images/2.png")
    assert main(["init", "plain", "paintings", "-m", "plain.yaml"]) == 0
    assert _data("plain.yaml")["contents"] == {"path": "plain", "label_from": 0}
    assert main(["init", "coco/images", "coco/annotations.json", "paintings", "-m", "2.yaml"]) == 0
    assert _data("2.yaml")["contents"] == _data("coco.yaml")["contents"]


@pytest.mark.parametrize(
    ("rows", "method"),
    [
        ("prompt\na cat\n", "text2img"),
        ("prompt,image\na cat,photos/1.png\n", "img2img"),
        ("prompt,image,mask\na cat,photos/1.png,photos/2.png\n", "inpaint"),
        ("prompt,style\na cat,ink\na dog,ink\n", "stylealigned"),
        ("Content,Style\nphotos/1.png,photos/2.png\n", "styleid"),
    ],
)
def test_tables_tell_the_method(here: Path, rows: str, method: str) -> None:
    _pictures("photos", "1.png", "2.png")
    Path("rows.csv").write_text(rows)
    assert main(["init", "rows.csv"]) == 0
    assert _data()["method"] == method


def test_contents_with_prompts_and_masks(here: Path) -> None:
    _pictures("photos", "1.png", "2.png")
    Path("rows.csv").write_text("prompt\na cat\n")
    assert main(["init", "photos", "rows.csv"]) == 0
    assert _data()["method"] == "img2img"
    _pictures("photo_masks", "1.png", "2.png")
    assert main(["init", "photos", "photo_masks", "rows.csv", "-m", "2.yaml"]) == 0
    assert _data("2.yaml")["method"] == "inpaint"
    assert _data("2.yaml")["contents"] == {"path": "photos", "masks": "photo_masks"}


def test_broken_pictures_are_told_and_counted_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pictures("photos", "1.png", "2.png", "3.png")
    _pictures("paintings", "1.png")
    Path("photos/2.png").write_bytes(encoded(1)[:300])
    tar(Path("shards/0.tar"), {"a.png": encoded(1), "b.png": encoded(2)})
    assert main(["init", "photos", "paintings"]) == 0
    assert "2.png: damaged or truncated" in capsys.readouterr().err
    assert _data()["max_failed_fraction"] == pytest.approx(0.51)
    assert main(["init", "shards", "paintings", "-m", "2.yaml"]) == 0
    assert "max_failed_fraction" not in _data("2.yaml")
    Path("photos/1.png").write_bytes(b"")
    Path("photos/3.png").write_bytes(b"")
    assert main(["init", "photos", "paintings", "-m", "3.yaml"]) == 2
    assert "none of the pictures that were looked at (all 3) can be read" in capsys.readouterr().err


def test_the_model_follows_the_device(here: Path) -> None:
    _pictures("photos", "1.png")
    _pictures("paintings", "1.png")
    places = Places({"contents": "photos", "styles": "paintings"})
    cpu = Device("CPU", "cpu", 10**10, 10**10)
    for gpu, model, size in (
        (Device("A GPU", "cuda", 24 * 10**9, 10**9), "sd15", 512),
        (Device("An old GPU", "cuda", 2 * 10**9, 10**9), "tiny", 128),
        (Device("Apple GPU", "mps", 24 * 10**9, 10**9), "tiny", 128),
    ):
        data = drafted(places, Wishes("manifest.yaml"), [gpu, cpu]).data
        assert (data["model"], data["image"]["size"]) == (model, size)


def test_outputs_go_where_nothing_is(here: Path) -> None:
    _pictures("photos", "1.png")
    _pictures("paintings", "1.png")
    Path("outputs/photos-paintings").mkdir(parents=True)
    Path("outputs/photos-paintings/thesis.tex").write_text("mine")
    assert main(["init"]) == 0
    assert _data()["output"] == {"path": "outputs/photos-paintings-2"}
    # within the contents, an output would be among the next run's inputs
    os.chdir("photos")
    assert main(["init", ".", "../paintings"]) == 0
    assert _data()["output"] == {"path": "../photos-paintings-stylised"}
    assert main(["plan", "manifest.yaml"]) == 0


def test_links_on_the_way_lead_to_the_same_files(here: Path) -> None:
    _pictures("deep/er/photos", "1.png")
    _pictures("paintings", "1.png")
    Path("link").symlink_to("deep/er")
    assert main(["init", "deep/er/photos", "paintings", "-m", "link/manifest.yaml"]) == 0
    assert main(["plan", "link/manifest.yaml"]) == 0


@pytest.mark.parametrize("door", ["tars", "table", "parquet", "yolo", "voc", "captions", "output"])
def test_any_door_gets_a_manifest(here: Path, door: str) -> None:
    _pictures("paintings", "1.png", "2.png")
    place, image = Path("inputs"), encoded(1)
    if door == "tars":
        tar(place / "train-0.tar", {"a.png": image, "a.cls": "1", "b.png": encoded(2)})
        tar(place / "val-0.tar", {"c.png": encoded(3), "c.json": {"label": "x", "n": 1}})
    elif door == "table":
        _pictures("elsewhere", "1.png", "2.png")
        place = Path("rows.tsv")
        place.write_text("path\tlabel\nelsewhere/1.png\tcat\nelsewhere/lost.png\tdog\n")
    elif door == "parquet":
        place.mkdir()
        table = pa.table({"image": [image, encoded(2)], "label": ["a", "b"]})
        pq.write_table(table, place / "data.parquet")
    elif door == "yolo":
        roboflow(place)
    elif door == "voc":
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = f"<annotation><object><name>cat</name>{box}</object></annotation>"
        put(place, "JPEGImages/1.png", "JPEGImages/2.png", Annotations___1__xml=text)
    elif door == "captions":
        put(place, "1.png", "2.png", **{"1__txt": "a cat"})
        (place / "metadata.csv").write_text("file_name,label,caption\n1.png,cat,\n2.png,dog,x\n")
    else:
        write_output(place, [[Pair("a.png", "s.png"), Pair("b.png", "s.png")]])
    assert main(["init", str(place), "--styles", "paintings"]) == 0
    assert main(["plan", "manifest.yaml"]) == 0


def test_contents_may_lie_in_a_store(here: Path) -> None:
    _pictures("paintings", "1.png")
    with s3_server():
        folder = Folder.at(f"s3://{BUCKET}/photos")
        for number, label in enumerate(("cat", "dog")):
            folder.write(f"{label}/{number}.png", encoded(number))
        assert main(["init", f"s3://{BUCKET}/photos", "paintings"]) == 0
    assert _data()["contents"] == {"path": f"s3://{BUCKET}/photos"}
    assert _data()["output"] == {"path": "outputs/photos-paintings"}
