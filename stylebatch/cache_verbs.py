"""What `stylebatch cache ls`, `verify` and `gc` print; each returns the exit code."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal

from stylebatch.errors import ManifestError
from stylebatch.store.cache_files import CacheFiles
from stylebatch.store.cache_index import CacheError
from stylebatch.store.style_cache import CacheEntry, StyleCache

COLUMNS = ("key", "size", "last used", "codec", "steps", "convention", "h x w px", "style")
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?b|[kmgt]ib|)", re.IGNORECASE)
PREFIXES = ("", "k", "M", "G", "T")
AGES = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ls(root: str, *, as_json: bool) -> int:
    """A line for each style, and the totals."""
    cache = _existing(root)
    entries = cache.ls()
    if as_json:
        styles = [asdict(entry) for entry in entries]
        total = sum(entry.size_bytes for entry in entries)
        print(json.dumps({"cache": root, "size_bytes": total, "styles": styles}, indent=1))
        return 0
    rows = [COLUMNS, *map(_cells, entries)] if entries else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    rest = _held(root) - sum(entry.size_bytes for entry in entries)
    more = f"; {size_text(rest)} in other files (`stylebatch cache verify`)" if rest > 0 else ""
    print(f"{_count(entries)} in {root}{more}")
    return 0


def verify(root: str, *, repair: bool) -> int:
    """A line for each finding as it is made, and a summary; 1 unless all is whole in the end."""
    cache = _existing(root)
    found = left = 0
    for finding in cache.verify(repair=repair):
        done = f"; {finding.repair}" if finding.repair else ""
        print(f"{finding.name}: {finding.kind}: {finding.message}{done}", flush=True)
        found += 1
        left += not finding.repair
    styles = _count(cache.ls())
    if not found:
        print(f"{styles}: all whole")
    elif not left:
        print(f"{found} found, all repaired; {styles} left. Styles set aside are made again.")
    else:
        print(
            f"{found} found, {left} not repaired. Next: `stylebatch cache verify {root} --repair` sets damaged "
            "styles aside, rebuilds indexes and removes leftovers."
        )
    return 1 if left else 0


def gc(root: str, max_bytes: str) -> int:
    """What was removed, and what remains."""
    limit = parse_size(max_bytes)
    cache = _existing(root)
    removed = cache.gc(limit)
    for entry in removed:
        key, size, age, *_, label = _cells(entry)
        print(f"removed {key}: {size}, last used {age}, {label}")
    entries, held = cache.ls(), _held(root)
    print(f"Removed {_count(removed)}; {_count(entries)} left in {root}")
    if held > limit:
        rest = held - sum(entry.size_bytes for entry in entries)
        print(
            f"Still {size_text(held)}, above --max-bytes {max_bytes}: {_count(entries)} in use or new, "
            f"{size_text(rest)} in other files (`stylebatch cache verify {root} --repair` removes leftovers)"
        )
    return 0


def parse_size(text: str) -> int:
    """Bytes of `500MB` (powers of 1000), `20GiB` (of 1024), `1.5 TB` or a plain integer."""
    match = SIZE.fullmatch(text.strip())
    if match is None or ("." in match[1] and not match[2]):
        raise ManifestError(
            f"--max-bytes: found {text!r}; accepted: a number of bytes such as 1000000, or with a unit, "
            "such as 500MB or 20GiB (kB MB GB TB, KiB MiB GiB TiB)"
        )
    unit = match[2].lower()
    base = 1024 if "i" in unit else 1000
    power = [prefix.lower() for prefix in PREFIXES].index(unit.rstrip("b").rstrip("i"))
    return int(Decimal(match[1]) * base**power)


def size_text(size_bytes: int) -> str:
    """Three digits and a unit of 1000: 27.5 kB."""
    value, power = float(size_bytes), 0
    while value >= 999.5 and power + 1 < len(PREFIXES):
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {PREFIXES[power]}B"


def age_text(since: float, now: float) -> str:
    """How long ago `since` was, in its largest unit; 0 is a time that the store does not tell."""
    if not since:
        return "unknown"
    seconds = max(0, int(now - since))
    length, unit = next((pair for pair in AGES if seconds >= pair[0]), AGES[-1])
    return f"{seconds // length} {unit} ago"


def _existing(root: str) -> StyleCache:
    """The cache at `root`; raises ManifestError unless there is such a folder."""
    try:
        files = CacheFiles.at(root)
    except CacheError as error:
        raise ManifestError(str(error)) from error
    if not files.is_folder():
        raise ManifestError(
            f"{root}: no such folder; accepted: the folder of a style cache, or its fsspec URL"
        )
    return StyleCache(root)


def _held(root: str) -> int:
    """Bytes of all files in the folder."""
    return sum(facts.size_bytes for facts in CacheFiles.at(root).listing().values())


def _count(entries: Sequence[CacheEntry]) -> str:
    size = size_text(sum(entry.size_bytes for entry in entries))
    return f"{len(entries)} style{'' if len(entries) == 1 else 's'}, {size}"


def _cells(entry: CacheEntry) -> tuple[str, ...]:
    """The columns of one style, as text."""
    facts = (entry.key, size_text(entry.size_bytes), age_text(entry.last_used, time.time()))
    try:
        made_of, label = entry.metadata["key"], str(entry.metadata["labels"].get("style_id", "-"))
        codec, (height, width) = made_of["codec"], made_of["size"]
        made = (f"{codec['name']} {codec['dtype']}", made_of["steps"], made_of["convention"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return (*facts, "?", "?", "?", "?", "(its index cannot be read)")
    shown = label if label.isprintable() else ascii(label)
    return (*facts, *map(str, made), f"{height} x {width}", shown)
