"""A run over images with several captions: each sample has one, its record all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from stylebatch.spec.output import OutputFormat
from stylebatch.store.verify import verify
from tests.support.packed import encoded, tar


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_records_have_all_captions_and_samples_one(
    kind: OutputFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    members: dict[str, Any] = {
        "a.png": encoded(1), "a.json": {"caption": ["one", "two", "three"]},
        "b.png": encoded(2), "b.json": {"caption": ["alone"]},
    }  # fmt: skip
    tar(tmp_path / "contents.tar", members)
    tar(tmp_path / "styles.tar", {"0.png": encoded(3), "1.png": encoded(4)})
    document = {
        "contents": {"path": "contents.tar", "captions": "drawn"}, "styles": {"path": "styles.tar"},
        "method": {"name": "styleid", "steps": 2}, "image": {"size": 32}, "engine": {"threads": 1},
        "output": {"path": str(tmp_path / "out"), "format": kind},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(json.dumps(document))
    assert run(load_spec(tmp_path / "run.yaml")).exit_code == 0
    assert list(verify(tmp_path / "out")) == []
    rows = list(datasets.load_dataset(str(tmp_path / "out"), split="train"))
    assert len(rows) == 4
    for row in rows:
        record = row["json"] if kind == "webdataset" else row
        assert row["txt" if kind == "webdataset" else "caption"] == record["caption"]
        assert record["caption"] in record["captions"]
        several = record["content_id"].startswith("a")
        assert record["captions"] == (["one", "two", "three"] if several else ["alone"])
