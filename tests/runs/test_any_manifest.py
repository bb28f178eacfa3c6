"""Whatever a manifest asks for, in whatever order: each sample is there or has a reason, and is the picture it would be alone."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from PIL import Image

from stylebatch.engine import local_engine
from stylebatch.engine.run import run
from stylebatch.engine.worker import Worker
from stylebatch.folder import Folder
from stylebatch.manifest import load_spec
from stylebatch.planning.plan import Plan
from stylebatch.planning.resolve import plan
from stylebatch.quality.measures import MEASURES
from stylebatch.store.verify import verify
from tests.support.manifests import (
    OUT_OF_ORDER,
    Asked,
    Drawn,
    pair_manifests,
    prompt_manifests,
    write_pool,
)

TOLERANCE = 2
"""Levels of 255: batches of other sizes change the last bits of floats, and rounding makes a level of a few of them."""

quick = settings(
    max_examples=6,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
thorough = settings(quick, max_examples=60, derandomize=False, print_blob=True)

Members = dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that manifests are drawn over."""
    return write_pool(tmp_path_factory.mktemp("pool") / "pictures")


@quick
@example(OUT_OF_ORDER)
@given(pair_manifests())
def test_every_pair_is_there_or_has_a_reason_and_is_as_if_alone(pool: Path, drawn: Drawn) -> None:
    check(pool, drawn)


@pytest.mark.slow
@thorough
@given(pair_manifests())
def test_many_manifests_of_pairs(pool: Path, drawn: Drawn) -> None:
    check(pool, drawn)


@quick
@given(prompt_manifests())
def test_every_prompt_is_there_or_has_a_reason_and_is_as_if_alone(pool: Path, drawn: Drawn) -> None:
    check(pool, drawn)


@pytest.mark.slow
@thorough
@given(prompt_manifests())
def test_many_manifests_of_prompts(pool: Path, drawn: Drawn) -> None:
    check(pool, drawn)


def check(pool: Path, drawn: Drawn) -> None:
    """Run a manifest, and its samples one by one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = load_spec(drawn.write(folder, pool))
        result = run(spec, limit=drawn.limit)
        assert result.exit_code == 0
        assert not list(verify(result.output))
        rows, members = records(result.output), members_of(result.output)
        resolved = plan(spec, limit=drawn.limit)
        check_rows(drawn, rows, members)
        if result.report.num_failed == 0:
            assert result.report.evaluations == resolved.evaluations
        render_alone(resolved, folder / "alone")
        compare(rows, members, records(folder / "alone"), members_of(folder / "alone"))


def check_rows(drawn: Drawn, rows: list[dict[str, Any]], members: Members) -> None:
    """Each sample that was asked for has its row, with the texts it should have; a reason where it cannot be made."""
    assert len({row["key"] for row in rows}) == len(rows)
    assert set(members) == {row["key"] for row in rows if row["status"] == "success"}
    assert Counter(map(told, rows)) <= drawn.counts
    assert len(rows) == min(drawn.num_asked, drawn.limit or drawn.num_asked)
    if drawn.limit is None and drawn.per_content is not None:
        uses = Counter(row["content_id"] for row in rows)
        assert set(uses.values()) == {drawn.per_content}
    assert all((row["error_code"] != "") == (row["status"] == "failed") for row in rows)
    assert all(row["error_message"] for row in rows if row["status"] == "failed")


def told(row: dict[str, Any]) -> Asked:
    """What a row says that was asked for."""
    content = (
        row["content_id"] if "content_id" in row else f"{row['prompt']} {row.get('image', '')}"
    )
    style = row["style_id"] if "style_id" in row else row.get("style", "")
    return Asked(content, style, row["label"], row["caption"], row["status"] == "success")


def render_alone(resolved: Plan, output: Path) -> None:
    """The plan's samples, one content with one style at a time, in batches of one."""
    model = local_engine.load_model(resolved.spec.model)
    with Worker(resolved, Folder.at(output), threads=1, model=model) as worker:
        for shard in resolved.shards:
            worker.render(shard, [[1, 1, 1]] * len(resolved.shard(shard).blocks))


def compare(
    rows: list[dict[str, Any]], members: Members, alone: list[dict[str, Any]], parts: Members
) -> None:
    """The same rows, and the same files but for the last bits of pictures."""
    quality = ("sha256", *(measure.column for measure in MEASURES))
    known = [{k: v for k, v in row.items() if k not in quality} for row in rows]
    assert known == [{k: v for k, v in row.items() if k not in quality} for row in alone]
    assert members.keys() == parts.keys()
    for key, files in members.items():
        assert files.keys() == parts[key].keys()
        for ending in files.keys() - {"json", "png", "reference.jpg"}:
            assert files[ending] == parts[key][ending]
        difference = np.abs(levels(files["png"]) - levels(parts[key]["png"])).max()
        assert difference <= TOLERANCE, f"{key} differs by {difference} levels from the pair alone"


def levels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def records(output: Path) -> list[dict[str, Any]]:
    """Rows of all shards."""
    paths = sorted(output.glob("metadata/train-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def members_of(output: Path) -> Members:
    """Files of each sample, by key and ending."""
    found: Members = {}
    for path in sorted(output.glob("data/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[ending] = file.read()
    return found
