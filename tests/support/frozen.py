"""The kept pictures of the example manifests, and how far others are from them.

    python -m tests.support.frozen

writes what is rendered now as what is expected.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from tests.support.samples import pixels_of, samples_of

ROOT = Path(__file__).parents[2]
MANIFESTS, FROZEN = ROOT / "manifests", Path(__file__).parents[1] / "data" / "frozen"
LEVELS, KEPT = 0.02, 3
PAIRS = (f"contents.path={MANIFESTS}/demo/contents/animal", "method.steps=5")
CASES: dict[str, tuple[str, ...]] = {
    "demo": PAIRS,
    "demo: paper's start": (*PAIRS, "method.start=paper"),
    "demo: diffusers": (*PAIRS, "method.convention=diffusers", "method.steps=3"),
    "demo: gammas": (*PAIRS, "method.gamma_schedule=cosine", "method.gamma_end_share=0.2"),
    "demo: ab2": (*PAIRS, "method.grid=spread", "method.solver=ab2", "method.steps=4"),
    "demo: dpmpp": (*PAIRS, "method.solver=dpmpp_2m"),
    "demo: bdia": (*PAIRS, "method.inversion=bdia"),
    "demo: masks": (*PAIRS, "contents.masks=MASKS"),
    "blends": (*PAIRS, "method.steps=4"),
    "blends: outputs": (*PAIRS, "method.steps=4", "method.blend=outputs"),
    "img2img": (*PAIRS,),
    "img2img: euler": (*PAIRS, "method.scheduler=euler_ancestral"),
    "inpaint": ("method.steps=3",),
    "inpaint: original": ("method.steps=3", "method.keep_original=true", "method.strength=0.7"),
    "panorama": ("method.steps=2", "image.width=96", "image.height=64", "method.windows.size=16"),
    "panorama: circular": (
        *("method.steps=2", "image.width=96", "image.height=64", "method.windows.size=16"),
        "method.windows.circular=true",
    ),
    "stylealigned": ("method.steps=2",),
    "stylealigned_reference": ("method.steps=3", "method.offset=1"),
    "text2img": ("method.steps=3",),
    "text2img: windows": (
        *("method.steps=2", "method.scheduler=ddim", "image.width=96", "image.height=64"),
        *("method.windows.size=16", "method.windows.stride=8"),
    ),
}
"""By name, a manifest and what is set in it."""


def rendered(name: str, folder: Path, *further: str) -> list[Any]:
    """The pictures of a case, (H, W, 3) each, in order; `further`: what else is set."""
    torch.set_num_threads(1)
    masks = folder / "masks"
    masks.mkdir(parents=True)
    for path in (MANIFESTS / "demo" / "contents" / "animal").iterdir():
        with Image.open(path) as picture:
            mask = Image.new("L", picture.size, 0)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        mask.save(masks / f"{path.stem}.png")
    changes = [text.replace("MASKS", str(masks)) for text in CASES[name]]
    size = [] if any(text.startswith("image.") for text in changes) else ["image.size=64"]
    common = ["engine.threads=1", "engine.name=local", "output.image.format=png"]
    manifest = name.split(":")[0]
    if manifest == "stylealigned_reference":
        common.append(f"features.cache={folder / 'cache'}")
    path, output = MANIFESTS / f"{manifest}.yaml", str(folder / "out")
    result = run(load_spec(path, [*common, *size, *changes, *further], output=output))
    assert result.exit_code == 0
    samples = samples_of(result.output)
    return [pixels_of(sample["png"]) for sample in samples]


def sha256(pixels: Any) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def strip_of(name: str) -> Path:
    return FROZEN / f"{name.replace(': ', '-').replace(' ', '_').replace(chr(39), '')}.png"


def frozen() -> dict[str, list[dict[str, Any]]]:
    return json.loads((FROZEN / "pixels.json").read_text())  # type: ignore[no-any-return]


def distances(name: str, found: list[Any]) -> list[tuple[int, float]]:
    """Of each kept picture of a case from the nearest one found: most levels, and levels on average."""
    sums, told = {sha256(pixels) for pixels in found}, []
    with Image.open(strip_of(name)) as picture:
        strip = np.asarray(picture).astype(int)
    for one in frozen()[name]:
        if one["sha256"] in sums:
            told.append((0, 0.0))
            continue
        kept = strip[: one["height"], one["left"] : one["left"] + one["width"]]
        near = [np.abs(pixels - kept) for pixels in found if pixels.shape == kept.shape]
        told.append(min((int(x.max()), float(x.mean())) for x in near))
    return told


def freeze() -> None:
    """Write what is rendered now as what is expected: at most KEPT pictures of a case, spread over its samples."""
    FROZEN.mkdir(exist_ok=True)
    told: dict[str, list[dict[str, Any]]] = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = rendered(name, Path(folder))
        kept, left = found[:: max(1, len(found) // KEPT)][:KEPT], 0
        size = (max(pixels.shape[0] for pixels in kept), sum(pixels.shape[1] for pixels in kept))
        strip, told[name] = np.zeros((*size, 3), np.uint8), []
        for pixels in kept:
            height, width = pixels.shape[:2]
            strip[:height, left : left + width] = pixels
            place = {"left": left, "width": width, "height": height}
            told[name].append({"sha256": sha256(pixels), **place})
            left += width
        Image.fromarray(strip).save(strip_of(name), optimize=True)
    (FROZEN / "pixels.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    freeze()
