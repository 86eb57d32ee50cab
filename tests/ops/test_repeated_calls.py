"""Calls that repeat an earlier one skip its checks: they must give what a first call gives, even after a change."""

import sys
import threading

import numpy as np
import pytest

import gradring as gr
from layouts import ISAS, isa


class Subclass(np.ndarray):
    pass


def test_the_numbers_are_read_anew():
    rng = np.random.default_rng()
    x = np.empty((7, 5))
    kept = []
    for _ in range(20):
        x[...] = rng.standard_normal(x.shape)
        kept.append((gr.ops.relu(x), np.maximum(x, 0)))
    for got, wanted in kept:  # each result is an array of its own
        np.testing.assert_array_equal(got, wanted)


def test_shapes_dtypes_and_layouts_take_turns():
    rng = np.random.default_rng()
    for _ in range(200):
        shape = tuple(rng.integers(0, 4, rng.integers(0, 6)))
        x = rng.standard_normal(shape).astype(rng.choice(["f4", "f8", ">f4", ">f8"]))
        wanted = np.maximum(x, 0)
        x = [x, np.asfortranarray(x), x.view(Subclass), np.repeat(x[..., None], 2, -1)[..., 0]][rng.integers(4)]
        got = gr.ops.relu(x)
        assert got.shape == x.shape and got.dtype == x.dtype.newbyteorder("=")
        np.testing.assert_array_equal(got, wanted)


def test_constants_are_compared():
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    w, b = np.ones((4, 2)), np.zeros(2)
    plain = x @ w
    for _ in range(3):
        np.testing.assert_allclose(gr.ops.linear(x, w, b), plain)
        np.testing.assert_allclose(gr.ops.linear(x, w, b, activation="relu"), np.maximum(plain, 0))
        np.testing.assert_allclose(gr.ops.linear(x, w, b, activation="tanh"), np.tanh(plain))
        np.testing.assert_allclose(gr.ops.linear(x, w, None, activation="tanh"), np.tanh(plain))
        np.testing.assert_allclose(gr.ops.linear(x=x, w=w), plain)
        np.testing.assert_allclose(gr.ops.linear(w=x.T.copy(), x=w.T.copy()), (x @ w).T)
    for eps in (0.5 + i for i in range(6)):
        np.testing.assert_allclose(
            gr.ops.layer_norm(x, eps=eps), (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps)
        )


def test_wrong_data_is_found_in_a_repetition_too():
    logits, labels = np.zeros((3, 4)), np.array([0, 1, 2])
    for _ in range(3):
        np.testing.assert_allclose(gr.ops.softmax_cross_entropy(logits, labels), np.log(4) * np.ones(3))
        assert gr.ops.softmax_cross_entropy(logits, labels, reduction="mean") == pytest.approx(np.log(4))
        assert gr.ops.softmax_cross_entropy(logits, labels, reduction="sum") == pytest.approx(3 * np.log(4))
    labels[1] = 4
    for reduction in ("sample", "mean", "sum"):
        with pytest.raises(ValueError, match="label 1 is 4"):
            gr.ops.softmax_cross_entropy(logits, labels, reduction=reduction)


def test_out_of_a_repetition_is_checked_each_time():
    rng = np.random.default_rng()
    w = rng.standard_normal((5, 4))
    memory = np.zeros(200)
    x = memory[:20].reshape(4, 5)
    for _ in range(60):
        x[...] = rng.standard_normal(x.shape)
        wanted = x @ w
        start = int(rng.integers(0, 60))  # up to 19: it shares elements with x
        out = memory[start : start + 16].reshape(4, 4)
        if start < 20:
            with pytest.raises(ValueError, match="out"):
                gr.ops.matmul(x, w, out=out)
            continue
        kind = rng.integers(5)
        if kind == 0:
            out.flags.writeable = False
            with pytest.raises(ValueError, match="read-only"):
                gr.ops.matmul(x, w, out=out)
        elif kind == 1:
            with pytest.raises(TypeError, match="out"):
                gr.ops.matmul(x, w, out=out.astype(np.float32))
        elif kind == 2:
            spread = np.empty((4, 8))[:, ::2]
            assert gr.ops.matmul(x, w, out=spread) is spread
            np.testing.assert_allclose(spread, wanted)
        elif kind == 3:
            with pytest.raises(ValueError, match="out"):
                gr.ops.matmul(x, w, out=np.empty((4, 5)))
        else:
            assert gr.ops.matmul(x, w, out=out) is out
            np.testing.assert_allclose(out, wanted)


def test_a_result_in_place_takes_turns_with_others():
    rng = np.random.default_rng()
    memory = np.zeros(40)
    for _ in range(40):
        x, out = memory[:12], memory[(start := int(rng.choice([0, 0, 4, 12, 20]))) : start + 12]
        x[...] = rng.standard_normal(12)
        wanted = np.maximum(x, 0)
        assert gr.ops.relu(x, out=out) is out
        np.testing.assert_array_equal(out, wanted)
        half = memory.view(np.float32)[:12]  # the same address, another dtype
        with pytest.raises(TypeError, match="out"):
            gr.ops.relu(x, out=half)


def test_what_is_written_to_is_checked_each_time():
    x = np.ones(6)
    for _ in range(3):
        assert gr.ops.relu(x) is not x
        assert gr.ops.relu(x, out=x) is x
        with pytest.raises(ValueError, match="out"):
            gr.ops.relu(x, out=np.empty(5))
    param, grad = np.ones(4), np.ones(4)
    for _ in range(3):
        gr.ops.sgd_update(param, grad, lr=0.25)
    np.testing.assert_array_equal(param, 0.25)
    with pytest.raises(ValueError, match="overlap|share"):
        gr.ops.sgd_update(param, param, lr=0.25)


def test_seeds_are_drawn_each_time():
    x = np.ones(4096, np.float32)
    assert len({gr.ops.dropout(x, 0.5).tobytes() for _ in range(5)}) == 5
    assert len({gr.ops.dropout(x, 0.5, seed=3).tobytes() for _ in range(5)}) == 1


def test_a_resized_array_is_another_array():
    x = np.ones(6)
    assert gr.ops.relu(x).shape == gr.ops.relu(x).shape == (6,)
    x.resize((2, 4), refcheck=False)
    assert gr.ops.relu(x).shape == (2, 4)


def test_nothing_is_kept_alive_or_leaked():
    x, w = np.ones((3, 4), np.float32), np.ones((4, 2), np.float32)
    gr.ops.linear(x, w)
    objects = (x, w, x.dtype, None, "relu")
    before = [sys.getrefcount(thing) for thing in objects]
    for _ in range(1000):
        gr.ops.linear(x, w)
        gr.ops.linear(x, w, None, activation="relu")
    assert all(abs(sys.getrefcount(thing) - count) < 50 for thing, count in zip(objects, before, strict=True))


def test_threads_with_several_shapes_share_the_memory_of_calls():
    errors = []

    def work(seed):
        rng = np.random.default_rng(seed)
        arrays = [rng.standard_normal((n, 512)) for n in (1, 300, 700, 40, 999)]  # some release the lock
        for _ in range(40):
            x = arrays[rng.integers(5)]
            if not np.array_equal(gr.ops.relu(x), np.maximum(x, 0)):
                errors.append(x.shape)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_the_number_of_threads_may_change():
    x = np.random.default_rng().standard_normal((500, 500))
    wanted, number = gr.ops.softmax(x), gr.get_num_threads()
    try:
        for threads in (1, 2, 1, 3, 2):
            gr.set_num_threads(threads)
            for _ in range(2):
                np.testing.assert_array_equal(gr.ops.softmax(x), wanted)
    finally:
        gr.set_num_threads(number)


def test_floats_are_compared_by_value():
    x = np.linspace(-1, 3, 12).reshape(3, 4)
    for i in range(12):
        eps = float(str(0.25 + i % 3))  # another object each time
        wanted = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps)
        np.testing.assert_allclose(gr.ops.layer_norm(x, eps=eps), wanted)


def test_a_result_that_is_too_large_leaves_nothing():
    a, b = np.ones((1 << 22, 1)), np.ones((1, 1 << 22))
    before = sys.getrefcount(np.dtype("f8"))
    for _ in range(200):
        with pytest.raises(MemoryError):
            gr.ops.matmul(a, b)
    assert abs(sys.getrefcount(np.dtype("f8")) - before) < 50


def test_names_of_arguments_are_compared_in_calls_with_a_dictionary():
    """``f(**options)`` makes a new tuple of names for each call, so their contents decide, and their order."""
    square = np.random.default_rng(0).standard_normal((5, 5)).astype("f4")
    other = square + 1
    for _ in range(3):
        for options in ({"trans_a": True}, {"trans_b": True}, {"trans_a": False}, {}, {"trans_b": True, "trans_a": True}):
            a, b = (x.T if options.get(name) else x for name, x in (("trans_a", square), ("trans_b", other)))
            assert np.allclose(gr.ops.matmul(square, other, **options), a @ b, atol=1e-5)
    for _ in range(3):
        named, swapped = {"a": square, "b": other}, {"b": square, "a": other}
        assert np.allclose(gr.ops.matmul(**named), square @ other, atol=1e-5)
        assert np.allclose(gr.ops.matmul(**swapped), other @ square, atol=1e-5)
        with pytest.raises(TypeError, match="unexpected argument 'c'"):
            gr.ops.matmul(square, other, c=square)


def test_a_repetition_belongs_to_one_instruction_set():
    x = np.random.default_rng().standard_normal(1003).astype("f4")
    wanted = {}
    for level, shape in zip(ISAS, [(1003, 1), (1, 1003), (1, 1, 1003)], strict=True):  # first calls: each shape has one level
        with isa(level) as there:
            if there:
                wanted[level] = gr.ops.gelu(x.reshape(shape)).ravel()
    assert len(wanted) == 1 or not np.array_equal(wanted["base"], wanted["avx2"])
    for _ in range(3):
        for level, want in wanted.items():
            with isa(level):
                np.testing.assert_array_equal(gr.ops.gelu(x), want)
                options = {"x": x, "approximate": "tanh"}
                np.testing.assert_array_equal(gr.ops.gelu(**options), want)
