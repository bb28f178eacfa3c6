"""How far the presets of the prompt methods are from where many steps lead, on the example manifests and the embedded model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipelines.embedded.picture_distances import psnr
from stylebatch.data.images import Pixels
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
EXAMPLES = ("text2img", "img2img", "inpaint", "stylealigned")
REFERENCE: dict[str, Any] = {"steps": 250}
"""Of DDIM, whose 50 steps are the preset `paper`."""
PRESETS = ("paper", "fast", "draft")
LOSSLESS = ("output.format=files", "output.image={format: png}", "output.inputs=false")
HEADER = "| method | preset | steps | mean PSNR to 250 steps | least |\n|---|---|---|---|---|"


def lines(examples: Iterable[str] = EXAMPLES) -> Iterable[str]:
    """The table, a method at a time."""
    yield HEADER
    for name in examples:
        with tempfile.TemporaryDirectory() as folder:
            expected, _ = _rendered(name, REFERENCE, Path(folder) / "reference")
            for preset in PRESETS:
                found, steps = _rendered(name, {"preset": preset}, Path(folder) / preset)
                near = [psnr(found[key], pixels) for key, pixels in expected.items()]
                yield f"| `{name}` | {preset} | {steps} | {np.mean(near):.1f} dB | {min(near):.1f} dB |"


def _rendered(name: str, options: dict[str, Any], output: Path) -> tuple[dict[str, Pixels], int]:
    """Pictures of an example manifest by their names, and the steps that they took."""
    path = MANIFESTS / f"{name}.yaml"
    method = yaml.safe_load(path.read_text(encoding="utf-8"))["method"]
    chosen = {key: value for key, value in method.items() if key not in ("steps", "scheduler")}
    spec = load_spec(path, [f"method={json.dumps(chosen | options)}", *LOSSLESS])
    run(spec.model_copy(update={"output": spec.output.model_copy(update={"path": str(output)})}))
    pictures = sorted((output / "images").rglob("*.png"))
    return {one.name: np.asarray(Image.open(one)) for one in pictures}, int(
        spec.method.model_dump()["steps"]
    )
