"""Manifests of prompts on small models: one of each method over a few pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

from tests.support.images import picture

METHODS = ("text2img", "img2img", "inpaint", "stylealigned", "reference", "panorama")
ROWS = {
    "text2img": "prompt,label,seed,negative_prompt\na cat,cat,3,\na dog,dog,,blurred\na bird,,,\n",
    "img2img": "prompt,image,label\na cat,0.png,cat\na dog,1.png,dog\na dog,0.png,dog\n",
    "inpaint": "prompt,image,mask,caption\na cat,0.png,half.png,half a cat\na dog,1.png,half.png,\n",
    "stylealigned": "prompt,style,label\na cat,s,cat\na dog,s,dog\na bird,t,\na fish,s,\na tree,s,\n",
    "reference": "prompt,style,reference,reference_prompt\na cat,s,0.png,waves\na dog,s,0.png,waves\na hen,t,1.png,\n",
    "panorama": "prompt,style\na cat,s\na dog,s\na hen,s\n",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "text2img": {"name": "text2img", "scheduler": "euler_ancestral"},
    "img2img": {"name": "img2img", "strength": 0.7},
    "inpaint": {"name": "inpaint", "scheduler": "dpmpp"},
    "stylealigned": {"name": "stylealigned"},
    "reference": {"name": "stylealigned", "offset": 1, "shared_score_shift": 0.3},
    "panorama": {"name": "stylealigned", "windows": {"size": 16, "stride": 8}},
}


def write_images(folder: Path) -> None:
    """Two pictures and a mask of their size, its left half white."""
    for index in range(2):
        picture(index).save(folder / f"{index}.png")
    mask = Image.new("L", (96, 80), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 47, 79), fill=255)
    mask.save(folder / "half.png")


def write_prompts(folder: Path, kind: str, model: Path | str, **changes: Any) -> Path:
    """A manifest of one of `METHODS` with its rows: 128 px, 3 steps, shards of 2."""
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder)
    (folder / "rows.csv").write_text(ROWS[kind])
    data: dict[str, Any] = {
        "name": kind,
        "prompts": {"path": "rows.csv"},
        "method": OPTIONS[kind] | {"steps": 3, "guidance": 3},
        "model": model if isinstance(model, str) else {"path": str(model)},
        "image": {"size": 128} | ({"width": 256} if kind == "panorama" else {}),
        "output": {"path": str(folder / "out"), "shard_size": 2},
        "engine": {"name": "local", "threads": 1, "batch": 8},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    return path
