"""What a user can do when an output refuses a changed manifest or changed inputs: each way with the command to type."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stylebatch.documents import DocumentError, parse
from stylebatch.folder import Folder
from stylebatch.masking import MASK
from stylebatch.spec import METHOD_OPTIONS

FREE = {
    *("name", "output.path", "max_failed_fraction", "features.cache", "features.most_copies"),
    *("engine.name", "engine.workers", "engine.address", "engine.tracker", "engine.drain_s"),
    *("engine.max_attempts", "engine.gpus_per_worker", "engine.cpus_per_worker"),
    *("engine.threads", "engine.host_gb", "engine.metrics_port", "engine.metrics_host"),
}
"""Fields that may change at any time."""
KINDS = ("name", "mode", "path", "id")
"""Where one of these differs, a section is another one altogether."""
INPUTS = ("contents", "styles", "prompts")
LONGEST = 200


def ways_out(output: Folder, former: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """The ways after a change of fields or of the inputs' list. `former`, `now`: the specifications, as run.json has them."""
    changes = {
        field: value
        for field, value in _changes(with_defaults(former), with_defaults(now))
        if not _has_moved(field, value)
    }
    back = f"as it was: {{run}}{_settings(changes)}"
    if not changes:
        back = "as it was (inputs, files of the model or of the method, this program): {run}"
    return (
        f"put back what changed, and the output goes on {back}",
        elsewhere(output),
        "grow: as 1, with new inputs beside all former ones; they open shards of their own, by the same command",
    )


def with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """A specification or identity in which a built-in method has all its fields; records leave out some that have their defaults."""
    method = record.get("method")
    given: dict[str, Any] = method if isinstance(method, dict) else {}
    kind = None if "source" in given else METHOD_OPTIONS.get(str(given.get("name")))
    if kind is None:
        return dict(record)
    left_out = {
        name: kind.model_fields[name].default
        for name in (*kind.newer, "preset")
        if name not in given
    }
    return {**record, "method": {**json.loads(json.dumps(left_out)), **given}}


def after_other_bytes(output: Folder, back: str) -> tuple[str, ...]:
    """The ways after files changed under their names; `back`: what is to be brought back."""
    return (
        f"bring {back} back, and the output goes on as it was: {{run}}",
        elsewhere(output),
        "grow: as 1, with the new one beside it under another name; it opens shards of its own, by the same command",
    )


def elsewhere(output: Folder) -> str:
    """Another output, by the first name that is free."""
    shown, number = output.shown.rstrip("/"), 2
    while number < 100 and Folder.at(f"{shown}-{number}").exists:
        number += 1
    return (
        f"render into a directory of its own: {{run}} --output {shlex.quote(f'{shown}-{number}')}"
    )


def _changes(former: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields that have other values than before, with the former ones."""
    for section in sorted(former.keys() | now.keys()):
        before, after = former.get(section), now.get(section)
        if before == after or section in FREE:
            continue
        kinds = [kind for kind in KINDS if f"{section}.{kind}" not in FREE]
        if not (isinstance(before, dict) and isinstance(after, dict)) or any(
            before.get(kind) != after.get(kind) for kind in kinds
        ):
            yield section, _without_nulls(before)
            continue
        for field in sorted(before):  # one that an earlier version did not know had its default
            if before[field] != after.get(field) and f"{section}.{field}" not in FREE:
                yield f"{section}.{field}", before[field]


def _has_moved(field: str, value: Any) -> bool:
    """Whether inputs lay where nothing is any more: they are known by their names below it."""
    section, _, name = field.partition(".")
    path = value.get("path") if isinstance(value, dict) else value if name == "path" else None
    is_local = isinstance(path, str) and "://" not in path
    return section in INPUTS and is_local and not Path(str(path)).exists()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _settings(changes: Mapping[str, Any]) -> str:
    """` --set FIELD=VALUE` for each; of a value that is long or has credentials, the field alone."""
    shown = ""
    for field, value in changes.items():
        text = _as_typed(value)
        if len(text) > LONGEST or MASK in text:
            return f", with {', '.join(changes)} in the manifest as before"
        shown += f" --set {shlex.quote(f'{field}={text}')}"
    return shown


def _as_typed(value: Any) -> str:
    """`fast`, `0.5`, `"no"`: a text is quoted where it would be read as something else."""
    if isinstance(value, str):
        with suppress(DocumentError):
            if parse(value) == value:
                return value
    return json.dumps(value, ensure_ascii=False)
