"""Tells folders that this program wrote: its contact sheets and shards are no inputs."""

from __future__ import annotations

import json
import os
from fnmatch import fnmatch
from pathlib import Path, PurePath

from stylebatch.data.places import INPUT, absolute
from stylebatch.errors import ManifestError, OddFileError
from stylebatch.folder import Folder
from stylebatch.paths import is_address

OUTPUT_FOLDERS = frozenset(("data", "metadata", "inputs"))
COMMIT = "metadata/*-[0-9][0-9][0-9][0-9][0-9]*_stats.json"
MAX_RUN_BYTES = 64 * 2**20


def is_output(uri: str) -> bool:
    """Whether a run of this program wrote the folder: by its run.json, or by a shard's commit where that is damaged."""
    if is_address(uri):
        return is_written(Folder.at(uri, INPUT))
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
    # Other programs write a run.json as well: ours has these keys.
    return isinstance(run, dict) and run.keys() >= {"digest", "identity", "plan"}


def is_written(folder: Folder) -> bool:
    """As `is_output`, of a folder in a store."""
    if any(fnmatch(name, COMMIT) for name in folder.names("metadata/")):
        return True
    try:
        run = json.loads(folder.read("run.json", MAX_RUN_BYTES))
    except (FileNotFoundError, OddFileError, ValueError, RecursionError):
        return False
    return isinstance(run, dict) and run.keys() >= {"digest", "identity", "plan"}


def is_record(uri: str) -> bool:
    """Whether `uri` is a folder of an output that holds what is known of its samples, and not the samples."""
    folder, name = os.path.split(absolute(uri).rstrip("/"))
    return name in OUTPUT_FOLDERS - {"data"} and is_output(folder)


def output_above(uri: str) -> str | None:
    """The output that `uri` is, or whose folder of shards it is."""
    above, name = os.path.split(absolute(uri).rstrip("/"))
    folders = (uri, above) if name == "data" else (uri,)
    return next((folder for folder in folders if is_output(folder)), None)


def shards_of(output: str, suffix: str) -> tuple[list[str], int]:
    """Paths of an output's committed shards, in order, and how many others there are."""
    if is_address(output):
        folder = Folder.at(output, INPUT)
        stored = [name for name in folder.names("data/") if name.endswith(suffix)]
        names = (name for name in folder.names("metadata/") if fnmatch(name, COMMIT))
        marked = {name.removesuffix("_stats.json") for name in names}
        whole = [name for name in stored if f"metadata/{PurePath(name).stem}" in marked]
        return [f"{output.rstrip('/')}/{name}" for name in whole], len(stored) - len(whole)
    shards = sorted(Path(output, "data").glob(f"*{suffix}"))
    markers = Path(output, "metadata")
    kept = [str(path) for path in shards if (markers / f"{path.stem}_stats.json").is_file()]
    return kept, len(shards) - len(kept)


def refuse_output(uri: str, field: str) -> None:
    """Raise ManifestError where `uri` is an output of this program, or its folder of shards or records, or a file of these."""
    for output in _stored_outputs(uri) if is_address(uri) else _local_outputs(uri):
        where = field if "." in field else f"{field}.path"
        raise ManifestError(
            f"{where}: {uri} belongs to {output.name}, an output of this program, whose pictures lie in its shards; accepted: "
            f"the output itself once a shard of it is committed, or original images. Next: give {output}, or the inputs that it was made of"
        )


def _local_outputs(uri: str) -> list[PurePath]:
    """Outputs that a file or folder is, or lies in."""
    whole = Path(uri).resolve()
    folders = [whole] if whole.is_dir() else []
    folder = whole if whole.is_dir() else whole.parent
    if folder.name in OUTPUT_FOLDERS:
        folders.append(folder.parent)
    return [folder for folder in folders if is_output(str(folder))]


def _stored_outputs(address: str) -> list[PurePath]:
    folders = [address.rstrip("/")]
    above, _, name = folders[0].rpartition("/")
    # In s3://data the name is that of a bucket, and there is no folder above.
    if name in OUTPUT_FOLDERS and not above.endswith("/"):
        folders.append(above)
    return [PurePath(folder) for folder in folders if is_written(Folder.at(folder))]
