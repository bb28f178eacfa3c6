"""A measure is one row of one table: what is added there is in records, loaders' features, report, gallery and card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.images import write_inputs, write_manifest
from tests.support.pages import held, numbers_of

ADDED = """
import sys
from stylebatch.quality import measures
measures.MEASURES += (
    measures.Measure(
        "redness", "redness <of> both", "levels", 3, (0, 255), ("kept", "look"),
        "red of the result beside the {kept} and the {look}",
        lambda result, kept, look: float(result.small[..., 0].mean()),
    ),
)
from stylebatch.cli import main
sys.exit(main(["run", sys.argv[1]]) or main(["report", sys.argv[2]]))
"""


def test_a_row_in_the_table_is_a_column_everywhere(tmp_path: Path, eps_folder: Path) -> None:
    write_inputs(tmp_path, contents=2, styles=1)
    manifest = write_manifest(tmp_path, eps_folder, method={"name": "styleid", "steps": 2})
    done = subprocess.run(
        [sys.executable, "-c", ADDED, str(manifest), str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output = tmp_path / "out"
    values = [
        value
        for path in sorted(output.glob("metadata/train-*.parquet"))
        for value in pq.read_table(path)["redness"].to_pylist()
    ]
    assert len(values) == 2
    assert f"redness <of> both {sum(values) / 2:.3f} levels" in done.stdout
    page = held(output / "gallery.html")
    assert numbers_of(page, "redness") == pytest.approx(values, rel=1e-5)
    (told,) = (one for one in page["state"]["numbers"] if one["column"] == "redness")
    assert (told["name"], told["unit"], told["digits"]) == ("redness <of> both", "levels", 3)
    assert told["words"] == "red of the result beside the content and the style; 0 to 255"
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "- `redness`: red of the result beside the content and the style; 0 to 255\n" in card
    features = yaml.safe_load(card.split("---\n")[1])["dataset_info"]["features"]
    (record,) = (feature for feature in features if feature["name"] == "json")
    assert {"name": "redness", "dtype": "float64"} in record["struct"]
