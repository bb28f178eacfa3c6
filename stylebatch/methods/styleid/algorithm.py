"""StyleID: training-free style injection (Chung et al., CVPR 2024, arXiv 2312.09008).

1. Content and style are inverted to noise by DDIM with the null prompt; on the way the content's
   queries and the style's keys and values are kept for every timestep.
2. The content's noise takes the style's channel statistics (initial-latent AdaIN).
3. The reverse runs from there; at the chosen decoder sites the query is blended with the content's
   (query preservation, gamma) and attends to the style's keys and values at temperature tau.

Pairs of a block advance together; the k, v of a style are shared by all its pairs without copies. Beyond the paper:
gammas per site and timestep, blends of styles, masks, solvers of second order, exact inversion (docs/beyond_the_paper.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from stylebatch.diffusion import attention, ddim
from stylebatch.diffusion.schedule import Step, Trajectory, table_of, trajectory, two_step
from stylebatch.diffusion.solvers import Rule, State, advance, trapezoid
from stylebatch.methods.ranges import Range
from stylebatch.methods.styleid.block_pairs import Mixture, Pairs
from stylebatch.methods.styleid.codec import EXACT, FeatureCodec
from stylebatch.methods.styleid.features import (
    FeatureKind,
    HeldFeatures,
    Inverted,
    InvertedStyles,
    Kept,
    RecomputedFeatures,
    Recorder,
    SiteFeatures,
    concatenate,
)
from stylebatch.methods.styleid.hosted import HostedFeatures
from stylebatch.methods.styleid.injection import Injection, StyleFeatures
from stylebatch.methods.styleid.options import StyleIDOptions
from stylebatch.methods.styleid.per_lane import PerLane
from stylebatch.models.denoiser import Conditioning, Denoiser, Site
from stylebatch.models.lanes import Lanes

__all__ = ["Mixture", "Pairs", "StyleID"]


class StyleID(StyleIDOptions):
    """The algorithm; its fields are the options."""

    def trajectory(self, model: Denoiser) -> Trajectory:
        """Steps of inversion and reverse on the model's schedule."""
        path = trajectory(
            self.convention,
            self.steps,
            start=self.start,
            grid=self.grid,
            power=self.grid_power,
            num_train_timesteps=table_of(model.schedule).num_train_timesteps,
        )
        return path if self.inversion == "ddim" else two_step(path)

    @property
    def rule(self) -> Rule:
        """How latents move, both ways."""
        return self.solver if self.inversion == "ddim" else self.inversion

    def gammas(self, t: float, path: Trajectory) -> dict[Site, float]:
        """Query preservation by site at timestep `t` of the reverse; the share that is left of it where it is a range."""
        first, last = path.reverse[0].t, path.reverse[-1].t
        progress = (first - t) / (first - last) if first != last else 0.0
        left = 1.0 - (1.0 - self.gamma_end_share) * attention.fall(self.gamma_schedule, progress)
        # what each pair draws is multiplied with it
        gamma = 1.0 if isinstance(self.gamma, Range) else self.gamma
        each = self.site_gammas or (gamma,) * len(self.sites)
        return {site: gamma * left for site, gamma in zip(self.sites, each, strict=True)}

    def drawn_by_pair(self, seeds: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Gamma and tau of the pair with each seed, where these are ranges; for `Pairs`."""
        gamma, tau = (
            tuple(option.drawn(seed, name) for seed in seeds) if isinstance(option, Range) else ()
            for name, option in (("gamma", self.gamma), ("tau", self.tau))
        )
        return gamma, tau

    @torch.inference_mode()
    def invert(
        self,
        model: Denoiser,
        latents: Tensor,
        kind: FeatureKind,
        *,
        batch: int = 16,
        codec: FeatureCodec = EXACT,
        keep: Kept = "held",
    ) -> Inverted:
        """Invert clean latents (B, c, h, w) to noise, with features for the timesteps of the reverse.

        `kind`: "query" for contents, "key_value" for styles. `batch` bounds one network evaluation. `codec`:
        what is kept of styles. `keep`: where features lie until they are asked for, if not recomputed from the latents then.
        """
        edited, lanes = PerLane(), model.lanes or Lanes()

        def invert(part: Tensor) -> Inverted:
            recorder = Recorder(kind, attention.attend, codec)
            edited.stand_for(recorder)
            return self._invert_batch(model, part, recorder, keep)

        with model.editing(edited, self.sites if self.inject and keep != "recomputed" else ()):
            parts = latents.tensor_split(lanes.num_parts(len(latents), batch))
            return concatenate(lanes.map(invert, parts))

    def _invert_batch(
        self, model: Denoiser, latents: Tensor, recorder: Recorder, keep: Kept
    ) -> Inverted:
        """`recorder` sees each evaluation."""
        path, predict = self.trajectory(model), _predictor(model)
        used = {step.t for step in path.reverse} if self.inject else set()
        kept = HostedFeatures(model.device) if keep == "hosted" else HeldFeatures()
        # float32 between steps whatever the network's dtype: errors of an inversion add up over all steps
        state, residual = State(latents.float()), None
        levels = {path.inversion[0].source: state.x}
        for index, step in enumerate(path.inversion):
            eps, seen = predict(state.x, step), recorder.take()
            if step.t in used:
                kept.keep(step.t, seen)
            # no step before the first: the trapezoid makes it of second order, as the others are
            if self.inversion != "ddim" and index == 0:
                first_two = (step, path.inversion[1])
                eps = trapezoid(model.schedule, predict, state.x, eps, first_two)
                recorder.take()
            if self.inversion != "ddim" and step == path.inversion[-1]:
                assert state.memory is not None, "a two-step rule has gone at least two steps"
                back = ddim.ddim_step(model.schedule, state.x, eps, path.reverse[0])
                residual = state.memory - back
            state = advance(self.rule, model.schedule, state, eps, step)
            levels[step.target] = state.x
        again = RecomputedFeatures(self.recomputing(model, levels, recorder.kind, recorder.codec))
        return Inverted(state.x, again if keep == "recomputed" else kept, levels, residual)

    def recomputing(
        self, model: Denoiser, levels: dict[float, Tensor], kind: FeatureKind, codec: FeatureCodec
    ) -> Callable[[float], SiteFeatures]:
        """Features at a timestep from the latents (B, c, h, w) by noise level that an inversion passed."""
        path, predict = self.trajectory(model), _predictor(model)
        steps = {step.t: step for step in path.inversion}

        @torch.inference_mode()
        def recompute(t: float) -> SiteFeatures:
            recorder = Recorder(kind, attention.attend, codec)
            with model.editing(recorder, self.sites):
                predict(levels[steps[t].source], steps[t])
            return recorder.take()

        return recompute

    @torch.inference_mode()
    def initial_latents(
        self,
        contents: Inverted,
        styles: Inverted | InvertedStyles,
        pairs: Pairs,
        *,
        mixtures: Sequence[Mixture] | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """Where the reverse of each pair starts: (P, c, h, w).

        AdaIN is linear in the style's mean and std, so a blend of styles is the blend of their results.
        """
        content = contents.latent[list(pairs.content)]
        if not self.init_adain:
            return content
        options = {} if masks is None else {"mask": masks.to(content)[list(pairs.content)]}
        eps = 1e-4 if self.convention == "diffusers" else 0.0
        styles = InvertedStyles.of(styles)
        mixed = mixtures or [Mixture((row,)) for row in range(styles.num_images)]
        chosen = [mixed[style] for style in pairs.style]
        total: Tensor | None = None
        for part in range(max(len(mixture.rows) for mixture in chosen)):
            # shorter mixtures repeat their first row at weight 0, so that all pairs stay one batch
            rows = [mixture.rows[part if part < len(mixture.rows) else 0] for mixture in chosen]
            styled = _adain(content, styles, rows, eps, **options)
            # no blend, no sum: the bits are those of AdaIN alone
            if not any(mixture.is_blend for mixture in chosen):
                return styled
            weights = [
                mixture.weights[part] if part < len(mixture.rows) else 0.0 for mixture in chosen
            ]
            weighted = styled * styled.new_tensor(weights)[:, None, None, None]
            total = weighted if total is None else total + weighted
        assert total is not None, "a mixture has at least one row"
        return total

    @torch.inference_mode()
    def stylise(
        self,
        model: Denoiser,
        contents: Inverted,
        styles: Inverted | InvertedStyles,
        pairs: Pairs | None = None,
        *,
        batch: int = 16,
        mixtures: Sequence[Mixture] | None = None,
        masks: Tensor | None = None,
    ) -> Tensor:
        """Render pairs of inverted contents and styles in lockstep; clean latents (P, c, h, w), pair order.

        `pairs` defaults to the full product, style by style. `batch` bounds one network evaluation. `mixtures`: what
        each style of the pairs is made of; default each inverted image is a style. `masks` (C, 1, h, w) in [0, 1]: where
        the style applies; at 0 the content keeps its own statistics and attention.
        Styles may have other sizes than contents, and than each other (`InvertedStyles`).
        """
        passed = self.stylising(
            model, contents, styles, pairs, batch=batch, mixtures=mixtures, masks=masks
        )
        return deque(passed, maxlen=1).pop()

    @torch.inference_mode()
    def stylising(
        self,
        model: Denoiser,
        contents: Inverted,
        styles: Inverted | InvertedStyles,
        pairs: Pairs | None = None,
        *,
        batch: int = 16,
        mixtures: Sequence[Mixture] | None = None,
        masks: Tensor | None = None,
    ) -> Generator[Tensor, Tensor | None, None]:
        """As `stylise`: the latents after each step of the reverse; those that are sent back go on in their place."""
        styles = InvertedStyles.of(styles)
        mixed = mixtures or [Mixture((row,)) for row in range(styles.num_images)]
        pairs = pairs or Pairs.product(contents.num_images, len(mixed))
        self._require_drawn(pairs)
        path, predict = self.trajectory(model), _predictor(model)
        lanes = model.lanes or Lanes()
        batches = pairs.batches(batch, lanes.count)
        tau = 1.0 if isinstance(self.tau, Range) else self.tau
        states = [
            State(self.initial_latents(contents, styles, part, mixtures=mixed, masks=masks))
            for part in batches
        ]
        edits = [
            Injection(part, mixed, tau, styles, blend=self.blend, masks=masks) for part in batches
        ]
        edited = PerLane()

        def evaluate(step: Step, index: int) -> Tensor:
            # per thread, since lanes run several batches through the one installed edit
            edited.stand_for(edits[index])
            return predict(states[index].x, step)

        for step in path.reverse:
            final = path.returns_x0 and step == path.reverse[-1]
            content_features = contents.features.at(step.t) if self.inject else {}
            style_features = [
                StyleFeatures(one.features.at(step.t) if self.inject else {})
                for one in styles.by_size
            ]
            gammas = self.gammas(step.t, path)
            for edit in edits:  # so that none keeps the last timestep's k, v alive
                edit.gammas, edit.content, edit.styles = gammas, content_features, style_features
            with model.editing(edited, self.sites if self.inject else ()):
                predicted = lanes.map(partial(evaluate, step), range(len(batches)))
            for index, eps in enumerate(predicted):
                x = states[index].x
                if final:
                    states[index] = State(ddim.predict_x0(model.schedule, x, eps, step))
                    continue
                states[index] = advance(self.rule, model.schedule, states[index], eps, step)
                if contents.residual is not None and step == path.reverse[0]:
                    rows = list(batches[index].content)
                    states[index] = _shifted(states[index], contents.residual[rows])
            changed = yield torch.cat([state.x for state in states])
            if changed is not None:
                parts = changed.split([len(state.x) for state in states])
                states = [replace(state, x=x) for state, x in zip(states, parts, strict=True)]

    def _require_drawn(self, pairs: Pairs) -> None:
        for name, values in (("gamma", pairs.gammas), ("tau", pairs.taus)):
            if isinstance(getattr(self, name), Range) and not values:
                raise ValueError(
                    f"{name}: found a range; accepted: a number, or pairs with a value each"
                )

    @torch.inference_mode()
    def reverse_plain(self, model: Denoiser, inverted: Inverted) -> Tensor:
        """The reverse without any edit from the noise of an inversion, (B, c, h, w): its round trip."""
        path, predict, state = self.trajectory(model), _predictor(model), State(inverted.latent)
        for step in path.reverse:
            state = advance(self.rule, model.schedule, state, predict(state.x, step), step)
            if inverted.residual is not None and step == path.reverse[0]:
                state = _shifted(state, inverted.residual)
        return state.x


def _adain(
    content: Tensor,
    styles: InvertedStyles,
    rows: Sequence[int],
    eps: float,
    mask: Tensor | None = None,
) -> Tensor:
    """`attention.adain` of each content (P, c, h, w) with the style of its row."""
    if len(styles.by_size) == 1:
        return attention.adain(content, styles.by_size[0].latent[list(rows)], eps=eps, mask=mask)
    masks = [None] * len(rows) if mask is None else mask.split(1)
    return torch.cat(
        [
            attention.adain(one, styles.latent(row), eps=eps, mask=own)
            for one, row, own in zip(content.split(1), rows, masks, strict=True)
        ]
    )


def _shifted(state: State, residual: Tensor) -> State:
    """After the first step of a reverse: where the inversion came from, if the pair is a content by itself."""
    return replace(state, x=state.x + residual)


def _predictor(model: Denoiser) -> ddim.PredictNoise:
    """eps under the null prompt."""
    cond: Conditioning = model.embed_nothing()

    def predict(x: Tensor, step: Step) -> Tensor:
        return model.predict_noise(x, step.t, cond, level=step.source)

    return predict
