"""Uploads an export to the hub: made whole on this machine first, then one commit, so that nobody loads half of it.

Files go up before the commit, each known by its checksum: a repeated upload sends what the hub does not have. A repository
that holds anything but this export is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylebatch.errors import ManifestError, PlanChangedError, StorageError
from stylebatch.folder import Folder
from stylebatch.masking import safe_text
from stylebatch.store.output_record import RUN, RunRecord, find_run, read_run
from stylebatch.words import counted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KIND = "dataset"
_ADDRESS = re.compile(r"(?:hf://datasets/)?([\w.-]+/[\w.-]+?)/?")
_LEFT_OUT = ("inputs/", ".")
"""Beginnings of names that only a run needs, or that are nobody's."""
_OF_THE_HUB = {".gitattributes", "README.md", "LICENSE"}
"""Files that a new repository may have."""


@dataclass(frozen=True)
class Uploaded:
    """Where an export is. `num_files`: how many were not there before."""

    url: str
    num_files: int


def repository_of(text: str) -> str:
    """`owner/name`, also of `hf://datasets/owner/name`. Raises ManifestError for anything else."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ManifestError(
            f"--output: found {text!r}; accepted with --to hub: OWNER/NAME, or hf://datasets/OWNER/NAME"
        )
    return found[1]


def staging_folder(output: Folder, given: str | None) -> Path:
    """Where an export is made before its upload: beside a local output, elsewhere as given."""
    if given is not None:
        return Path(given).expanduser()
    if output.local is None:
        raise ManifestError(
            f"--staging: missing; {output} is in a store. Next: name a folder of this machine with room for the export, --staging DIR"
        )
    local = output.local.resolve()
    return local.with_name(f"{local.name}-hub")


def upload(staged: Path, repository: str, *, private: bool = False) -> Uploaded:
    """Make the repository hold the export in the folder `staged`, in one commit.

    Raises ManifestError for a repository with other files, PlanChangedError for one with another output, StorageError with the
    command to type where the hub does not answer or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    record, api = read_run(Folder.at(staged)), HfApi()
    with _explained(staged, repository):
        address = api.create_repo(repository, repo_type=KIND, private=private, exist_ok=True)
        there = {one for one in api.list_repo_files(repository, repo_type=KIND)}
        _require_ours(api, repository, there, record)
        # sorted, so that a repeated upload is the same commit
        names = list(_names(staged))
        added = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=staged / name) for name in names
        ]
        commit = api.create_commit(
            repository,
            added,
            commit_message=f"Export {record.digest[:12]}",
            repo_type=KIND,
        )
        # at this commit: the head may be somebody else's by now
        _require_whole(api.list_repo_files(repository, repo_type=KIND, revision=commit.oid), names)
    return Uploaded(str(address), len(set(names) - there))


def _names(staged: Path) -> Iterator[str]:
    for path in sorted(staged.rglob("*")):
        name = path.relative_to(staged).as_posix()
        if path.is_file() and not name.startswith(_LEFT_OUT) and "/." not in name:
            yield name


def _require_ours(api: HfApi, repository: str, there: set[str], record: RunRecord) -> None:
    """Raise where the repository holds something else than this export."""
    strangers = sorted(there - _OF_THE_HUB)
    if RUN not in there:
        if strangers:
            raise ManifestError(
                f"--output: {repository} holds other files ({', '.join(strangers[:5])}); accepted: a new repository, or one with this "
                "export. Next: choose another --output OWNER/NAME"
            )
        return
    revision = api.repo_info(repository, repo_type=KIND).sha
    # by revision, since the client keeps listings of branches
    former = find_run(Folder.at(f"hf://datasets/{repository}@{revision}"))
    if former is not None and former.digest != record.digest:
        raise PlanChangedError(
            f"{repository} holds another export ({former.digest[:12]}, not {record.digest[:12]}).\n"
            "Next: choose another --output OWNER/NAME, or delete that repository."
        )


def _require_whole(there: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in set(there)]
    if missing:
        raise OSError(f"the commit lacks {counted(len(missing), 'file')}, first {missing[0]}")


@contextmanager
def _explained(staged: Path, repository: str) -> Iterator[None]:
    """Errors of the hub's client are of many kinds; each becomes one message with the command to type."""
    try:
        yield
    except (ManifestError, PlanChangedError):
        raise
    except Exception as error:
        reasons = "; ".join(_first_line(one) for one in (error, error.__cause__) if one is not None)
        raise StorageError(
            f"{repository}: could not be uploaded ({safe_text(reasons)}). The export is whole in {staged}. "
            f"Next: `hf auth login` where a token is missing; then the same command again, or from a machine with access "
            f"`hf upload {repository} {staged} . --repo-type dataset`"
        ) from error


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{error.__class__.__name__}: {line}" if line else error.__class__.__name__
