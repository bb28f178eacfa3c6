"""Loads what looks at pictures: the network of the extra `quality`, a folder of transformers, or a user's function."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from stylebatch.errors import ManifestError
from stylebatch.methods.user import module_of
from stylebatch.methods.user_code import UserCodeError, place_of, user_code, user_import
from stylebatch.models.libraries import WRONG, first_line, quiet
from stylebatch.pixel_memory import Pixels
from stylebatch.quality.asked import Floats
from stylebatch.quality.classifier_files import FORM, kind_of, require_classifier, source_digest
from stylebatch.quality.imagenet_network import DEVICE_BATCH, load_network
from stylebatch.words import counted

_PROBABILITIES = "an array (N, C) of probabilities for N pictures, C 2 or more, or {'probabilities': (N, C), 'features': (N, F)}"


class Classifier(Protocol):
    """Looks at uint8 pictures (H, W, 3) of any sizes. A picture's numbers do not depend on those asked for together with it.

    `class_names`: by number, with synonyms after commas; empty where they are not known.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def seen(self, images: Sequence[Pixels]) -> tuple[Floats | None, Floats]:
        """Features (N, F), None where there are none, and probabilities (N, C)."""
        ...


def load_classifier(path: str, device: str | torch.device) -> Classifier:
    """The classifier that a manifest names, "" for EfficientNet-Lite0. Raises ManifestError, and UserCodeError for a user's code."""
    require_classifier(path)
    device, kind = torch.device(device), kind_of(path)
    if kind == "network":
        return load_network(device)
    return UserClassifier(path, device) if kind == "function" else FolderClassifier(path, device)


class FolderClassifier:
    """An image classifier of transformers with its processor; features are the means over positions of what its head gets."""

    def __init__(self, folder: str, device: torch.device) -> None:
        self.device = device
        config = _config(folder)
        if not any(
            "ImageClassification" in str(name) for name in config.get("architectures") or ()
        ):
            raise ManifestError(
                f"quality.classifier: {folder}/config.json: architectures: found {config.get('architectures')}; accepted: an image "
                "classifier, such as ViTForImageClassification"
            )
        try:
            with quiet():
                self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
                model = AutoModelForImageClassification.from_pretrained(
                    folder, local_files_only=True
                )
        except (*WRONG, ImportError) as error:
            raise ManifestError(
                f"quality.classifier: {folder} cannot be loaded: {first_line(error)}; accepted: {FORM}"
            ) from error
        self._model = model.eval().requires_grad_(False).to(device)
        names = model.config.id2label
        self.class_names = tuple(str(names[number]) for number in sorted(names))

    @torch.inference_mode()
    def seen(self, images: Sequence[Pixels]) -> tuple[Floats | None, Floats]:
        found = [self._of(part) for part in in_batches(images, self.device)]
        features, probabilities = (np.concatenate(one) for one in zip(*found, strict=True))
        return features[: len(images)], probabilities[: len(images)]

    def _of(self, images: list[Pixels]) -> tuple[Floats, Floats]:
        # channels last said: a picture 3 pixels high would be taken for planes
        inputs = self._processor(
            images=[np.ascontiguousarray(image) for image in images],
            return_tensors="pt",
            input_data_format="channels_last",
        )
        made = self._model(inputs["pixel_values"].to(self.device), output_hidden_states=True)
        last = made.hidden_states[-1].float()
        # (N, positions, F) of transformers, (N, F, h, w) of convolutions
        pooled = last.mean((2, 3)) if last.ndim == 4 else last.mean(1)
        return pooled.cpu().numpy(), made.logits.float().softmax(-1).cpu().numpy()


class UserClassifier:
    """`FUNCTION(images, device)` of a user's file; its attribute `class_names`, if it has one, names the classes.

    It gets a list of uint8 arrays (H, W, 3) and the name of a device, one picture at a time on a CPU, else always 16.
    """

    def __init__(self, path: str, device: torch.device) -> None:
        self.device, self.path = device, path
        file, _, name = path.rpartition(":")
        self._file, self._num_classes = Path(file), 0
        with user_import(self._file):
            function = getattr(module_of(file, source_digest(file)), name, None)
        if not callable(function):
            what = "no such name" if function is None else "not a function"
            raise ManifestError(
                f"quality.classifier: {name} in {file}: {what}; accepted: {name}(images, device)"
            )
        self._function: Callable[..., Any] = function
        names = getattr(function, "class_names", ())
        if not isinstance(names, (list, tuple)):
            raise ManifestError(
                f"quality.classifier: {path}: class_names: found {type(names).__name__}; accepted: a list or tuple, a name for each class"
            )
        self.class_names = tuple(map(str, names))

    def seen(self, images: Sequence[Pixels]) -> tuple[Floats | None, Floats]:
        found = [self._of(part) for part in in_batches(images, self.device)]
        probabilities = np.concatenate([one for _, one in found])[: len(images)]
        if any(one is None for one, _ in found):
            return None, probabilities
        return np.concatenate([one for one, _ in found if one is not None])[
            : len(images)
        ], probabilities

    def _of(self, images: list[Pixels]) -> tuple[Floats | None, Floats]:
        with user_code(self._file), torch.inference_mode():
            made = self._function(images, str(self.device))
            features = made.get("features") if isinstance(made, dict) else None
            probabilities = made.get("probabilities") if isinstance(made, dict) else made
            found = _array(probabilities), None if features is None else _array(features)
        rows, vectors = found
        count = len(images)
        if rows is None or rows.ndim != 2 or len(rows) != count or rows.shape[1] < 2:
            raise self._fault(
                f"{_shape(probabilities)} for {counted(count, 'picture')}", _PROBABILITIES
            )
        if not np.isfinite(rows).all() or rows.min() < 0 or np.abs(rows.sum(1) - 1).max() > 0.01:
            raise self._fault(
                f"rows that sum to {float(rows[0].sum()):.3g}, from {float(rows.min()):.3g}",
                "probabilities: finite, 0 or more, of sum 1 (apply softmax to logits)",
            )
        if self._num_classes not in (0, rows.shape[1]):
            raise self._fault(
                f"{rows.shape[1]} classes", f"{self._num_classes}, as in the call before"
            )
        self._num_classes = rows.shape[1]
        if features is not None and (
            vectors is None or vectors.ndim != 2 or len(vectors) != count or not vectors.size
            or not np.isfinite(vectors).all()
        ):  # fmt: skip
            raise self._fault(f"features {_shape(features)}", f"finite numbers ({count}, F)")
        return vectors, rows

    def _fault(self, found: str, accepted: str) -> UserCodeError:
        place = place_of(self._function) or self.path
        return UserCodeError(
            f"{place}: classifier {self.path} returned {found}; accepted: {accepted}"
        )


def in_batches(images: Sequence[Pixels], device: torch.device) -> list[list[Pixels]]:
    """Parts of one size, the last filled up with its last picture: the last bits of a row depend on the size."""
    size = 1 if device.type == "cpu" else DEVICE_BATCH
    parts = [list(images[start : start + size]) for start in range(0, len(images), size)]
    return [[*part, *[part[-1]] * (size - len(part))] for part in parts]


def _array(value: Any) -> Floats | None:
    """Numbers of a user's array, tensor or lists; None where it is none."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy()
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        return None


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")


def _config(folder: str) -> dict[str, Any]:
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"quality.classifier: {folder}/config.json cannot be read: {error}; accepted: {FORM}"
        ) from None
    return found if isinstance(found, dict) else {}
