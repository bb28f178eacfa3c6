"""`stylebatch inspect` says what a place is, what is in it, and what of it is damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylebatch.cli import main
from stylebatch.data.sources.source import Item, Ref
from stylebatch.features.style_cache import StyleCache
from stylebatch.folder import Folder
from stylebatch.survey import equal_files
from tests.support.embedding_files import vectors, written
from tests.support.images import picture, write_inputs, write_manifest
from tests.support.layouts import coco, put, roboflow
from tests.support.outputs import Pair, write_output
from tests.support.packed import encoded, tar
from tests.support.s3 import BUCKET, s3_server
from tests.support.styles import style_key, write

Told = Callable[..., dict[str, Any]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """What `inspect --json` says of a place, and with which exit code."""

    def inspected(place: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["inspect", str(place), "--json"]) == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(found["problems"]) == bool(code)
        return found

    return inspected


def test_folders_of_images_and_their_classes_and_sizes(
    tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(tmp_path, contents=3)
    (tmp_path / "contents" / "notes.md").write_text("x")
    found = told(tmp_path / "contents")
    assert (found["kind"], found["num_images"]) == ("image folder (kind folder)", 3)
    assert found["classes"] == {"dog": 2, "cat": 1}
    assert found["sizes"] == {"96 x 80 px": 3}
    assert [one["id"] for one in found["samples"]] == ["cat/1.png", "dog/0.png", "dog/2.png"]
    assert "1 .md" in found["notes"][0]
    assert found["decoded"] == "all 3"
    assert main(["inspect", str(tmp_path)]) == 0
    assert (
        f"`stylebatch init {tmp_path}` writes a manifest of contents, styles"
        in capsys.readouterr().out
    )
    (tmp_path / "contents" / "dog" / "0.png").write_bytes(b"no picture")
    assert told(tmp_path / "contents", 1)["decoded"] == "all 3; 1 cannot be read"


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("my paintings", "PHOTOS 'my paintings'"),
        ("paintngs", "PHOTOS paintngs"),
        ("holiday", "holiday STYLES"),
        ("photos of paintings", "'photos of paintings' STYLES"),
    ],
)
def test_the_next_step_takes_a_folder_for_what_its_name_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    sides: str,
) -> None:
    put(tmp_path / name, "1.png")
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", name]) == 0
    assert f"Next: `stylebatch init {sides}` writes a manifest of it" in capsys.readouterr().out


def test_equal_files_are_told_of_a_folder_and_of_a_store(tmp_path: Path, told: Told) -> None:
    photos = tmp_path / "photos"
    for name in ("cat", "dog", "emu"):
        (photos / name).mkdir(parents=True)
    first = encoded(1)
    other_end = first[:-1] + bytes([first[-1] ^ 1])
    files = {
        "cat/a.png": first,
        "cat/b.png": first,
        "dog/c.png": first,
        "dog/d.png": encoded(2),
        "emu/e.png": other_end,
    }
    for name, data in files.items():
        (photos / name).write_bytes(data)
    (photos / "emu" / "f.png").symlink_to("../dog/d.png")
    (photos / "emu" / "g.png").symlink_to("nowhere")
    said = [note for note in told(photos, 1)["notes"] if note.startswith("equal files")]
    assert said == ["equal files: 3, such as dog/c.png, which is cat/a.png, of different classes"]
    for name in ("cat/b.png", "dog/c.png", "emu/f.png"):
        (photos / name).unlink()
    assert not any("equal files" in note for note in told(photos, 1)["notes"])
    with s3_server():
        folder = Folder.at(f"s3://{BUCKET}/photos")
        for name, data in files.items():
            folder.write(name, data)
        said = [
            note
            for note in told(f"s3://{BUCKET}/photos")["notes"]
            if note.startswith("equal files")
        ]
        assert said == [
            "equal files: 2, such as dog/c.png, which is cat/a.png, of different classes"
        ]


def test_not_all_of_large_equal_files_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equal_files, "MOST_BYTES", 10_000)
    items = []
    for number in range(4):
        path = tmp_path / str(number)
        path.write_bytes(b"x" * 4500)
        items.append(Item(str(number), Ref(str(path))))
    told = equal_files.equal_files(str(tmp_path), "folder", items)
    assert told == "equal files: 1 (of 10.0 kB that were read), such as 1, which is 0"


def test_splits_are_counted_and_folders_of_classes_are_none(tmp_path: Path, told: Told) -> None:
    put(tmp_path, "train/cat/1.png", "train/dog/2.png", "val/cat/3.png")
    assert told(tmp_path)["splits"] == {"train": 2, "val": 1}
    put(tmp_path / "b", "test/1.png", "cat/2.png")
    assert told(tmp_path / "b")["splits"] == {}
    assert told(roboflow(tmp_path / "c"))["objects"] == {"dog": 3, "cat": 3}


def test_tables_by_their_columns(tmp_path: Path, told: Told) -> None:
    rows = {
        "pairs.csv": ("Content,Style\na.png,b.png\n", "table of pairs"),
        "prompts.tsv": ("prompt\tlabel\tn\na cat\tcat\t3\n", "table of prompts"),
        "misspelt.jsonl": ('{"promt": "a cat"}\n', "table of prompts"),
        "other.csv": ("a,b\n1,2\n", "table"),
    }
    for name, (text, kind) in rows.items():
        (tmp_path / name).write_text(text)
        assert told(tmp_path / name)["kind"] == kind
    assert told(tmp_path / "prompts.tsv")["columns"] == {
        "prompt": "string",
        "label": "string",
        "n": "int64",
    }
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "images.csv").write_text("path,label\na.png,cat\na2.png,dog\n")
    found = told(tmp_path / "images.csv", 1)
    assert (found["num_rows"], found["classes"]) == (2, {"cat": 1, "dog": 1})
    assert "a2.png: no such file" in found["problems"][0]
    (tmp_path / "cut.csv").write_text('content,style\na.png,b.png\nb.png,"c.png\n')
    found = told(tmp_path / "cut.csv", 1)
    assert found["num_rows"] == 1
    assert "a quote is never closed" in found["problems"][0]


def test_tars_whole_and_cut(tmp_path: Path, told: Told) -> None:
    members: dict[str, Any] = {}
    for number in range(4):
        members |= {
            f"{number}.png": encoded(number),
            f"{number}.json": {"label": "ab"[number % 2], "n": number},
        }
    path = tar(tmp_path / "shards" / "train-0.tar", members)
    found = told(tmp_path / "shards")
    assert (found["kind"], found["classes"]) == ("WebDataset (kind webdataset)", {"a": 2, "b": 2})
    assert found["splits"] == {"train": 4}
    assert (found["columns"], found["samples"][1]["n"]) == ({"n": "int64"}, 1)
    assert told(tmp_path / "shards" / "train-{0..0}.tar")["num_images"] == 4
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = told(path, 1)
    assert 0 < found["num_images"] < 4
    assert "cut short" in found["problems"][0] or "ends" in found["problems"][0]


def test_annotations_and_pictures(tmp_path: Path, told: Told) -> None:
    put(tmp_path, "1.png", instances__json=coco("1.png"))
    found = told(tmp_path / "instances.json")
    assert (found["kind"], found["objects"]) == ("COCO annotations", {"cat": 1})
    assert told(tmp_path / "1.png")["sizes"] == {"48 x 40 px": 1}
    (tmp_path / "1.png").write_bytes(encoded(1)[:200])
    assert "truncated" in told(tmp_path / "1.png", 1)["problems"][0]
    (tmp_path / "instances.json").write_text(coco("1.png")[:-20])
    assert "not whole JSON" in told(tmp_path / "instances.json", 1)["problems"][0]


def test_a_manifest_and_its_parts(tmp_path: Path, eps_folder: Path, told: Told) -> None:
    write_inputs(tmp_path, contents=2, styles=1)
    found = told(write_manifest(tmp_path, eps_folder))
    assert (found["kind"], found["method"]) == ("manifest", "styleid")
    assert found["contents"] == f"{tmp_path}/contents (kind folder)"


def test_outputs_their_shards_and_what_is_missing(tmp_path: Path, told: Told) -> None:
    out = tmp_path / "out"
    write_output(out, [[Pair("dog/0.png", "0.png")], [Pair("cat/1.png", "0.png")]])
    found = told(out)
    assert (found["kind"], found["num_samples"], found["num_shards"]) == ("output of a run", 2, 2)
    assert found["classes"] == {"cat": 1, "dog": 1}
    assert found["samples"][0]["style_id"] == "0.png"
    shard = told(out / "data" / "train-00000.tar")
    assert shard["notes"][-1] == f"it is a part of the output {out}, committed"
    assert told(out / "metadata" / "train-00000.parquet")["num_rows"] == 1
    assert told(out / "metadata")["kind"] == f"part of the output {out}"
    (out / "metadata" / "train-00001_stats.json").unlink()
    assert told(out)["num_shards"] == 1
    assert "not committed" in told(out / "data" / "train-00001.tar")["notes"][-1]
    record = out / "run.json"
    record.write_text(record.read_text()[:200])
    assert "is damaged" in told(out, 1)["problems"][0]


def test_models_and_weights(tmp_path: Path, eps_folder: Path, told: Told) -> None:
    found = told(eps_folder)
    assert (found["kind"], found["family"]) == ("pipeline folder", "Stable Diffusion 1.x")
    weights = eps_folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert "one part of a pipeline folder" in told(weights, 1)["problems"][0]
    assert main(["inspect", str(eps_folder / "unet")]) == 2
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:5000])
    found = told(cut, 1)
    assert "cut off" in found["problems"][0]
    assert found["bytes"] == 5000


def test_caches_and_broken_indexes(tmp_path: Path, told: Told) -> None:
    key = write(StyleCache(tmp_path), style_key())
    found = told(tmp_path)
    assert (found["kind"], found["num_styles"], found["codecs"]) == ("style cache", 1, {"kv": 1})
    assert found["samples"][0]["style"] == "monet.png"
    assert found["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.*"))
    (tmp_path / f"{key}.parquet").write_bytes(b"PAR1")
    assert "cache verify" in told(tmp_path, 1)["problems"][0]


def test_what_is_in_a_store(tmp_path: Path, told: Told) -> None:
    with s3_server():
        folder = Folder.at(f"s3://{BUCKET}/photos")
        for number, label in enumerate(("cat", "dog", "cat")):
            folder.write(f"{label}/{number}.png", encoded(number))
        found = told(f"s3://{BUCKET}/photos")
        assert (found["num_images"], found["classes"]) == (3, {"cat": 2, "dog": 1})
        path = tar(tmp_path / "0.tar", {"a.png": encoded(1), "a.cls": "7"})
        folder.write("0.tar", path.read_bytes())
        assert told(f"s3://{BUCKET}/photos/0.tar")["classes"] == {"7": 1}
        folder.write("rows.csv", b"path,label\ncat/0.png,cat\n")
        assert told(f"s3://{BUCKET}/photos/rows.csv")["kind"].startswith("table of images")
        assert main(["inspect", f"s3://{BUCKET}/nowhere"]) == 2


def test_manifests_that_are_wrong(tmp_path: Path, told: Told) -> None:
    (tmp_path / "m.yaml").write_text("contents: {path: nowhere}\noutput: {path: out}\n")
    assert "styles is missing" in told(tmp_path / "m.yaml", 1)["problems"][0]
    (tmp_path / "m.yaml").write_text("contents: {path: [\n")
    assert "not valid YAML" in told(tmp_path / "m.yaml", 1)["problems"][0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photo", "did you mean"),
        ("model.ckpt", "pickled weights"),
        ("notes.txt", "found a .txt file"),
        ("list.json", "found JSON of list"),
        ("other.yaml", "found services at the top"),
        ("empty", "found no image files"),
        ("no*.tar", "found no file of that pattern"),
        ("pipe", "is a pipe or device"),
        ("link", "is a link that leads nowhere"),
    ],
)
def test_what_is_nothing_of_ours_is_said(
    tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for folder in ("photos", "empty"):
        (tmp_path / folder).mkdir()
    texts = {"model.ckpt": "x", "notes.txt": "x", "list.json": "[]", "other.yaml": "services: {}"}
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    assert main(["inspect", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_outputs_names_them_and_the_next_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: Told,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_output(Path("outputs/b c"), [[Pair("cat/a.png", "s.jpg")]])
    picture(1, 32, 32).save("outputs/b c/contact_sheet.png")
    shutil.copytree("outputs/b c", "outputs/d-compare/gamma=0.5")
    all_of_them = ["outputs/b c", "outputs/d-compare/gamma=0.5"]
    assert told("outputs")["outputs"] == all_of_them
    picture(2, 32, 32).save("outputs/d-compare/contact_sheet.png")  # that of a comparison
    found = told("outputs/")
    assert (found["kind"], found["outputs"]) == ("folder of outputs", all_of_them)
    assert main(["inspect", "outputs"]) == 0
    said = capsys.readouterr().out
    assert "Next: `stylebatch status 'outputs/b c'` says how far it is, `stylebatch inspect" in said
    for number in range(20):
        shutil.copytree("outputs/b c", f"outputs/n/{number}")
    assert len(told("outputs")["outputs"]) == 10
    assert told("outputs")["notes"] == ["there are more outputs"]
    for part, kind in (
        ("run.json", "record of the output outputs/b c"),
        ("metadata/train-00000_stats.json", f"part of the output {tmp_path}/outputs/b c"),
    ):
        assert told(f"outputs/b c/{part}")["kind"] == kind
    monkeypatch.chdir("outputs/b c")
    assert told("run.json")["kind"] == "record of the output ."


def test_what_is_no_class_of_a_mixed_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "photos/cat/1.png", "photos/dog/2.png", "paintings/3.png", "manifests/4.png")
    write_output(Path("outputs/mine"), [[Pair("cat/a.png", "s.jpg")]])
    picture(1, 32, 32).save("outputs/sheet.png")
    (tmp_path / "manifests" / "mine.yaml").write_text("output: {path: x}")
    notes = told(".")["notes"]
    assert [note for note in notes if "counted as" in note] == [
        "manifests is counted as a class, and holds manifests",
        "outputs is counted as a class, and holds outputs",
        "photos, paintings are counted as classes here; `stylebatch inspect photos` tells of one of them",
    ]
    assert not any("counted as" in note for note in told("photos")["notes"])


def test_a_folder_of_weights_says_what_each_file_is(tmp_path: Path, told: Told) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    written(weights, "a", {"emb_params": vectors(1, 2, 64)})
    written(weights, "b", {"unet.x.lora_A.weight": vectors(1, 2, 3), "unet.x.lora_B.weight": vectors(1, 3, 2)})  # fmt: skip
    found = told(weights)
    assert (found["kind"], found["num_files"]) == ("folder of weights", 2)
    assert found["kinds"] == {"textual inversion": 1, "LoRA weights": 1}
    assert [one["file"] for one in found["samples"]] == ["a.safetensors", "b.safetensors"]
    (weights / "c.safetensors").write_bytes(b"cut")
    (problem,) = told(weights, 1)["problems"]
    assert "c.safetensors" in problem
    put(weights, "preview.png")
    assert told(weights)["kind"] == "image folder (kind folder)"
