"""Tells folders that this program wrote: which of their shards are committed, and that contact sheets and records are no inputs."""

from __future__ import annotations

import json
import os
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

from stylebatch.data.places import absolute, names_in, small_file
from stylebatch.errors import ManifestError
from stylebatch.paths import is_address

PICTURES = "images"
OUTPUT_FOLDERS = frozenset(("data", "metadata", "inputs"))
MARKER = "_stats.json"
SHARD = "*-[0-9][0-9][0-9][0-9][0-9]*"
COMMIT = f"metadata/{SHARD}{MARKER}"
DEEPEST = 6
MAX_RUN_BYTES = 64 * 2**20


def is_output(uri: str) -> bool:
    """Whether a run of this program wrote the folder: by its run.json, or by a shard's commit where that is damaged."""
    if is_address(uri):
        is_committed = any(fnmatch(name, COMMIT) for name in names_in(uri, "metadata/"))
        return is_committed or _is_ours(_json(uri, "run.json"))
    folder = Path(uri)
    path = folder / "run.json"
    try:
        if any(folder.glob(COMMIT)):
            return True
        if not path.is_file() or path.stat().st_size > MAX_RUN_BYTES:
            return False
        run = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return _is_ours(run)


def _is_ours(run: Any) -> bool:
    # Other programs write a run.json as well: ours has these keys.
    return isinstance(run, dict) and run.keys() >= {"digest", "identity", "plan"}


def _json(output: str, name: str) -> Any:
    """None for what cannot be read."""
    data = small_file(output, name, MAX_RUN_BYTES)
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None


def is_record(uri: str) -> bool:
    """Whether `uri` is a folder of an output that holds what is known of its samples, and not the samples."""
    folder, name = os.path.split(absolute(uri).rstrip("/"))
    return name in OUTPUT_FOLDERS - {"data"} and is_output(folder)


def output_above(uri: str) -> str | None:
    """The output that `uri` is, or whose folder of shards or pictures it is, of all or of one split."""
    above, name = os.path.split(absolute(uri).rstrip("/"))
    folders = [uri]
    if name in ("data", PICTURES):
        folders.append(above)
    elif os.path.basename(above) == PICTURES:
        folders.append(os.path.dirname(above))
    return next((folder for folder in folders if is_output(folder)), None)


def output_around(uri: str) -> str | None:
    """The output that `uri` is or lies in, at most `DEEPEST` folders below."""
    folder = absolute(uri).rstrip("/")
    for _ in range(DEEPEST):
        if is_output(folder):
            return folder
        folder = os.path.dirname(folder)
    return None


def classes_of(output: str) -> list[str]:
    """Names of an output's classes by number; none where it does not record them."""
    run = _json(output, "run.json")
    found = run.get("labels") if _is_ours(run) else None
    return found if isinstance(found, list) and all(isinstance(n, str) for n in found) else []


def annotations_of(output: str) -> str:
    """The form of annotations that an output keeps; "" for none."""
    run = _json(output, "run.json")
    if not _is_ours(run):
        return ""
    identity = run["identity"] if isinstance(run["identity"], dict) else {}
    return str(run.get("annotations") or identity.get("annotations", ""))


def commits_of(output: str) -> list[str]:
    """Names of an output's committed shards, such as train-00000, in order."""
    names = names_in(output, "metadata/")
    return [PurePath(n).name.removesuffix(MARKER) for n in names if fnmatch(n, COMMIT)]


def format_of(output: str) -> str:
    """The format of the committed shards; "" where there is none."""
    for name in commits_of(output)[:1]:
        told = _json(output, f"metadata/{name}{MARKER}")
        return str(told.get("format", "webdataset")) if isinstance(told, dict) else ""
    return ""


def shards_of(output: str, suffix: str, folder: str = "data") -> tuple[list[str], int]:
    """Paths of the files of an output's committed shards, in order, and how many others there are."""
    names = names_in(output, f"{folder}/")
    stored = [name for name in names if fnmatch(name, f"{folder}/{SHARD}{suffix}")]
    marked = set(commits_of(output))
    whole = [name for name in stored if PurePath(name).stem in marked]
    return [os.path.join(output, name) for name in whole], len(stored) - len(whole)


def lacking(output: str) -> str:
    """How many of the planned shards are committed, for people; "" for all, and where no plan is there that can be read."""
    run, committed = _json(output, "run.json"), len(commits_of(output))
    planned = run["plan"].get("num_shards") if _is_ours(run) and isinstance(run["plan"], dict) else 0  # fmt: skip
    if not isinstance(planned, int) or committed >= planned:
        return ""
    return f"{committed:,} of {planned:,} shards of this output are committed, and these alone are read. Next: run it to its end"


def refuse_output(uri: str, field: str) -> None:
    """Raise ManifestError where `uri` is an output of this program, or its folder of shards or records, or a file of these."""
    for output in _stored_outputs(uri) if is_address(uri) else _local_outputs(uri):
        where = field if "." in field else f"{field}.path"
        first = f"give {output}, without `kind`" if commits_of(output) else "run it to its end"
        raise ManifestError(
            f"{where}: {uri} belongs to {os.path.basename(output)}, an output of this program, whose pictures are read with their records; "
            f"accepted: the output itself once a shard of it is committed, or original images. Next: {first}, or give the inputs that it "
            "was made of"
        )


def _local_outputs(uri: str) -> list[str]:
    """Outputs that a file or folder is, or lies in."""
    whole = Path(uri).resolve()
    folders = [whole] if whole.is_dir() else []
    folder = whole if whole.is_dir() else whole.parent
    if folder.name in OUTPUT_FOLDERS:
        folders.append(folder.parent)
    return [str(folder) for folder in folders if is_output(str(folder))]


def _stored_outputs(address: str) -> list[str]:
    folders = [address.rstrip("/")]
    above, _, name = folders[0].rpartition("/")
    # In s3://data the name is that of a bucket, and there is no folder above.
    if name in OUTPUT_FOLDERS and not above.endswith("/"):
        folders.append(above)
    return [folder for folder in folders if is_output(folder)]
