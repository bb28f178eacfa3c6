"""What an output of a run, or a style cache, holds."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from shlex import quote
from typing import Any

import pyarrow as pa

from stylebatch.data.places import names_in
from stylebatch.errors import DamagedError, ManifestError
from stylebatch.features.style_cache import KEY, StyleCache
from stylebatch.folder import Folder
from stylebatch.reports.committed import Committed, NothingCommittedError, ShardRows
from stylebatch.store.lock_owner import activity
from stylebatch.survey.finding import Finding
from stylebatch.words import counted, size

IN_SAMPLES = ("key", "label", "caption", "content_id", "style_id", "prompt", "status")
"""Columns of records that people are shown."""


def output_finding(place: str, most_rows: int) -> Finding:
    """Of the committed shards; rows are those of their records."""
    output = Folder.at(place)
    try:
        committed = Committed(output)
    except ManifestError as error:
        # the record of the run is damaged; its shards may be whole
        return Finding(place, "output of a run", problems=(str(error),))
    run, problems = committed.run, []
    labels: Counter[str] = Counter()
    first: list[dict[str, Any]] = []
    columns: dict[str, str] = {}
    try:
        for rows in committed.read():
            labels.update(rows.table["label"].to_pylist())
            columns = columns or {one.name: str(one.type) for one in rows.table.schema}
            first += itertools.islice(_plain(rows, most_rows), most_rows - len(first))
    except NothingCommittedError as error:
        if committed.shards:
            problems.append(str(error))
    except DamagedError as error:
        problems.append(str(error))
    stats = [shard.stats for shard in committed.shards]
    facts: dict[str, Any] = {
        "name": run.name,
        "model": run.model,
        "method": str(_method(run.identity)),
        "format": run.output_format,
        "num_samples": committed.num_samples,
        "num_planned_samples": run.plan.num_samples,
        "num_shards": len(committed.shards),
        "num_planned_shards": run.plan.num_shards,
        "num_failed": sum(one.num_failed for one in stats),
        "num_rejected": sum(one.num_rejected for one in stats),
        "splits": run.splits,
        "classes": Counter({label: n for label, n in labels.items() if label}),
        "bytes": sum(one.bytes + one.inputs_bytes for one in stats),
        "columns": columns,
    }
    if run.limit is not None:
        facts["preview_of"] = run.limit
    live = activity(output, run)
    notes = () if live is None else (live.text,)
    step = _next(place, len(committed.shards), run.plan.num_shards)
    return Finding(
        place, "output of a run", facts, tuple(first), notes, tuple(problems), next_step=step
    )


def _plain(rows: ShardRows, most: int) -> Iterator[dict[str, Any]]:
    chosen: pa.Table = rows.table.slice(0, most)
    for row in chosen.to_pylist():
        yield {name: row[name] for name in IN_SAMPLES if row.get(name)}


def _method(identity: dict[str, Any]) -> str:
    method = identity.get("method")
    return str(method.get("name", "")) if isinstance(method, dict) else ""


def _next(place: str, done: int, planned: int) -> str:
    if done < planned:
        return f"{counted(planned - done, 'shard')} to go: run the manifest again"
    return f"`stylebatch view {quote(place)}` to look through it, `stylebatch verify {quote(place)}` to prove it"


def is_cache(place: str) -> bool:
    """Whether the folder holds styles of a cache."""
    with suppress(OSError):
        stems = (name.rpartition(".") for name in names_in(place))
        return any(
            KEY.fullmatch(stem) and ending in ("parquet", "tar") for stem, _, ending in stems
        )
    return False


def cache_finding(place: str, most_rows: int) -> Finding:
    entries = StyleCache(place).ls()
    unread = [entry.key for entry in entries if not entry.metadata.get("key")]
    samples = [
        {"key": entry.key, "size": size(entry.size_bytes), **_labels(entry.metadata)}
        for entry in entries[:most_rows]
    ]
    facts: dict[str, Any] = {
        "num_styles": len(entries),
        "bytes": sum(entry.size_bytes for entry in entries),
        "codecs": Counter(_codec(entry.metadata) for entry in entries),
    }
    problems = (
        [
            f"{place}: {counted(len(unread), 'index file')} of an older format, or that cannot be read, such as {unread[0]}.parquet; "
            f"accepted: those of whole styles. Next: stylebatch cache verify {quote(place)} --repair"
        ]
        if unread
        else []
    )
    step = f"`stylebatch cache ls {quote(place)}` lists it, `features: {{cache: {place}}}` uses it"
    return Finding(
        place, "style cache", facts, tuple(samples), problems=tuple(problems), next_step=step
    )


def _labels(metadata: dict[str, Any]) -> dict[str, str]:
    labels = metadata.get("labels")
    style = labels.get("style_id") if isinstance(labels, dict) else None
    return {"style": str(style)} if style else {}


def _codec(metadata: dict[str, Any]) -> str:
    key = metadata.get("key")
    codec = key.get("codec") if isinstance(key, dict) else None
    return str(codec.get("name", "?")) if isinstance(codec, dict) else "?"
