"""Files that a verb writes into a folder of the user's: those of a former call are replaced, others never."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stylebatch.errors import ManifestError
from stylebatch.folder import Folder

_MOST_BYTES = 1 << 26


def require_ours(folder: Folder, files: Sequence[str], mark: str) -> None:
    """Raise ManifestError where a file of these names is there and the first of them, JSON, has not `mark` as its format, or where
    `folder` is a file."""
    if folder.local is not None and folder.local.exists() and not folder.local.is_dir():
        raise ManifestError(f"{folder}: found a file; accepted: a folder, or a name that is free")
    taken = [name for name in files if folder.facts(name) is not None]
    if taken and not has_mark(folder, files[0], mark):
        raise ManifestError(
            f"{folder.where(taken[0])}: found a file that this program did not write; accepted: a folder without it. "
            "Next: name another folder, or move the file out of the way"
        )


def has_mark(folder: Folder, name: str, mark: str) -> bool:
    """Whether the JSON file of that name has `mark` as its format."""
    try:
        found = json.loads(folder.read(name, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == mark
