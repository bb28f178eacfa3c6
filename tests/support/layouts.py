"""Data sets with annotations as people have them, and what a listing of them tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.kinds import open_source
from stylebatch.data.sources.listing import Listing, list_images
from tests.support.packed import encoded

PNG = encoded(1)
BOX = "0.5 0.5 0.2 0.4"


def put(root: Path, *images: str, **others: str) -> None:
    """Images, and texts by their paths, in which `___` stands for `/` and `__` for a dot."""
    for name in images:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    for name, text in others.items():
        path = root / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def listed(path: Path, annotations: Path | None = None, **options: Any) -> Listing:
    given = options if annotations is None else {"annotations": str(annotations), **options}
    return list_images(open_source(str(path), "contents", SourceOptions(**given)))


def labels(found: Listing) -> dict[str, str]:
    return {item.id: item.label for item in found.items}


def coco(*names: str, label: str = "cat") -> str:
    return json.dumps(
        {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "categories": [{"id": 1, "name": label}],
            "annotations": [
                {"image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(len(names))
            ],
        }
    )


def roboflow(root: Path, **changes: str) -> Path:
    for split in ("train", "valid", "test"):
        put(root, f"{split}/images/{split}.v1.rf.jpg", f"{split}/images/deep/b.png")
        put(root, **{f"{split}___labels___{split}__v1__rf__txt": f"1 {BOX}\n"})
        put(root, **{f"{split}___labels___deep___b__txt": f"0 {BOX}\n"})
    paths = {"train": "../train/images", "val": "../valid/images", "test": "../test/images"}
    told = "".join(f"{key}: {path}\n" for key, path in (paths | changes).items())
    put(root, data__yaml=f"{told}\nnc: 2\nnames: ['cat', 'dog']\nroboflow: {{workspace: x}}\n")
    put(root, README__roboflow__txt="about", README__dataset__txt="about")
    return root
