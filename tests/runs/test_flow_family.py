"""A flow-matching family of a page walks through the methods and rules as they are, and ends where mathematics says.

As a row of the table of families it is planned and rendered like the built-in ones (`tests/support/toy_flow.py`).
"""

from __future__ import annotations

import inspect
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import stylebatch
from stylebatch.cli import main
from stylebatch.diffusion import ddim
from stylebatch.diffusion.schedule import Step
from stylebatch.diffusion.solvers import Rule, State, advance
from stylebatch.errors import ManifestError
from stylebatch.methods.pixels import to_pixels
from stylebatch.methods.plain.algorithm import Img2Img, Text2Img
from stylebatch.methods.samples import Samples
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.models.denoiser import Denoiser, SelfAttention
from stylebatch.models.families import FAMILIES
from tests.support.samples import pixels_of, samples_of
from tests.support.toy_flow import MEAN, STD, Flow, FlowSchedule, ToyFlow


def rows(model: Denoiser, **images: Tensor) -> Samples:
    return Samples(("a", "b"), (None, "c"), (1, 2), (3, 8, 12), images)


def moments(level: float) -> tuple[float, float]:
    """Mean and standard deviation of x_t."""
    return (1.0 - level) * MEAN, (((1.0 - level) * STD) ** 2 + level**2) ** 0.5


def flow(x: Tensor, source: float, target: float) -> Tensor:
    """Where the exact solution takes `x`: the flow keeps (x_t - mean_t) / std_t."""
    (mean, std), (end_mean, end_std) = moments(source), moments(target)
    return end_mean + end_std * (x - mean) / std


@pytest.fixture
def model() -> Denoiser:
    return Flow()


def test_a_family_is_sixty_lines() -> None:
    lines = Path(inspect.getfile(Flow)).read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 60


def test_a_network_without_self_attention_refuses_edits(model: Denoiser) -> None:
    def edit(site: int, hidden: Tensor, layer: SelfAttention) -> Tensor:
        return hidden

    for enter in (
        lambda: model.editing(edit, (6,)),
        lambda: model.editing_layers(edit, (0,)),
        lambda: model.sharing_norms(lambda rows: torch.zeros(rows)),
    ):
        with pytest.raises(ValueError, match="Flow has no self-attention that takes edits"):
            enter()
    assert model.num_self_attentions == 0


@pytest.mark.parametrize("options", [{}, {"guidance": 3.0}, {"windows": {"size": 8, "stride": 4}}])
def test_text2img_follows_the_flow_at_first_order(model: Denoiser, options: dict) -> None:  # type: ignore[type-arg]
    samples = rows(model)
    expected = flow(samples.noise(), 1.0, 0.0)
    errors = [
        float((Text2Img(steps=n, **options).render(model, samples) - expected).abs().max())
        for n in (20, 40, 80)
    ]
    assert errors[2] < 0.05
    assert all(1.8 < a / b < 2.2 for a, b in pairwise(errors))


def test_img2img_starts_on_the_straight_line_to_noise(model: Denoiser) -> None:
    images = torch.linspace(-1, 1, 2 * 3 * 8 * 12).view(2, 3, 8, 12)
    samples = rows(model, image=images)
    start = 0.5 * images + 0.5 * samples.noise()
    found = Img2Img(steps=200, strength=0.5, guidance=1.0).render(model, samples)
    torch.testing.assert_close(found, flow(start, 0.5, 0.0), rtol=0.0, atol=2e-2)
    untouched = Img2Img(steps=10, strength=0.0, guidance=1.0).render(model, samples)
    assert torch.equal(untouched, images)


@pytest.mark.parametrize(("rule", "least"), [("ddim", 1.9), ("ab2", 3.4), ("dpmpp_2m", 3.2)])
def test_every_rule_keeps_its_order_from_noise_without_signal(
    model: Denoiser, rule: Rule, least: float
) -> None:
    noise, cond, errors = rows(model).noise().double(), model.embed_nothing(), []
    for num in (50, 100):
        state = State(noise)
        for step in model.schedule.sampling_steps(num):
            estimate = model.predict_noise(state.x, step.t, cond)
            state = advance(rule, model.schedule, state, estimate, step)
        errors.append(float((state.x - flow(noise, 1.0, 0.0)).abs().max()))
    assert errors[0] / errors[1] > least


def test_inversion_begins_at_a_level_without_noise(model: Denoiser) -> None:
    clean, down = (
        torch.linspace(-1, 2, 24).double().view(1, 3, 2, 4),
        FlowSchedule().sampling_steps(400),
    )
    up = [Step(1000.0 * step.target, step.target, step.source) for step in reversed(down)]

    def predict(x: Tensor, step: Step) -> Tensor:
        return model.predict_noise(x, step.t, model.embed_nothing())

    noise = ddim.run(model.schedule, predict, clean, up)
    torch.testing.assert_close(noise, flow(clean, 0.0, 1.0), rtol=0.0, atol=2e-2)
    back = ddim.run(model.schedule, predict, noise, down)
    torch.testing.assert_close(back, clean, rtol=0.0, atol=2e-2)


def test_what_needs_training_timesteps_says_so(model: Denoiser) -> None:
    with pytest.raises(ValueError, match=r"found levels of FlowSchedule; accepted here: a table"):
        StyleID().trajectory(model)
    with pytest.raises(ValueError, match=r"found levels of FlowSchedule"):
        Text2Img(scheduler="euler").render(model, rows(model))


SIDE = 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the toy family, which the table of families has for one test."""
    monkeypatch.setitem(FAMILIES, "ToyFlow", ToyFlow)
    config = tmp_path / "toy" / "transformer" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"_class_name": "ToyFlow", "side": SIDE}))
    return tmp_path / "toy"


def written(folder: Path, **method: object) -> Path:
    """A manifest of two prompts, or of pairs for StyleID."""
    inputs: dict[str, object] = {"prompts": {"template": "a {thing}", "values": {"thing": ["cat", "dog"]}}}  # fmt: skip
    if method["name"] == "styleid":
        pictures = str(Path(__file__).parents[2] / "manifests" / "demo")
        inputs = {
            "contents": {"path": f"{pictures}/contents"},
            "styles": {"path": f"{pictures}/styles"},
        }
    manifest = folder.parent / "run.yaml"
    manifest.write_text(
        json.dumps(
            {
                "model": {"path": str(folder)},
                "method": method,
                "output": {"path": str(folder.parent / "out"), "image": {"format": "png"}},
                **inputs,
            }
        )
    )
    return manifest


def test_a_family_is_a_folder_and_a_row_of_a_table(folder: Path) -> None:
    spec = stylebatch.load_spec(written(folder, name="text2img", steps=80, guidance=1.0))
    planned = stylebatch.plan(spec)
    assert (planned.image_size, planned.evaluations) == ((SIDE, SIDE), 160)
    done = stylebatch.run(spec)
    assert (done.exit_code, done.num_attempted) == (0, 2)
    found = list(samples_of(done.output))
    seeds = tuple(json.loads(sample["json"])["seed"] for sample in found)
    noise = Samples(("", ""), (None, None), seeds, (3, SIDE, SIDE)).noise()
    expected = to_pixels(flow(noise, 1.0, 0.0).clamp(-1.0, 1.0))
    for sample, pixels in zip(found, expected, strict=True):
        assert np.abs(pixels_of(sample["png"]).astype(int) - pixels).max() <= 5
    assert stylebatch.run(spec).num_attempted == 0


@pytest.mark.parametrize(
    ("method", "field", "accepted"),
    [
        ({"name": "styleid"}, "method.name: found styleid", "text2img, img2img, inpaint"),
        ({"name": "text2img", "scheduler": "euler"}, "method.scheduler: found euler", "ddim"),
        ({"name": "stylealigned"}, "method.name: found stylealigned", "text2img"),
    ],
)
def test_the_plan_refuses_what_the_family_has_not(
    folder: Path,
    method: dict[str, str],
    field: str,
    accepted: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", str(written(folder, **method))]) == 2
    told = capsys.readouterr().err
    assert field in told
    assert "Toy Flow" in told
    assert accepted in told.partition("accepted")[2]
    assert not (folder.parent / "out").exists()


def test_an_architecture_of_no_family_is_refused_by_name(folder: Path) -> None:
    (folder / "transformer" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    spec = stylebatch.load_spec(written(folder, name="text2img"))
    with pytest.raises(ManifestError, match=r"transformer.*_class_name.*Flux.*UNet2DCond.*ToyFlow"):
        stylebatch.plan(spec)
