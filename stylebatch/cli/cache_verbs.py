"""`stylebatch cache ls`, `verify` and `gc`; each returns the exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stylebatch.cli.arguments import AsJson, DryRun
from stylebatch.cli.messages import end_of_dry_run
from stylebatch.errors import ManifestError
from stylebatch.section import UNIT_PREFIXES, parse_bytes

if TYPE_CHECKING:
    from stylebatch.features.style_cache import CacheEntry, StyleCache

Cache = Annotated[
    str, typer.Argument(metavar="CACHE", help="folder of the cache, or any fsspec URL")
]
COLUMNS = ("key", "size", "last used", "codec", "steps", "convention", "h x w px", "style")
AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ls(cache: Cache, *, as_json: AsJson = False) -> int:
    """list its styles: size, last use, and how they were made"""
    entries = _existing(cache).ls()
    if as_json:
        styles = [asdict(entry) for entry in entries]
        total = sum(entry.size_bytes for entry in entries)
        print(json.dumps({"cache": cache, "size_bytes": total, "styles": styles}, indent=1))
        return 0
    rows = [COLUMNS, *map(_cells, entries)] if entries else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    rest = _total_bytes(cache) - sum(entry.size_bytes for entry in entries)
    more = f"; {size_text(rest)} in other files (`stylebatch cache verify`)" if rest > 0 else ""
    print(f"{_count(entries)} in {cache}{more}")
    return 0


def verify(
    cache: Cache,
    *,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="set damaged styles aside, rebuild indexes, remove files of writers that stopped a day ago",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """read all of it; exit 0 only if every style is whole"""
    styles = _existing(cache)
    found = left = 0
    for finding in styles.verify(repair=repair and not dry_run):
        done = f"; {finding.repair}" if finding.repair else ""
        print(f"{finding.name}: {finding.kind}: {finding.message}{done}", flush=True)
        found += 1
        left += not finding.repair
    count = _count(styles.ls())
    if dry_run and repair and found:
        print(
            f"{found} found; would set damaged styles aside, rebuild indexes and remove leftovers"
        )
        end_of_dry_run()
    elif not found:
        print(f"{count}: all whole")
    elif not left:
        print(f"{found} found, all repaired; {count} left. Styles set aside are made again.")
    else:
        print(
            f"{found} found, {left} not repaired. Next: `stylebatch cache verify {cache} --repair` sets damaged "
            "styles aside, rebuilds indexes and removes leftovers."
        )
    return 1 if left else 0


def gc(
    cache: Cache,
    *,
    max_bytes: Annotated[
        str, typer.Option(metavar="N", help="what may remain: 500MB, 20GiB, or bytes")
    ],
    dry_run: DryRun = False,
) -> int:
    """remove the least recently used styles that nobody reads"""
    limit = parse_size(max_bytes)
    styles = _existing(cache)
    removed = styles.gc(limit, dry_run=dry_run)
    for entry in removed:
        key, size, age, *_, label = _cells(entry)
        print(f"{'would remove' if dry_run else 'removed'} {key}: {size}, last used {age}, {label}")
    if dry_run:
        print(f"Would remove {_count(removed)} of {_count(styles.ls())} in {cache}")
        return end_of_dry_run()
    entries, held = styles.ls(), _total_bytes(cache)
    print(f"Removed {_count(removed)}; {_count(entries)} left in {cache}")
    if held > limit:
        rest = held - sum(entry.size_bytes for entry in entries)
        print(
            f"Still {size_text(held)}, above --max-bytes {max_bytes}: {_count(entries)} in use or new, "
            f"{size_text(rest)} in other files (`stylebatch cache verify {cache} --repair` removes leftovers)"
        )
    return 0


def parse_size(text: str) -> int:
    """As `parse_bytes`, for an option of the command line."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ManifestError(f"--max-bytes: {error}") from None


def size_text(size_bytes: int) -> str:
    """Three digits and a unit of 1000: 27.5 kB."""
    value, power = float(size_bytes), 0
    # 999.5, 99.95 and 9.995 are where rounding adds a digit
    while value >= 999.5 and power + 1 < len(UNIT_PREFIXES):
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {UNIT_PREFIXES[power]}B"


def age_text(since: float, now: float) -> str:
    """How long ago `since` was, in its largest unit; 0 means that the store does not know."""
    if not since:
        return "unknown"
    seconds = max(0, int(now - since))
    length, unit = next((pair for pair in AGES if seconds >= pair[0]), AGES[-1])
    return f"{seconds // length} {unit} ago"


def _existing(root: str) -> StyleCache:
    """The cache at `root`. Raises ManifestError if there is no such folder."""
    from stylebatch.features.cache_index import CacheError
    from stylebatch.features.style_cache import StyleCache
    from stylebatch.folder import Folder

    try:
        folder = Folder.at(root)
    except CacheError as error:
        raise ManifestError(str(error)) from error
    if not folder.exists:
        raise ManifestError(
            f"{root}: no such folder; accepted: the folder of a style cache, or its fsspec URL"
        )
    return StyleCache(root)


def _total_bytes(root: str) -> int:
    """Bytes of all files in the folder."""
    from stylebatch.folder import Folder

    return sum(facts.size_bytes for facts in Folder.at(root).list().values())


def _count(entries: Sequence[CacheEntry]) -> str:
    size = size_text(sum(entry.size_bytes for entry in entries))
    return f"{len(entries)} style{'' if len(entries) == 1 else 's'}, {size}"


def _cells(entry: CacheEntry) -> tuple[str, ...]:
    """The columns of one style, as text."""
    facts = (entry.key, size_text(entry.size_bytes), age_text(entry.last_used, time.time()))
    try:
        key, label = entry.metadata["key"], str(entry.metadata["labels"].get("style_id", "-"))
        codec, (height, width) = key["codec"], key["size"]
        made = (f"{codec['name']} {codec['dtype']}", key["steps"], key["convention"])
    # A hand-edited or older index may hold anything; it must not stop the listing.
    except (AttributeError, KeyError, TypeError, ValueError):
        old = entry.metadata.get("format")
        return (
            *facts,
            "?",
            "?",
            "?",
            "?",
            f"(of format {old})" if old else "(its index cannot be read)",
        )
    shown = label if label.isprintable() else ascii(label)
    return (*facts, *map(str, made), f"{height} x {width}", shown)
