from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradring as gr
from layouts import FLOATS, ISAS, LAYOUTS, Array, isa, laid_out


@settings(deadline=None, max_examples=150)
@given(
    shape=st.one_of(st.just(()), st.tuples(st.integers(0, 300)), st.tuples(st.integers(0, 9), st.integers(0, 30))),
    rows=st.integers(1, 50),
    columns=st.integers(0, 90),
    dtype=st.sampled_from(FLOATS),
    integers=st.sampled_from((np.int32, np.int64, np.uint8)),
    layouts=st.tuples(*[st.sampled_from([name for name in LAYOUTS if name != "repeated"])] * 2),
    level=st.sampled_from(ISAS),
    seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_numpy(
    shape: tuple[int, ...],
    rows: int,
    columns: int,
    dtype: Any,
    integers: Any,
    layouts: tuple[str, str],
    level: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rows, shape).astype(integers)
    ids = laid_out(ids, layouts[0]) if shape else ids
    table = laid_out(rng.standard_normal((rows, columns)).astype(dtype), layouts[1])
    dy = rng.standard_normal((*shape, columns)).astype(dtype)
    with isa(level):
        y = gr.ops.embedding(ids, table)
        dtable = gr.ops.embedding_vjp(dy, ids, rows)
    assert y.dtype == dtable.dtype == dtype
    assert y.tolist() == table[ids].tolist()
    want, sizes = np.zeros((2, rows, columns))
    np.add.at(want, ids, dy)
    np.add.at(sizes, ids, np.abs(dy))
    assert dtable.shape == (rows, columns)
    assert (np.abs(dtable - want) <= 50 * np.finfo(dtype).eps * sizes).all()


def test_vjp_agrees_with_finite_differences() -> None:
    rng = np.random.default_rng(1)
    ids, table = rng.integers(0, 6, (3, 4)), rng.standard_normal((6, 5))

    def vjp(dy: Array, ids: Array, table: Array) -> tuple[Array | None, Array]:
        return None, gr.ops.embedding_vjp(dy, ids, len(table))

    assert gr.check_grad(gr.ops.embedding, ids, table, vjp=vjp) < 1e-6


@pytest.mark.parametrize("bad", [-1, 4, 2**31 - 1, -(2**31), 2**32 + 1])
def test_an_id_outside_is_named_with_its_place(bad: int) -> None:
    ids = np.zeros((3, 5), np.int64)
    ids[1, 3] = ids[2, 0] = bad
    table = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match=rf"\[embedding\] ids\[1, 3\] is {bad}: must be between 0 and 3"):
        gr.ops.embedding(ids, table)
    with pytest.raises(ValueError, match=rf"\[embedding_vjp\] ids\[1, 3\] is {bad}: must be between 0 and 3"):
        gr.ops.embedding_vjp(np.ones((3, 5, 2)), ids, 4)
    with pytest.raises(ValueError, match=r"\[embedding\] ids is 7: must be between 0 and 3"):
        gr.ops.embedding(7, table)
    with pytest.raises(ValueError, match=r"\[embedding\] ids\[0\] is 0: must be none, as the table has no rows"):
        gr.ops.embedding(np.zeros(1, int), np.ones((0, 2)))


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    ids, table = rng.integers(0, 999, 20_000), rng.standard_normal((1000, 96)).astype(np.float32)
    dy = rng.standard_normal((20_000, 96)).astype(np.float32)
    before = gr.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            gr.set_num_threads(threads)
            results.append((gr.ops.embedding(ids, table).tobytes(), gr.ops.embedding_vjp(dy, ids, 1000).tobytes()))
    finally:
        gr.set_num_threads(before)
    assert len(set(results)) == 1


def test_out() -> None:
    rng = np.random.default_rng(0)
    ids, table, dy = rng.integers(0, 9, 6), rng.standard_normal((9, 4)), rng.standard_normal((6, 4))
    for layout in ("plain", "fortran", "padded", "every other", "offset"):
        y, dtable = laid_out(np.zeros((6, 4)), layout), laid_out(np.zeros((9, 4)), layout)
        assert gr.ops.embedding(ids, table, out=y) is y
        assert (y == table[ids]).all()
        assert gr.ops.embedding_vjp(dy, ids, 9, out=dtable) is dtable
        assert (dtable == gr.ops.embedding_vjp(dy, ids, 9)).all()
    with pytest.raises(ValueError, match=r"\[embedding\] out shares memory with table"):
        gr.ops.embedding(ids, table, out=table[:6])


def test_misuse_is_named() -> None:
    ids, table = np.zeros(3, int), np.ones((4, 2), np.float32)
    with pytest.raises(TypeError, match=r"\[embedding\] ids is of dtype float32: must be int32, int64 or uint8"):
        gr.ops.embedding(np.zeros(3, np.float32), table)
    with pytest.raises(ValueError, match=r"\[embedding\] table is \(4,\): must have 2 dimensions"):
        gr.ops.embedding(ids, table[:, 0])
    with pytest.raises(
        ValueError, match=r"\[embedding_vjp\] dy is \(2, 2\), ids is \(3,\): dy must have the shape of ids"
    ):
        gr.ops.embedding_vjp(np.ones((2, 2)), ids, 4)
    with pytest.raises(ValueError, match=r"\[embedding_vjp\] rows is -1: must be"):
        gr.ops.embedding_vjp(np.ones((3, 2)), ids, -1)
