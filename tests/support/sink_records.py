"""Records as a worker hands them to a sink, without a model: small pictures, odd names, a failed sample."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.quality.measures import MEASURES
from stylebatch.spec import canonical_json
from stylebatch.store.output_record import VERSION, RunRecord
from stylebatch.store.records import Record, schema_of
from tests.support.images import picture

SCHEMA = schema_of(StyleIDOptions())
LABELS = ("Cat", "a/b", "cat", "test", "ünter", "x.png")
CONTENTS = ("Cat/a.png", "a/b/a.png", "cat/a.jpg", "test/t 1.png", "ünter/../../b?.png", "x.png/..")


@cache
def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed, 24, 16).save(buffer, "JPEG")
    return buffer.getvalue()


def record(index: int, *, shard: int = 0, failed: bool = False, **changes: Any) -> Record:
    """A pair of a class; contents of other indices are named like it."""
    place = index % len(LABELS)
    image = jpeg(index)
    row: dict[str, Any] = {
        **dict.fromkeys(SCHEMA.names, ""),
        "key": f"{shard:05d}{index:04d}", "shard": shard, "seed": index, "sites": [6, 7],
        "content_id": CONTENTS[place], "style_id": f"s/{index}.jpg", "label": LABELS[place],
        "gamma": 0.75, "tau": 1.5, "steps": 2, "init_adain": True, "inject": True,
        "width": 24, "height": 16, "original_width": 48, "original_height": 32,
        **dict.fromkeys((measure.column for measure in MEASURES), 0.5), "color_distance": 2.0, "contrast": 3.0,
    }  # fmt: skip
    if failed:
        quality = dict.fromkeys(measure.column for measure in MEASURES)
        return Record(row | quality | {"status": "failed", "error_code": "decode"}, {})
    row |= {"status": "success", "sha256": hashlib.sha256(image).hexdigest(), **changes}
    files = {"jpg": image, "content.jpg": jpeg(50 + index), "style.jpg": jpeg(90 + index)}
    return Record(row, files | {"txt": b"a caption", "cls": str(place).encode()})


def records(count: int = 7, *, shard: int = 0, failed: Sequence[int] = (2,)) -> list[Record]:
    return [record(i, shard=shard, failed=i in failed) for i in range(count)]


def run_of(kind: str, *, num_shards: int = 1) -> RunRecord:
    """What run.json tells of an output of such records."""
    identity = {"output": {"format": kind}}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    return RunRecord.model_validate(
        {
            "format": "stylebatch", "version": VERSION, "name": "n", "digest": digest,
            "identity": identity, "axes": ["content", "style"], "plan": {"num_samples": 99, "num_shards": num_shards},
            "spec": {}, "model": "tiny",
            "resolved": {"threads": 1, "device": "cpu", "dtype": "float32"},
        }
    )  # fmt: skip


def facts_of(kind: str) -> dict[str, Any]:
    """What a worker tells with the commit of the first shard."""
    return {"shard": 0, "plan_digest": run_of(kind).digest}
