"""Inputs are known by id and bytes: a file that changed under its name is noticed, and no two files share an id."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from stylebatch.cli import main
from stylebatch.data.sources.image_folder import ImageFolder
from stylebatch.data.sources.source import Item
from stylebatch.engine.repair import repair
from stylebatch.engine.run import run
from stylebatch.errors import InputChangedError, ManifestError
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.models.unet.unet_family import UNet
from stylebatch.planning.axes import ImageAxis
from stylebatch.planning.run_inputs import list_inputs
from stylebatch.store.fingerprints import Fingerprints
from tests.support.images import picture
from tests.support.runs import digests, small_manifest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, a manifest and its whole output; a content has a mask."""
    folder = tmp_path_factory.mktemp("known")
    manifest = small_manifest(folder, contents=2, styles=2)
    (folder / "masks").mkdir()
    for i in range(2):
        Image.new("L", (48, 40), 255).save(folder / f"masks/{i:02d}.png")
    document = json.loads(manifest.read_text())
    document["contents"]["masks"] = "masks"
    manifest.write_text(json.dumps(document))
    run(load_spec(manifest))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "in")
    document = json.loads((tmp_path / "in/run.yaml").read_text())
    document["output"]["path"] = str(tmp_path / "in/out")
    (tmp_path / "in/run.yaml").write_text(json.dumps(document))
    record = tmp_path / "in/out/run.json"
    record.write_text(record.read_text().replace(str(whole), str(tmp_path / "in")))
    return tmp_path / "in"


def _repaint(path: Path) -> None:
    with Image.open(path) as former:
        mode = former.mode
    picture(99, 48, 40).convert(mode).save(path)


def _nothing(folder: Path) -> None:
    """The run is whole."""


def _interrupt(folder: Path) -> None:
    (folder / "out/metadata/train-00003_stats.json").unlink()
    shutil.rmtree(folder / "out/inputs")  # an index that can be made anew


def _grow(folder: Path) -> None:
    picture(5, 48, 40).save(folder / "styles/new.png")


@pytest.mark.parametrize("before", [_nothing, _interrupt, _grow])
@pytest.mark.parametrize("name", ["contents/00.png", "styles/01.png", "masks/01.png"])
def test_a_file_that_changed_under_its_name_is_noticed(
    folder: Path, name: str, before: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before(folder)
    kept = digests(folder / "out")
    former = (folder / name).read_bytes()
    _repaint(folder / name)
    assert main(["run", str(folder / "run.yaml")]) == 4
    assert Path(name).name in capsys.readouterr().err
    assert digests(folder / "out").items() >= kept.items()
    if before is not _nothing:
        (folder / name).write_bytes(former)
        assert main(["run", str(folder / "run.yaml")]) == 0


def test_repair_refuses_a_file_that_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out/data/train-00000.tar").unlink()
    _repaint(folder / "contents/00.png")
    assert main(["repair", str(folder / "out")]) == 4
    assert "00.png" in capsys.readouterr().err


def test_workers_compare_what_no_start_has_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylebatch.engine.input_files.CHECKED_FILES", 0)
    (folder / "out/metadata/train-00003_stats.json").unlink()
    _repaint(folder / "styles/01.png")
    with pytest.raises(InputChangedError, match=r"style 01\.png"):
        run(load_spec(folder / "run.yaml"))
    assert not (folder / "out/metadata/train-00003_stats.json").exists()


def test_shards_of_workers_that_met_different_bytes_are_made_again(folder: Path) -> None:
    """As when a file changes between two workers: the first to tell of it counts."""
    whole = digests(folder / "out")
    marker = folder / "out/metadata/train-00003_stats.json"
    stats = json.loads(marker.read_text())
    stats["inputs"] = {"content 00.png": "0" * 16}
    marker.write_text(json.dumps(stats))
    result = run(load_spec(folder / "run.yaml"))
    assert result.num_attempted == 1
    assert digests(folder / "out") == whole


def test_every_shard_tells_all_that_it_was_made_of(folder: Path) -> None:
    """Also of what its worker had kept from an earlier shard: each can be judged alone."""
    for shard, (content, style) in enumerate((c, s) for c in range(2) for s in range(2)):
        stats = json.loads((folder / f"out/metadata/train-{shard:05d}_stats.json").read_text())
        own = f"content {content:02d}.png"
        assert list(stats["inputs"]) == [
            own,
            f"{own}: mask ../masks/{content:02d}.png",
            f"style {style:02d}.png",
        ]


def test_growing_that_was_refused_leaves_the_output_as_it_was(folder: Path) -> None:
    record = (folder / "out/run.json").read_bytes()
    former = (folder / "contents/00.png").read_bytes()
    _grow(folder)
    _repaint(folder / "contents/00.png")
    assert main(["run", str(folder / "run.yaml")]) == 4
    assert (folder / "out/run.json").read_bytes() == record
    (folder / "contents/00.png").write_bytes(former)
    (folder / "styles/new.png").unlink()
    assert main(["run", str(folder / "run.yaml")]) == 0


def test_another_preview_knows_nothing_of_the_files_of_the_one_before(folder: Path) -> None:
    preview = ["run", str(folder / "run.yaml"), "--limit", "2"]
    assert main(preview) == 0
    _repaint(folder / "contents/00.png")
    assert main([*preview, "--set", "method.gamma=0.5"]) == 0


def test_every_file_is_known_once(folder: Path) -> None:
    table = pq.read_table(folder / "out/inputs/files.parquet").to_pydict()
    assert table["file"] == [
        "content 00.png", "content 00.png: mask ../masks/00.png",
        "content 01.png", "content 01.png: mask ../masks/01.png",
        "style 00.png", "style 01.png",
    ]  # fmt: skip
    known = Fingerprints(Folder.at(folder / "out"))
    assert [known.find(name) for name in table["file"]] == table["xxh3"]
    assert known.find("content 02.png") is None


def _prompts(folder: Path, rows: str, **prompts: Any) -> Path:
    for name, seed in (("images/cat.png", 1), ("rows/cat.png", 2)):
        (folder / name).parent.mkdir(exist_ok=True)
        picture(seed, 48, 40).save(folder / name)
    (folder / "rows/rows.csv").write_text(rows)
    data = {
        "prompts": {"path": "rows/rows.csv", **prompts},
        "method": {"name": "img2img", "steps": 1},
        "image": {"size": 32},
        "output": {"path": str(folder / "out")},
    }
    (folder / "prompts.yaml").write_text(yaml.safe_dump(data))
    return folder / "prompts.yaml"


def test_the_default_image_and_one_of_a_row_with_its_name_are_two(tmp_path: Path) -> None:
    manifest = _prompts(
        tmp_path, "prompt,image\na,\nb,cat.png\nc,./cat.png\n", image="images/cat.png"
    )
    inputs = list_inputs(load_spec(manifest))
    images = inputs.axes[0]
    assert isinstance(images, ImageAxis)
    found = [Path(images.items[cell.row].ref.place).resolve() for cell in inputs.listed or ()]
    assert [path.parent.name for path in found] == ["images", "rows", "rows"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """`..` is not what it looks like behind a link."""
    manifest = _prompts(tmp_path, "prompt,image\na,\nb,../images/cat.png\n", image="images/cat.png")
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    shutil.move(tmp_path / "rows", tmp_path / "elsewhere/deep/rows")
    (tmp_path / "rows").symlink_to(tmp_path / "elsewhere/deep/rows")
    (tmp_path / "elsewhere/deep/images").mkdir()
    picture(3, 48, 40).save(tmp_path / "elsewhere/deep/images/cat.png")
    with pytest.raises(ManifestError, match=r"found '\.\./images/cat\.png' for"):
        list_inputs(load_spec(manifest))


def test_another_image_of_the_same_name_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        picture(seed, 48, 40).save(tmp_path / f"{name}/cat.png")
        data = {
            "prompts": {"template": "a cat", "image": f"{name}/cat.png"},
            "method": {"name": "img2img", "steps": 1},
            "image": {"size": 32},
            "output": {"path": str(tmp_path / "out")},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    assert main(["run", str(tmp_path / "a.yaml")]) == 0
    assert main(["run", str(tmp_path / "b.yaml")]) == 4
    assert "cat.png" in capsys.readouterr().err


def test_a_start_and_a_repair_walk_the_inputs_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked, checked = Counter[str](), Counter[str]()
    items, check = ImageFolder.items, UNet.check

    def walking(source: ImageFolder) -> Iterator[Item]:
        walked[source.field] += 1
        return items(source)

    def checking(family: UNet) -> None:
        checked["family"] += 1
        check(family)

    monkeypatch.setattr(ImageFolder, "items", walking)
    monkeypatch.setattr(UNet, "check", checking)
    run(load_spec(folder / "run.yaml"))
    assert walked == {"contents": 1, "contents.masks": 1, "styles": 1}
    assert checked["family"] == 1
    next((folder / "out/data").glob("*.tar")).unlink()
    walked.clear()
    repair(folder / "out")
    assert walked == {"contents": 1, "contents.masks": 1, "styles": 1}
    # for the plan, and where the model is loaded
    assert checked["family"] == 3
