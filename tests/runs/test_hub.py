"""The hub, by its own client against a stand-in on this machine: exports go up whole, datasets and checkpoints come down."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stylebatch.cli import main
from stylebatch.data.image_section import ContentSpec
from stylebatch.data.sources.hub_datasets import local_copy
from stylebatch.data.sources.kinds import open_source
from stylebatch.errors import ManifestError, PlanChangedError, StorageError
from stylebatch.export.export import export
from stylebatch.export.export_options import ExportOptions
from stylebatch.export.upload import repository_of, upload
from stylebatch.manifest import load_spec
from stylebatch.models.checkpoint import Checkpoint, checkpoint_to_plan
from stylebatch.models.hub_models import snapshot
from stylebatch.models.model_section import MODEL_IDS, ModelSpec
from stylebatch.planning.resolve import plan
from tests.support.exported import rendered, rows_of
from tests.support.hub import OWNER, TOKEN, Hub, hub_server, reached_here
from tests.support.images import picture
from tests.support.runs import environment

NAME = f"{OWNER}/stylised"
# what the hub's client calls its own HTTP library by
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that could be uploaded."""
    folder = tmp_path_factory.mktemp("staged")
    export(
        [rendered(folder / "source")], folder / "out", ExportOptions(format="parquet", shard_size=6)
    )
    return folder / "out"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as server, reached_here(server, str(tmp_path / "cache")):
        yield server


def _uploadable(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_export_goes_up_whole_and_once(staged: Path, hub: Hub) -> None:
    done = upload(staged, NAME, private=True)
    repository = hub.repositories[("datasets", NAME)]
    assert repository.is_private
    assert repository.commits[repository.head] == _uploadable(staged)
    assert done.num_files == len(_uploadable(staged))
    # one commit after the empty one: nobody could load a part
    assert len(repository.commits) == 2 + 1
    sent = list(hub.uploads)
    assert upload(staged, NAME).num_files == 0
    assert (hub.uploads, len(repository.commits)) == (sent, 3)


def test_an_interrupted_upload_sends_the_rest(staged: Path, hub: Hub) -> None:
    hub.uploads_left = 2
    with pytest.raises(
        StorageError, match=f"hf upload {NAME} {staged} . --repo-type dataset"
    ) as stopped:
        upload(staged, NAME)
    assert stopped.value.exit_code == 5
    repository = hub.repositories[("datasets", NAME)]
    assert repository.commits[repository.head] == {}
    hub.uploads_left = 100
    upload(staged, NAME)
    assert (
        len(hub.uploads)
        == len(set(hub.uploads))
        == sum(name.endswith((".parquet", ".png")) for name in _uploadable(staged))
    )
    assert repository.commits[repository.head] == _uploadable(staged)


def test_a_repository_of_something_else_is_left_alone(
    staged: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.put(f"{OWNER}/photos", {"README.md": b"mine", "data/a.jpg": b"picture"})
    with pytest.raises(ManifestError, match=r"holds other files \(data/a.jpg\)"):
        upload(staged, f"{OWNER}/photos")
    hub.put(f"{OWNER}/new", {".gitattributes": b"*.parquet filter=lfs", "README.md": b""})
    upload(staged, f"{OWNER}/new")
    export([staged], tmp_path / "other", ExportOptions(where="structure > 0.5"))
    with pytest.raises(PlanChangedError, match="holds another export"):
        upload(tmp_path / "other", f"{OWNER}/new")


def test_without_network_or_token_it_says_what_to_type(
    staged: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 30)
    with pytest.raises(StorageError, match="hf auth login"):
        upload(staged, NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as gone:
        pass
    with reached_here(gone, str(tmp_path / "none")), pytest.raises(StorageError, match="hf upload"):
        upload(staged, NAME)
    with pytest.raises(ManifestError, match="OWNER/NAME"):
        repository_of("s3://bucket/x")
    assert repository_of(f"hf://datasets/{NAME}") == NAME


def test_the_client_that_is_told_to_stay_offline_asks_nothing(
    staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in all other tests: HF_HUB_OFFLINE=1. What was staged stays, for the command that is shown."""
    words = [
        "export",
        str(staged),
        "--to",
        "hub",
        "--output",
        NAME,
        "--staging",
        str(tmp_path / "hub"),
    ]
    assert main(words) == 5
    shown = " ".join(capsys.readouterr().err.split())
    assert f"hf upload {NAME} {tmp_path / 'hub'} . --repo-type dataset" in shown
    assert len(rows_of(tmp_path / "hub")) == 18
    with pytest.raises(ManifestError, match=f"hf download {NAME} --repo-type dataset"):
        open_source(f"hf://datasets/{NAME}", "contents")


def test_datasets_of_the_hub_are_contents(
    staged: Path, hub: Hub, eps_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(staged, NAME)
    for number in range(3):
        path = tmp_path / f"styles/{number}.png"
        path.parent.mkdir(exist_ok=True)
        picture(number).save(path)
    photos = {
        f"train/{label}/{n}.png": (tmp_path / f"styles/{n}.png").read_bytes()
        for n, label in enumerate(("cat", "dog", "dog"))
    }
    hub.put(f"{OWNER}/photos", photos)
    manifest = {
        "name": "from the hub", "contents": {"path": f"hf://datasets/{NAME}", "image": "image"}, "styles": {"path": f"hf://datasets/{OWNER}/photos/train"},
        "model": {"path": str(eps_folder)}, "output": {"path": str(tmp_path / "out")},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(manifest))
    found = plan(load_spec(tmp_path / "run.yaml"))
    assert (len(found.images(0)), len(found.images(1))) == (18, 3)
    assert [item.label for item in found.images(0)] == [row["label"] for row in rows_of(staged)]
    item = found.images(1)[2]
    assert (item.id, found.sources.read(item.ref)) == ("dog/2.png", photos["train/dog/2.png"])
    capsys.readouterr()
    assert main(["inspect", f"hf://datasets/{OWNER}/photos"]) == 0
    assert "classes: 2 (dog 2, cat 1)" in capsys.readouterr().out
    begun = tmp_path / "begun.yaml"
    words = [f"hf://datasets/{OWNER}/photos", str(tmp_path / "styles"), "--model", "tiny"]
    assert main(["init", *words, "-m", str(begun)]) == 0
    assert load_spec(begun).contents == ContentSpec(path=words[0])
    pinned = hub.repositories[("datasets", f"{OWNER}/photos")].head
    hub.put(f"{OWNER}/photos", {"train/cat/9.png": b""})
    source = open_source(f"hf://datasets/{OWNER}/photos@{pinned}/train", "contents")
    assert len(list(source.items())) == 3
    pattern = local_copy(f"hf://datasets/{NAME}/data/train-0000[01].parquet", "contents")
    assert pattern.endswith("/data/train-0000[01].parquet")
    for wrong, said in {
        f"hf://datasets/{OWNER}/nothing": "hf download tester/nothing",
        f"hf://datasets/{OWNER}/photos/val": "has no val",
        "hf://models/x": "accepted: hf://datasets/OWNER/NAME",
    }.items():
        with pytest.raises(ManifestError, match=said):
            open_source(wrong, "contents")


def test_a_named_checkpoint_comes_from_the_hub(hub: Hub, eps_folder: Path, tmp_path: Path) -> None:
    from stylebatch.models.loading import load_model

    files = {
        path.relative_to(eps_folder).as_posix(): path.read_bytes()
        for path in eps_folder.rglob("*")
        if path.is_file()
    }
    hub.put(
        MODEL_IDS["sd15"],
        files | {"v1-5-pruned.ckpt": b"pickled", "unet/diffusion_pytorch_model.bin": b"pickled"},
        "models",
    )
    load_model(ModelSpec(name="sd15"))
    folder = snapshot(MODEL_IDS["sd15"], None, None)
    assert Checkpoint(folder).fingerprint == Checkpoint(eps_folder).fingerprint
    fetched = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert "model_index.json" in fetched
    assert not {"v1-5-pruned.ckpt", "diffusion_pytorch_model.bin"} & fetched


def test_a_plan_fetches_no_weights_and_uses_those_that_are_here(
    eps_folder: Path, hub: Hub, tmp_path: Path
) -> None:
    files = {
        path.relative_to(eps_folder).as_posix(): path.read_bytes()
        for path in eps_folder.rglob("*")
        if path.is_file()
    }
    hub.put(MODEL_IDS["sd15"], files, "models")
    spec = ModelSpec(name="sd15")
    assert checkpoint_to_plan(spec).family.sizes.native == 512
    assert not list((tmp_path / "cache").rglob("*.json"))
    folder = snapshot(MODEL_IDS["sd15"], None, None)
    found = checkpoint_to_plan(spec)
    assert (found.is_here, found.family.sizes.native) == (True, 128)
    assert found.fingerprint == Checkpoint(eps_folder).fingerprint
    # a download that was broken off
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert checkpoint_to_plan(spec).family.sizes.native == 512


@pytest.mark.slow
def test_programs_of_their_own_meet_on_the_hub(eps_folder: Path, tmp_path: Path) -> None:
    """A checkpoint by name and contents of the hub are rendered, the output goes up, `datasets` loads it by its name."""
    photos = {}
    for number, label in enumerate(("cat", "dog")):
        picture(number).save(tmp_path / "photo.png")
        photos[f"{label}/{number}.png"] = (tmp_path / "photo.png").read_bytes()
    (tmp_path / "styles").mkdir()
    picture(7).save(tmp_path / "styles/s.png")
    manifest = {
        "name": "hub", "contents": {"path": f"hf://datasets/{OWNER}/photos"}, "styles": {"path": "styles"}, "model": "sd15",
        "method": {"name": "styleid", "steps": 2}, "image": {"size": 64}, "engine": {"threads": 1}, "license": "mit",
        "output": {"path": str(tmp_path / "out"), "shard_size": 1},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(manifest))
    with hub_server() as hub:
        files = {
            path.relative_to(eps_folder).as_posix(): path.read_bytes()
            for path in eps_folder.rglob("*")
            if path.is_file()
        }
        hub.put(MODEL_IDS["sd15"], files, "models")
        hub.put(f"{OWNER}/photos", photos)
        has_hub = environment(**hub.environment(), HF_HOME=str(tmp_path / "home"))
        code = (
            f"import datasets; found = datasets.load_dataset({NAME!r}, split='train'); "
            "print([(row['image'].size, row['label']) for row in found], found.features['label'].names)"
        )
        for words in (
            ["-m", "stylebatch", "run", str(tmp_path / "run.yaml")],
            ["-m", "stylebatch", "export", str(tmp_path / "out"), "--to", "hub", "--output", NAME],
            ["-c", code],
        ):
            done = subprocess.run(
                [sys.executable, *words],
                env=has_hub,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[((64, 64), 0), ((64, 64), 1)] ['cat', 'dog']"
        files = hub.repositories[("datasets", NAME)].commits[
            hub.repositories[("datasets", NAME)].head
        ]
        assert yaml.safe_load(files["README.md"].decode().split("---\n", 2)[1])["license"] == "mit"
