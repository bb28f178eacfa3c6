"""A small detection data set: pictures with a bright rectangle each, and where it is, as COCO, Pascal VOC or YOLO."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from tests.support.images import picture

BOXES = {"a.png": (30, 10, 24, 20), "sub/b.png": (0, 0, 12, 12), "c.jpg": (40, 16, 16, 24)}
"""Left, top, width, height in the displayed picture of 80 x 48; of b.png nothing is in the middle square."""
CATEGORIES = ("cat", "dog", "bird")
LABELS = {"a.png": "dog", "sub/b.png": "cat", "c.jpg": "dog"}
SIZE = (80, 48)


def write_images(folder: Path) -> None:
    """The pictures; c.jpg lies on its side, and its EXIF says so."""
    for name, (left, top, across, down) in BOXES.items():
        pixels = np.asarray(picture(len(name), *SIZE)) // 4
        pixels[top : top + down, left : left + across] = 255
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Image.fromarray(pixels)
        if name.endswith(".jpg"):
            exif = Image.Exif()
            exif[0x0112] = 6
            made.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
        else:
            made.save(path)


def write_coco(path: Path, *, masks: bool = False) -> dict[str, Any]:
    """COCO with a polygon (or mask: packed, of c.jpg a crowd's), keypoints and further columns of images; of c.jpg in its stored pixels."""
    images, annotations = [], []
    for number, (name, (left, top, across, down)) in enumerate(BOXES.items(), 1):
        width, height = SIZE
        box = [left, top, across, down]
        if name.endswith(".jpg"):
            # what is displayed at (x, y) is stored at (y, 80 - x)
            width, height = height, width
            box = [top, 80 - left - across, down, across]
        x, y, wide, tall = box
        shape: Any = [[x, y, x + wide, y, x + wide, y + tall, x, y + tall]]
        if masks:
            pixels = np.zeros((height, width), np.uint8, order="F")
            pixels[y : y + tall, x : x + wide] = 1
            shape = coco.encode(pixels)
            shape["counts"] = shape["counts"].decode()
            if name.endswith(".jpg"):
                runs = [len(list(run)) for _, run in groupby(pixels.ravel(order="F"))]
                shape["counts"] = runs if not pixels[0, 0] else [0, *runs]
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": width,
                "height": height,
                "year": 2000 + number,
            }
        )
        annotations.append(
            {
                "id": number, "image_id": number, "category_id": 1 + CATEGORIES.index(LABELS[name]), "bbox": box,
                "iscrowd": int(masks and name == "c.jpg"),
                "area": wide * tall, "segmentation": shape,
                "keypoints": [x + wide / 2, y + tall / 2, 2], "num_keypoints": 1,
            }
        )  # fmt: skip
    found = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CATEGORIES)],
    }
    path.write_text(json.dumps(found))
    return found


def write_segmentation(folder: Path) -> None:
    """Label images of the displayed pictures: 7 in the rectangle, 255 beside it."""
    for name, (left, top, across, down) in BOXES.items():
        labels = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
        labels[top : top + down, left : left + across] = 7
        path = (folder / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Image.fromarray(labels)
        made.putpalette([0, 0, 0, 250, 0, 0] * 128)
        made.save(path)


def write_voc(folder: Path) -> None:
    """XML of the displayed pictures."""
    for name, (left, top, across, down) in BOXES.items():
        path = (folder / name).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + across}</xmax><ymax>{top + down}</ymax>"
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        path.write_text(
            f"<annotation>{size}<object><name>{LABELS[name]}</name><difficult>1</difficult><bndbox>{box}</bndbox></object></annotation>"
        )


def write_yolo(folder: Path) -> None:
    """Text in fractions of the displayed pictures."""
    for name, (left, top, across, down) in BOXES.items():
        path = (folder / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = (
            (left + across / 2) / SIZE[0],
            (top + down / 2) / SIZE[1],
            across / SIZE[0],
            down / SIZE[1],
        )
        path.write_text(f"{CATEGORIES.index(LABELS[name])} {' '.join(map(str, numbers))}\n")
    (folder / "classes.txt").write_text("\n".join(CATEGORIES))
