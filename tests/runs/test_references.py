"""Inversions of reference images: kept, read from the style cache, and made where it has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stylebatch.data.images import Picture
from stylebatch.engine.blocks.references import References
from stylebatch.features.style_cache import StyleCache
from stylebatch.methods.stylealigned.algorithm import StyleAligned
from stylebatch.models.unet.stable_diffusion import StableDiffusion
from tests.support.images import picture

PICTURE = Picture(np.asarray(picture(3, 32, 32)), 32, 32)


def test_an_inversion_that_left_the_cache_is_made_again(
    eps_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    references = References(
        StyleAligned(steps=2, offset=0), eps_model,
        model_fingerprint="of a test", cache=str(tmp_path), on_saved=saved.append,
    )  # fmt: skip
    first = references.inverted(PICTURE, "a rock", "rock")
    references.forget()
    again = references.inverted(PICTURE, "a rock", "rock")
    assert len(saved) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(StyleCache(tmp_path).gc(0)) == 1
    monkeypatch.setattr(StyleCache, "contains", lambda *_: True)  # it was there a moment ago
    references.forget()
    made = references.inverted(PICTURE, "a rock", "rock")
    assert len(saved) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, made, strict=True))
