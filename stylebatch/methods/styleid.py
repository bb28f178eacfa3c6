"""StyleID: training-free style injection (Chung et al., CVPR 2024, arXiv 2312.09008).

1. Content and style are inverted to noise by DDIM with the null prompt; on the way the content's
   queries and the style's keys and values are kept for every timestep.
2. The content's noise takes the style's channel statistics (initial-latent AdaIN).
3. The reverse runs from there; at the chosen decoder sites the query is blended with the content's
   (query preservation, gamma) and attends to the style's keys and values at temperature tau.

Pairs of a block advance together; the k, v of a style are shared by all its pairs without copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylebatch.diffusion import attention, ddim
from stylebatch.diffusion.schedule import Step, Trajectory, trajectory
from stylebatch.methods.codec import EXACT, FeatureCodec, keys_values
from stylebatch.methods.features import (
    FeatureKind,
    HeldFeatures,
    Inverted,
    RecomputedFeatures,
    Recorder,
    SiteFeatures,
    concatenate,
)
from stylebatch.models.base import Conditioning, Denoiser, SelfAttention, Site
from stylebatch.spec import StyleIDOptions


@dataclass(frozen=True)
class Pairs:
    """P (content, style) index pairs of a block, sorted by style then content."""

    content: tuple[int, ...]
    style: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.content) != len(self.style) or list(self.style) != sorted(self.style):
            raise ValueError("pairs are given sorted by style, as many contents as styles")

    @classmethod
    def product(cls, num_contents: int, num_styles: int) -> Pairs:
        return cls(
            tuple(range(num_contents)) * num_styles,
            tuple(s for s in range(num_styles) for _ in range(num_contents)),
        )

    def batches(self, size: int) -> list[Pairs]:
        """Cut into batches of at most `size` pairs, whole styles together where they fit."""
        whole = [
            [i for i, style in enumerate(self.style) if style == s]
            for s in dict.fromkeys(self.style)
        ]
        cut: list[list[int]] = []
        for group in whole:
            if cut and len(cut[-1]) + len(group) <= size:
                cut[-1] += group
            else:
                cut += [group[i : i + size] for i in range(0, len(group), size)]
        return [
            Pairs(tuple(self.content[i] for i in part), tuple(self.style[i] for i in part))
            for part in cut
        ]


class StyleFeatures:
    """What a timestep's styles lend; keys and values are projected once, whatever number of batches reads them."""

    def __init__(self, features: SiteFeatures) -> None:
        self.features = features
        self._projected: dict[Site, tuple[Tensor, Tensor]] = {}

    def at(self, site: Site, layer: SelfAttention, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """k and v (S, H, L, d)."""
        if site not in self._projected:
            self._projected[site] = keys_values(self.features[site], layer, dtype)
        return self._projected[site]


class Injection:
    """Attention edit of the reverse: blended content queries against the style's keys and values."""

    def __init__(self, pairs: Pairs, gamma: float, tau: float, device: torch.device) -> None:
        self.gamma, self.tau = gamma, tau
        distinct = list(dict.fromkeys(pairs.style))
        self.counts = [pairs.style.count(style) for style in distinct]
        self.content_rows = torch.tensor(pairs.content, device=device)
        self.first, self.stop = distinct[0], distinct[-1] + 1
        self.style_rows = (
            None
            if distinct == list(range(self.first, self.stop))
            else torch.tensor(distinct, device=device)
        )
        self.content: SiteFeatures = {}
        self.style = StyleFeatures({})

    def __call__(self, site: Site, hidden: Tensor, layer: SelfAttention) -> Tensor:
        # by token, as the projection wrote it: rows are then copied whole, and folding them copies nothing
        by_token = self.content[site]["q"].transpose(1, 2)
        content_q = by_token.index_select(0, self.content_rows).transpose(1, 2)
        q = attention.blend_query(layer.query(hidden), content_q, self.gamma)
        k, v = self.style.at(site, layer, q.dtype)
        if self.style_rows is None:
            k, v = k[self.first : self.stop], v[self.first : self.stop]
        else:
            k, v = k.index_select(0, self.style_rows), v.index_select(0, self.style_rows)
        return layer.output(
            attention.attend_shared(q, k, v, self.counts, tau=self.tau, scale=layer.scale)
        )


class StyleID(StyleIDOptions):
    """The method; its fields are its options."""

    def trajectory(self, model: Denoiser) -> Trajectory:
        """Steps of inversion and reverse on the model's schedule."""
        return trajectory(
            self.convention,
            self.steps,
            start=self.start,
            num_train_timesteps=model.schedule.num_train_timesteps,
        )

    @torch.inference_mode()
    def invert(
        self,
        model: Denoiser,
        latents: Tensor,
        kind: FeatureKind,
        *,
        batch: int = 16,
        codec: FeatureCodec = EXACT,
        hold: bool = True,
    ) -> Inverted:
        """Invert clean latents (B, c, h, w) to noise, with features for the timesteps of the reverse.

        `kind`: "query" for contents, "key_value" for styles. `batch` bounds one network evaluation. `codec`:
        what is kept of styles. Without `hold` the features are recomputed from the latents when asked for.
        """
        return concatenate(
            [self._invert_batch(model, part, kind, codec, hold) for part in latents.split(batch)]
        )

    def _invert_batch(
        self,
        model: Denoiser,
        latents: Tensor,
        kind: FeatureKind,
        codec: FeatureCodec,
        hold: bool,
    ) -> Inverted:
        path, predict = self.trajectory(model), _predictor(model, model.embed([""]))
        used = {step.t for step in path.reverse} if self.inject else set()
        recorder, held = Recorder(kind, attention.attend, codec), HeldFeatures()
        x = latents.float()
        levels = {path.inversion[0].source: x}
        with model.editing(recorder, self.sites if self.inject and hold else ()):
            for step, after in ddim.walk(model.schedule, predict, x, path.inversion):
                x, seen = after, recorder.take()
                if step.t in used:
                    held.by_timestep[step.t] = seen
                levels[step.target] = after
        if hold:
            return Inverted(x, held, levels)
        return Inverted(x, RecomputedFeatures(self.recomputing(model, levels, kind, codec)), levels)

    def recomputing(
        self, model: Denoiser, levels: dict[int, Tensor], kind: FeatureKind, codec: FeatureCodec
    ) -> Callable[[int], SiteFeatures]:
        """Features at a timestep from the latents (B, c, h, w) by noise level that an inversion passed."""
        path, predict = self.trajectory(model), _predictor(model, model.embed([""]))
        steps = {step.t: step for step in path.inversion}

        @torch.inference_mode()
        def recompute(t: int) -> SiteFeatures:
            recorder = Recorder(kind, attention.attend, codec)
            with model.editing(recorder, self.sites):
                predict(levels[steps[t].source], steps[t])
            return recorder.take()

        return recompute

    @torch.inference_mode()
    def initial_latents(self, contents: Inverted, styles: Inverted, pairs: Pairs) -> Tensor:
        """Where the reverse of each pair starts: (P, c, h, w)."""
        content = contents.latent[list(pairs.content)]
        if not self.init_adain:
            return content
        return attention.adain(
            content,
            styles.latent[list(pairs.style)],
            eps=1e-4 if self.convention == "diffusers" else 0.0,
        )

    @torch.inference_mode()
    def stylise(
        self,
        model: Denoiser,
        contents: Inverted,
        styles: Inverted,
        pairs: Pairs | None = None,
        *,
        batch: int = 16,
    ) -> Tensor:
        """Render pairs of inverted contents and styles in lockstep; clean latents (P, c, h, w), pair order.

        `pairs` defaults to the full product, style by style. `batch` bounds one network evaluation.
        """
        pairs = pairs or Pairs.product(contents.num_images, styles.num_images)
        path, predict = self.trajectory(model), _predictor(model, model.embed([""]))
        batches = pairs.batches(batch)
        latents = [self.initial_latents(contents, styles, part) for part in batches]
        edits = [Injection(part, self.gamma, self.tau, model.device) for part in batches]
        for step in path.reverse:
            final = path.returns_x0 and step == path.reverse[-1]
            content_features = contents.features.at(step.t) if self.inject else {}
            style_features = StyleFeatures(styles.features.at(step.t) if self.inject else {})
            for (
                edit
            ) in edits:  # all of them first, so that none keeps the last timestep's k, v alive
                edit.content, edit.style = content_features, style_features
            for index, edit in enumerate(edits):
                with model.editing(edit, self.sites if self.inject else ()):
                    eps = predict(latents[index], step)
                move = ddim.predict_x0 if final else ddim.ddim_step
                latents[index] = move(model.schedule, latents[index], eps, step)
        return torch.cat(latents)

    @torch.inference_mode()
    def reverse_plain(self, model: Denoiser, latents: Tensor) -> Tensor:
        """The reverse without any edit, from noise (B, c, h, w): the round trip of an inversion."""
        return ddim.run(
            model.schedule,
            _predictor(model, model.embed([""])),
            latents,
            self.trajectory(model).reverse,
        )


def _predictor(model: Denoiser, cond: Conditioning) -> ddim.PredictNoise:
    def predict(x: Tensor, step: Step) -> Tensor:
        return model.predict_noise(x, step.t, cond, level=step.source)

    return predict
