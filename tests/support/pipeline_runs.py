"""The same pictures by a run of a manifest and by a call of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

import stylebatch
from stylebatch import StyleAlignedPipeline, StyleIDPipeline
from stylebatch.manifest import load_spec
from tests.support.images import picture, write_inputs
from tests.support.samples import pixels_of, samples_of

SEEDS = {"a cat": 3, "a dog": 5, "a bird": 8}


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def rendered(folder: Path, model: Path, side: int, **sections: Any) -> dict[tuple[str, str], Any]:
    """Pictures of a run by content and style, or by prompt and set."""
    torch.set_num_threads(1)
    data = {
        "name": "parity",
        "model": {"path": str(model)},
        "image": {"size": side},
        "engine": {"name": "local", "threads": 1, "batch": 8},
        "output": {"path": str(folder / "out"), "image": {"format": "png"}},
        **sections,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(data))
    assert stylebatch.run(load_spec(folder / "run.yaml")).exit_code == 0
    found = {}
    for sample in samples_of(folder / "out"):
        row = json.loads(sample["json"])
        place = (row.get("content_id") or row["prompt"], row.get("style_id") or row["style"])
        found[place] = pixels_of(sample["png"])
    return found


def styleid_both_ways(folder: Path, model: Path, side: int) -> Iterator[tuple[Any, Any]]:
    """Each picture of two contents in two styles, by a run and by a call."""
    write_inputs(folder, contents=2, styles=2)
    inputs = {"contents": {"path": "contents"}, "styles": {"path": "styles"}}
    method = {"name": "styleid", "steps": 2, "gamma": 0.6}
    by_run = rendered(folder, model, side, method=method, **inputs)
    contents = sorted((folder / "contents").rglob("*.png"))
    styles = sorted((folder / "styles").iterdir())
    pipe = quiet(StyleIDPipeline.from_pretrained(model))
    made = pipe(
        [Image.open(path) for path in contents], [str(path) for path in styles],
        pairing="product", gamma=0.6, batch_size=8, num_inference_steps=2, height=side, width=side,
    ).images  # fmt: skip
    assert len(by_run) == len(made) == 4
    for (content, style), pixels in by_run.items():
        row = [path.name for path in contents].index(Path(content).name)
        column = [path.name for path in styles].index(Path(style).name)
        yield pixels, made[2 * row + column]


def stylealigned_both_ways(
    folder: Path, model: Path, side: int, *, by_image: bool
) -> Iterator[tuple[Any, Any]]:
    """Each picture of three prompts of a set, by a run and by a call; `by_image`: with a reference image."""
    picture(3).save(folder / "wave.png")
    columns, rest = (",reference,reference_prompt", ",wave.png,waves") if by_image else ("", "")
    lines = [f"{text},one,{seed}{rest}" for text, seed in SEEDS.items()]
    (folder / "rows.csv").write_text("\n".join([f"prompt,style,seed{columns}", *lines]))
    method = {"name": "stylealigned", "steps": 2, "guidance": 3}
    by_run = rendered(folder, model, side, method=method, prompts={"path": "rows.csv"})
    pipe = quiet(StyleAlignedPipeline.from_pretrained(model))
    style = {"style_image": folder / "wave.png", "style_prompt": "waves"} if by_image else {}
    made = pipe(
        list(SEEDS), guidance_scale=3, generator=[torch.Generator().manual_seed(seed) for seed in SEEDS.values()],
        batch_size=8, num_inference_steps=2, height=side, width=side, **style,
    ).images  # fmt: skip
    assert len(by_run) == len(made) == 3
    for text, one in zip(SEEDS, made, strict=True):
        yield by_run[text, "one"], one
