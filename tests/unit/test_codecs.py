"""Only features in their stored form are stored."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from stylebatch.features.codecs import Codec, CodecName, FloatName, require_finite
from stylebatch.methods.stored_bytes import FeatureCodecName, stored_bytes

Array = npt.NDArray[Any]


def stored(name: CodecName, dtype: FloatName = "float16") -> dict[str, Array]:
    """k and v (2 heads, 24 tokens, 4), or x (24, 8), in their stored form."""
    draw = np.random.default_rng(0)
    shapes = {"k": (2, 24, 4), "v": (2, 24, 4), "x": (24, 8), "x.scale": (8,)}
    types = Codec(name, dtype).stored_types
    return {key: (50 * draw.normal(size=shapes[key])).astype(kind) for key, kind in types.items()}


def test_codecs_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codec\.name: 'zip'"):
        Codec("zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"codec\.dtype: 'int8'"):
        Codec("x8", "int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["kv", "x", "x8"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_arrays_are_stored_as_they_are_and_contiguous(name: CodecName, dtype: FloatName) -> None:
    arrays = stored(name, dtype)
    strided = {k: np.repeat(array, 2, axis=0)[::2] for k, array in arrays.items()}
    for form in (arrays, strided):
        checked = Codec(name, dtype).checked(form)
        assert checked.keys() == arrays.keys()
        for tensor, array in checked.items():
            assert array.flags.c_contiguous
            assert array.dtype == arrays[tensor].dtype
            np.testing.assert_array_equal(array, arrays[tensor])


@pytest.mark.parametrize("name", get_args(FeatureCodecName))
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bytes_that_plans_and_the_doctor_count_are_those_of_the_arrays(
    name: FeatureCodecName, dtype: FloatName
) -> None:
    kept = sum(array.nbytes for array in stored(name, dtype).values())
    assert stored_bytes(name, 24 * 8, np.dtype(dtype).itemsize, 8) == kept


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_large_values_are_finite(dtype: type) -> None:
    """Their squares are not."""
    for values in (np.full((3, 4), np.finfo(dtype).max, dtype), np.zeros((3, 4), dtype)):
        for array in (values, -values, values[::2]):
            require_finite(array, "x")
        for bad in (np.nan, -np.nan, np.inf, -np.inf):
            values[1, 2] = bad
            with pytest.raises(ValueError, match="x: holds NaN or infinity"):
                require_finite(values, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((4, 8), np.float32)}, r"x: found float32 of shape \(4, 8\).* int8 array"),
        ({"x": np.zeros((0, 8), np.int8)}, r"x: found int8 of shape \(0, 8\).*non-empty int8"),
        ({"x.scale": np.ones(8, np.float16)}, r"x\.scale: found float16.*float32 array"),
        ({"x.scale": np.ones(7, np.float32)}, r"x\.scale: .*shape \(7,\); accepted: \(8,\)"),
        ({"x.scale": np.full(8, np.nan, np.float32)}, r"x\.scale: holds NaN"),
        ({"y": np.ones(8, np.float32)}, r"found the stored tensors \['x', 'x\.scale', 'y'\]"),
    ],
)
def test_what_is_not_in_stored_form_is_refused(change: dict[str, Array], message: str) -> None:
    arrays = stored("x8")
    with pytest.raises(ValueError, match=message):
        Codec("x8").checked(arrays | change)


def test_stored_floats_of_another_width_or_order_are_refused() -> None:
    k = np.ones((2, 3, 4), np.float16)
    for other in (k.astype(np.float32), k.astype(">f2")):
        with pytest.raises(ValueError, match=r"v: found .*a non-empty float16 array"):
            Codec("kv").checked({"k": k, "v": other})
    with pytest.raises(ValueError, match="v: holds NaN or infinity"):
        Codec("kv").checked({"k": k, "v": k * np.float16(np.inf)})
