"""Names in a tree of pictures: those of contents and styles as far as any disk and reader takes them.

`animal/Tabby cat.png` in the style of `night.jpg` becomes `train/animal/Tabby cat--night--000000003`: split, class or the
content's own folders, content, style, key. The key makes names unique without a table of all of them, so that workers
need not agree, and tells which shard a file belongs to.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from stylebatch.data.pictures.formats import IMAGE_SUFFIXES
from stylebatch.folder import Folder
from stylebatch.local_files import TEMPORARY
from stylebatch.spec.splits import usual_name

IMAGES = "images"
INPUT_IMAGES = "input_images"
"""Has a tree for each kind of input: `input_images/content/train/...`. A reader of `images/` must not meet it."""
FOLDERS = (IMAGES, INPUT_IMAGES)
FILE, INPUTS, INPUT_SHA256 = "file_name", "input_files", "input_sha256"
"""Columns of the metadata that tell a sample's files."""
LONGEST = 80
"""Bytes of a name's part; a file system takes 255 for content, style, key, ending and a temporary name's rest."""
DEEPEST = 8
UNLABELLED = "unlabelled"
"""Class folder of samples without a label, where others have one."""
TRAIN = "train"
JOINT = "--"
CONTENT_COLUMNS = ("content_id", "image", "id")
STYLE_COLUMNS = ("style_id", "style")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
_SPLITS = "train|training|validation|valid|dev|val|test|testing|eval|evaluation"
_LIKE_A_SPLIT = re.compile(rf"(^|[-._ 0-9])({_SPLITS})(?=$|[-._ 0-9])", re.IGNORECASE)
"""Folders that `datasets` takes for a split."""


def place(row: Mapping[str, Any], *, has_classes: bool) -> str:
    """Path of a sample's pictures below `images/`, without ending. Nothing in the row leads out of it."""
    content, style = _first(row, CONTENT_COLUMNS), _first(row, STYLE_COLUMNS)
    *folders, name = _parts(content) or [""]
    split = str(row.get("split") or "")
    if split and folders and usual_name(folders[0]) == split:
        folders = folders[1:]  # contents that came in folders of splits
    # readers of YOLO's labels exchange the last folder `images` of a path
    folders = [folder for folder in folders if folder != IMAGES]
    label = str(row.get("label") or "")
    if has_classes:
        levels = len(_parts(label))
        rest = folders[levels:] if folders[:levels] == _parts(label) else folders
        first = _folder(label, taken=UNLABELLED) if label else UNLABELLED
        tree = [first, *map(_folder, rest)]
    else:
        tree = list(map(_folder, folders))
    names = [_file(_stem(name)), *([_file(_stem((_parts(style) or [""])[-1]))] if style else [])]
    return "/".join(
        [_plain(split) or TRAIN, *tree[:DEEPEST], JOINT.join([*names, str(row["key"])])]
    )


def key_of(file: str) -> str:
    """The key at the end of a name that `place` made, "" in other names."""
    found = re.search(rf"{JOINT}([0-9]+)\.[a-z]+$", file)
    return found[1] if found else ""


def member_of(file: str) -> str:
    """`jpg` for a result, `content.jpg` for a file in `input_images/content/`."""
    folder, kind, *_ = file.split("/")
    ending = file.rpartition(".")[2]
    return ending if folder == IMAGES else f"{kind}.{ending}"


def below(output: Folder, folder: str, most_levels: int = DEEPEST + 3) -> Iterator[str]:
    """Names in a folder and the folders in it. What has a picture's ending is not asked whether it is a folder."""
    for name in output.names(folder):
        is_picture = f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES
        if is_picture or TEMPORARY in name or not most_levels:
            yield name
            continue
        facts = output.facts(name)
        if facts is None or facts.is_file:
            yield name
        else:
            yield from below(output, f"{name}/", most_levels - 1)


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    return next((str(row[name]) for name in columns if row.get(name)), "")


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _folder(text: str, taken: str = "") -> str:
    """A folder's name, of its own for every text: what cannot stay as it is gets a hash of the whole."""
    made = _LIKE_A_SPLIT.sub(r"\1=\2", _plain(text))
    is_file = f".{made.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES
    if made == text and made != taken and not is_file:
        return made
    marked = made.rstrip(" .")
    return f"{marked}~{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _file(text: str) -> str:
    """A part of a file's name; two texts may give one, the key tells them apart."""
    return re.sub("-{2,}", "-", _plain(text)) or "_"


def _plain(text: str) -> str:
    """Letters, digits, marks and a few signs, not hidden, not reserved, of at most `LONGEST` bytes."""
    normal = unicodedata.normalize("NFC", text)
    kept = "".join(c if _stays(c) else "_" for c in normal).lstrip(". ").rstrip(". ")
    kept = re.sub(r"^_{2,}", "_", kept)  # `datasets` passes over folders that begin with two
    if kept.partition(".")[0].lower() in _RESERVED:
        kept = f"_{kept}"
    return kept.encode()[:LONGEST].decode(errors="ignore").rstrip(". ")


def _stays(character: str) -> bool:
    return character in " -_.+," or unicodedata.category(character)[0] in "LMN"
