"""The dataset card is valid YAML over the true features, with licences of the sources."""

from __future__ import annotations

from pathlib import Path

import yaml

from stylebatch.card import write_card
from stylebatch.data.plan import plan
from stylebatch.manifest import load_spec
from tests.images import write_inputs, write_manifest


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
    text = write_card(
        plan(load_spec(manifest)), tmp_path / "out", num_samples=12, version="1.2.3"
    ).read_text(encoding="utf-8")
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
    assert "Contents: `contents`; licences: own work." in body
    assert "Styles: `styles.csv`; licences: cc-by-4.0, cc0-1.0, public domain." in body
    assert "12 samples from 4 contents and 3 styles" in body
