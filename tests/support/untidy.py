"""Folders of images as people have them: odd names, broken files, strange sizes, classes, splits and things beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.images import picture

ODD_NAMES = (
    *(
        "photos",
        "my photos",
        "no",
        "1e3",
        "12:30",
        "a: b",
        "Bilder é #1",
        "'q' \"d\"",
        "名前",
        "{a}",
    ),
    *("[x]", "line\nbreak", "~home", "*", "- x", "null", "tab\there", "\x85next", "s3:x", "data"),
)
STYLE_NAMES = ("paintings", "style images", "Art: é", "textures{1}", "wikiart\n", "paintngs")
KINDS = ("whole", "upper", "wide", "tiny", "truncated", "empty", "text", "gif")
BESIDE = ("notes.txt", ".hidden", "Thumbs.db", "data.bin", "metadata.csv.bak")


@dataclass(frozen=True)
class UntidyFolder:
    """`files`: folder of each picture in it, and what is wrong with it."""

    name: str
    files: tuple[tuple[str, str], ...]
    beside: tuple[str, ...]

    @property
    def num_readable(self) -> int:
        return sum(kind in ("whole", "upper", "wide", "gif") for _, kind in self.files)

    def write(self, root: Path) -> Path:
        folder = root / self.name
        folder.mkdir(parents=True)
        for number, (inner, kind) in enumerate(self.files):
            (folder / inner).mkdir(parents=True, exist_ok=True)
            _write(folder / inner / f"{number} {kind}", number, kind)
        for name in self.beside:
            (folder / name).write_text("something else\n")
        return folder


def _write(stem: Path, seed: int, kind: str) -> None:
    sides = {"wide": (120, 40), "tiny": (5, 5)}.get(kind, (48, 40))
    suffix = {"upper": ".PNG", "gif": ".gif", "text": ".png"}.get(kind, ".jpg")
    path = stem.with_name(stem.name + suffix)
    if kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"no picture at all")
        return
    picture(seed, *sides).save(path, {".PNG": "PNG", ".gif": "GIF"}.get(suffix, "JPEG"))
    if kind == "truncated":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def untidy_folders(
    names: tuple[str, ...], layouts: tuple[tuple[str, ...], ...]
) -> SearchStrategy[UntidyFolder]:
    """`layouts`: folders that pictures of one folder are spread over."""
    files = st.sampled_from(layouts).flatmap(
        lambda inner: st.lists(
            st.tuples(st.sampled_from(inner), st.sampled_from(KINDS)), max_size=4
        )
    )
    return st.builds(
        UntidyFolder,
        st.sampled_from(names),
        files.map(tuple),
        st.lists(st.sampled_from(BESIDE), max_size=2, unique=True).map(tuple),
    )


CONTENTS = untidy_folders(
    ODD_NAMES, ((".",), ("cat", "dog"), ("train/cat", "val/cat"), ("a/b", "a"), ("no", "1e3"))
)
STYLES = untidy_folders(STYLE_NAMES, ((".",), ("monet", "manet")))
