"""Previews are disposable: which directory holds one, which of its files this program wrote, and how it is emptied for another.

A directory is a preview only by a run.json of ours that says so (`limit`), also where it is of another version or was edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from shlex import quote
from typing import Any

from stylebatch.errors import ManifestError
from stylebatch.folder import Folder
from stylebatch.local_files import remove_empty
from stylebatch.spec import canonical_json
from stylebatch.store.ledger import DERIVED, Ledger
from stylebatch.store.lock_owner import LOCK
from stylebatch.store.output_record import FORMAT, RUN, VERSION, RunRecord, find_run
from stylebatch.store.stored_json import read_document

EVENTS, LOGS = "events.out.tfevents.", "logs/"
"""What TensorBoard's writer leaves in a directory of the tracker."""


def preview_in(output: Folder) -> RunRecord | None:
    """The record of the preview that `output` holds, None where it holds none. Raises StorageError where a store does not say."""
    try:
        record = find_run(output)
    except ManifestError:
        record = _salvaged(output)
    return None if record is None or record.limit is None else record


def files_of(output: Folder, record: RunRecord) -> Iterator[str]:
    """Files of an output that this program wrote, in the order in which they may be removed: run.json last."""
    ledger = Ledger(output)
    found = [*ledger.shard_files(record), *ledger.leftovers(record), *_logs(output)]
    for folder, names in DERIVED.items():
        paths = (f"{folder}/{name}".removeprefix("/") for name in names)
        found += [path for path in paths if path not in (RUN, LOCK) and output.facts(path)]
    for path in dict.fromkeys((*found, RUN)):
        if _is_within(output, path):
            yield path


def empty(output: Folder, record: RunRecord) -> None:
    """Remove the files of a preview but run.json, which says whose the directory is; who calls holds its lock."""
    for path in list(files_of(output, record)):
        if path != RUN:
            output.remove(path)
            drop_empty(output, path)
    Ledger(output).sign(record)


def drop_empty(output: Folder, path: str) -> None:
    """Remove the folder that held the file `path` of this machine, and those it lies in below `output`, if they are empty now."""
    if output.local is not None and "/" in path:
        remove_empty((output.local / path).parent, output.local)


def mending(output: str, limit: int | None) -> str:
    """The command that renders again what is damaged in an output; `limit`: of a preview, which `repair` refuses."""
    if limit is None:
        return f"stylebatch repair {quote(output)}"
    return f"stylebatch run MANIFEST --limit {limit}"


def _salvaged(output: Folder) -> RunRecord | None:
    """What the names of a preview's files follow from, of a run.json of ours that cannot be used as a whole."""
    try:
        found = read_document(output, RUN, "")
    except ManifestError:
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    limit, identity = found.get("limit"), {"output": _section(found.get("identity"), "output")}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    parts = found.get("generations")
    splits = _section(parts[0] if isinstance(parts, list) and parts else None, "splits")
    count = _section(found.get("plan"), "num_shards")
    generation = {"first_shard": 0, "num_shards": count, "splits": splits or [], "digest": digest}
    facts = {
        "format": FORMAT, "version": VERSION, "name": "", "digest": digest, "identity": identity, "axes": [], "spec": {}, "model": "",
        "plan": {"num_samples": limit, "num_shards": count}, "generations": [generation], "limit": limit,
        "resolved": {"threads": 1, "device": "", "dtype": ""},
    }  # fmt: skip
    try:
        return RunRecord.model_validate(facts)
    except (ValueError, RecursionError):
        return None


def _section(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _logs(output: Folder) -> list[str]:
    """Logs of the tensorboard tracker."""
    folders = [LOGS, *(f"{name}/" for name in output.names(LOGS))]
    return [
        path
        for folder in folders
        for path in output.names(folder)
        if path.rpartition("/")[2].startswith(EVENTS)
    ]


def _is_within(output: Folder, path: str) -> bool:
    """Whether the file lies in the output itself: a folder of it may be a link to one of somebody else."""
    if output.local is None:
        return True
    folder = (output.local / path).parent
    return folder.resolve().is_relative_to(output.local.resolve())
