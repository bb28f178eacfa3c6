"""Outputs without a model, to be exported: several shards, classes named alike, a failed sample in each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylebatch.folder import Folder
from stylebatch.reports.report import report
from stylebatch.spec import canonical_json
from stylebatch.spec.output import OutputFormat
from stylebatch.store.label_columns import NO_OBJECTS, OBJECTS
from stylebatch.store.output_record import RunRecord, read_run
from stylebatch.store.sinks import sink_of
from stylebatch.store.sinks.sink import Members
from tests.support.sink_records import LABELS, SCHEMA, jpeg, record, run_of

SHARDS, PER_SHARD = 3, 7
FAILED = 2
CHOICES: dict[str, Any] = {
    "license": "cc-by-4.0",
    "method": {"name": "styleid", "gamma": 0.75},
    "contents": {"path": "photos", "license": "cc0-1.0"},
    "styles": {"path": "paintings"},
}
"""What the manifest of such an output said."""


def rendered(
    folder: Path,
    kind: OutputFormat = "webdataset",
    *,
    shares_inputs: bool = False,
    annotations: str = "",
    caption: str = "sample",
    **changes: Any,
) -> Path:
    """An output whose samples differ in structure, from 0 to 1, and in style, of which there are four.

    `annotations`: their form, where each sample has an object of its class; `caption`: begins those; `changes`: of its run.json.
    """
    run = run_of(kind, num_shards=SHARDS)
    plan = run.plan.model_copy(update={"num_samples": SHARDS * PER_SHARD})
    identity = {"output": {"format": kind, "inputs": "reference" if shares_inputs else True}}
    labels = changes.get("labels", list(LABELS))
    if annotations:
        identity |= {"annotations": annotations, "classes": labels}
    schema = pa.schema([*SCHEMA, pa.field("objects", OBJECTS)]) if annotations else SCHEMA
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    parts = [one | {"digest": digest} for one in changes.pop("generations", [])]
    told = {
        "plan": plan,
        "spec": CHOICES,
        "labels": labels,
        "identity": identity,
        "digest": digest,
    }
    told |= {"generations": parts, **changes}
    told["plan"] = plan.model_dump()
    run = RunRecord.model_validate(json.loads(json.dumps(run.model_dump() | told)))
    output = Folder.at(folder)
    output.write("run.json", run.model_dump_json().encode())
    for shard in range(SHARDS):
        name = run.parts[0].shard_name(shard)
        with sink_of(kind)(
            output, name, schema, labels=labels, shares_inputs=shares_inputs
        ) as sink:
            for index in range(PER_SHARD):
                number = shard * PER_SHARD + index
                sample = record(index, shard=shard, failed=index == FAILED)
                told = {"style_id": f"s/{number % 4}.jpg", "caption": f"{caption} {number}"}
                if sample.ok:
                    told |= {"structure": number / (SHARDS * PER_SHARD)}
                    looks = {
                        "content.jpg": jpeg(50 + index % 6),
                        "style.jpg": jpeg(90 + number % 4),
                    }
                    sample.files.update(looks)
                if annotations:
                    told["objects"] = NO_OBJECTS | box(sample.row["label"], labels)
                sample.row.update(told)
                sink.write(sample)
            sink.commit({"shard": shard, "plan_digest": run.digest, "evaluations": 10})
    report(output)
    return folder


def box(label: str, labels: Sequence[str]) -> dict[str, Any]:
    """The only object of a sample."""
    number = labels.index(label)
    told: dict[str, Any] = {"bbox": [[2.0, 3.0, 8.0, 6.0]], "area": [48.0], "iscrowd": [0]}
    return told | {
        "category": [label],
        "category_id": [number],
        "segmentation": [[]],
        "keypoints": [[]],
    }


def rows_of(output: Path, *, success: bool = True) -> list[dict[str, Any]]:
    """Records of an output, in key order."""
    files = sorted(output.glob("metadata/*-[0-9]*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return [row for row in rows if row["status"] == "success" or not success]


def pictures_of(output: Path, keys: Sequence[str]) -> dict[str, Members]:
    """Pictures of these samples, by key."""
    folder = Folder.at(output)
    record = read_run(folder)
    sink, part = sink_of(record.output_format), record.parts[0]
    kinds = ("jpg", "png", "content.jpg", "style.jpg")
    shards: dict[str, dict[str, Any]] = {}
    for row in rows_of(output):
        if row["key"] in keys:
            shards.setdefault(part.shard_name(row["shard"]), {})[row["key"]] = row
    return {
        key: {name: data for name, data in members.items() if name in kinds}
        for shard, rows in shards.items()
        for key, members in sink.samples(folder, shard, rows)
    }


def class_numbers(output: Path) -> dict[str, int]:
    """Class number by label, as tars have it."""
    import tarfile

    found: dict[str, int] = {}
    for file in sorted(output.glob("data/*.tar")):
        with tarfile.open(file) as archive:
            members = {m.name: archive.extractfile(m) for m in archive}
            for name, opened in members.items():
                if name.endswith(".cls") and opened is not None:
                    record = members[f"{name.partition('.')[0]}.json"]
                    assert record is not None
                    label = json.loads(record.read())["label"]
                    number = int(opened.read())
                    assert found.setdefault(label, number) == number
    return found
