"""Datasets of the Hugging Face hub as inputs: `hf://datasets/OWNER/NAME`, fetched whole into the hub's own cache, then read as files.

What was fetched before is not fetched again, and serves without network. `@REVISION` behind the name pins a version; a folder
or pattern behind it fetches that part alone.
"""

from __future__ import annotations

import os
import re

from stylebatch.data.sources.patterns import is_pattern
from stylebatch.errors import ManifestError

_ADDRESS = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w./~^-]+?))?(?:/(.*))?")


def is_on_hub(uri: str) -> bool:
    """Whether the address is one of the hub."""
    return uri.startswith("hf://")


def local_copy(uri: str, field: str) -> str:
    """The path of an input on this machine; what is on the hub is fetched. Raises ManifestError where that cannot be done."""
    if not is_on_hub(uri):
        return uri
    found = _ADDRESS.fullmatch(uri.rstrip("/"))
    if found is None:
        raise ManifestError(
            f"{field}.path: found {uri!r}; accepted: hf://datasets/OWNER/NAME, with @REVISION, a folder or a pattern behind it"
        )
    repository, revision, part = found[1], found[2], found[3] or ""
    folder = _fetched(repository, revision, _patterns(part), field)
    path = os.path.join(folder, part) if part else folder
    if not is_pattern(path) and not os.path.exists(path):
        raise ManifestError(
            f"{field}.path: found {uri!r}, but {repository} has no {part}; accepted: a folder or file of it"
        )
    return path


def _patterns(part: str) -> list[str] | None:
    if not part:
        return None
    return [part] if is_pattern(part) else [part, f"{part}/*"]


def _fetched(repository: str, revision: str | None, patterns: list[str] | None, field: str) -> str:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(
            huggingface_hub.snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=patterns
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no detail"])[0]
        raise ManifestError(
            f"{field}.path: the dataset {repository} (revision {revision or 'main'}) could not be fetched from the hub "
            f"({error.__class__.__name__}: {reason}). Accepted: a dataset that the hub serves to this machine, or a local folder: on a "
            f"machine with access run `hf download {repository} --repo-type dataset --local-dir FOLDER`, copy FOLDER here, and write "
            f"`{field}: {{path: FOLDER}}`"
        ) from None
