"""Names of the files that every output has, whatever its format."""

from __future__ import annotations

POISON = "_poison.json"
STATS = "_stats.json"
RECORDS = ".parquet"
MOST_METADATA_BYTES = 1 << 32
"""Of a shard's rows."""


def marker(shard: str) -> str:
    """The stats file that commits a shard."""
    return f"metadata/{shard}{STATS}"


def metadata_file(shard: str) -> str:
    """Rows of a shard."""
    return f"metadata/{shard}{RECORDS}"


def poison_file(shard: str) -> str:
    """Why a shard was left out."""
    return f"metadata/{shard}{POISON}"
