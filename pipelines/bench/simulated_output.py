"""Makes an output of any number of samples without rendering: records of a product, the same few pictures again and again."""

from __future__ import annotations

import hashlib
import io
import json
import random
from pathlib import Path

from PIL import Image

from stylebatch.folder import Folder
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.spec import canonical_json
from stylebatch.store.output_record import VERSION
from stylebatch.store.records import Record, schema_of
from stylebatch.store.sinks import WebDatasetShard

SHARD = 1000
NUM_LABELS, NUM_STYLES, NUM_PICTURES = 1000, 2500, 64


def simulate(folder: Path, num_samples: int, *, side: int = 96) -> Path:
    """Write an output of tars with `num_samples` samples of `side` px, a fiftieth of them failed."""
    schema, drawn = schema_of(StyleIDOptions()), random.Random(7)
    output, num_shards = Folder.at(folder), -(-num_samples // SHARD)
    identity = {"method": {"name": "styleid"}, "output": {"format": "webdataset"}}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    run = {
        "format": "stylebatch", "version": VERSION, "name": "simulated", "digest": digest, "identity": identity,
        "axes": ["content", "style"], "plan": {"num_samples": num_samples, "num_shards": num_shards}, "spec": {}, "model": "tiny",
        "resolved": {"threads": 1, "device": "cpu", "dtype": "float32"},
    }  # fmt: skip
    output.write("run.json", json.dumps(run).encode())
    pictures = [_jpeg(number, side) for number in range(NUM_PICTURES)]
    sums = [hashlib.sha256(data).hexdigest() for data in pictures]
    blank = {one.name: "" if str(one.type) == "string" else None for one in schema}
    for shard in range(num_shards):
        with WebDatasetShard(output, f"train-{shard:05d}", schema) as sink:
            for place in range(min(SHARD, num_samples - shard * SHARD)):
                number = shard * SHARD + place
                failed, which = number % 50 == 49, number % NUM_PICTURES
                label = f"class {number // 7 % NUM_LABELS:04d}"
                row = blank | {
                    "key": f"{shard:05d}{place:04d}", "shard": shard, "seed": number, "gamma": 0.75, "tau": 1.5, "steps": 50,
                    "sites": [6, 7],
                    "content_id": f"{label}/photograph_{number // 4:07d}.jpg", "style_id": f"painting_{number * 31 % NUM_STYLES:05d}.jpg",
                    "label": label, "method": "styleid", "model": "tiny", "width": side, "height": side,
                    "status": "failed" if failed else "success", "error_code": "decode" if failed else "",
                    "sha256": "" if failed else sums[which],
                }  # fmt: skip
                if not failed:
                    row["structure"] = drawn.betavariate(5, 2)
                    row["color_distance"] = drawn.gammavariate(4, 2.5)
                    row["contrast"] = drawn.gauss(50, 9)
                files = {"jpg": pictures[which], "content.jpg": pictures[-1 - which]}
                sink.write(Record(row, {} if failed else files))
            sink.commit({"shard": shard, "plan_digest": digest, "evaluations": 1})
    return folder


def _jpeg(number: int, side: int) -> bytes:
    noise = Image.effect_noise((side // 4, side // 4), 40 + number).resize((side, side))
    tint = Image.new("RGB", (side, side), (number * 37 % 256, number * 91 % 256, 128))
    buffer = io.BytesIO()
    Image.blend(noise.convert("RGB"), tint, 0.5).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
