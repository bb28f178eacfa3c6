"""Embeddings of pictures and texts by a transformers folder of CLIP or DINO on this machine."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from stylebatch.errors import ManifestError
from stylebatch.pixel_memory import Pixels, image_of

Embedding = NDArray[np.float64]


class Embedder:
    """A model of a folder with safetensors weights and preprocessor_config.json. Raises ManifestError for another folder."""

    def __init__(self, folder: str, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self._size, self._crop, self._mean, self._std, self._filter = self._preprocessing()
        try:
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise ManifestError(
                f"{folder}: cannot be loaded ({reason}); accepted: a folder with config.json and model.safetensors"
            ) from None
        self.model = model.eval().requires_grad_(False).to(device)

    @torch.inference_mode()
    def of_image(self, pixels: Pixels) -> Embedding:
        """(d,): CLIP's image embedding, else the first token (class token) of the last layer."""
        values = self._prepared(pixels).to(self.device)
        if hasattr(self.model, "get_image_features"):
            found = self.model.get_image_features(pixel_values=values)
            # a tensor in older versions of transformers
            found = getattr(found, "pooler_output", found)
        else:
            found = self.model(pixel_values=values).last_hidden_state[:, 0]
        return np.asarray(found[0].cpu().double().numpy())

    @torch.inference_mode()
    def of_text(self, text: str) -> Embedding:
        """(d,): CLIP's text embedding."""
        if not hasattr(self.model, "get_text_features"):
            raise ManifestError(f"{self.folder}: has no text encoder; accepted: a folder of CLIP")
        tokens = self._tokenizer(text, return_tensors="pt", truncation=True).to(self.device)
        found = self.model.get_text_features(**tokens)
        found = getattr(found, "pooler_output", found)
        return np.asarray(found[0].cpu().double().numpy())

    @cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)

    def _preprocessing(self) -> tuple[int, int, list[float], list[float], Image.Resampling]:
        """Shorter side, crop, mean, std and filter. The library's own preparing needs torchvision."""
        file = Path(self.folder) / "preprocessor_config.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            size = _side(found["size"])
            crop = _side(found.get("crop_size") or size)
            mean, std = ([float(x) for x in found[name]] for name in ("image_mean", "image_std"))
            return size, crop, mean, std, Image.Resampling(int(found.get("resample", 3)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{file}: cannot be used ({type(error).__name__}: {error}); accepted: a preprocessor_config.json with size, image_mean, "
                "image_std"
            ) from None

    def _prepared(self, pixels: Pixels) -> Tensor:
        """(1, 3, crop, crop), normalised."""
        image = image_of(pixels)
        scale = self._size / min(image.size)
        size = tuple(max(self._crop, round(side * scale)) for side in image.size)
        image = image.resize(size, self._filter)  # type: ignore[arg-type]
        left, top = ((side - self._crop) // 2 for side in image.size)
        cut = np.asarray(image.crop((left, top, left + self._crop, top + self._crop)))
        values = (cut / 255.0 - np.array(self._mean)) / np.array(self._std)
        return torch.from_numpy(values).permute(2, 0, 1)[None].float()


def _side(value: Any) -> int:
    if isinstance(value, dict):
        value = value.get("shortest_edge") or value["height"]
    if not isinstance(value, int) or not 1 <= value <= 4096:
        raise ValueError(f"found a size of {value}")
    return value
