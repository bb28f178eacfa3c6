"""The stored form of a style's features: k and v, or the layer input x, as floats or as int8; or latents without features.

`k = W_k x` and `v = W_v x`, so x holds both in half the numbers; int8 halves that again. `methods/styleid/codec.py` encodes
tensors into this form and decodes them. Arrays are those of one image, without a batch axis; the last axis is the channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stylebatch.methods.stored_bytes import CodecName

FloatName = Literal["float16", "float32"]
Array = npt.NDArray[Any]

TENSORS: dict[str, tuple[str, ...]] = {
    "kv": ("k", "v"),
    "x": ("x",),
    "x8": ("x",),
    "trajectory": (),
}
SCALE_SUFFIX = ".scale"
LATENT_DTYPE: FloatName = "float32"
"""Features recomputed from a latent in half precision would differ visibly from those that were held."""
HALF_INFINITY = 0x7C00
"""The bits of infinity in float16; those of NaN are above."""


@dataclass(frozen=True)
class Codec:
    """Which tensors of a site are stored, and in which types.

    `dtype` is the precision of k, v and x; `x8` stores x as int8 with a float32 scale per channel, whatever `dtype` is. Latents
    are float32 under every codec; `trajectory` stores them alone.
    """

    name: CodecName
    dtype: FloatName = "float16"

    def __post_init__(self) -> None:
        if self.name not in TENSORS:
            raise ValueError(f"codec.name: {self.name!r}; accepted: {', '.join(TENSORS)}")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"codec.dtype: {self.dtype!r}; accepted: float16, float32")

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of a site's tensors before encoding; none for `trajectory`."""
        return TENSORS[self.name]

    def checked(self, encoded: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors of one site, contiguous, if they have their stored form.

        Raises ValueError, naming the tensor, for other names, types or shapes of scales, and for empty and non-finite arrays.
        """
        types = self.stored_types
        if set(encoded) != set(types):
            raise ValueError(
                f"codec {self.name}: found the stored tensors {sorted(encoded)}; accepted: {sorted(types)}"
            )
        for name, dtype in types.items():
            array = encoded[name]
            if array.dtype != dtype or array.size == 0:
                raise ValueError(
                    f"{name}: found {array.dtype} of shape {array.shape}; accepted: a non-empty {dtype} array"
                )
            if array.dtype.kind == "f":
                require_finite(array, name)
            channels = encoded[name.removesuffix(SCALE_SUFFIX)].shape[-1:]
            if name.endswith(SCALE_SUFFIX) and array.shape != channels:
                raise ValueError(f"{name}: found the shape {array.shape}; accepted: {channels}")
        return {name: np.ascontiguousarray(encoded[name]) for name in types}

    @property
    def stored_types(self) -> dict[str, str]:
        """The type of each stored tensor of a site."""
        if self.name != "x8":
            return dict.fromkeys(self.tensors, self.dtype)
        quantised = dict.fromkeys(self.tensors, "int8")
        return quantised | {name + SCALE_SUFFIX: "float32" for name in self.tensors}


def require_finite(array: Array, name: str) -> None:
    """Raise ValueError, naming the tensor, unless all values of a float array are finite."""
    if array.dtype == np.float16:
        # Without the sign, the bits of halves are ordered as their values; numpy compares bits 70 times faster.
        is_finite = bool(np.bitwise_and(array.view(np.uint16), 0x7FFF).max() < HALF_INFINITY)
    else:
        # The squares may overflow; only then are the values looked at one by one.
        is_finite = _has_finite_norm(array) or bool(np.isfinite(array).all())
    if not is_finite:
        raise ValueError(f"{name}: holds NaN or infinity; accepted: finite values")


def _has_finite_norm(array: Array) -> bool:
    """Whether the sum of squares is finite, in one fast pass; if not, the squares may have overflowed."""
    if not array.flags.c_contiguous:
        return False
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(flat, flat))
