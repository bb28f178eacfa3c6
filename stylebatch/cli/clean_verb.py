"""The verb that removes what nobody keeps; it returns the exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from stylebatch.cli.arguments import DryRun
from stylebatch.cli.messages import print_problem
from stylebatch.words import counted, size


def clean(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OUTPUT|FOLDER...]",
            help="outputs, with the previews beside them, or folders that hold such; the current folder",
        ),
    ] = None,
    *,
    comparisons: Annotated[
        bool, typer.Option("--comparisons", help="remove what `stylebatch compare` made, too")
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """remove previews and what killed runs left, and nothing else"""
    from stylebatch.engine.cleaning import find, remove
    from stylebatch.errors import OutputLockedError

    num_files = size_bytes = num_locked = 0
    for found in list(find(places or ["."], comparisons=comparisons)):
        locked_by = found.locked_by
        if not locked_by and not dry_run:
            try:
                remove(found)
            except OutputLockedError as error:  # a run began meanwhile
                locked_by = str(error)
        if locked_by:
            print_problem(
                f"{found.folder}: {found.what} is left as it is: {locked_by}", as_json=False
            )
            num_locked += 1
            continue
        told = f"{counted(found.num_files, 'file')}, {size(found.size_bytes)}"
        stays = not dry_run and found.folder.local is not None and found.folder.exists
        others = (
            "; the folder stays, other files are in it" if stays and found.is_whole_folder else ""
        )
        print(f"{found.folder}: {found.what}: {told}{others}", flush=True)
        num_files += found.num_files
        size_bytes += found.size_bytes
    if not (num_files or num_locked or comparisons):
        kept = find(places or ["."], comparisons=True)
        _tell_kept([str(one.folder) for one in kept if one.is_comparison])
    removed = f"{counted(num_files, 'file')}, {size(size_bytes)}"
    if not num_files:
        print("Nothing to remove: found no previews, and nothing that killed runs left")
    elif dry_run:
        print(f"Dry run: would remove {removed}; nothing was removed")
    else:
        print(f"Removed {removed}")
    return 4 if num_locked else 0


def _tell_kept(folders: list[str]) -> None:
    """Name comparisons, which are removed where they are asked for."""
    if folders:
        more = f" and {len(folders) - 1:,} more" if len(folders) > 1 else ""
        print(
            f"{folders[0]}{more}: kept, since it is of a comparison; --comparisons removes such, too"
        )
