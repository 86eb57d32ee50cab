"""Eager ops on arrays of a device give the results of the CPU."""

import inspect

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, Tensor, on_device, run_lazily
from gradring import cuda


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LABELS = np.arange(6) % 5
# Arguments by the name of the op; the first axis is that of the samples.
CALLS = {
    "linear": {"x": numbers(6, 7), "w": numbers(7, 5, seed=1), "b": numbers(5, seed=2), "activation": "gelu"},
    "linear_vjp": {"dy": numbers(6, 5), "x": numbers(6, 7, seed=1), "w": numbers(7, 5, seed=2)},
    "matmul": {"a": numbers(6, 7), "b": numbers(7, 5)},
    "relu": {"x": numbers(6, 5)},
    "gelu": {"x": numbers(6, 5)},
    "silu": {"x": numbers(6, 5)},
    "tanh": {"x": numbers(6, 5)},
    "sigmoid": {"x": numbers(6, 5)},
    "gelu_vjp": {"dy": numbers(6, 5), "x": numbers(6, 5, seed=1)},
    "softmax": {"x": numbers(6, 5)},
    "log_softmax": {"x": numbers(6, 5)},
    "softmax_vjp": {"dy": numbers(6, 5), "y": gr.ops.softmax(numbers(6, 5, seed=1))},
    "layer_norm": {"x": numbers(6, 5), "weight": numbers(5), "bias": numbers(5, seed=1)},
    "rms_norm": {"x": numbers(6, 5), "weight": numbers(5)},
    "dropout": {"x": numbers(6, 5), "p": 0.3, "seed": 5},
    "softmax_cross_entropy": {"logits": numbers(6, 5), "labels": LABELS},
    "embedding": {"ids": LABELS, "table": numbers(5, 3)},
    "mse": {"pred": numbers(6, 5), "target": numbers(6, 5, seed=1)},
    "mae": {"pred": numbers(6, 5), "target": numbers(6, 5, seed=1), "reduction": "sum"},
    "huber": {"pred": numbers(6, 5), "target": numbers(6, 5, seed=1), "reduction": "sample"},
    "cast": {"x": numbers(6, 5), "dtype": "float16"},
}


def moved(value):
    return on_device(value) if isinstance(value, np.ndarray) else value


def equal(device, host):
    if isinstance(host, tuple):
        assert len(device) == len(host)
        for a, b in zip(device, host, strict=True):
            equal(a, b)
    elif isinstance(host, np.ndarray):
        assert isinstance(device, cuda.Array) and (device.shape, device.dtype) == (host.shape, host.dtype)
        np.testing.assert_allclose(device.numpy(), host, rtol=2e-5, atol=1e-6)
    else:
        assert device == pytest.approx(host, rel=1e-5) if host is not None else device is None


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_result_of_the_cpu(name):
    op, given = getattr(gr.ops, name), CALLS[name]
    given = {key: value for key, value in given.items() if key in inspect.signature(op).parameters}
    assert len(given) == len(CALLS[name])
    equal(op(**{key: moved(value) for key, value in given.items()}), op(**given))


def test_updates_change_the_arrays_of_the_device():
    p, g, m, v = (numbers(50, seed=seed) for seed in range(4))
    v = np.abs(v)
    device = [on_device(array) for array in (p, g, m, v)]
    gr.ops.adam_update(p, g, m, v, lr=0.1, step=3)
    gr.ops.adam_update(*device, lr=0.1, step=3)
    for a, b in zip(device, (p, g, m, v), strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-5, atol=1e-7)


def test_views_and_out():
    x, w = numbers(12, 14), numbers(7, 5)
    xd, wd = on_device(x), on_device(w)
    want = gr.ops.linear(x[::2, ::2], w)
    np.testing.assert_allclose(gr.ops.linear(xd[::2, ::2], wd).numpy(), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gr.ops.matmul(on_device(x.T), xd).numpy(), x.T @ x, rtol=1e-4, atol=1e-4)
    out = cuda.empty((6, 10))
    assert gr.ops.linear(xd[::2, ::2], wd, out=out[:, ::2]) is not None
    np.testing.assert_allclose(out[:, ::2].numpy(), want, rtol=1e-5, atol=1e-6)
    gr.ops.relu(xd, out=xd)
    np.testing.assert_array_equal(xd.numpy(), np.maximum(x, 0))


def test_products_of_bfloat16_are_those_of_the_cpu():
    half = pytest.importorskip("ml_dtypes").bfloat16
    x, w, b, dy = (array.astype(half) for array in (numbers(9, 17), numbers(17, 5, seed=1), numbers(5), numbers(9, 5)))
    xd, wd, bd, dyd = (on_device(array) for array in (x, w, b, dy))
    pairs = [
        (gr.ops.matmul(xd, wd), gr.ops.matmul(x, w)),
        (gr.ops.matmul(xd[:, 1:], wd[1:]), gr.ops.matmul(x[:, 1:], w[1:])),  # no row begins at a multiple of 16 bytes
        (gr.ops.linear(xd, wd, bd, activation="gelu"), gr.ops.linear(x, w, b, activation="gelu")),
        *zip(gr.ops.linear_vjp(dyd, xd, wd), gr.ops.linear_vjp(dy, x, w), strict=True),
    ]
    for got, want in pairs:
        assert got.dtype == half and got.shape == want.shape
        # The order of the sums differs, so a result may be rounded to the neighbour of the CPU's.
        np.testing.assert_allclose(got.numpy().astype(np.float32), want.astype(np.float32), rtol=2**-7, atol=2**-7)


def test_other_libraries_arrays_are_taken():
    x, w, b = numbers(6, 7), numbers(7, 5), numbers(5)
    want = gr.ops.linear(x, w, b, activation="gelu")
    xd, wd, bd = (on_device(array) for array in (x, w, b))
    for made in (Interface, Tensor):
        got = gr.ops.linear(made(xd), made(wd), made(bd), activation="gelu")
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gr.ops.linear(Interface(xd), Tensor(wd), bd, activation="gelu").numpy(), want, atol=1e-6)


def test_arrays_in_two_places_are_refused_by_name():
    x, w = numbers(6, 7), numbers(7, 5)
    xd, wd = on_device(x), on_device(w)
    for args, text in [
        (
            (xd, w),
            r"\[linear\] x is on cuda:0, w \(ndarray\) is in the host's memory: all arrays must be on one device",
        ),
        ((x, wd), r"\[linear\] w is on cuda:0, x \(ndarray\) is in the host's memory"),
        ((xd, wd, [0.0] * 5), r"\[linear\] x is on cuda:0, b \(list\) is in the host's memory"),
    ]:
        with pytest.raises(ValueError, match=text):
            gr.ops.linear(*args)
    with pytest.raises(ValueError, match=r"\[linear\] x is on cuda:0, out \(ndarray\) is in the host's memory"):
        gr.ops.linear(xd, wd, out=np.zeros((6, 5), np.float32))
    with pytest.raises(ValueError, match=r"\[linear\] out is on cuda:0, x \(ndarray\) is in the host's memory"):
        gr.ops.linear(x, w, out=cuda.empty((6, 5)))


def test_errors_are_those_of_the_cpu():
    x, w = numbers(6, 7), numbers(8, 5)
    cases = [
        lambda f: gr.ops.linear(f(x), f(w)),
        lambda f: gr.ops.linear(f(x), f(w[:7].astype(np.float64))),
        lambda f: gr.ops.linear(f(x), f(w[:7]), activation="nothing"),
        lambda f: gr.ops.softmax_cross_entropy(f(x), f(LABELS + 4)),
        lambda f: gr.ops.embedding(f(LABELS), f(x[:3])),
        lambda f: gr.ops.linear(f(x)),
    ]
    for case in cases:
        said = []
        for place in (np.asarray, on_device):
            with pytest.raises((ValueError, TypeError, IndexError)) as caught:
                case(place)
            said.append((type(caught.value), str(caught.value)))
        assert said[0] == said[1]
    with pytest.raises(gr.NotBuilt, match=r"\[softmax\] axis=0 on a device is planned"):
        gr.ops.softmax(on_device(x), axis=0)
    with pytest.raises(ValueError, match="out is"):
        gr.ops.relu(on_device(x), out=cuda.empty((6, 8)))


def test_calls_are_queued_on_the_current_stream():
    script = """
import numpy as np
import gradring as gr
from device_producers import on_device
from gradring import cuda

x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) / 10
want, wrong = x, 0
for _ in range(6):
    want = gr.ops.linear(want, x, activation="tanh")
stream, other = cuda.Stream(), cuda.Stream()
for _ in range(3):
    with cuda.use_stream(stream):
        got = xd = on_device(x)
        for _ in range(6):
            got = gr.ops.linear(got, xd, activation="tanh")
    cuda.streams.order(0, stream.handle, other.handle)
    with cuda.use_stream(other):
        wrong += int(not np.allclose(got.numpy(), want, atol=1e-5))
    got.record_stream(other)
print(wrong)
del got, xd
"""
    assert run_lazily(script) == "0"
