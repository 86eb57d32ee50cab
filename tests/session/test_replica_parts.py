"""Models with running statistics and with functions in Python, divided among replicas or shards."""

import threading
import time

import numpy as np
import pytest

import gradring as gr
from helpers import snapshot

RNG = np.random.default_rng(47)
X = RNG.standard_normal((61, 7)) * 3 + 1
Y = RNG.integers(0, 4, 61)


def normed(features=9):
    layers = gr.nn.Linear(7, features), gr.nn.BatchNorm1d(features), gr.nn.ReLU(), gr.nn.Linear(features, 4)
    return gr.nn.Sequential(*layers).init(2)


def parts_of(rows, count):
    return [(rows * part // count, rows * (part + 1) // count) for part in range(count)]


# Batch norm: each part is normalized by its own moments, and the running ones move towards those of the whole batch.


@pytest.mark.parametrize(
    ("options", "count"), [({"replicas": 2}, 2), ({"replicas": 3}, 3), ({"shards": 8}, 8)], ids=str
)
@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_running_moments_are_those_of_the_whole_batch(options, count, momentum):
    model = gr.nn.Sequential(gr.nn.BatchNorm1d(7, momentum=momentum), gr.nn.Linear(7, 4)).init(0)
    made = gr.Trainer(model, optimizer=gr.optim.SGD(0.1), dtype="float64", **options)
    mean, var = np.zeros(7), np.ones(7)
    for begin, end in ((0, 40), (40, 61), (3, 3 + count + 1)):
        made.step(X[begin:end], Y[begin:end])
        mean = (1 - momentum) * mean + momentum * X[begin:end].mean(0)
        var = (1 - momentum) * var + momentum * X[begin:end].var(0, ddof=1)
        np.testing.assert_allclose(made.buffers["0.running_mean"], mean, rtol=1e-13)
        np.testing.assert_allclose(made.buffers["0.running_var"], var, rtol=1e-13)


@pytest.mark.parametrize("options", [{"replicas": 3}, {"replicas": 2, "shards": 4}], ids=str)
def test_the_step_is_that_of_the_formula(options):
    """The loss, against NumPy: a part of one row is normalized by the running moments, a larger one by its own."""
    count = options.get("shards", options["replicas"])
    model = normed()
    made = gr.Trainer(model, optimizer=gr.optim.SGD(0.05), dtype="float64", **options)
    for rows in (23, count + 1, 2):
        p = {name: array.copy() for name, array in [*made.params.items(), *made.buffers.items()]}
        total = 0.0
        for begin, end in parts_of(rows, count):
            if begin == end:
                continue
            h = X[begin:end] @ p["0.weight"] + p["0.bias"]
            mean, var = (h.mean(0), h.var(0)) if end - begin > 1 else (p["1.running_mean"], p["1.running_var"])
            h = (h - mean) / np.sqrt(var + 1e-5) * p["1.weight"] + p["1.bias"]
            z = np.maximum(h, 0) @ p["3.weight"] + p["3.bias"]
            total -= (z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(end - begin), Y[begin:end]].sum()
        assert made.step(X[:rows], Y[:rows]) == pytest.approx(total / rows, rel=1e-12)


def test_gradients_through_parts_of_one_row_and_more():
    """An update against finite differences of the loss over the parts."""
    rows, step = 5, 1e-6
    model = normed(3)
    made = gr.Trainer(model, optimizer=gr.optim.SGD(1.0), dtype="float64", replicas=4)  # parts of 1, 1, 1 and 2 rows
    before = {name: array.copy() for name, array in made.params.items()}
    running = [made.buffers[name].copy() for name in ("1.running_mean", "1.running_var")]

    def loss(p):
        total = 0.0
        for begin, end in parts_of(rows, 4):
            h = X[begin:end] @ p["0.weight"] + p["0.bias"]
            mean, var = (h.mean(0), h.var(0)) if end - begin > 1 else running
            h = (h - mean) / np.sqrt(var + 1e-5) * p["1.weight"] + p["1.bias"]
            z = np.maximum(h, 0) @ p["3.weight"] + p["3.bias"]
            total -= (z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(end - begin), Y[begin:end]].sum()
        return total / rows

    made.step(X[:rows], Y[:rows])
    for name, array in before.items():
        slope = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            moved = [{**before, name: array + step * sign * _unit(array.shape, at)} for sign in (1, -1)]
            slope[at] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        np.testing.assert_allclose(before[name] - made.params[name], slope, rtol=0, atol=1e-7)


def _unit(shape, at):
    unit = np.zeros(shape)
    unit[at] = 1
    return unit


@pytest.mark.parametrize("accumulate", [1, 3])
def test_buffers_are_the_same_from_run_to_run_and_wait_for_no_fault(accumulate):
    def run():
        made = gr.Trainer(normed(), optimizer=gr.optim.AdamW(1e-2), replicas=3, accumulate=accumulate)
        made.fit(gr.Loader((X[:52], Y[:52]), batch_size=10, shuffle=True, seed=1), epochs=2, verbose=0)
        return made

    made = run()
    assert snapshot(made) == snapshot(run())
    before, bad = snapshot(made), Y.copy()
    bad[55] = 9
    with pytest.raises(ValueError, match="label is 9"):
        made.step(X, bad)
    assert snapshot(made) == before


# Functions in Python


class Watched:
    """A function that notes whether calls of it overlap."""

    def __init__(self, function):
        self.function, self.inside, self.overlaps, self.threads = function, 0, 0, set()

    def __call__(self, *args):
        self.inside += 1
        self.overlaps += self.inside > 1
        self.threads.add(threading.get_ident())
        time.sleep(0.001)
        result = self.function(*args)
        self.inside -= 1
        return result


def with_function(**options):
    forward = Watched(np.tanh)
    layer = gr.nn.Function(forward, lambda dy, x, y: dy * (1 - y * y), **options)
    return gr.nn.Sequential(gr.nn.Linear(7, 9), layer, gr.nn.Linear(9, 4)).init(2), forward


@pytest.mark.parametrize("options", [{"replicas": 3}, {"replicas": 2, "shards": 4}], ids=str)
def test_a_function_layer_is_called_one_at_a_time(options):
    model, forward = with_function()
    plain = gr.nn.Sequential(gr.nn.Linear(7, 9), gr.nn.Tanh(), gr.nn.Linear(9, 4)).init(2)
    made, one = (
        gr.Trainer(net, optimizer=gr.optim.SGD(0.1), dtype="float64", **each)
        for net, each in ((model, options), (plain, {}))
    )
    for _ in range(3):
        assert made.step(X, Y) == pytest.approx(one.step(X, Y), rel=1e-12)
    assert forward.overlaps == 0 and len(forward.threads) == options["replicas"]
    for name, array in one.params.items():
        np.testing.assert_allclose(made.params[name], array, rtol=0, atol=1e-12)


def test_a_function_that_is_thread_safe_may_overlap():
    model, forward = with_function(thread_safe=True)
    made = gr.Trainer(model, replicas=4)
    for _ in range(200):  # until the system lets two of them overlap
        made.step(X, Y)
        if forward.overlaps:
            break
    assert forward.overlaps > 0


@pytest.mark.parametrize("options", [{"replicas": 3}, {"shards": 4}], ids=str)
def test_a_loss_in_python(options):
    forward = Watched(lambda p, t: (np.abs(p - t) ** 3).mean(axis=1))
    loss = gr.losses.Function(forward, lambda d, p, t: d[:, None] * 3 * (p - t) * np.abs(p - t) / p.shape[1])
    target = RNG.standard_normal((61, 4))
    made, one = (
        gr.Trainer(gr.nn.Linear(7, 4).init(1), loss, gr.optim.SGD(1e-3), metrics=(), **each) for each in (options, {})
    )
    for _ in range(3):
        assert made.step(X, target) == pytest.approx(one.step(X, target), rel=1e-5)
    assert forward.overlaps == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_exception_of_a_function_on_one_replica_is_raised_and_nothing_changes(accumulate):
    calls = []

    def forward(x):
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("mine")
        return np.tanh(x)

    layer = gr.nn.Function(forward, lambda dy, x, y: dy * (1 - y * y))
    made = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(7, 4), layer).init(0), replicas=3, accumulate=accumulate)
    before = snapshot(made)
    with pytest.raises(KeyError, match="mine"):
        made.step(X, Y)
    assert snapshot(made) == before
    made.step(X, Y)
    assert made.step_count == (accumulate == 1)
