"""Reads the JSON files of an output, which may be cut, edited, or another program's: whole JSON of bounded size, or an error."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from stylebatch.errors import ManifestError, UnansweredError
from stylebatch.folder import Folder

MOST_BYTES = 1 << 26


def read_document(output: Folder, name: str, next_step: str) -> Any:
    """Parsed JSON file of an output, None where it is absent. Raises ManifestError for anything else than whole JSON."""
    path = output.where(name)
    try:
        data = output.read(name, MOST_BYTES)
    except FileNotFoundError:
        return None
    except UnansweredError:
        raise
    except OSError as error:
        raise ManifestError(f"{path}: is damaged: {error.strerror}. {next_step}") from None
    try:
        # json takes NaN and Infinity, which the schema of none of our files has
        value = json.loads(data, parse_constant=_refuse)
        if b"\\ud" in data.lower():  # half a character, which no file can hold again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: is damaged: not whole JSON ({error}). {next_step}") from None
    if value is None:
        raise ManifestError(f"{path}: is damaged: found null. {next_step}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"found {constant}")
