"""The structure of the paper's code beside ours: one pair at a time, attention written out, features from disk.

Written anew from the paper and its published options; what is kept of the original is its shape:
1. every image is inverted alone; q, k, v of the injected sites at all timesteps go to a file;
2. for each pair both files are read, the features merged, and the pair is rendered alone;
3. attention is softmax(q k^T) as a matrix, in every layer of the network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from stylebatch.bench import workload
from stylebatch.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.diffusion import attention, ddim
from stylebatch.methods.lanes import Lanes
from stylebatch.methods.styleid import StyleID
from stylebatch.models.base import SelfAttention, Site
from stylebatch.models.stable_diffusion import StableDiffusion

LARGEST_DIFFERENCE = 1e-4


def materialised(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v with the matrix of weights in memory; (B, H, L, d) each."""
    return torch.softmax(q @ k.transpose(-1, -2) * scale, dim=-1) @ v


class MaterialisedProcessor:
    """Stands in for the fused attention of every layer, cross-attention included."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        other = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(other), attn.to_v(other)
        heads = int(attn.heads)
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = materialised(q, k, v, float(attn.scale))
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


@contextmanager
def everywhere_materialised(model: StableDiffusion) -> Iterator[None]:
    """All attention layers of the network without fused kernels, for a `with` block."""
    former = dict(model.unet.attn_processors)
    model.unet.set_attn_processor({name: MaterialisedProcessor() for name in former})
    try:
        yield
    finally:
        model.unet.set_attn_processor(former)


@dataclass
class _Keep:
    """Edit of the inversion: keeps q, k, v."""

    seen: dict[str, Tensor]
    t: int = 0

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        q, k, v = layer.query(hidden), layer.key(hidden), layer.value(hidden)
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            self.seen[f"{self.t}.{site}.{name}"] = tensor.contiguous()
        return layer.output(materialised(q, k, v, layer.scale))


@dataclass
class _Inject:
    """Edit of the reverse: the merged features of one pair."""

    merged: dict[str, Tensor]
    gamma: float
    tau: float
    t: int = 0

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        place = f"{self.t}.{site}"
        q = self.gamma * self.merged[f"{place}.q"] + (1.0 - self.gamma) * layer.query(hidden)
        k, v = self.merged[f"{place}.k"], self.merged[f"{place}.v"]
        return layer.output(materialised(q, k, v, self.tau * layer.scale))


class OnePairAtATime:
    """StyleID in the shape of the paper's code; files in `folder`."""

    def __init__(self, model: StableDiffusion, method: StyleID, folder: Path) -> None:
        self.model, self.method, self.folder = model, method, folder
        self.path = method.trajectory(model)
        self.cond = model.embed([""])
        self.reading_s = 0.0

    @torch.inference_mode()
    def invert(self, name: str, latent: Tensor) -> None:
        """Invert one latent (1, c, h, w) and write its features."""
        keep = _Keep({})
        used = {step.t for step in self.path.reverse}
        x = latent
        with everywhere_materialised(self.model), self.model.editing(keep, self.method.sites):
            for step in self.path.inversion:
                keep.t = step.t
                eps = self.model.predict_noise(x, step.t, self.cond, level=step.source)
                x = ddim.ddim_step(self.model.schedule, x, eps, step)
        kept = {key: value for key, value in keep.seen.items() if int(key.split(".")[0]) in used}
        safetensors.torch.save_file({"latent": x, **kept}, self._file(name))

    @torch.inference_mode()
    def stylise(self, content: str, style: str) -> Tensor:
        """Render one pair from the two files; (1, c, h, w)."""
        loaded: dict[str, dict[str, Tensor]] = {}

        def read() -> None:
            for name in (content, style):
                loaded[name] = safetensors.torch.load(self._file(name).read_bytes())

        self.reading_s += workload.seconds(read)
        own, other = loaded[content], loaded[style]
        merged = {key: (own if key.endswith("q") else other)[key] for key in own if key != "latent"}
        x = attention.adain(own["latent"], other["latent"])
        inject = _Inject(merged, self.method.gamma, self.method.tau)
        with everywhere_materialised(self.model), self.model.editing(inject, self.method.sites):
            for step in self.path.reverse:
                inject.t = step.t
                eps = self.model.predict_noise(x, step.t, self.cond, level=step.source)
                x = ddim.ddim_step(self.model.schedule, x, eps, step)
        return x

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def naive(size: Size) -> Outcome:
    """Seconds of both over the same grid; ours in between the two halves of the other's pairs."""
    with tempfile.TemporaryDirectory() as folder, workload.threads(size.threads):
        return _compare(size, Path(folder))


def _compare(size: Size, folder: Path) -> Outcome:
    side, steps = size.of(8, 2), size.of(50, 4)
    model, method = workload.loaded(), workload.method(steps)
    counted: list[int] = []
    model.on_evaluations = counted.append
    images = {kind: workload.latents(model, side, first_seed=s) for kind, s in (("c", 0), ("s", 9))}
    original = OnePairAtATime(model, method, folder)
    took: dict[str, float] = dict.fromkeys(("invert", "stylise", "decode"), 0.0)
    ours: dict[str, float] = dict(took)

    def invert_alone() -> None:
        for kind, latents in images.items():
            for row, latent in enumerate(latents.split(1)):
                original.invert(f"{kind}{row}", latent)

    pairs = [(c, s) for s in range(side) for c in range(side)]
    rendered: list[Tensor] = []

    def render_alone(part: list[tuple[int, int]]) -> None:
        for content, style in part:
            rendered.append(original.stylise(f"c{content}", f"s{style}"))

    took["invert"] = workload.seconds(invert_alone)
    half = len(pairs) // 2
    counted.clear()
    first = workload.spent(lambda: render_alone(pairs[:half]))
    alone = sum(counted)

    inverted = {}

    def invert_block() -> None:
        inverted["c"] = method.invert(model, images["c"], "query")
        inverted["s"] = method.invert(model, images["s"], "key_value")

    ours["invert"] = workload.seconds(invert_block)
    contents, styles = inverted["c"], inverted["s"]
    block: list[Tensor] = []
    counted.clear()
    with closing(Lanes(size.threads, size.threads)) as lanes:  # as a worker has them
        rendering = workload.spent(
            lambda: block.append(method.stylise(model, contents, styles, lanes=lanes))
        )
    ours["stylise"] = rendering.wall
    together = sum(counted)
    ours["decode"] = workload.seconds(lambda: [model.decode(x) for x in block[0].split(16)])
    counted.clear()
    second = workload.spent(lambda: render_alone(pairs[half:]))
    took["stylise"] = first.wall + second.wall
    alone += sum(counted)
    took["decode"] = workload.seconds(lambda: [model.decode(x) for x in rendered])

    difference = workload.relative_l2(block[0], torch.cat(rendered))
    if difference > LARGEST_DIFFERENCE:
        raise BenchmarkError(f"final latents differ by {difference:.1e}, more than 1e-4")
    if alone != together or alone != side * side * (steps - 1):
        raise BenchmarkError(f"{alone} reverse evaluations against {together}")
    without_reading = took["stylise"] - original.reading_s
    return Outcome(
        (
            Figure("stylise phase, the paper's structure / ours", took["stylise"] / ours["stylise"], "x", 2.2),
            Figure("the same in CPU seconds", (first.cpu + second.cpu) / rendering.cpu, "x"),
            Figure("whole (invert, stylise, decode)", sum(took.values()) / sum(ours.values()), "x"),
            Figure("stylise phase less its reading of files", without_reading / ours["stylise"], "x"),
            Figure("inversion of each image once", took["invert"] / ours["invert"], "x"),
            Figure("relative L2 of the final latents", difference, "", LARGEST_DIFFERENCE, "<="),
            Figure("ours, stylise phase", ours["stylise"], "s"),
            Figure("the paper's structure, stylise phase", took["stylise"], "s"),
            Figure("the paper's structure, reading files", original.reading_s, "s"),
        ),
        {"contents": side, "styles": side, "steps": steps, "evaluations": alone, "threads": size.threads},
    )  # fmt: skip
