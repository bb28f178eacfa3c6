"""The dataset card is valid YAML over the true features, with licences of the sources."""

from __future__ import annotations

from pathlib import Path

import yaml

from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.planning.resolve import plan
from stylebatch.reports.card import write_card
from tests.support.images import write_inputs, write_manifest


def test_card_names_features_labels_and_licences(tmp_path: Path, eps_folder: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "styles.csv").write_text(
        "path,license\nstyles/0.png,cc0-1.0\nstyles/1.png,cc-by-4.0\nstyles/2.png,\n"
    )
    manifest = write_manifest(
        tmp_path,
        eps_folder,
        contents={"path": "contents", "license": "own work"},
        styles={"path": "styles.csv", "license": "public domain"},
        license="cc-by-4.0",
    )
    output = Folder.at(tmp_path / "out")
    write_card(plan(load_spec(manifest)), output, splits={"train": 12}, version="1.2.3")
    text = output.read("README.md").decode()
    _, header, body = text.split("---\n", 2)
    card = yaml.safe_load(header)
    assert card["license"] == "cc-by-4.0"
    assert card["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.tar"}]}
    ]
    features = {feature["name"]: feature for feature in card["dataset_info"]["features"]}
    assert list(features) == [
        "__key__",
        "__url__",
        "cls",
        "content.jpg",
        "jpg",
        "json",
        "style.jpg",
    ]
    assert features["cls"]["dtype"]["class_label"]["names"] == {"0": "cat", "1": "dog"}
    assert "Contents: `contents`; licences: own work\n" in body
    assert "Styles: `styles.csv`; licences: cc-by-4.0, cc0-1.0, public domain\n" in body
    assert "12 samples from 4 contents and 3 styles" in body


def test_card_tells_the_columns_and_files_of_each_format(tmp_path: Path, eps_folder: Path) -> None:
    write_inputs(tmp_path)
    manifest = write_manifest(tmp_path, eps_folder)
    told = {}
    for kind in ("parquet", "files"):
        output = Folder.at(tmp_path / kind)
        spec = load_spec(manifest, [f"output.format={kind}"])
        write_card(plan(spec), output, splits={"train": 12}, version="1")
        _, header, body = output.read("README.md").decode().split("---\n", 2)
        card = yaml.safe_load(header)
        features = {feature["name"]: feature for feature in card["dataset_info"]["features"]}
        told[kind] = (card["configs"][0]["data_files"][0]["path"], features, body)
        assert features["image"] == {"name": "image", "dtype": "image"}
        assert kind in card["tags"]
    path, features, body = told["parquet"]
    assert path == "data/train-*.parquet"
    assert features["label"]["dtype"]["class_label"]["names"] == {"0": "cat", "1": "dog"}
    assert features["style"]["dtype"] == "image"
    assert "`content`, `style`: the inputs as fitted" in body
    assert "duckdb.sql" in body
    path, features, body = told["files"]
    assert path == "images/train/**"
    assert features["label"]["dtype"] == features["style_path"]["dtype"] == "string"
    assert "`input_images/content/`, `input_images/style/`" in body
    assert "loaders share out" not in body
