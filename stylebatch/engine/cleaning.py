"""Finds and removes what nobody keeps: previews, comparisons where they are asked for, and what killed writers left.

A directory is touched only where a file of ours says what it is (run.json with `limit`, comparison.json), and of it only the names
that this program gives. One that a run writes now is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from stylebatch.errors import ManifestError, NoRunError
from stylebatch.folder import Folder
from stylebatch.local_files import remove_empty
from stylebatch.reports.our_files import has_mark
from stylebatch.reports.variant_table import FILES, FORMAT
from stylebatch.store.ledger import Ledger
from stylebatch.store.lock_owner import LOCK, Owner, activity, read_lock
from stylebatch.store.output_record import RUN, find_run
from stylebatch.store.previews import drop_empty, files_of, preview_in
from stylebatch.store.run_lock import RunLock
from stylebatch.words import counted

LEVELS = 3
"""How far beneath a folder outputs are looked for."""
COMPARED = "-compare"
"""How the folder of a comparison is called, behind the output's name."""
LEFT = "what a killed run left"


@dataclass(frozen=True)
class Found:
    """Something to be removed. `files`: with their bytes; `locked_by`: who writes there, "" where nobody does; `within`: the variants of a
    comparison."""

    folder: Folder
    what: str
    files: dict[str, int] = field(default_factory=dict)
    locked_by: str = ""
    is_comparison: bool = False
    within: tuple[Found, ...] = ()

    @property
    def is_whole_folder(self) -> bool:
        """Whether nothing of the folder is kept."""
        return self.is_comparison or RUN in self.files

    @property
    def num_files(self) -> int:
        return len(self.files) + sum(one.num_files for one in self.within)

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values()) + sum(one.size_bytes for one in self.within)


def find(places: Sequence[str], *, comparisons: bool) -> Iterator[Found]:
    """What is to be removed at these outputs (beside them for their previews) and in these folders, each once.

    Raises ManifestError for a place where nothing is.
    """
    seen: set[str] = set()
    for place in places:
        folders = list(_folders_of(place))
        if not folders:
            raise NoRunError.at(
                place,
                f"{place}: found nothing; accepted: an output, or a folder in which outputs and previews lie, here or in a store",
            )
        for folder in folders:
            for found in _found_in(folder, LEVELS, comparisons=comparisons):
                name = str(found.folder.absolute())
                if name not in seen:
                    seen.add(name)
                    yield found


def remove(found: Found) -> None:
    """Remove it, as it is now. Raises OutputLockedError where a run began to write there meanwhile, StorageError for what cannot be
    removed."""
    with ExitStack() as stack:
        for one in (found, *found.within):
            stack.enter_context(RunLock(one.folder))
        for one in (*found.within, found):
            for path in _names(one):
                one.folder.remove(path)
                drop_empty(one.folder, path)
    for one in (*found.within, found):
        if one.folder.local is None:
            continue
        # a folder whose files others removed is empty, too
        for name in one.folder.names() if one.is_whole_folder else ():
            remove_empty(one.folder.local / name, one.folder.local)
        remove_empty(one.folder.local, one.folder.local.parent)


def _names(found: Found) -> list[str]:
    """Files of it that are there now; the caller holds its lock, which goes when it is given back."""
    if found.is_comparison:
        return [name for name in FILES if name in found.files]
    preview = preview_in(found.folder)
    record = preview or find_run(found.folder)
    if record is None:
        return []
    ledger = Ledger(found.folder)
    ledger.sweep(record)
    # a whole run may have taken its place since it was found
    return [] if preview is None else list(files_of(found.folder, preview))


def _folders_of(place: str) -> Iterator[Folder]:
    """The place itself, and previews and comparisons beside it, as far as they are there."""
    if "://" in place:
        parent, _, name = place.rstrip("/").rpartition("/")
    else:
        path = Path(place).expanduser()
        path = path if path.name not in ("", "..") else path.resolve()
        parent, name = str(path.parent), path.name
    here = Folder.at(place)
    if here.exists:
        yield here
    if (parent.endswith("/") and "://" in place) or not name:  # a bucket has nothing beside it
        return
    beside = Folder.at(parent)
    for other in (*beside.names(f"{name}-preview-"), *beside.names(f"{name}{COMPARED}")):
        is_preview = other.removeprefix(f"{name}-preview-").isdecimal()
        if is_preview or other == f"{name}{COMPARED}":
            yield beside.sub(other)


def _found_in(folder: Folder, levels: int, *, comparisons: bool) -> Iterator[Found]:
    """What is to be removed of a folder, and of those beneath that are no part of an output."""
    if folder.facts(RUN) is not None:
        found = _of_output(folder)
        if found is not None:
            yield found
        return
    is_marked = has_mark(folder, FILES[0], FORMAT) or isinstance(read_lock(folder), Owner)
    if is_marked or (folder.shown.endswith(COMPARED) and _has_preview(folder)):
        yield from _of_comparison(folder, comparisons=comparisons)
        return
    for below in _beneath(folder) if levels else ():
        yield from _found_in(below, levels - 1, comparisons=comparisons)


def _has_preview(folder: Folder) -> bool:
    """Whether an interrupted comparison left a variant: its own files, lock and mark, are not there."""
    return any(preview_in(below) is not None for below in _beneath(folder))


def _beneath(folder: Folder) -> Iterator[Folder]:
    files = folder.list()
    for name in folder.names():
        below = folder.sub(name)
        is_link = below.local is not None and (below.local.is_symlink() or not below.exists)
        if name not in files and not name.startswith(".") and not is_link:
            yield below


def _of_output(folder: Folder) -> Found | None:
    """A preview, or what killed writers left of another output; None where there is neither."""
    preview = preview_in(folder)
    if preview is not None:
        what = f"preview of {counted(preview.limit or 0, 'sample')}"
        return _found(folder, what, files_of(folder, preview))
    try:
        record = find_run(folder)
    except ManifestError:  # not ours, or nobody can say what it is
        return None
    left = [] if record is None else Ledger(folder).leftovers(record)
    found = _found(folder, LEFT, left)
    return None if found.locked_by or not found.files else found


def _of_comparison(folder: Folder, *, comparisons: bool) -> Iterator[Found]:
    """A comparison where those are wanted, or what is left of one, or of another run, that was killed early."""
    is_whole = has_mark(folder, FILES[0], FORMAT)
    names = [name for name in FILES if is_whole and folder.facts(name) is not None]
    within = tuple(
        found
        for below in _beneath(folder)
        if preview_in(below) is not None and (found := _of_output(below)) is not None
    )
    what = f"comparison of {counted(len(within), 'variant')}"
    found = _found(folder, what if is_whole or within else LEFT, names)
    # variants of one that was killed are kept, too: the same command goes on with them
    if found.locked_by or comparisons or not (is_whole or within):
        yield replace(found, is_comparison=True, within=within)


def _found(folder: Folder, what: str, names: Iterable[str]) -> Found:
    holder, lock = read_lock(folder), activity(folder, None)
    is_live = lock is not None and lock.is_live
    dead = [LOCK] if isinstance(holder, Owner) and not is_live else []
    facts = {name: folder.facts(name) for name in (*names, *dead)}
    sizes = {name: one.size_bytes for name, one in facts.items() if one is not None}
    return Found(folder, what, sizes, lock.text.partition(";")[0] if lock and is_live else "")
