"""The structure of the paper's code against ours: one pair at a time, attention written out, features from disk.

Written anew from the paper and its published options, in the shape of the original:
1. every image is inverted alone; q, k, v of the injected sites at all timesteps go to a file;
2. for each pair both files are read, the features merged, and the pair is rendered alone;
3. attention is softmax(q k^T) as a matrix, in every layer of the network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipelines.bench import workload
from pipelines.bench.record import BenchmarkError, Figure, Outcome, Size
from stylebatch.diffusion import attention, ddim
from stylebatch.engine.measure import network_threads
from stylebatch.methods.styleid.algorithm import StyleID
from stylebatch.methods.styleid.features import Inverted
from stylebatch.models.denoiser import SelfAttention, Site
from stylebatch.models.lanes import Lanes
from stylebatch.models.unet.stable_diffusion import StableDiffusion

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
    t: float = 0

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        q, k, v = layer.query(hidden), layer.key(hidden), layer.value(hidden)
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            # safetensors stores contiguous tensors alone
            self.seen[f"{self.t}.{site}.{name}"] = tensor.contiguous()
        return layer.output(materialised(q, k, v, layer.scale))


@dataclass
class _Inject:
    """Edit of the reverse: the merged features of one pair."""

    merged: dict[str, Tensor]
    gamma: float
    tau: float
    t: float = 0

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
        of_content, of_style = loaded[content], loaded[style]
        merged = {
            key: (of_content if key.endswith("q") else of_style)[key]
            for key in of_content
            if key != "latent"
        }
        x = attention.adain(of_content["latent"], of_style["latent"])
        gamma, tau = self.method.gamma, self.method.tau
        assert isinstance(gamma, float), "the paper's code has one gamma for all pairs"
        assert isinstance(tau, float), "and one tau"
        inject = _Inject(merged, gamma, tau)
        with everywhere_materialised(self.model), self.model.editing(inject, self.method.sites):
            for step in self.path.reverse:
                inject.t = step.t
                eps = self.model.predict_noise(x, step.t, self.cond, level=step.source)
                x = ddim.ddim_step(self.model.schedule, x, eps, step)
        return x

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def naive(size: Size) -> Outcome:
    """Seconds of both over the same grid; ours is measured between two halves of the other's pairs."""
    with tempfile.TemporaryDirectory() as folder, network_threads(size.threads):
        return _compare(size, Path(folder))


Latents = dict[str, Tensor]
"""Of the contents (`c`) and of the styles (`s`)."""


@dataclass
class Rendered:
    """What one of the two did: seconds of each phase, CPU seconds and evaluations of the stylise phase, final latents."""

    latents: list[Tensor] = field(default_factory=list)
    invert_s: float = 0.0
    stylise: workload.Spent = field(default_factory=lambda: workload.Spent(0.0, 0.0))
    decode_s: float = 0.0
    evaluations: int = 0

    @property
    def seconds(self) -> float:
        return self.invert_s + self.stylise.wall + self.decode_s


def _compare(size: Size, folder: Path) -> Outcome:
    side, steps = size.of(8, 2), size.of(50, 4)
    model, method = workload.loaded(), workload.method(steps)
    images = {kind: workload.latents(model, side, first_seed=s) for kind, s in (("c", 0), ("s", 9))}
    original = OnePairAtATime(model, method, folder)
    theirs = Rendered(invert_s=workload.seconds(lambda: _invert_alone(original, images)))
    pairs = [(c, s) for s in range(side) for c in range(side)]
    # in halves around ours, so that a drift of the machine's speed meets both
    half = len(pairs) // 2
    _render_alone(original, pairs[:half], theirs)
    ours = _ours(model, method, images, size)
    _render_alone(original, pairs[half:], theirs)
    theirs.decode_s = workload.seconds(lambda: [model.decode(x) for x in theirs.latents])
    difference = workload.relative_l2(ours.latents[0], torch.cat(theirs.latents))
    if difference > LARGEST_DIFFERENCE:
        raise BenchmarkError(f"final latents differ by {difference:.1e}, more than 1e-4")
    if {ours.evaluations, theirs.evaluations} != {side * side * (steps - 1)}:
        raise BenchmarkError(f"{theirs.evaluations} reverse evaluations against {ours.evaluations}")
    return Outcome(
        _figures(ours, theirs, original.reading_s, difference),
        {"contents": side, "styles": side, "steps": steps, "evaluations": ours.evaluations, "threads": size.threads},
    )  # fmt: skip


def _invert_alone(original: OnePairAtATime, images: Latents) -> None:
    for kind, latents in images.items():
        for row, latent in enumerate(latents.split(1)):
            original.invert(f"{kind}{row}", latent)


def _render_alone(
    original: OnePairAtATime, pairs: Sequence[tuple[int, int]], done: Rendered
) -> None:
    counted: list[int] = []

    def render() -> None:
        for content, style in pairs:
            done.latents.append(original.stylise(f"c{content}", f"s{style}"))

    original.model.on_evaluations = counted.append
    spent = workload.spent(render)
    original.model.on_evaluations = None
    done.stylise = workload.Spent(done.stylise.wall + spent.wall, done.stylise.cpu + spent.cpu)
    done.evaluations += sum(counted)


def _ours(model: StableDiffusion, method: StyleID, images: Latents, size: Size) -> Rendered:
    done, counted, inverted = Rendered(), list[int](), dict[str, Inverted]()

    def invert() -> None:
        inverted["c"] = method.invert(model, images["c"], "query")
        inverted["s"] = method.invert(model, images["s"], "key_value")

    def render() -> None:
        done.latents.append(method.stylise(model, inverted["c"], inverted["s"]))

    done.invert_s = workload.seconds(invert)
    model.on_evaluations = counted.append
    with closing(Lanes(size.threads, size.threads)) as model.lanes:  # as a worker has them
        done.stylise = workload.spent(render)
    model.on_evaluations = model.lanes = None
    done.evaluations = sum(counted)
    done.decode_s = workload.seconds(lambda: [model.decode(x) for x in done.latents[0].split(16)])
    return done


def _figures(
    ours: Rendered, theirs: Rendered, reading_s: float, difference: float
) -> tuple[Figure, ...]:
    (wall, cpu), (their_wall, their_cpu) = (
        (one.stylise.wall, one.stylise.cpu) for one in (ours, theirs)
    )
    return (
        Figure("stylise phase, the paper's structure / ours", their_wall / wall, "x", 2.2),
        Figure("the same in CPU seconds", their_cpu / cpu, "x"),
        Figure("whole (invert, stylise, decode)", theirs.seconds / ours.seconds, "x"),
        Figure("stylise phase less its reading of files", (their_wall - reading_s) / wall, "x"),
        Figure("inversion of each image once", theirs.invert_s / ours.invert_s, "x"),
        Figure("relative L2 of the final latents", difference, "", LARGEST_DIFFERENCE, "<="),
        Figure("ours, stylise phase", wall, "s"),
        Figure("the paper's structure, stylise phase", their_wall, "s"),
        Figure("the paper's structure, reading files", reading_s, "s"),
    )
