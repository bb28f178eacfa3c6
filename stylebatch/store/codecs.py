"""How the features of one style are stored: k and v, or the layer input x, as floats or as int8.

`k = W_k x` and `v = W_v x`, so x carries both in half the numbers; int8 halves that again.
Arrays are those of one image, without a batch axis; the last axis is the channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

CodecName = Literal["kv", "x", "x8", "trajectory"]
FloatName = Literal["float16", "float32"]
Array = npt.NDArray[Any]
Shapes = Mapping[int, Mapping[str, tuple[int, ...]]]
"""Per site, the shape of each tensor before encoding."""

TENSORS: dict[str, tuple[str, ...]] = {
    "kv": ("k", "v"),
    "x": ("x",),
    "x8": ("x",),
    "trajectory": (),
}
SCALE_SUFFIX = ".scale"
LARGEST_INT8 = 127
LATENT_DTYPE: FloatName = "float32"
"""Half precision of a latent is seen in the features recomputed from it."""
SMALLEST_SCALE = np.finfo(np.float32).tiny
"""Scales below the normal numbers would round x / scale out of int8."""


@dataclass(frozen=True)
class Codec:
    """Which tensors of a site are stored, and how.

    `dtype` is the precision of k, v and x; `x8` stores x as int8 whatever it is. Latents are float32
    under every codec; `trajectory` stores them alone.
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

    def encode(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The stored tensors of one site; `x8` adds `x.scale`, float32 (channels,).

        Raises ValueError, naming the tensor, for missing or surplus names, non-finite or empty
        input, and values that the stored type cannot hold.
        """
        if set(tensors) != set(self.tensors):
            raise ValueError(
                f"codec {self.name}: found the tensors {sorted(tensors)}; accepted: {sorted(self.tensors)}"
            )
        encoded: dict[str, Array] = {}
        for name in self.tensors:
            if self.name == "x8":
                encoded[name], encoded[name + SCALE_SUFFIX] = _quantise(tensors[name], name)
            else:
                encoded[name] = cast(tensors[name], self.dtype, name)
        return encoded

    def checked(self, encoded: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors of one site that have their stored form already, contiguous.

        Raises ValueError, naming the tensor, for names, types and scales' shapes that `encode` does
        not give, and for empty and non-finite input.
        """
        types = self._stored_types
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
            if array.dtype.kind == "f" and not _has_finite_norm(array):
                _largest(array, name)
            channels = encoded[name.removesuffix(SCALE_SUFFIX)].shape[-1:]
            if name.endswith(SCALE_SUFFIX) and array.shape != channels:
                raise ValueError(f"{name}: found the shape {array.shape}; accepted: {channels}")
        return {name: np.ascontiguousarray(encoded[name]) for name in types}

    @property
    def _stored_types(self) -> dict[str, str]:
        """Type of each stored tensor of a site."""
        if self.name != "x8":
            return dict.fromkeys(self.tensors, self.dtype)
        quantised = dict.fromkeys(self.tensors, "int8")
        return quantised | {name + SCALE_SUFFIX: "float32" for name in self.tensors}

    def decode(self, encoded: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors of one site: `x8` as new float32 arrays, all others as they are stored."""
        if self.name != "x8":
            return {name: encoded[name] for name in self.tensors}
        decoded = {name: encoded[name].astype(np.float32) for name in self.tensors}
        for name, array in decoded.items():
            array *= encoded[name + SCALE_SUFFIX]
        return decoded

    def tensor_bytes(self, shape: tuple[int, ...]) -> int:
        """Stored bytes of one feature tensor of this shape, its scales included."""
        if self.name == "x8":
            return math.prod(shape) + 4 * shape[-1]
        return math.prod(shape) * np.dtype(self.dtype).itemsize

    def timestep_bytes(self, shapes: Shapes) -> int:
        """Stored feature bytes of one timestep; tensors that this codec leaves out cost nothing."""
        return sum(
            self.tensor_bytes(site[name]) for site in shapes.values() for name in self.tensors
        )

    def style_bytes(
        self, shapes: Shapes, num_timesteps: int, latent_shape: tuple[int, ...], num_levels: int
    ) -> int:
        """Stored tensor bytes of one style: features of all timesteps, latents and their levels.

        File headers (about 1 kB per timestep) are not counted.
        """
        latent_bytes = math.prod(latent_shape) * np.dtype(LATENT_DTYPE).itemsize
        level_bytes = np.dtype(np.int64).itemsize
        return num_timesteps * self.timestep_bytes(shapes) + num_levels * (
            latent_bytes + level_bytes
        )


def cast(array: Array, dtype: FloatName, name: str) -> Array:
    """Contiguous copy or view of `array` in `dtype`; raises ValueError unless the result is finite."""
    largest = float(_largest(array, name))
    # float16 rounds half way to the next power of two, 65520, up to infinity
    limit = 65520.0 if dtype == "float16" else math.inf
    if largest >= limit:
        raise ValueError(
            f"{name}: holds {largest:g}, which float16 cannot; accepted: below 65520. Next: store it as float32."
        )
    return np.ascontiguousarray(array, dtype=dtype)


def _quantise(array: Array, name: str) -> tuple[Array, Array]:
    """int8 and the float32 scale of each channel; |error| <= scale / 2, up to float32 rounding."""
    values = np.ascontiguousarray(array, dtype=np.float32)
    largest = _largest(values, name, axis=tuple(range(values.ndim - 1)))
    scale = np.where(largest > 0, np.maximum(largest / LARGEST_INT8, SMALLEST_SCALE), 0)
    scale = scale.astype(np.float32)
    steps = values / np.where(scale > 0, scale, 1)
    return np.rint(steps, out=steps).astype(np.int8), scale


def _has_finite_norm(array: Array) -> bool:
    """Whether all of a float32 array is finite, seen in one fast pass; False may be an overflow of the squares."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        return False
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(flat, flat))


def _largest(array: Array, name: str, axis: tuple[int, ...] | None = None) -> Array:
    """max |array| over `axis`; raises ValueError for input that is not float, empty or not finite."""
    if array.dtype.kind != "f" or array.size == 0 or array.ndim == 0:
        raise ValueError(
            f"{name}: found {array.dtype} of shape {array.shape}; accepted: a non-empty float array"
        )
    if array.dtype == np.float16:
        # less the sign, the bits of halves are ordered as their values; numpy compares bits 70 times faster
        bits = np.bitwise_and(array.view(np.uint16), 0x7FFF)
        largest = bits.max(axis=axis).view(np.float16)
    else:
        largest = np.maximum(array.max(axis=axis), -array.min(axis=axis))
    if not np.isfinite(largest).all():
        raise ValueError(f"{name}: holds NaN or infinity; accepted: finite values")
    return np.asarray(largest)
