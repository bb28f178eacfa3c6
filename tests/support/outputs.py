"""Small real output directories of pictures of one colour each."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylebatch.folder import Folder
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.quality.measures import MEASURES
from stylebatch.spec import canonical_json
from stylebatch.spec.output import OutputFormat
from stylebatch.store.records import Record, schema_of
from stylebatch.store.sinks import sink_of

IDENTITY = {"of": "a test", "method": {"name": "styleid"}}
DIGEST = hashlib.sha256(canonical_json(IDENTITY).encode()).hexdigest()
SCHEMA = schema_of(StyleIDOptions())
QUALITY = {measure.column: 0.1 for measure in MEASURES} | {"color_distance": 1.0, "contrast": 10.0}
"""Measures by name, of the first sample of a shard; the n-th has n times as much."""


@dataclass(frozen=True)
class Pair:
    """One sample to write; its result has one colour, known from its place."""

    content: str
    style: str
    error: str = ""
    caption: str = ""


def color_of(*place: int) -> tuple[int, int, int]:
    seed = sum((31, 57, 11)[i] * (n + 1) for i, n in enumerate(place))
    return seed * 7 % 200 + 20, seed * 13 % 200 + 20, seed * 29 % 200 + 20


def _png(color: tuple[int, int, int], side: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, kind, quality=100)
    return buffer.getvalue()


def _row(pair: Pair, shard: int, index: int, side: int) -> dict[str, Any]:
    failed = bool(pair.error)
    values: dict[str, Any] = dict.fromkeys(SCHEMA.names, "") | {
        "key": f"{shard:05d}{index:04d}",
        "shard": shard,
        "content_id": pair.content,
        "style_id": pair.style,
        "label": pair.content.split("/")[0],
        "caption": pair.caption,
        "method": "styleid",
        "convention": "ldm",
        "sites": [6, 7, 8, 9, 10, 11],
        "status": {"": "success", "gate": "rejected"}.get(pair.error, "failed"),
        "error_code": pair.error,
        "error_message": f"{pair.content}: <broken>" if failed else "",
        "init_adain": True,
        "inject": True,
        "gamma": 0.75,
        "tau": 1.5,
        "seed": 1,
    }
    values |= dict.fromkeys(("steps", "original_width", "original_height"), 50)
    values |= dict.fromkeys(("width", "height"), 0 if failed else side)
    return values | {
        name: None if failed else scale * (index + 1) for name, scale in QUALITY.items()
    }


def write_output(
    output: Path,
    shards: Sequence[Sequence[Pair]],
    *,
    planned: tuple[int, int] | None = None,
    side: int = 32,
    inputs: bool = True,
    kind: OutputFormat = "webdataset",
    shares_inputs: bool = False,
) -> Path:
    """An output directory of committed shards; `planned` is (pairs, shards) where more were planned."""
    pairs = [pair for shard in shards for pair in shard]
    contents, styles = list({p.content: 0 for p in pairs}), list({p.style: 0 for p in pairs})
    num_pairs, num_shards = planned or (len(pairs), len(shards))
    plan = {
        "num_samples": num_pairs,
        "num_shards": num_shards,
        "num_contents": len(contents),
        "num_styles": len(styles),
        "pairing": "product",
    }
    identity = IDENTITY if kind == "webdataset" else IDENTITY | {"output": {"format": kind}}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    run = {"format": "stylebatch", "version": 3, "name": "test run", "plan": plan, "spec": {}, "model": "tiny", "digest": digest,
           "identity": identity, "axes": ["content", "style"], "resolved": {"threads": 1, "device": "cpu", "dtype": "float32"}}  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / "run.json").write_text(json.dumps(run))
    for number, shard in enumerate(shards):
        name, shared = f"train-{number:05d}", shares_inputs
        with sink_of(kind)(Folder.at(output), name, SCHEMA, shares_inputs=shared) as sink:
            for index, pair in enumerate(shard):
                content, style = contents.index(pair.content), styles.index(pair.style)
                files = {"png": _png(color_of(content, style), side)}
                if inputs:
                    files |= {
                        "content.jpg": _png(color_of(content), side, "JPEG"),
                        "style.jpg": _png(color_of(0, 0, style), side, "JPEG"),
                    }
                row = _row(pair, number, index, side)
                sink.write(Record(row, {} if pair.error else files))
            facts = {"shard": number, "plan_digest": digest, "seconds": 2.5, "evaluations": 100}
            sink.commit(facts)
    return output
