"""Small outputs of pictures in trees, written by their sink without a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from stylebatch.folder import Folder
from stylebatch.store.sinks import sink_of
from tests.support.sink_records import LABELS, SCHEMA, facts_of, record, run_of


def written(folder: Path, *splits: str, planned: int = 0) -> Path:
    """An output with a shard of each split, the third sample failed in each."""
    (folder / "metadata").mkdir(parents=True)
    schema = pa.schema([*SCHEMA, ("split", pa.string())])
    for shard, split in enumerate(splits):
        names = {"labels": LABELS, "shares_inputs": False}
        with sink_of("files")(Folder.at(folder), f"{split}-{shard:05d}", schema, **names) as sink:  # type: ignore[arg-type]
            for index in range(5):
                sample = record(index, shard=shard, failed=index == 2)
                sink.write(replace(sample, row=sample.row | {"split": split}))
            sink.commit(facts_of("files"))
    run = run_of("files", num_shards=planned or len(splits))
    (folder / "run.json").write_text(run.model_dump_json())
    return folder
