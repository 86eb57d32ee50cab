"""cast: every pair of dtypes, against NumPy and against a rounding that is done once, in integers."""

from fractions import Fraction

import numpy as np
import pytest

import gradring as gr
from layouts import ISAS, isa

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
INTEGERS = [np.dtype(code) for code in "bBhHiIqQ"]
FLOATS = [np.dtype(code) for code in "efd"] + [BFLOAT16]
DTYPES = [np.dtype("?"), *INTEGERS, *FLOATS]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 6e-8, 65504.0, 65519.0, 65520.0, 3.39e38, 1e300, 1e-310, -1e-40]


def values(dtype, count, rng):
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        drawn = rng.integers(info.min, info.max, count, dtype, endpoint=True)
        drawn[::3] >>= rng.integers(0, info.bits, len(drawn[::3])).astype(dtype)  # of every size
        return drawn
    if dtype.kind == "b":
        return rng.integers(0, 2, count).astype(dtype)
    drawn = rng.standard_normal(count) * 10.0 ** rng.integers(-9, 6, count)
    drawn[: len(SPECIAL)] = SPECIAL[:count]
    with np.errstate(over="ignore"):
        return drawn.astype(dtype)


def holds(x, dtype):
    """Where an integer dtype can hold a float; everywhere for others."""
    if x.dtype.kind not in "fV" or dtype.kind not in "iu":
        return np.ones(x.shape, bool)
    info, wide = np.iinfo(dtype), x.astype(np.float64)
    return (wide >= float(info.min)) & (wide < float(info.max))


def rounded_once(x, dtype):
    """Numbers to 16-bit floats, from exact fractions."""
    bits, least = (10, -14) if dtype == np.float16 else (7, -126)
    result = []
    for value in x.tolist():
        if (isinstance(value, float) and not np.isfinite(value)) or value == 0:
            result.append(float(value))
            continue
        exact, sign = abs(Fraction(value)), -1.0 if value < 0 else 1.0
        exponent = max(exact.numerator.bit_length() - exact.denominator.bit_length(), least)
        while exact >= Fraction(2) ** (exponent + 1):
            exponent += 1
        while exponent > least and exact < Fraction(2) ** exponent:
            exponent -= 1
        unit = Fraction(2) ** (exponent - bits)
        nearest = round(exact / unit) * unit  # ties to even
        limit = Fraction(2) ** (16 if dtype == np.float16 else 128)
        result.append(sign * (float("inf") if nearest >= limit else float(nearest)))
    return np.array(result, np.float64).astype(dtype)


@pytest.mark.parametrize("level", ISAS)
@pytest.mark.parametrize("count", [0, 1, 15, 33, 2000])
def test_every_pair_agrees_with_numpy(level, count):
    rng = np.random.default_rng(count)
    with isa(level), np.errstate(all="ignore"):
        for source in DTYPES:
            x = values(source, count, rng)
            for target in DTYPES:
                got = gr.ops.cast(x, target)
                assert got.dtype == target and got.shape == x.shape
                fits = holds(x, target)
                if target.itemsize == 2 and target.kind in "fV" and source.kind in "iufV":
                    wanted = rounded_once(x.astype(np.float64) if source == BFLOAT16 else x, target)
                else:
                    wanted = x.astype(np.float32).astype(target) if source == BFLOAT16 else x.astype(target)
                wide = (np.float64,) if target.kind in "fV" else ()
                np.testing.assert_array_equal(
                    got[fits].astype(*wide) if wide else got[fits],
                    wanted[fits].astype(*wide) if wide else wanted[fits],
                    err_msg=f"{source} to {target}",
                )
                if target.kind in "fV":
                    signs = ~np.isnan(wanted.astype(np.float64))
                    np.testing.assert_array_equal(
                        np.signbit(got.astype(np.float64))[signs], np.signbit(wanted.astype(np.float64))[signs]
                    )


@pytest.mark.parametrize("number", [2**62 + 2**54 + 1, -(2**62) - 2**54 - 1, 2**62 + 2**54, 2**63 - 1, 2**53 + 1])
def test_large_integers_are_rounded_once(number):
    for dtype in (np.int64, np.uint64)[: 1 + (number > 0)]:
        x = np.array([number], dtype)
        np.testing.assert_array_equal(gr.ops.cast(x, BFLOAT16), rounded_once(x, BFLOAT16))


def test_every_16_bit_float_comes_back():
    for dtype in (np.dtype("e"), BFLOAT16):
        x = np.arange(65536, dtype=np.uint16).view(dtype)
        with np.errstate(invalid="ignore"):
            wide = gr.ops.cast(x, "float32")
            back = gr.ops.cast(wide, dtype)
        nan = np.isnan(x.astype(np.float32))
        np.testing.assert_array_equal(back.view(np.uint16)[~nan], x.view(np.uint16)[~nan])
        assert np.isnan(back.astype(np.float32)[nan]).all()


@pytest.mark.parametrize("name", ["bfloat16", "float16", "int8", np.float16, np.dtype(">f4"), "f8", int])
def test_dtypes_have_names(name):
    x = np.array([[1.5, -2.0], [3.0, 4.0]], np.float32)
    got = gr.ops.cast(x, name)
    assert got.dtype == (BFLOAT16 if name == "bfloat16" else np.dtype(name).newbyteorder("="))
    np.testing.assert_array_equal(got.astype(float), x.astype(got.dtype).astype(float))


@pytest.mark.parametrize("name", ["float128x", "complex64", "datetime64[s]", object, 3, None, "nonsense"])
def test_other_dtypes_are_refused(name):
    if name is None:
        name = "U4"
    with pytest.raises(TypeError, match=r"\[cast\] dtype is .*: must be float32, float64"):
        gr.ops.cast(np.ones(3), name)


def test_strides_out_and_threads():
    x = np.arange(200_000, dtype=np.int32).reshape(1000, 200)[::-2, 3:77]
    out = np.empty(x.shape, np.float64)
    assert gr.ops.cast(x, "float64", out=out) is out
    np.testing.assert_array_equal(out, x)
    with pytest.raises(TypeError, match="out is of dtype float64: must be an aligned float32"):
        gr.ops.cast(x, "float32", out=out)
    with pytest.raises(ValueError, match="out"):
        gr.ops.cast(x, "float32", out=np.empty(3, np.float32))
    buffer = np.zeros(8, np.int32)
    with pytest.raises(ValueError, match="share|overlap"):
        gr.ops.cast(buffer, "float32", out=buffer.view(np.float32))


def test_other_ops_name_what_they_take():
    for dtype in (np.int16, np.float16, BFLOAT16, np.uint64):
        with pytest.raises(TypeError, match=r"\[relu\] x is of dtype .*: must be float32 or float64"):
            gr.ops.relu(np.ones(2, dtype))
    with pytest.raises(TypeError, match="must be float32 or float64"):
        gr.ops.relu(np.ones(2, complex))
