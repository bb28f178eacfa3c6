"""What could save evaluations, or parts of them, beyond the preset `fast`: variants of StyleID that the product does not have.

`docs/beyond_the_paper.md` says what each came to. A variant pays where it costs at most 1/1.2 of `fast` at equal quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Inverted, SiteFeatures
from stylebatch.models.denoiser import Denoiser
from stylebatch.models.unet.stable_diffusion import StableDiffusion


class FewForContents(StyleID):
    """Contents are inverted in `content_steps`, fewer than the reverse; queries are those of the nearest timestep."""

    content_steps: int = 8

    def invert(self, model: Denoiser, latents: Tensor, kind: Any, **options: Any) -> Inverted:
        if kind != "query":
            return super().invert(model, latents, kind, **options)
        own = StyleID.model_validate(
            {name: getattr(self, name) for name in StyleID.model_fields}
            | {"steps": self.content_steps, "preset": None}
        )
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


@contextmanager
def deep_half_reused(model: StableDiffusion, every: int) -> Iterator[None]:
    """The levels below the injected sites are evaluated at each `every`-th step only, and reused between (arXiv 2312.00858).

    They are `down_blocks[2:]`, the middle, and `up_blocks[:2]`. Batches of a step come in the same order at each step.
    """
    unet, former = model.unet, model.predict_noise
    deep = [*unet.down_blocks[2:], unet.mid_block, *unet.up_blocks[:2]]
    kept: dict[tuple[int, int], Any] = {}
    now = {"t": -1.0, "step": -1, "batch": 0}

    def predict(x: Tensor, t: float, *arguments: Any, **options: Any) -> Tensor:
        now["batch"] += 1
        if t != now["t"]:
            now.update(t=t, step=now["step"] + 1, batch=0)
        return former(x, t, *arguments, **options)

    def wrapped(index: int, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any, **options: Any) -> Any:
            place = (index, int(now["batch"]))
            if now["step"] % every == 0 or place not in kept:
                kept[place] = evaluate(*arguments, **options)
            return kept[place]

        return forward

    evaluations = [block.forward for block in deep]
    for index, block in enumerate(deep):
        block.forward = wrapped(index, block.forward)
    model.predict_noise = predict  # type: ignore[method-assign]
    try:
        yield
    finally:
        model.predict_noise = former  # type: ignore[method-assign]
        for block, forward in zip(deep, evaluations, strict=True):
            block.forward = forward
