"""Where annotations of several splits lie, and which images each is of: COCO's files by split, and the `data.yaml` of YOLO.

train2017/  val2017/  annotations/instances_train2017.json  annotations/instances_val2017.json
train/images/  train/labels/  valid/images/  valid/labels/  data.yaml
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from stylebatch.data.one_look import asked
from stylebatch.data.places import is_file, is_folder, name_in, opened
from stylebatch.data.sources.holdings import SPLITS, files_below, no_split, one_of
from stylebatch.data.sources.patterns import find, is_pattern
from stylebatch.data.tables.table_columns import shown
from stylebatch.documents import DocumentError, parse
from stylebatch.errors import ManifestError

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
KEYS = ("train", "val", "test")
"""Of a description: folders of images of each split."""
MAX_BYTES = 16 * 2**20
MAX_LIST = 2**30
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(\d*)(?![a-z])", re.I)  # fmt: skip
COCO_FILE = re.compile(
    r"(instances|person_keypoints|captions|annotations|_annotations|coco).*\.json", re.I
)
IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "jpegimages"))
"""Names of folders that hold all images of a data set, and are no classes."""
Fault = Callable[[str, str], ManifestError]
"""Makes an error from what is wrong and the name of the option at fault."""


class Part(NamedTuple):
    """A split, "" where there is one alone; its file of annotations, or list of images; and the folder of its images, from the root."""

    split: str
    file: str
    images: str


def wanted_parts(parts: list[Part], split: str | None, fault: Fault) -> list[Part]:
    """Those of the split that is named. Raises ManifestError where there are several and none is."""
    names = list(dict.fromkeys(part.split for part in parts if part.split))
    if split is None:
        if len(names) > 1:
            raise fault(one_of(names), "split")
        return parts
    kept = [part for part in parts if part.split.lower() == split.lower()]
    if not kept:
        raise fault(no_split(split, ", ".join(names) or "none"), "split")
    return kept


def coco_parts(root: str, annotations: str | None, where: str, fault: Fault) -> list[Part]:
    """A part for each file of annotations; `where`: the field that names them, None: those in the root or in a folder of it.

    Raises ManifestError where there is none, and where their names tell no splits.
    """
    if annotations is None:
        annotations, files = root, coco_files(root)
        if not files:
            raise fault(
                "is missing, and no file in the folder or in one of its folders is named as one of COCO; accepted: a COCO file, such as "
                "instances_train.json, or a folder of them",
                "annotations",
            )
    elif is_pattern(annotations):
        files = list(find(annotations, where).files)
    elif is_folder(annotations):
        files = files_below(annotations, ".json")
    else:
        return [Part("", annotations, "")]
    found: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        above, name = os.path.split(file)
        match = _SPLIT.search(name) or _SPLIT.fullmatch(os.path.basename(above))
        family = _SPLIT.sub("*", name.lower(), count=1)
        found.setdefault(family, []).append((match[0] if match else "", file))
    families = [name for name in found if name.startswith("instances")] or list(found)
    if len(families) != 1:
        some = ", ".join(families) or "no .json file"
        raise fault(
            f"{annotations}: found {some}; accepted: files of one kind, such as instances_train.json and instances_val.json. Next: name "
            f"them, such as `annotations: {annotations.rstrip('/')}/{(families or ['instances_*.json'])[0]}`",
            "annotations",
        )
    of_family = found[families[0]]
    if len({split.lower() for split, _ in of_family}) < len(of_family):
        names = ", ".join(os.path.basename(file) for _, file in of_family)
        raise fault(f"{annotations}: found {names}; accepted: a file for each split", "annotations")
    # train2017 is the split train, unless there is train2014 as well
    short = [split.rstrip("0123456789").lower() for split, _ in of_family]
    is_clear = len(set(short)) == len(short)
    return [
        Part(name if is_clear else split, file, _images_of(root, split, file))
        for name, (split, file) in zip(short, of_family, strict=True)
    ]


def coco_files(root: str) -> list[str]:
    """Files in a folder and in the folders of it that are named as annotations of COCO are."""
    found = files_below(root, ".json") if is_folder(root) else []
    return [file for file in found if COCO_FILE.fullmatch(os.path.basename(file))]


def _images_of(root: str, split: str, file: str) -> str:
    """The folder of a split's images, from the root: the one that is named like it, else all."""
    above = os.path.dirname(file)
    if _SPLIT.fullmatch(os.path.basename(above)):
        return name_in(root, above)
    short = split.rstrip("0123456789")
    names = (f"{outer}{name}{inner}" for name in dict.fromkeys((split, short)) if name
             for outer, inner in (("", "/images"), ("", ""), ("images/", "")))  # fmt: skip
    return next((name for name in names if is_folder(f"{root.rstrip('/')}/{name}")), "")


def description_of(folder: str) -> str:
    """The file in a folder that tells of a YOLO data set; "" for none."""
    paths = (f"{folder.rstrip('/')}/{name}" for name in DESCRIPTIONS)
    return next((path for path in paths if is_file(path) and _is_description(path)), "")


def _is_description(path: str) -> bool:
    try:
        found = read_description(path)
    except (DocumentError, OSError, ValueError):
        return False
    return isinstance(found, dict) and "names" in found and any(key in found for key in KEYS)


def read_description(path: str) -> Any:
    """Raises DocumentError for what is no YAML."""
    return asked(("description", path), lambda: _parsed(path))


def _parsed(path: str) -> Any:
    with opened(path) as file:
        return parse(file.read(MAX_BYTES))


def yolo_parts(root: str, description: str, fault: Fault) -> list[Part]:
    """A part for each folder of images that a description names and that is there. Raises ManifestError where none is."""
    try:
        found = read_description(description)
    except DocumentError as error:
        raise fault(f"{description}: {error}", "annotations") from None
    parts: list[Part] = []
    lost: list[str] = []
    for key, value in _folders_in(found).items():
        for path in _paths(value):
            folder = _below(root, path)
            if folder is None and path.lower().endswith(".txt"):
                file = _below(root, path, is_file)
                parts += [] if file is None else [Part(key, f"{root.rstrip('/')}/{file}", "")]
                lost += [f"{key}: {shown(path)}"] if file is None else []
            elif folder is None:
                lost.append(f"{key}: {shown(path)}")
            elif folder not in [part.images for part in parts]:
                # A data set without validation often names its training images twice.
                parts.append(Part(key, "", folder))
    if not parts:
        told = ", ".join(lost) or "neither train nor val nor test"
        raise fault(
            f"{description}: found {told}; accepted: folders of images below {root}, such as `train: train/images`, or lists of their "
            "paths, such as `train: train.txt`",
            "annotations",
        )
    return parts


def _folders_in(description: Any) -> dict[str, Any]:
    """Folders of images by split: those of train, val and test, or of any names where this program wrote the file."""
    found = description if isinstance(description, dict) else {}
    own = found.get("splits")
    if (
        isinstance(own, dict)
        and own
        and all(path == f"images/{name}" for name, path in own.items())
    ):
        return own
    return {key: found.get(key) for key in KEYS}


def _paths(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.strip():
            yield one.strip().replace("\\", "/")


def _below(
    root: str, path: str, is_there: Callable[[str], bool] = is_folder, above: str = ""
) -> str | None:
    """What from the root a path means, whatever it begins with: exports have `../train/images`, or paths of another machine.

    `above`: a folder from the root that it may count from.
    """
    parts = [part for part in f"{above}/{path}".split("/") if part not in ("", ".", "..")]
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in names if is_there(f"{root.rstrip('/')}/{name}")), None)


def listed_images(
    root: str, file: str, fault: Fault, pass_over: Callable[[str, str], None]
) -> list[str]:
    """Paths from the root of the images that a list names, a line each; `pass_over` is told of reason and path where one is no image.

    Raises ManifestError where no line leads to a folder that is there.
    """
    with opened(file) as stream:
        data = stream.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise fault(f"{file}: over {MAX_LIST:,} bytes; accepted: a shorter list", "annotations")
    above = name_in(root, os.path.dirname(file)).removeprefix(".")
    folders: dict[str, str | None] = {}
    found: dict[str, None] = {}
    lost = 0
    for line in filter(None, map(str.strip, data.decode("utf-8-sig", "replace").splitlines())):
        folder, name = os.path.split(line.replace("\\", "/"))
        if folder not in folders:
            folders[folder] = _below(root, folder, above=above) if folder.strip("./") else above
        place = folders[folder]
        path = f"{place}/{name}".lstrip("/")
        if place is None:
            pass_over("listed image in a folder that is not there", line)
            lost += 1
        elif path in found:
            pass_over("image that is listed again", line)
        else:
            found[path] = None
    if not found:
        some = f"no folder of {lost:,} images" if lost else "no image"
        raise fault(
            f"{file}: found {some} below {root}; accepted: a path a line, such as images/1.jpg",
            "annotations",
        )
    return list(found)


def labels_beside(image: str) -> str:
    """Where YOLO has the labels of an image: `train/labels/1.txt` of `train/images/1.jpg`; beside it where no folder is `images`."""
    *folders, name = image.split("/")
    for place in reversed(range(len(folders))):
        if folders[place] == "images":
            folders[place] = "labels"
            break
    return "/".join([*folders, f"{os.path.splitext(name)[0]}.txt"])
