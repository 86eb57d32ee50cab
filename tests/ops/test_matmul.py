from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from helpers import run_script

Array = np.ndarray[Any, Any]


def assert_close(got: Array, a: Array, b: Array) -> None:
    """Within the bound of any order of summation: k ulp of the sum of absolute values."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    bound = float(np.finfo(a.dtype).eps) * (a.shape[1] + 1) * (np.abs(wide_a) @ np.abs(wide_b))
    assert (np.abs(got - wide_a @ wide_b) <= bound).all()


def view(rng: np.random.Generator, rows: int, columns: int, dtype: Any, layout: str) -> Array:
    """A (rows, columns) array whose memory lies as `layout` says."""
    if layout == "transposed":
        return np.ascontiguousarray(rng.standard_normal((columns, rows)), dtype).T
    if layout == "padded":
        return rng.standard_normal((rows, columns + 3)).astype(dtype)[:, 1 : columns + 1]
    if layout == "every other column":
        return rng.standard_normal((rows, 2 * columns)).astype(dtype)[:, ::2]
    if layout == "reversed rows":
        return rng.standard_normal((rows, columns)).astype(dtype)[::-1]
    if layout == "reversed columns":
        return rng.standard_normal((rows, columns)).astype(dtype)[:, ::-1]
    if layout == "one row repeated":
        return np.broadcast_to(rng.standard_normal(columns).astype(dtype), (rows, columns))
    return rng.standard_normal((rows, columns)).astype(dtype)


LAYOUTS = (
    "plain",
    "transposed",
    "padded",
    "every other column",
    "reversed rows",
    "reversed columns",
    "one row repeated",
)
sizes = st.one_of(st.integers(0, 20), st.integers(0, 150))


@settings(deadline=None, max_examples=300)
@given(
    m=sizes,
    n=sizes,
    k=sizes,
    dtype=st.sampled_from((np.float32, np.float64)),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    trans=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_float64(
    m: int, n: int, k: int, dtype: Any, layouts: tuple[str, str], trans: tuple[bool, bool], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a = view(rng, *((k, m) if trans[0] else (m, k)), dtype, layouts[0])
    b = view(rng, *((n, k) if trans[1] else (k, n)), dtype, layouts[1])
    got = gr.ops.matmul(a, b, trans_a=trans[0], trans_b=trans[1])
    assert got.dtype == dtype
    assert got.shape == (m, n)
    assert_close(got, a.T if trans[0] else a, b.T if trans[1] else b)


@pytest.mark.parametrize("layout", ["plain", "transposed", "padded", "every other column", "reversed rows"])
def test_out_of_any_layout(layout: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 7)), rng.standard_normal((7, 6))
    out = view(rng, 5, 6, np.float64, layout)
    assert gr.ops.matmul(a, b, out=out) is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-13, atol=1e-13)


def test_out_leaves_its_surroundings_alone() -> None:
    around = np.full((9, 40), 7.0, np.float32)
    gr.ops.matmul(np.ones((5, 3), np.float32), np.ones((3, 21), np.float32), out=around[2:7, 4:25])
    assert (around[2:7, 4:25] == 3).all()
    around[2:7, 4:25] = 7
    assert (around == 7).all()


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((4,), (4,)), ((4,), (4, 3)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((0, 3, 4), (4, 5))],
)
def test_vectors_and_stacks_as_numpy(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(a_shape), rng.standard_normal(b_shape)
    got = gr.ops.matmul(a, b)
    np.testing.assert_allclose(got, np.matmul(a, b), rtol=1e-13, atol=1e-13)
    assert np.shape(got) == np.shape(np.matmul(a, b))


def test_other_array_types() -> None:
    class Interface:
        def __init__(self, array: Array) -> None:
            self.array = array
            self.__array_interface__ = array.__array_interface__

    class DLPack:
        def __init__(self, array: Array) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5))
    for wrap in (Interface, DLPack):
        np.testing.assert_allclose(gr.ops.matmul(wrap(a), wrap(b)), a @ b)  # type: ignore[arg-type]
    np.testing.assert_allclose(gr.ops.matmul(a.astype(">f8"), b), a @ b)
    misaligned = np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(np.float64).reshape(3, 4)
    np.testing.assert_allclose(gr.ops.matmul(misaligned, b), a @ b)


def test_bad_input() -> None:
    a, b = np.ones((3, 4), np.float32), np.ones((5, 6), np.float32)
    with pytest.raises(ValueError, match=r"\[matmul\] a is \(3, 4\), b is \(5, 6\): inner dimensions differ"):
        gr.ops.matmul(a, b)
    with pytest.raises(TypeError, match=r"a is float32, b is float64"):
        gr.ops.matmul(a, np.ones((4, 2)))
    with pytest.raises(TypeError, match=r"a is of dtype int64"):
        gr.ops.matmul(np.ones((3, 4), np.int64), b)
    with pytest.raises(TypeError, match=r"\[matmul\] a is of dtype complex128"):
        gr.ops.matmul(np.ones((3, 4), complex), b)
    with pytest.raises(TypeError, match=r"\[matmul\] a is a list of str"):
        gr.ops.matmul([["1.0"]], b)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"b is missing"):
        gr.ops.matmul(a)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"unexpected argument 'transposed'"):
        gr.ops.matmul(a, b, transposed=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"at most 2 positional"):
        gr.ops.matmul(a, b, True)  # type: ignore[misc]
    with pytest.raises(ValueError, match="scalar"):
        gr.ops.matmul(np.float64(1) * np.ones(()), np.ones((2, 2)))


def test_bad_out() -> None:
    a = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match=r"out is \(4, 5\): must be \(4, 4\)"):
        gr.ops.matmul(a, a, out=np.empty((4, 5), np.float32))
    with pytest.raises(TypeError, match=r"out is of dtype float64"):
        gr.ops.matmul(a, a, out=np.empty((4, 4)))
    with pytest.raises(TypeError, match=r"out is a list"):
        gr.ops.matmul(a, a, out=[])  # type: ignore[arg-type]
    read_only = np.empty((4, 4), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        gr.ops.matmul(a, a, out=read_only)
    with pytest.raises(ValueError, match="out shares memory with a"):
        gr.ops.matmul(a, np.ones((4, 4), np.float32), out=a)
    both = np.ones((4, 8), np.float32)
    gr.ops.matmul(both[:, :4], a, out=both[:, 4:])  # interleaved, yet apart
    assert (both[:, 4:] == 4).all()


def test_nan_and_infinity_propagate() -> None:
    a, b = np.ones((3, 40), np.float32), np.ones((40, 33), np.float32)
    a[1, 39] = np.nan
    a[2, 0] = np.inf
    got = gr.ops.matmul(a, b)
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1]).all()
    assert np.isposinf(got[2]).all()


def test_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((301, 517)).astype(np.float32), rng.standard_normal((517, 259)).astype(np.float32)
    before = gr.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 8):
            gr.set_num_threads(threads)
            results.append(gr.ops.matmul(a, b))
        for result in results[1:]:
            assert np.array_equal(result, results[0])
    finally:
        gr.set_num_threads(before)
    with pytest.raises(ValueError, match=r"\[set_num_threads\] n must be an int from 1 to 256, got 0"):
        gr.set_num_threads(0)


def test_many_threads_at_once() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((200, 300)), rng.standard_normal((300, 250))
    expected = gr.ops.matmul(a, b)
    wrong = []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(gr.ops.matmul(a, b), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


AFTER_FORK = """
import os, numpy as np, gradring as gr
a = np.ones((300, 300), np.float32)
gr.ops.matmul(a, a)
pid = os.fork()
if pid == 0:
    os._exit(0 if (gr.ops.matmul(a, a) == 300).all() else 1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
"""


def test_survives_fork() -> None:
    # In a process of its own: other libraries that the tests import object to forking.
    done = run_script(AFTER_FORK)
    assert done.returncode == 0, done.stderr


ON_ONE_ISA = """
import numpy as np, gradring as gr
from gradring import _core
rng = np.random.default_rng(5)
print(_core.active_isa())
for _ in range(150):
    m, n, k = rng.integers(0, 90, 3)
    for dtype in (np.float32, np.float64):
        for ta in (False, True):
            for tb in (False, True):
                a = rng.standard_normal((k, m) if ta else (m, k)).astype(dtype)
                b = rng.standard_normal((n, k) if tb else (k, n)).astype(dtype)
                expected = (a.T if ta else a).astype(np.float64) @ (b.T if tb else b).astype(np.float64)
                got = gr.ops.matmul(a, b, trans_a=ta, trans_b=tb)
                assert np.abs(got - expected).max(initial=0) < 32 * np.finfo(dtype).eps * (k + 4), (m, n, k, ta, tb)
"""


@pytest.mark.parametrize("isa", ["base", "avx2", "avx512"])
def test_every_isa(isa: str) -> None:
    done = run_script(ON_ONE_ISA, GRADRING_ISA=isa)
    assert done.returncode == 0, done.stderr
    levels = ["base", "avx2", "avx512"]
    assert levels.index(done.stdout.strip()) <= levels.index(isa)
