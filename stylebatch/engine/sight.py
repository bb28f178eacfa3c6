"""What a run's classifier sees in results and inputs, for the measures that the manifest asks of it.

Pictures are looked at on the thread that renders, since device work stays on one thread; the thread that encodes reads what was
seen. A picture's numbers depend on nothing but the picture, so neither blocks nor workers nor a resume change them.
"""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Mapping, Sequence

import torch

from stylebatch.engine.measure import network_threads
from stylebatch.errors import ManifestError
from stylebatch.methods.user_code import UserCodeError
from stylebatch.pixel_memory import Pixels
from stylebatch.planning.plan import Plan
from stylebatch.quality.asked import Seen, measured_by_network, needs_features
from stylebatch.quality.classifiers import load_classifier
from stylebatch.quality.measures import Measure
from stylebatch.spec.quality import QualitySpec
from stylebatch.store.records import asked_of

_NAMED = 8


class Sight:
    """A loaded classifier, and what it saw in the arrays that are still there. Raises ManifestError for labels that it has no class for."""

    def __init__(
        self,
        asked: Sequence[Measure],
        quality: QualitySpec,
        labels: Sequence[str],
        device: torch.device,
    ) -> None:
        self.asked = asked
        self._classifier = load_classifier(quality.classifier, device)
        self.targets = targets_of(quality, self._classifier.class_names, labels)
        self._seen: dict[int, tuple[weakref.ref[Pixels], Seen]] = {}
        grey = torch.full((64, 64, 3), 128, dtype=torch.uint8).numpy()
        features, probabilities = self._classifier.seen([grey])
        num_classes, num_names = probabilities.shape[1], len(self._classifier.class_names)
        if num_names not in (0, num_classes):
            raise ManifestError(
                f"quality.classifier: {quality.classifier}: class_names has {num_names} names for {num_classes} classes; accepted: a name "
                "for each class, or none"
            )
        if features is None and needs_features(quality.measures):
            raise ManifestError(
                f"quality.measures: features are asked for, and {quality.classifier} returns none; accepted: agreement, or a "
                "classifier that returns {'probabilities': ..., 'features': ...}"
            )
        odd = [label for label, number in self.targets.items() if number >= num_classes]
        if odd:
            raise ManifestError(
                f"quality.labels.{odd[0]}: found {self.targets[odd[0]]}; accepted: classes from 0 to {num_classes - 1}"
            )

    @classmethod
    def of(cls, plan: Plan, device: torch.device) -> Sight | None:
        """Of a plan that asks for such measures, else None."""
        quality = plan.spec.quality
        return None if quality is None else cls(asked_of(plan), quality, plan.labels, device)

    def look(self, images: Sequence[Pixels]) -> None:
        """Look at pictures that were not seen yet."""
        new = list({id(one): one for one in images if id(one) not in self._seen}.values())
        if not new:
            return
        # the last bits of a network's numbers depend on the number of threads, which engines and machines choose
        with network_threads(1):
            features, probabilities = self._classifier.seen(new)
        for place, image in enumerate(new):
            vector = None if features is None else features[place]
            self._keep(image, Seen(probabilities[place], vector))

    def _keep(self, image: Pixels, seen: Seen) -> None:
        """By identity, for as long as the array is there: another may get its place in memory."""
        key = id(image)
        self._seen[key] = weakref.ref(image, lambda _: self._seen.pop(key, None)), seen

    def measured(
        self, result: Pixels, inputs: Mapping[str, Pixels], label: str
    ) -> dict[str, float]:
        """The measures of a sample by column; of pictures that were not looked at before as well."""
        self.look([result, *inputs.values()])
        target = self.targets.get(label)
        seen = {kind: self._seen[id(one)][1].about(target) for kind, one in inputs.items()}
        return measured_by_network(self.asked, self._seen[id(result)][1], seen)


def check_sight(plan: Plan) -> None:
    """Raise ManifestError where the classifier of a plan cannot be used, before anything is rendered."""
    try:
        Sight.of(plan, torch.device("cpu"))
    except UserCodeError as error:
        shown = f" (`{error.source}`)" if error.source else ""
        raise ManifestError(f"quality.classifier: {error}{shown}") from error


def targets_of(
    quality: QualitySpec, class_names: Sequence[str], labels: Sequence[str]
) -> dict[str, int]:
    """Class number by label, as `quality.labels` has it. Raises ManifestError for labels and classes that are not there."""
    numbers: dict[str, list[int]] = {}
    for number, names in enumerate(class_names):
        for name in dict.fromkeys((names, *names.split(","))):
            numbers.setdefault(name.strip().lower(), []).append(number)
    found = {}
    for label, value in quality.labels.items():
        if label not in labels:
            raise _unknown(f"quality.labels: found {label!r}, which no content has", label, labels)
        if isinstance(value, int):
            if value < 0:
                raise ManifestError(
                    f"quality.labels.{label}: found {value}; accepted: a class from 0"
                )
            found[label] = value
            continue
        matching = numbers.get(value.strip().lower(), [])
        if not matching:
            text = f"quality.labels.{label}: found {value!r}, which is no class of the classifier"
            raise _unknown(text, value.lower(), list(numbers) or ["a number"])
        if len(matching) > 1:
            raise ManifestError(
                f"quality.labels.{label}: found {value!r}, which classes {', '.join(map(str, matching))} are called; accepted: one of "
                "these numbers"
            )
        found[label] = matching[0]
    return found


def _unknown(text: str, name: str, known: Sequence[str]) -> ManifestError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    more = f", ... ({len(known):,} in all)" if len(known) > _NAMED else ""
    return ManifestError(f"{text}; {hint}accepted: {', '.join(list(known)[:_NAMED])}{more}")
