"""Outputs without a model, of any contents and styles in any splits, as sources of a further generation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stylebatch.folder import Folder
from stylebatch.reports.report import report
from stylebatch.spec import canonical_json
from stylebatch.spec.output import OutputFormat
from stylebatch.store.label_columns import OBJECTS
from stylebatch.store.output_record import RunRecord
from stylebatch.store.sinks import sink_of
from tests.support.sink_records import SCHEMA, record, run_of


def generation(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    kind: OutputFormat = "webdataset",
    *,
    splits: Sequence[str] = (),
    name: str = "n",
    shares_inputs: bool = False,
) -> Path:
    """An output with a sample for each of `rows`, which hold its columns that matter; `splits`: of each row, where it has some."""
    rows = [
        {
            "method": "styleid",
            "model": "tiny",
            "label": "cat",
            **row,
            **({"split": splits[n]} if splits else {}),
        }
        for n, row in enumerate(rows)
    ]
    further = {
        key: OBJECTS if key == "objects" else pa.string()
        for row in rows
        for key in row
        if key not in SCHEMA.names
    }
    schema = pa.schema([*SCHEMA, *further.items()])
    named = splits or ["train"] * len(rows)
    order = list(dict.fromkeys(named))
    identity = {"output": {"format": kind, "inputs": "reference" if shares_inputs else True}}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    parts = [{"name": split, "num_shards": 1} for split in order]
    labels = list(dict.fromkeys(row["label"] for row in rows if row["label"]))
    told = {"identity": identity, "digest": digest, "name": name, "labels": labels} | {
        "generations": [{"first_shard": 0, "num_shards": len(order), "digest": digest, "splits": parts}],
        "plan": {"num_samples": len(rows), "num_shards": len(order)},
    }  # fmt: skip
    run = RunRecord.model_validate(json.loads(json.dumps(run_of(kind).model_dump() | told)))
    output = Folder.at(folder)
    output.write("run.json", run.model_dump_json().encode())
    for shard, split in enumerate(order):
        with sink_of(kind)(
            output, f"{split}-{shard:05d}", schema, labels=labels, shares_inputs=shares_inputs
        ) as sink:
            of_split = [row for row, one in zip(rows, named, strict=True) if one == split]
            for index, row in enumerate(of_split):
                sample = record(index, shard=shard, **row)
                number = labels.index(row["label"]) if row["label"] else -1
                sample.files["cls"] = str(number).encode()
                sink.write(sample)
            sink.commit({"shard": shard, "plan_digest": digest, "evaluations": 1})
    report(output)
    return folder
