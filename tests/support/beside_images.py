"""Folders of images with sidecars, tables and annotations beside them, as untidy as they come."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.packed import encoded


def write_beside(here: Path) -> None:
    """The folders `beside`, `rowed`, `00000` and `set`, of which each lacks some."""
    box, caption = "1 0.5 0.5 0.2 0.4\n", {"caption": ["one", "two"], "year": 1999, "label": "fox"}
    texts = {
        "beside/cat/0.txt": "a cat\n", "beside/cat/1.json": json.dumps(caption), "beside/cat/2.cls": "7", "beside/.h/x.txt": "x",
        "beside/cat/3.txt": "0 0.5 0.5 0.1 0.1", "beside/dog/0.json": "broken", "beside/dog/1.txt": "", "beside/notes.txt": "x",
        "rowed/metadata.csv": "file_name,text,width\n0.png,zero,3\nb/1.png,one,4\ngone.png,x,5\n",
        "00000/00000_stats.json": "{}", "00000/00000/0.json": '{"url": "u"}',
        "set/labels/train/0.txt": box, "set/labels/val/b/1.txt": box, "set/labels/val/2.txt": "", "set/labels/classes.txt": "x\ny\n",
        "set/voc/train/0.xml": "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
        "</bndbox></object></annotation>",
        "set/data.yaml": "train: ../images/train\nval: ../images/val\nnames: [x, y]\n",
    }  # fmt: skip
    for split in ("train", "val"):
        coco = {
            "images": [{"id": 1, "file_name": "0.png", "year": 5}],
            "categories": [{"id": 1, "name": split}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
        }
        texts[f"set/coco/instances_{split}2017.json"] = json.dumps(coco)
    for name, text in texts.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in (
        *(f"beside/cat/{i}" for i in range(5)), "beside/dog/0", "beside/dog/1", "beside/.h/x", "rowed/0", "rowed/b/1", "rowed/b/2",
        "00000/00000/0", "set/images/train/0", "set/images/val/0", "set/images/val/b/1", "set/images/val/2",
    ):  # fmt: skip
        path = here / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(len(name)))
