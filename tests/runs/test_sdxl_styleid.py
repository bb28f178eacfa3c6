"""StyleID on a small SDXL checkpoint: its sites, its null prompt, and a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import torch

import stylebatch
from stylebatch import RunSpec
from stylebatch.methods.styleid.algorithm import Pairs, StyleID
from stylebatch.methods.styleid.features import HeldFeatures
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.models.family import NUM_SITES
from stylebatch.models.loading import load_checkpoint
from stylebatch.models.unet.edits import decoder_sites
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.planning.resolve import plan
from tests.support.golden import GOLDEN
from tests.support.images import picture
from tests.support.styleid import rel

FOLDER = GOLDEN / "stylealigned_sdxl" / "model"
SITES = (0, 1, 2, 3, 4, 5)
LATENTS = 0.8 * torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def xl() -> StableDiffusion:
    return load_checkpoint(Checkpoint(FOLDER), device="cpu")


def spec(folder: Path, **changes: Any) -> RunSpec:
    for side in ("contents", "styles"):
        (folder / side).mkdir(exist_ok=True)
        for i in range(2):
            picture(10 * len(side) + i, 64, 64).save(folder / side / f"{i}.png")
    return RunSpec.model_validate(
        {
            "contents": {"path": str(folder / "contents")},
            "styles": {"path": str(folder / "styles")},
            "method": {"name": "styleid", "steps": 4},
            "model": {"path": str(FOLDER)},
            "image": {"size": 64},
            "engine": {"threads": 1},
            "output": {"path": str(folder / "out")},
            **changes,
        }
    )


def test_every_block_of_a_transformer_is_a_layer_of_its_site(xl: StableDiffusion) -> None:
    assert xl.sites == Checkpoint(FOLDER).sites == SITES
    layers = decoder_sites(xl.unet)
    assert sorted(layers) == [*SITES, *(site + NUM_SITES for site in SITES)]  # two blocks each
    third = xl.unet.up_blocks[1].attentions[0].transformer_blocks
    assert layers[3] is third[0].attn1
    assert layers[3 + NUM_SITES] is third[1].attn1


def test_an_edit_is_installed_in_all_layers_of_its_sites(xl: StableDiffusion) -> None:
    seen: list[int] = []

    def edit(number: int, hidden: torch.Tensor, layer: Any) -> torch.Tensor:
        seen.append(number)
        return cast(torch.Tensor, layer.output(layer.value(hidden)))

    with xl.editing(edit, (1, 4)):
        xl.predict_noise(LATENTS[:1], 501, xl.embed_nothing())
    assert sorted(seen) == [1, 4, 1 + NUM_SITES, 4 + NUM_SITES]


def test_the_default_sites_stand_for_those_of_sdxl(tmp_path: Path) -> None:
    assert plan(spec(tmp_path)).spec.method.sites == SITES
    chosen = {"name": "styleid", "steps": 4, "sites": [3, 4, 5]}
    assert plan(spec(tmp_path, method=chosen)).spec.method.sites == (3, 4, 5)


def test_planned_memory_is_that_of_the_features(xl: StableDiffusion, tmp_path: Path) -> None:
    planned = plan(spec(tmp_path)).spec
    method = StyleID(steps=4, sites=SITES)
    cells = 64 // Checkpoint(FOLDER).family.sizes.latent_factor
    inverted = method.invert(xl, torch.randn(1, 4, cells, cells), "query")
    held = cast(HeldFeatures, inverted.features).by_timestep
    found = sum(t["q"].numel() for sites in held.values() for t in sites.values())
    assert planned.options.feature_bytes(Checkpoint(FOLDER).family.memory((64, 64), 4)) == 4 * found


def test_block_equals_one_pair_at_a_time(xl: StableDiffusion) -> None:
    method = StyleID(steps=4, sites=SITES)
    contents = method.invert(xl, LATENTS[:2], "query")
    styles = method.invert(xl, LATENTS[2:], "key_value")
    block = method.stylise(xl, contents, styles)
    for index, (style, content) in enumerate((s, c) for s in range(2) for c in range(2)):
        alone = method.stylise(
            xl,
            method.invert(xl, LATENTS[[content]], "query"),
            method.invert(xl, LATENTS[[2 + style]], "key_value"),
            Pairs((0,), (0,)),
        )
        assert rel(block[[index]], alone) < 1e-4
    assert rel(block[:2], block[2:]) > 1e-2


def test_content_stylised_by_itself_returns(xl: StableDiffusion) -> None:
    method = StyleID(steps=4, sites=SITES, gamma=1.0, tau=1.0, inversion="bdia")
    own = method.invert(xl, LATENTS[:2], "query")
    lent = method.invert(xl, LATENTS[:2], "key_value")
    assert rel(method.stylise(xl, own, lent, Pairs((0, 1), (0, 1))), LATENTS[:2]) < 1e-3


def test_a_run_of_sdxl_is_rendered_and_resumed(tmp_path: Path) -> None:
    manifest = spec(tmp_path, features={"source": "cached", "cache": str(tmp_path / "cache")})
    result = stylebatch.run(manifest)
    assert result.exit_code == 0
    rows = pq.read_table(next((tmp_path / "out").glob("metadata/*00.parquet"))).to_pylist()
    assert [row["status"] for row in rows] == ["success"] * 4
    assert rows[0]["sites"] == list(SITES)
    assert stylebatch.run(manifest).num_attempted == 0
