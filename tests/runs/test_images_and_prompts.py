"""Images crossed with prompts: each image is read and encoded once, and a billion crossings are arithmetic."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from stylebatch.data.sources.source import Item, Ref, Sources
from stylebatch.engine.run import run
from stylebatch.manifest import load_spec
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.axes import ImageAxis, PromptAxis
from stylebatch.planning.prompts import Prompts
from stylebatch.planning.resolve import plan
from stylebatch.planning.run_inputs import Inputs
from tests.support.images import write_inputs


def _manifest(folder: Path, values: dict[str, list[str]], **sections: Any) -> Path:
    write_inputs(folder, contents=2, styles=0)
    data = {
        "contents": {"path": "contents"},
        "prompts": {"template": "a {look} {label}", "values": values},
        "method": {"name": "img2img", "steps": 2, "guidance": 1},
        "image": {"size": 32},
        "engine": {"threads": 1},
        "output": {"path": str(folder / "out")},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(data | sections))
    return path


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_an_image_with_six_prompts_is_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    encoded: list[int] = []
    encode = StableDiffusion.encode

    def counting(self: StableDiffusion, images: Tensor) -> Tensor:
        encoded.append(images.shape[0])
        return encode(self, images)

    monkeypatch.setattr(StableDiffusion, "encode", counting)
    looks = {"look": [f"look {n}" for n in range(6)]}
    engine = {"threads": 1, "batch": batch}
    spec = load_spec(_manifest(tmp_path, looks, engine=engine))
    result = run(spec)
    assert (result.report.num_success, sum(encoded)) == (12, 2)
    assert result.report.evaluations == plan(spec).evaluations


def test_a_billion_crossings_are_arithmetic(tmp_path: Path) -> None:
    values = {name: [f"{name}{n}" for n in range(100)] for name in ("look", "place")}
    path = _manifest(tmp_path, values, prompts={"template": "{look} {place}", "values": values})
    spec = load_spec(path)
    assert spec.prompts is not None
    images = tuple(Item(f"{n}.png", Ref(f"/photos/{n}.png"), "cat") for n in range(100_000))
    prompts = PromptAxis(Prompts(spec.prompts, spec.seed, over_images=True))
    started = time.process_time()
    resolved = plan(spec, inputs=Inputs((ImageAxis("image", images), prompts), Sources({})))
    shard = resolved.shard(resolved.shards[-1])
    (*_, (_, samples)) = resolved.samples(shard)
    assert time.process_time() - started < 5
    assert resolved.grid.num_samples == 10**9
    assert samples[-1].prompt is not None
    assert (samples[-1].prompt.image, samples[-1].prompt.prompt) == ("99999.png", "look99 place99")
    assert samples[-1].label == "cat"
