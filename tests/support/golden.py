"""The reference cases, and copies of folders made of links."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def link_folder(source: Path, target: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A copy of the folder `source` made of links to its files, less the relative paths in `without`."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and not any(
            relative == Path(skip) or Path(skip) in relative.parents for skip in without
        ):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).symlink_to(path)
    return target
