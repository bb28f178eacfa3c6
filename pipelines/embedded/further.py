"""What could save evaluations, or parts of them, beyond the preset `fast`: variants of StyleID that the product does not have.

`docs/beyond_the_paper.md` says what each came to. A variant pays where it costs at most 1/1.2 of `fast` at equal quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from pipelines.embedded.beyond import FEW
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Inverted, SiteFeatures
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from stylebatch.models.unet.unet_loading import as_stable_diffusion


def options() -> list[tuple[str, dict[str, Any] | StyleID]]:
    """The paper, `fast`, then what costs less."""
    bent: list[tuple[str, dict[str, Any] | StyleID]] = [
        (f"{steps}, power {power:g}", {**FEW, "steps": steps, "grid_power": power})
        for steps in (12, 11, 10, 9)
        for power in (1.2, 1.4)
    ]
    fewer: list[tuple[str, dict[str, Any] | StyleID]] = [
        (f"16, contents inverted in {steps}", FewForContents(content_steps=steps, **FEW))
        for steps in (12, 10, 8)
    ]
    reused: list[tuple[str, dict[str, Any] | StyleID]] = [
        (
            f"{steps}, the deep half at each step in {every}",
            DeepHalfReused(every=every, **FEW | {"steps": steps}),
        )
        for steps, every in ((16, 2), (16, 3), (50, 2), (50, 3))
    ]
    return [("50 steps, the paper", {}), ("16, even", FEW), *bent, *fewer, *reused]


class FewForContents(StyleID):
    """Contents are inverted in `content_steps`, fewer than the reverse; queries are those of the nearest timestep."""

    content_steps: int = 8

    def invert(self, model: Denoiser, latents: Tensor, kind: Any, **options: Any) -> Inverted:
        if kind != "query":
            return super().invert(model, latents, kind, **options)
        mine = {name: value for name, value in self.model_dump().items() if name != "content_steps"}
        own = StyleID.model_validate(mine | {"steps": self.content_steps})
        found = own.invert(model, latents, kind, **options)
        times = [step.t for step in own.trajectory(model).reverse]
        return replace(found, features=_Nearest(found.features.at, times))


@dataclass(frozen=True)
class _Nearest:
    """Features of the nearest timestep that has some."""

    features: Callable[[float], SiteFeatures]
    times: list[float]

    def at(self, t: float) -> SiteFeatures:
        return self.features(min(self.times, key=lambda known: abs(known - t)))


class DeepHalfReused(StyleID):
    """The levels below the injected sites are evaluated at each `every`-th step only, and reused between (arXiv 2312.00858)."""

    every: int = 2

    def _invert_batch(self, model: Denoiser, *arguments: Any) -> Inverted:
        with _deep_half_reused(as_stable_diffusion(model), self.every):
            return super()._invert_batch(model, *arguments)

    def stylise(self, model: Denoiser, *arguments: Any, **options: Any) -> Tensor:
        with _deep_half_reused(as_stable_diffusion(model), self.every):
            return super().stylise(model, *arguments, **options)


@contextmanager
def _deep_half_reused(model: StableDiffusion, every: int) -> Iterator[None]:
    """For one walk, whose steps have the same batches in the same order. The deep half: `down_blocks[2:]` to `up_blocks[:2]`."""
    unet, former = model.unet, model.predict_noise
    deep = [*unet.down_blocks[2:], unet.mid_block, *unet.up_blocks[:2]]
    forwards = [block.forward for block in deep]
    kept: dict[tuple[int, int], Any] = {}
    now = {"t": -1.0, "step": -1, "batch": 0}

    def predict(x: Tensor, t: float, *arguments: Any, **options: Any) -> Tensor:
        now["batch"] += 1
        if t != now["t"]:
            now.update(t=t, step=now["step"] + 1, batch=0)
        return former(x, t, *arguments, **options)

    def forward(index: int, *arguments: Any, **options: Any) -> Any:
        place = (index, int(now["batch"]))
        if now["step"] % every == 0:
            kept[place] = forwards[index](*arguments, **options)
        return kept[place]

    for index, block in enumerate(deep):
        block.forward = partial(forward, index)
    model.predict_noise = predict  # type: ignore[method-assign]
    try:
        yield
    finally:
        model.predict_noise = former  # type: ignore[method-assign]
        for block, evaluate in zip(deep, forwards, strict=True):
            block.forward = evaluate
