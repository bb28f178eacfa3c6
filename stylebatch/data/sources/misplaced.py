"""Images or annotations that are looked for a folder too high or too deep: which path would fit is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

from stylebatch.data.places import entries_of, exists, is_file
from stylebatch.data.sources.source import Source

LOOKED_AT = 16
"""Images that stand for all."""
SUBFOLDERS = 64
LEVELS = 2


def require_some(source: Source, names: Sequence[str], file: str) -> None:
    """Raise ManifestError where none of the images that a file lists is there, with the path that was meant, if any."""
    few = names[:LOOKED_AT]
    root = source.uri.rstrip("/")
    if not few or any(exists(f"{root}/{name}") for name in names):
        return
    # images of two splits may have like names: `val2017` is meant by `instances_val2017.json`
    around = sorted(_around(root), key=lambda folder: os.path.basename(folder) not in file)
    meant = next((folder for folder in around if any(_is_file(folder, n) for n in few)), "")
    hint = f"did you mean `path: {meant}`? " if meant else ""
    raise source.fault(
        f"{root}: found none of the images that {file} lists, such as {few[0]}; {hint}accepted: the folder that they are named from"
    )


def fitting(root: str, annotations: str, images: Sequence[str], suffix: str) -> str:
    """What was meant, `path: yolo/images`, where annotations of images lie elsewhere than at their own paths; "" for no idea."""
    root, annotations = root.rstrip("/"), annotations.rstrip("/")
    stems = [os.path.splitext(image)[0] + suffix for image in images[:LOOKED_AT]]
    above, name = os.path.split(root)
    # Images of two splits may have like names: what fits any image at a nearer place goes first.
    if folder := _outer(annotations, stems):
        return f"path: {root}/{folder}"
    if any(_is_file(annotations, f"{name}/{stem}") for stem in stems):
        return f"path: {above}"
    for place in _below(annotations):
        if any(_is_file(place, stem) for stem in stems):
            return f"annotations: {place}"
        if folder := _outer(place, stems):
            return f"path: {root}/{folder}, annotations: {place}"
    return ""


def _outer(annotations: str, stems: Sequence[str]) -> str:
    """The folders before names without which annotations are there; "" for none."""
    for stem in stems:
        parts = stem.split("/")
        for count in range(1, len(parts)):
            if _is_file(annotations, "/".join(parts[count:])):
                return "/".join(parts[:count])
    return ""


def _is_file(folder: str, name: str) -> bool:
    return is_file(f"{folder}/{name}")


def _around(root: str) -> Iterator[str]:
    """Folders below one, those next to it first, and the one above."""
    yield from _below(root)
    yield os.path.dirname(root)


def _below(root: str) -> Iterator[str]:
    level = [root]
    for _ in range(LEVELS):
        level = [path for folder in level for path in _folders(folder)]
        yield from level


def _folders(folder: str) -> list[str]:
    try:
        found = entries_of(folder).items()
    except OSError:
        return []
    kept = (f"{folder}/{name}" for name, is_dir in found if is_dir and not name.startswith("."))
    return list(islice(kept, SUBFOLDERS))
