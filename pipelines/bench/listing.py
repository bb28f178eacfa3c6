"""Measures what listing a source costs: seconds of one core and the peak of memory, by kind, each in a process of its own.

    python -m pipelines.bench.listing --count 1000000 --kinds webdataset parquet saved folder table

The inputs have a label each, and but for `folder` a caption; their images are 900 bytes of nothing, since nothing is decoded.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = bytes(900)
FILES = 10
MEASURE = r"""
import json, re, sys, time
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import list_images
start = time.perf_counter(), time.process_time()
found = list_images(open_source(sys.argv[1], "contents"))
seconds = time.perf_counter() - start[0], time.process_time() - start[1]
# not ru_maxrss: a child's begins at its parent's
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([found.notes[0], len(found.items), *seconds, peak]))
"""


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def _caption(i: int) -> str:
    return f"a photograph of thing number {i} in a field"


def _tars(folder: Path, count: int) -> Path:
    for shard in range(FILES):
        with open(folder / f"{shard:05d}.tar", "wb") as file:
            for i in range(count // FILES):
                key, record = f"{shard:05d}{i:06d}", {"caption": _caption(i), "width": 640}
                file.write(_member(f"{key}.jpg", IMAGE))
                file.write(_member(f"{key}.json", json.dumps(record).encode()))
                file.write(_member(f"{key}.cls", str(i % 100).encode()))
            file.write(bytes(1024))
    return folder


def _rows(count: int) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": IMAGE, "path": None}] * count, kind)
    labels, captions = [i % 100 for i in range(count)], [_caption(i) for i in range(count)]
    classes = {"names": [f"class_{i}" for i in range(100)], "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": classes}}}
    table = pa.table({"image": images, "label": labels, "caption": captions})
    return table.replace_schema_metadata({"huggingface": json.dumps(features)})


def _parquet(folder: Path, count: int) -> Path:
    rows = _rows(count // FILES)
    for i in range(FILES):
        pq.write_table(rows, folder / f"{i:05d}.parquet", row_group_size=1000)
    return folder


def _saved(folder: Path, count: int) -> Path:
    rows, names = _rows(count // FILES), [f"data-{i:05d}.arrow" for i in range(FILES)]
    for name in names:
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, rows.schema) as to,
        ):
            to.write_table(rows, max_chunksize=1000)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": n} for n in names]})
    )
    (folder / "dataset_info.json").write_text("{}")
    return folder


def _folder(folder: Path, count: int) -> Path:
    for i in range(count):
        path = folder / f"class_{i % 100}" / f"{i:08d}.jpg"
        if i < 100:
            path.parent.mkdir()
        path.touch()
    return folder


def _table(folder: Path, count: int) -> Path:
    text = io.StringIO("path,label,caption\n")
    text.seek(0, io.SEEK_END)
    for i in range(count):
        text.write(f"photos/{i:08d}.jpg,class_{i % 100},{_caption(i)}\n")
    (folder / "rows.csv").write_text(text.getvalue())
    return folder / "rows.csv"


INPUTS: dict[str, Callable[[Path, int], Path]] = {
    "webdataset": _tars,
    "parquet": _parquet,
    "saved": _saved,
    "folder": _folder,
    "table": _table,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000, help=f"a multiple of {FILES}")
    parser.add_argument("--kinds", nargs="*", choices=INPUTS, default=list(INPUTS))
    args = parser.parse_args(arguments)
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as folder:
            place = INPUTS[kind](Path(folder), args.count)
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, str(place)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        note, items, wall, cpu, peak = json.loads(done.stdout)
        assert note == f"contents: read as {kind}"
        print(
            f"{kind}: {items:,} items, {wall:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MB", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
