"""matmul, linear and linear_vjp of bfloat16: sums in float32, one rounding, results of either dtype, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import LAYOUTS, laid_out

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
Array = np.ndarray[Any, Any]
sizes = st.one_of(st.integers(0, 20), st.integers(0, 150))


def draw(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(BFLOAT16)


def wide(array: Array) -> Array:
    return array.astype(np.float64)


def within(got: Array, want: Array, k: int, scale: Array | float) -> bool:
    """Within the error of k sums in float32, and of one rounding to bfloat16 if the result is of that dtype."""
    rounding = np.abs(want) * 2**-8 * 1.01 if got.dtype == BFLOAT16 else 0
    return bool((np.abs(wide(got) - want) <= (k + 4) * 2.0**-23 * scale + rounding + 1e-37).all())


@settings(deadline=None, max_examples=200)
@given(
    m=sizes,
    n=sizes,
    k=sizes,
    dtype=st.sampled_from((None, "bfloat16", "float32", np.float32)),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    trans=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    m: int, n: int, k: int, dtype: Any, layouts: tuple[str, str], trans: tuple[bool, bool], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = draw(rng, *((k, m) if trans[0] else (m, k))), draw(rng, *((n, k) if trans[1] else (k, n)))
    a, b = laid_out(a, layouts[0]), laid_out(b, layouts[1])
    left, right = wide(a.T if trans[0] else a), wide(b.T if trans[1] else b)
    got = gr.ops.matmul(a, b, trans_a=trans[0], trans_b=trans[1], dtype=dtype)
    assert got.dtype == (np.float32 if dtype in ("float32", np.float32) else BFLOAT16)
    assert got.shape == (m, n)
    assert within(got, left @ right, k, np.abs(left) @ np.abs(right))


def test_long_sums_are_exact_where_float32_is() -> None:
    """Ones: a sum in bfloat16 would stop at 256."""
    for m, k in ((1, 5000), (3, 5000), (40, 5000), (200, 3000)):
        ones_a, ones_b = np.ones((m, k), BFLOAT16), np.ones((k, 33), BFLOAT16)
        assert (gr.ops.matmul(ones_a, ones_b, dtype="float32") == k).all()
        assert (wide(gr.ops.matmul(ones_a, ones_b)) == float(BFLOAT16.type(k))).all()


@pytest.mark.parametrize("rows", [1, 4, 5, 64])
def test_small_numbers_are_kept_for_any_number_of_rows(rows: int) -> None:
    """Subnormal operands, and subnormal products whose sum is a normal number."""
    for first, second in ((2.0**-130, 2.0**30), (2.0**-70, 2.0**-60), (2.0**-133, 1.0), (2.0**-62, 2.0**-62)):
        a, b = np.full((rows, 64), first, BFLOAT16), np.full((64, 64), second, BFLOAT16)
        assert (gr.ops.matmul(a, b, dtype="float32") == np.float32(64 * first * second)).all()
        assert (wide(gr.ops.matmul(a, b)) == float(BFLOAT16.type(64 * first * second))).all()
    x, w, dy = (np.full((64, 64), value, BFLOAT16) for value in (2.0**10, 2.0**10, 2.0**-128))
    dx, dw, db = gr.ops.linear_vjp(dy, x, w)
    assert (wide(dx) == 2.0**-112).all() and (wide(dw) == 2.0**-112).all() and (wide(db) == 2.0**-122).all()


def test_out_decides_the_dtype_and_keeps_its_surroundings() -> None:
    rng = np.random.default_rng(1)
    a, b = draw(rng, 9, 30), draw(rng, 30, 21)
    for dtype in (np.dtype(np.float32), BFLOAT16):
        around = np.full((13, 40), 7, dtype)
        out = around[2:11, 4:25]
        assert gr.ops.matmul(a, b, out=out) is out
        assert np.array_equal(out, gr.ops.matmul(a, b, dtype=dtype.name))
        out[...] = 7
        assert (around == 7).all()
        fortran = np.empty((9, 21), dtype, order="F")
        assert np.array_equal(gr.ops.matmul(a, b, out=fortran), gr.ops.matmul(a, b, dtype=dtype.name))
        batch = gr.ops.matmul(np.stack([a, a]), b, dtype=dtype.name)
        assert batch.dtype == dtype and np.array_equal(batch[1], gr.ops.matmul(a, b, dtype=dtype.name))


def test_unaligned_operands_are_read() -> None:
    rng = np.random.default_rng(2)
    a, b = draw(rng, 5, 8), draw(rng, 8, 6)
    odd = np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(BFLOAT16).reshape(5, 8)
    assert np.array_equal(gr.ops.matmul(odd, b), gr.ops.matmul(a, b))


def test_nan_and_infinity_propagate() -> None:
    for m in (1, 3, 40):
        a, b = np.ones((m, 70), BFLOAT16), np.ones((70, 33), BFLOAT16)
        a[0, 69], b[5, 7] = np.inf, np.nan
        got = wide(gr.ops.matmul(a, b))
        assert np.isnan(got[:, 7]).all()
        assert np.isposinf(np.delete(got[0], 7)).all()
        assert (np.delete(got[1:], 7, axis=1) == 70).all()
        large = np.full((m, 70), 3e38, BFLOAT16)
        assert np.isposinf(wide(gr.ops.matmul(large, np.ones((70, 5), BFLOAT16)))).all()
        zero_times_infinity = gr.ops.matmul(np.zeros((m, 3), BFLOAT16), np.full((3, 4), np.inf, BFLOAT16))
        assert np.isnan(wide(zero_times_infinity)).all()


def test_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    a, b, bias = draw(rng, 301, 517), draw(rng, 517, 259), draw(rng, 259)
    before = gr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 8):
            gr.set_num_threads(threads)
            y = gr.ops.linear(a, b, bias, activation="gelu")
            results.append((y, gr.ops.matmul(a, b, dtype="float32"), *gr.ops.linear_vjp(y, a, b, y, activation="tanh")))
        for result in results[1:]:
            for got, first in zip(result, results[0], strict=True):
                assert got.tobytes() == first.tobytes()
    finally:
        gr.set_num_threads(before)


@pytest.mark.parametrize("rows", [0, 1, 4, 33])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "tanh"])
def test_a_layer_takes_a_bias_and_gives_results_of_either_dtype(rows: int, activation: Any) -> None:
    rng = np.random.default_rng(rows)
    x, w, b, dy = draw(rng, rows, 19), draw(rng, 19, 37), draw(rng, 37), draw(rng, rows, 37)
    plain = [wide(array) for array in (x, w, b, dy)]
    want, pre_want = gr.ops.linear(*plain[:3], activation=activation), plain[0] @ plain[1] + plain[2]
    for bias in (b, b.astype(np.float32)):
        for dtype in ("bfloat16", "float32"):
            pre = np.empty((rows, 37), dtype)
            y = gr.ops.linear(x, w, bias, activation=activation, dtype=dtype, pre=pre)
            assert y.dtype == pre.dtype == np.dtype(dtype)
            assert within(pre, pre_want, 19, 60.0) and within(y, want, 19, 60.0)
            wanted = gr.ops.linear_vjp(plain[3], *plain[:2], wide(pre if activation == "gelu" else y), activation=activation)
            kept = pre if activation == "gelu" else y
            out = (np.empty(x.shape, dtype), np.empty(w.shape, dtype), np.empty(37, dtype))
            got = gr.ops.linear_vjp(dy, x, w, kept, activation=activation, out=out)
            for mine, theirs in zip(got, wanted, strict=True):
                bound = (2**-8 * 3 if activation or dtype == "bfloat16" else 1e-5) * (1 + np.abs(theirs).max(initial=0))
                assert mine.dtype == np.dtype(dtype) and np.abs(wide(mine) - theirs).max(initial=0) <= bound


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_matrices_and_stacks_take_the_same_dtypes_and_outs(shape: tuple[int, ...]) -> None:
    a, b = np.ones(shape, np.float32), np.ones((4, 5), np.float32)
    for named in ("float32", "f4", "single", "<f4", ">f4", np.float32):
        assert gr.ops.matmul(a, b, dtype=named).dtype == np.float32
    half = gr.ops.matmul(a.astype(BFLOAT16), b.astype(BFLOAT16), dtype="f4")
    assert half.dtype == np.float32 and (half == 4).all()
    for code in (">f4", "f8"):
        with pytest.raises(TypeError, match=f"out is of dtype {np.dtype(code)}: must be an aligned float32"):
            gr.ops.matmul(a, b, out=np.empty((*shape[:-1], 5), code))
    with pytest.raises(TypeError, match="out is a list: must be a numpy.ndarray"):
        gr.ops.matmul(a, b, out=[1])  # type: ignore[arg-type]


def test_bad_input() -> None:
    half, single = np.ones((3, 3), BFLOAT16), np.ones((3, 3), np.float32)
    double = np.ones((3, 3))
    with pytest.raises(TypeError, match=r"\[matmul\] a is bfloat16, b is float64: must have the same dtype"):
        gr.ops.matmul(half, double)
    with pytest.raises(TypeError, match=r"\[matmul\] a is float32, b is bfloat16: must have the same dtype"):
        gr.ops.matmul(single, half)
    with pytest.raises(TypeError, match=r"\[matmul\] a is float16, b is bfloat16: must have the same dtype"):
        gr.ops.matmul(half.astype(np.float16), half)
    with pytest.raises(TypeError, match=r"\[matmul\] dtype is bfloat16, a is float16: must be float16 or float32"):
        gr.ops.matmul(half.astype(np.float16), half.astype(np.float16), dtype="bfloat16")
    for given_a, must in ((half, "bfloat16 or float32"), (single, "float32")):
        with pytest.raises(TypeError, match=rf"\[matmul\] dtype is float64, a is .*: must be {must}"):
            gr.ops.matmul(given_a, given_a, dtype="float64")
        with pytest.raises(TypeError, match=rf"\[matmul\] dtype is float64, a is .*: must be {must}"):
            gr.ops.matmul(np.stack([given_a]), given_a, dtype=np.float64)
    with pytest.raises(TypeError, match=r"\[matmul\] out is of dtype float64: must be an aligned bfloat16"):
        gr.ops.matmul(half, half, out=double)
    with pytest.raises(TypeError, match=r"\[matmul\] out is of dtype float32: must be an aligned bfloat16"):
        gr.ops.matmul(half, half, out=single, dtype="bfloat16")
    with pytest.raises(TypeError, match=r"\[matmul\] out is of dtype bfloat16: must be an aligned float32"):
        gr.ops.matmul(single, single, out=half)
    with pytest.raises(TypeError, match=r"\[linear\] w is bfloat16, b is float64: must be bfloat16 or float32"):
        gr.ops.linear(half, half, np.ones(3))
    with pytest.raises(TypeError, match=r"\[linear\] w is float32, b is bfloat16: must have the same dtype"):
        gr.ops.linear(single, single, half[0])
    with pytest.raises(TypeError, match=r"\[linear_vjp\] dy is float32, x is bfloat16: must have the same dtype"):
        gr.ops.linear_vjp(single, half, half)
    with pytest.raises(ValueError, match="out shares memory with a"):
        gr.ops.matmul(half, np.ones((3, 3), BFLOAT16), out=half)
    memory = np.zeros(20, np.float32)
    with pytest.raises(ValueError, match="out shares memory with a"):
        gr.ops.matmul(memory[:9].view(BFLOAT16)[:9].reshape(3, 3), half, out=memory[:9].reshape(3, 3))
