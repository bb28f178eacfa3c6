"""Renders blocks of contents x styles with StyleID: inversions are kept for the next blocks, pairs advance in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import torch

from stylebatch.data.grid import Block
from stylebatch.data.images import Component, Picture, Pixels
from stylebatch.data.loading import load_input
from stylebatch.data.plan import PairPlan
from stylebatch.data.shards import Sample
from stylebatch.engine.blending import components, latent_masks
from stylebatch.engine.inputs import Group, Inputs
from stylebatch.engine.rendering import Rendering, decoded
from stylebatch.engine.style_bank import StyleBank
from stylebatch.errors import SampleError
from stylebatch.methods.codec import FeatureCodec
from stylebatch.methods.features import FeatureKind, Inverted
from stylebatch.methods.lanes import Lanes
from stylebatch.methods.pixels import to_tensor
from stylebatch.methods.styleid import Pairs, StyleID
from stylebatch.metrics import quality
from stylebatch.models.stable_diffusion import StableDiffusion
from stylebatch.spec import BEYOND_THE_PAPER


class PairRenderer:
    """`pool` decodes ahead; `on_saved` is told of evaluations that the plan counts and the cache spares.

    `lanes` evaluate batches of the plan's size side by side.
    """

    def __init__(
        self,
        plan: PairPlan,
        model: StableDiffusion,
        pool: Executor,
        on_saved: Callable[[int], None] | None,
        lanes: Lanes,
    ) -> None:
        self.plan, self.model, self.pool, self.on_saved = plan, model, pool, on_saved
        self._lanes = lanes
        self.method = StyleID(**plan.spec.styleid.model_dump())
        self.batch = plan.batch
        self.contents, self.styles = self._make_inputs("query"), self._make_inputs("key_value")
        cached = plan.choice.styles == "cached"
        self._bank = StyleBank.of_plan(plan, self.method, model) if cached else None
        self._found: set[str] = set()
        self.style_names = [row.id for row in plan.styles]

    def _make_inputs(self, kind: FeatureKind) -> Inputs:
        plan, image = self.plan, self.plan.spec.image
        rows = plan.contents if kind == "query" else plan.styles
        capacity = 1 if kind == "query" else plan.num_style_groups_held
        return Inputs(rows, size=plan.size, mode=image.mode, capacity=capacity, pool=self.pool)

    def begin(self, samples: Sequence[Sample], batch: int) -> Rendering:
        self.batch = batch
        return PairRendering(self)

    @property
    def lanes(self) -> Lanes | None:
        """None where memory was too small for the plan's batch."""
        return self._lanes if self.batch == self.plan.batch else None

    def prefetch(self, contents: tuple[int, ...], styles: tuple[int, ...]) -> None:
        self.contents.prefetch(contents)
        self.styles.prefetch(styles)

    def forget(self) -> None:
        self.contents.forget()
        self.styles.forget()

    def precompute(self, style: int) -> bool:
        if self._bank is None:
            raise ValueError(
                "features: found a plan without cached styles; accepted: one whose styles are cached"
            )
        picture = load_input(self.plan.styles[style], self.plan.size, self.plan.spec.image.mode)
        return self._bank.fill(components({style: picture}, self.style_names)[0]) > 0

    def invert(self, pictures: dict[int, Picture], kind: FeatureKind) -> Inverted:
        """Inverts a group of pictures by the run's index."""
        pixels, batch = [picture.pixels for picture in pictures.values()], self.batch
        if kind == "key_value":
            images, _ = components(pictures, self.style_names)
            if self._bank is not None:
                return self._from_bank(self._bank, images)
            pixels = [image.pixels for image in images]
        parts = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
        latents = torch.cat([self.model.encode(to_tensor(part)) for part in parts])
        choice = self.plan.choice
        source = choice.contents if kind == "query" else choice.styles
        return self.method.invert(
            self.model, latents, kind,
            batch=batch, codec=FeatureCodec(choice.codec), hold=source == "held",
        )  # fmt: skip

    def _from_bank(self, bank: StyleBank, images: list[Component]) -> Inverted:
        """Styles from the cache; the plan counts each as inverted once, so those found there advance too."""
        built = bank.num_built
        inverted = bank.inverted([bank.style(image.pixels, image.name) for image in images])
        new = {image.name for image in images} - self._found
        saved = len(new) - (bank.num_built - built)
        self._found |= new
        if self.on_saved is not None and saved > 0:
            self.on_saved(saved * self.method.num_inversion_evaluations)
        return inverted


class PairRendering:
    """Pictures of a block by (content, style), and the groups of inputs they came from, by index."""

    def __init__(self, renderer: PairRenderer) -> None:
        self.renderer = renderer
        self.contents: dict[int, Group] = {}
        self.styles: dict[int, Group] = {}
        self.pixels: dict[tuple[int, int], Pixels | SampleError] = {}

    def make(self, block: Block, contents: tuple[int, ...], styles: tuple[int, ...]) -> None:
        renderer = self.renderer
        rows = renderer.contents.group(contents, lambda found: renderer.invert(found, "query"))
        columns = renderer.styles.group(styles, lambda found: renderer.invert(found, "key_value"))
        self.contents.update(dict.fromkeys(contents, rows))
        self.styles.update(dict.fromkeys(styles, columns))
        self.pixels.update(self._stylised(_wanted(block, contents, styles), rows, columns))

    def give_up(
        self,
        block: Block,
        contents: tuple[int, ...],
        styles: tuple[int, ...],
        error: SampleError,
    ) -> None:
        self.pixels.update(dict.fromkeys(_wanted(block, contents, styles), error))

    def _stylised(
        self, wanted: list[tuple[int, int]], contents: Group, styles: Group
    ) -> dict[tuple[int, int], Pixels | SampleError]:
        todo = sorted(
            {(c, s) for c, s in wanted if c in contents.position and s in styles.position},
            key=lambda pair: (pair[1], pair[0]),
        )
        if not todo or contents.inverted is None or styles.inverted is None:
            return {}
        pairs = Pairs(
            tuple(contents.position[c] for c, _ in todo),
            tuple(styles.position[s] for _, s in todo),
        )
        renderer = self.renderer
        _, mixtures = components(_good(styles), renderer.style_names)
        cells = (contents.inverted.latent.shape[-2], contents.inverted.latent.shape[-1])
        latents = renderer.method.stylise(
            renderer.model, contents.inverted, styles.inverted, pairs,
            batch=renderer.batch, mixtures=mixtures, masks=latent_masks(_good(contents).values(), cells),
            lanes=renderer.lanes,
        )  # fmt: skip
        return dict(zip(todo, decoded(renderer.model, latents, renderer.batch), strict=True))

    def _pictures(self, sample: Sample) -> tuple[Picture | SampleError, Picture | SampleError]:
        contents, styles = self.contents[sample.content], self.styles[sample.style]
        return contents.pictures[sample.content], styles.pictures[sample.style]

    def result(self, sample: Sample) -> Pixels | SampleError:
        found = self.pixels.get((sample.content, sample.style))
        if isinstance(found, SampleError) and not self._is_inverted(sample):
            return found  # one image alone did not fit in memory
        for picture in self._pictures(sample):
            if isinstance(picture, SampleError):
                return picture
        assert found is not None, f"{sample.key} was passed over"
        return found

    def row(self, sample: Sample) -> dict[str, Any]:
        plan, method = self.renderer.plan, self.renderer.method
        content_row, style = plan.contents[sample.content], plan.styles[sample.style]
        row = {
            "content_id": content_row.id,
            "style_id": style.id,
            "gamma": method.gamma,
            "tau": method.tau,
            "steps": method.steps,
            "convention": method.convention,
            "start": method.start or "",
            "sites": list(method.sites),
            "init_adain": method.init_adain,
            "inject": method.inject,
            **{name: getattr(method, name) for name in BEYOND_THE_PAPER},
            "site_gammas": list(method.site_gammas or (method.gamma,) * len(method.sites)),
            "style_images": [part.id for part in style.parts] or [style.id],
            "style_weights": [part.weight for part in style.parts] or [1.0],
            "mask_id": content_row.mask_id if content_row.mask else "",
            "original_width": 0,
            "original_height": 0,
            "structure": None,
            "color_distance": None,
            "contrast": None,
        }
        content = self._pictures(sample)[0] if self._is_inverted(sample) else None
        if isinstance(content, Picture):
            row["original_width"] = content.original_width
            row["original_height"] = content.original_height
        return row

    def _is_inverted(self, sample: Sample) -> bool:
        return sample.content in self.contents and sample.style in self.styles

    def measures(self, sample: Sample, pixels: Pixels) -> dict[str, float]:
        content, style = self._pictures(sample)
        assert isinstance(content, Picture)
        assert isinstance(style, Picture)
        found = quality(content.pixels, style.pixels, pixels)
        return {
            "structure": found.structure,
            "color_distance": found.color_distance,
            "contrast": found.contrast,
        }

    def inputs(self, sample: Sample) -> dict[str, bytes]:
        return {
            "content.jpg": self.contents[sample.content].jpeg(sample.content),
            "style.jpg": self.styles[sample.style].jpeg(sample.style),
        }


def _good(group: Group) -> dict[int, Picture]:
    """The pictures that were inverted, in their order."""
    return {i: image for i, image in group.pictures.items() if isinstance(image, Picture)}


def _wanted(
    block: Block, contents: tuple[int, ...], styles: tuple[int, ...]
) -> list[tuple[int, int]]:
    return [pair for pair in block.pairs if pair[0] in contents and pair[1] in styles]
