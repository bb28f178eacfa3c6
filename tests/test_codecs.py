"""Stored features stay within the stated error, and what cannot be stored is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stylebatch.store.codecs import Codec, CodecName, FloatName

Array = npt.NDArray[Any]


def features(name: CodecName, seed: int = 0, length: int = 24) -> dict[str, Array]:
    """k and v (2 heads, length, 4), or x (length, 8), whose channels differ in size."""
    draw = np.random.default_rng(seed)
    if name == "kv":
        return {k: draw.normal(size=(2, length, 4)).astype(np.float32) for k in ("k", "v")}
    sizes = 10.0 ** np.arange(-4, 4)
    return {"x": (draw.normal(size=(length, 8)) * sizes).astype(np.float32)}


@pytest.mark.parametrize("name", ["kv", "x"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_come_back_as_stored(name: CodecName, dtype: FloatName) -> None:
    codec, given = Codec(name, dtype), features(name)
    decoded = codec.decode(codec.encode(given))
    assert decoded.keys() == given.keys()
    for tensor, array in given.items():
        assert decoded[tensor].dtype == dtype
        np.testing.assert_array_equal(decoded[tensor], array.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_int8_error_is_at_most_half_a_scale(dtype: type) -> None:
    x = features("x", length=500)["x"].astype(dtype)
    encoded = Codec("x8").encode({"x": x})
    assert encoded["x"].dtype == np.int8
    assert encoded["x.scale"].dtype == np.float32
    assert encoded["x.scale"].shape == (8,)
    assert np.abs(encoded["x"]).max(axis=0).tolist() == [127] * 8
    error = np.abs(Codec("x8").decode(encoded)["x"].astype(float) - x.astype(float)).max(axis=0)
    assert (error <= encoded["x.scale"] / 2 * (1 + 1e-4)).all()


def test_int8_rounds_to_nearest_rather_than_down() -> None:
    x = np.array([[127.0], [0.6], [-0.6], [0.4]], np.float32)
    encoded = Codec("x8").encode({"x": x})
    assert encoded["x"][:, 0].tolist() == [127, 1, -1, 0]


def test_zero_and_subnormal_channels_do_not_divide_by_zero() -> None:
    x = np.zeros((5, 3), np.float32)
    x[:, 1] = np.float32(1e-44)
    x[2, 2] = -3.0
    decoded = Codec("x8").decode(Codec("x8").encode({"x": x}))["x"]
    assert np.array_equal(decoded[:, 0], x[:, 0])
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded, x, atol=1e-37, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["kv", "x", "x8"])
def test_non_finite_features_are_refused(bad: float, name: CodecName) -> None:
    given = features(name)
    tensor = list(given)[-1]
    given[tensor][..., 3, 2] = bad
    for dtype in (np.float16, np.float32):
        held = {k: (array * 1e-3).astype(dtype) for k, array in given.items()}
        with pytest.raises(ValueError, match=rf"{tensor}: holds NaN or infinity"):
            Codec(name).encode(held)


def test_float16_does_not_overflow_to_infinity() -> None:
    x = np.full((2, 2), 65519.0, np.float32)
    assert np.isfinite(Codec("x").encode({"x": x})["x"]).all()
    with pytest.raises(ValueError, match=r"x: holds 65520, which float16 cannot.*float32"):
        Codec("x").encode({"x": x + 1})
    assert Codec("x", "float32").encode({"x": x + 1})["x"][0, 0] == 65520


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found the tensors \['x'\]; accepted: \['k', 'v'\]"):
        Codec("kv").encode(features("x"))
    with pytest.raises(ValueError, match=r"int64.*accepted: a non-empty float array"):
        Codec("x").encode({"x": np.arange(4)})
    with pytest.raises(ValueError, match="non-empty"):
        Codec("x8").encode({"x": np.zeros((0, 3), np.float32)})
    with pytest.raises(ValueError, match=r"codec\.name: 'zip'"):
        Codec("zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"codec\.dtype: 'int8'"):
        Codec("x8", "int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["kv", "x", "x8"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_encode_gives_is_in_stored_form(name: CodecName, dtype: FloatName) -> None:
    encoded = Codec(name, dtype).encode(features(name))
    strided = {k: np.repeat(array, 2, axis=0)[::2] for k, array in encoded.items()}
    for given in (encoded, strided):
        checked = Codec(name, dtype).checked(given)
        assert checked.keys() == encoded.keys()
        for tensor, array in checked.items():
            assert array.flags.c_contiguous
            assert array.dtype == encoded[tensor].dtype
            np.testing.assert_array_equal(array, encoded[tensor])


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
    encoded = Codec("x8").encode(features("x"))
    with pytest.raises(ValueError, match=message):
        Codec("x8").checked(encoded | change)


def test_stored_floats_of_another_width_or_order_are_refused() -> None:
    k = np.ones((2, 3, 4), np.float16)
    for other in (k.astype(np.float32), k.astype(">f2")):
        with pytest.raises(ValueError, match=r"v: found .*a non-empty float16 array"):
            Codec("kv").checked({"k": k, "v": other})
    with pytest.raises(ValueError, match="v: holds NaN or infinity"):
        Codec("kv").checked({"k": k, "v": k * np.float16(np.inf)})


@pytest.mark.parametrize("name", ["kv", "x", "x8", "trajectory"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_planned_bytes_are_the_stored_bytes(name: CodecName, dtype: FloatName) -> None:
    codec = Codec(name, dtype)
    given = features(name) if codec.tensors else {}
    shapes = {site: {k: a.shape for k, a in given.items()} for site in (6, 7)}
    stored = sum(array.nbytes for array in codec.encode(given).values())
    assert codec.timestep_bytes(shapes) == 2 * stored
    assert codec.style_bytes(shapes, 3, (4, 8, 8), 4) == 3 * 2 * stored + 4 * (4 * 8 * 8 * 4 + 8)


def test_stable_diffusion_15_costs_what_the_design_says() -> None:
    sites = {6: (1024, 640), 7: (1024, 640), 8: (1024, 640)}
    sites |= {9: (4096, 320), 10: (4096, 320), 11: (4096, 320)}
    shapes = {site: {"x": shape, "k": shape, "v": shape} for site, shape in sites.items()}

    def gigabytes(codec: Codec) -> float:
        return codec.style_bytes(shapes, 50, (4, 64, 64), 51) / 1e9

    assert gigabytes(Codec("kv", "float16")) == pytest.approx(1.18, abs=0.005)
    assert gigabytes(Codec("x", "float16")) == pytest.approx(0.59, abs=0.005)
    assert gigabytes(Codec("x8")) == pytest.approx(0.297, abs=0.003)
    assert gigabytes(Codec("trajectory", "float16")) == pytest.approx(0.0033, abs=5e-5)
