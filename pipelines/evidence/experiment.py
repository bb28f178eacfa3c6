"""One set: render what its mixtures need, train every mixture with every seed, keep what each classifier said."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evidence import rendering
from pipelines.evidence.classifier import Training, predictions, trained
from pipelines.evidence.corruptions import CORRUPTIONS, corrupted
from pipelines.evidence.image_sets import ImageSet, Shown
from pipelines.evidence.mixtures import Mixture, changed, mixtures, style_numbers
from pipelines.evidence.sheet import write_sheet
from stylebatch.data.images import Pixels
from stylebatch.folder import Folder


@dataclass(frozen=True)
class Settings:
    """What a user chooses beside the inputs; `num_styles` the numbers of styles that are compared."""

    ratios: tuple[float, ...]
    num_styles: tuple[int, ...]
    seeds: int
    size: int
    styled_tests: int
    training: Training
    base: Mapping[str, Any]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """`hits`: mixture -> test -> (seeds, images) of 0 and 1; `misled`: the same for images classed by their texture."""

    images: ImageSet
    mixtures: tuple[Mixture, ...]
    hits: Mapping[Mixture, Mapping[str, NDArray[np.float64]]]
    misled: Mapping[Mixture, NDArray[np.float64]]
    num_images: int
    steps: int


Said = dict[str, list[int]]


def run(images: ImageSet, styles: rendering.Styles, settings: Settings) -> Findings:
    """Everything for one set, with a picture of it beside its contents. Raises RenderingError, and ValueError for too few styles."""
    compared = mixtures(settings.ratios, settings.num_styles, has_unhinted=bool(images.unhinted))
    data = prepare(images, styles, settings)
    write_sheet(data.columns(), images.contents.parent / "images.jpg")
    folder = Folder.at(images.contents.parent / "results")
    said: dict[Mixture, list[Said]] = {}
    for number, mixture in enumerate(compared, start=1):
        sys.stderr.write(f"{images.name}: {number} of {len(compared)}, {mixture.name}\n")
        seeds = range(settings.seeds)
        said[mixture] = [_answers(data, mixture, seed, settings, folder) for seed in seeds]
    return Findings(
        images,
        tuple(compared),
        {mixture: _hits(data, answers) for mixture, answers in said.items()},
        {mixture: _misled(data, answers) for mixture, answers in said.items()},
        len(images.training),
        settings.training.steps(len(images.training)),
    )


@dataclass(frozen=True)
class Data:
    """Pixels at the classifier's size. `stylised`: number of styles -> training images in them; `colours` likewise."""

    originals: Pixels
    labels: NDArray[np.int64]
    stylised: Mapping[int, Pixels]
    colours: Mapping[int, Pixels]
    unhinted: Pixels | None
    tests: Mapping[str, Pixels]
    truths: Mapping[str, NDArray[np.int64]]
    hints: Mapping[str, NDArray[np.int64]]
    num_classes: int

    def mixed(self, mixture: Mixture, seed: int) -> Pixels:
        """The training images of a mixture: as many as there are contents, in their order."""
        guises: dict[str, Callable[[], Pixels | None]] = {
            "stylised": lambda: self.stylised[mixture.num_styles],
            "colours": lambda: self.colours[mixture.num_styles],
            "unhinted": lambda: self.unhinted,
        }
        guise = guises[mixture.guise]()
        if guise is None:
            raise ValueError(f"{mixture.name}: the set has no textures to exchange")
        mask = changed(self.labels.tolist(), mixture.ratio, seed)
        return np.where(mask[:, None, None, None], guise, self.originals)

    def columns(self) -> dict[str, tuple[Pixels, list[int]]]:
        """What a picture of the set shows side by side."""
        labels = self.labels.tolist()
        shown = {"training": (self.originals, labels)}
        shown |= {f"stylised, {n}": (self.stylised[n], labels) for n in sorted(self.stylised)}
        shown["colours"] = (self.colours[max(self.colours)], labels)
        if self.unhinted is not None:
            shown["unhinted"] = (self.unhinted, labels)
        for test, pixels in self.tests.items():
            shown[test.split()[0]] = (pixels, self.truths[test].tolist())
        return shown


def prepare(images: ImageSet, styles: rendering.Styles, settings: Settings) -> Data:
    """Render in one run what any mixture and test needs, and read it. Raises RenderingError, and ValueError for too few styles."""
    numbers = settings.num_styles
    if not 1 <= min(numbers) <= max(numbers) <= len(styles.training):
        raise ValueError(
            f"--num-styles {' '.join(map(str, numbers))}: there are {len(styles.training)} styles for the training. "
            "Next: give numbers from 1 to that, or more styles"
        )
    pairs = {number: rendering.training_pairs(images, styles, number) for number in numbers}
    unseen = rendering.pairs_of_test(images, styles, settings.styled_tests)
    everything = [*(pair for row in pairs.values() for pair in row), *unseen.values()]
    path = rendering.manifest(images, styles, everything, settings.base)
    output = rendering.render(path, settings.options)
    found = rendering.read(output, everything, settings.size)
    originals = images.pixels(images.training, settings.size)
    labels = [one.label for one in images.training]
    shown: dict[str, Sequence[Shown]] = {**images.tests, "unseen styles": list(unseen)}
    tests = {name: images.pixels(part, settings.size) for name, part in images.tests.items()}
    for name in CORRUPTIONS:
        tests[name], shown[name] = corrupted(tests["clean"], name), images.tests["clean"]
    tests["unseen styles"] = np.stack([found[pair] for pair in unseen.values()])
    looks = images_of(styles, settings.size)
    return Data(
        originals,
        np.array(labels, dtype=np.int64),
        {number: np.stack([found[pair] for pair in row]) for number, row in pairs.items()},
        {
            number: coloured(originals, [looks[n] for n in style_numbers(labels, number)])
            for number in numbers
        },
        images.pixels(images.unhinted, settings.size) if images.unhinted else None,
        tests,
        {name: np.array([one.label for one in part]) for name, part in shown.items()},
        {name: np.array([one.hint for one in part]) for name, part in shown.items()},
        len(images.classes),
    )


def images_of(styles: rendering.Styles, size: int) -> Pixels:
    """(styles, size, size, 3), uint8: the styles of the training."""
    shown = [Shown(path, 0) for path in styles.training]
    return ImageSet("styles", styles.folder, (), (), {}).pixels(shown, size)


def coloured(pixels: Pixels, looks: Sequence[Pixels]) -> Pixels:
    """Images with mean and deviation of each channel (RGB) as in their looks: AdaIN of pixels."""
    target = np.stack(looks).astype(np.float64)
    mean, std = (getattr(pixels, name)(axis=(1, 2), keepdims=True) for name in ("mean", "std"))
    moved = (pixels - mean) / np.maximum(std, 1e-6) * target.std(axis=(1, 2), keepdims=True)
    moved += target.mean(axis=(1, 2), keepdims=True)
    return np.asarray(np.clip(np.rint(moved), 0, 255), dtype=np.uint8)


def _answers(data: Data, mixture: Mixture, seed: int, settings: Settings, folder: Folder) -> Said:
    """What the classifier of a mixture and seed said, from its file or by training; a file counts for these very inputs alone."""
    pixels = data.mixed(mixture, seed)
    digest = hashlib.sha256(repr((settings.training, seed, data.num_classes)).encode())
    parts: list[NDArray[Any]] = [
        pixels,
        data.labels,
        *map(data.tests.__getitem__, sorted(data.tests)),
    ]
    for part in parts:
        digest.update(repr(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    name = (
        f"{mixture.name.replace(', ', '-').replace(' ', '-')}-{seed}-{digest.hexdigest()[:16]}.json"
    )
    if folder.facts(name) is not None:
        kept: Said = json.loads(folder.read(name))["said"]
        return kept
    started = time.perf_counter()
    model = trained(pixels, data.labels, data.num_classes, settings.training, seed)
    guesses = predictions(model, data.tests, settings.training.device)
    said = {test: guess.tolist() for test, guess in guesses.items()}
    facts = {
        "mixture": asdict(mixture),
        "seed": seed,
        "training": asdict(settings.training),
        "images": len(pixels),
        "steps": settings.training.steps(len(pixels)),
        "seconds": round(time.perf_counter() - started, 1),
        "said": said,
    }
    folder.write(name, json.dumps(facts).encode())
    return said


def _hits(data: Data, answers: Sequence[Said]) -> dict[str, NDArray[np.float64]]:
    return {
        test: np.array([np.asarray(said[test]) == truth for said in answers], dtype=np.float64)
        for test, truth in data.truths.items()
    }


def _misled(data: Data, answers: Sequence[Said]) -> NDArray[np.float64]:
    """(seeds, images): whether an image of the conflict was classed by its texture; no images where there is no conflict."""
    hints = data.hints.get("conflict", np.empty(0))
    rows = [np.asarray(said.get("conflict", [])) == hints for said in answers]
    return np.array(rows, dtype=np.float64)
