"""Trainer(step=fn, replicas=, shards=): a batch is cut, and the function is called for its parts on several threads."""

import threading

import numpy as np
import pytest

import gradring as gr
from gradring.session.user_parts import parts_of_batch

RNG = np.random.default_rng(3)
X = RNG.standard_normal((53, 4)).astype(np.float32)
Y = (X @ RNG.standard_normal((4, 2)) + 0.5).astype(np.float32)


def regression(params, batch):
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    error = x @ params["w"] + params["b"] - y
    scale = 2 / error.size
    return float(np.mean(error**2)), {"w": scale * (x.T @ error), "b": scale * error.sum(0)}


def trained(function=regression, epochs=3, dtype=np.float32, **options):
    params = {"w": np.ones((4, 2), dtype), "b": np.zeros(2, dtype)}
    made = gr.Trainer(step=function, params=params, optimizer=gr.optim.AdamW(1e-2), **options)
    made.fit(
        gr.Loader((X.astype(dtype), Y.astype(dtype)), batch_size=10, shuffle=True, seed=2), epochs=epochs, verbose=0
    )
    return made


def bits(made):
    state = made.state_dict()
    arrays = {**state["params"], **state["optimizer"]}
    return {name: array.tobytes() for name, array in arrays.items()}, made.history.metrics["loss"]


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 0.1}], ids=str)
def test_replicas_train_as_one_and_shards_have_the_same_bits(options):
    one = trained(dtype=np.float64, **options)
    for more in ({"replicas": 2}, {"replicas": 3}, {"shards": 8}):
        several = trained(dtype=np.float64, **options, **more)
        for name in one.params:
            np.testing.assert_allclose(several.params[name], one.params[name], rtol=0, atol=1e-12)
    shards = [bits(trained(shards=8, replicas=replicas, **options)) for replicas in (1, 2, 4, 8)]
    assert all(other == shards[0] for other in shards)


def test_calls_overlap_and_an_evaluation_is_divided_too():
    inside, meeting = [], threading.Barrier(2, timeout=60)

    def step(params, batch):
        if len(batch[0]) == 20:
            meeting.wait()  # both threads are inside at the same time
        inside.append((threading.get_ident(), len(batch[0])))
        return regression(params, batch)

    params = {"w": np.ones((4, 2), np.float32), "b": np.zeros(2, np.float32)}
    made = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.1), replicas=2)
    made.step(X[:40], Y[:40])
    assert len({thread for thread, _ in inside}) == 2 and [rows for _, rows in inside] == [20, 20]
    inside.clear()
    assert made.evaluate((X[:40], Y[:40]))["loss"] == pytest.approx(regression(params, (X[:40], Y[:40]))[0], rel=1e-6)
    assert len(inside) == 2


def test_a_gradient_that_one_part_leaves_out_is_named():
    def step(params, batch):
        loss, grads = regression(params, batch)
        if batch[0][0, 0] == X[5, 0]:  # the first row of part 1
            del grads["b"]
        return loss, grads

    params = {"w": np.ones((4, 2), np.float32), "b": np.zeros(2, np.float32)}
    made = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.1), replicas=2)
    with pytest.raises(ValueError, match=r"part 1 of the batch: grads .* missing \['b'\]"):
        made.step(X[:10], Y[:10])
    assert made.step_count == 0 and (params["w"] == 1).all()


def test_an_exception_of_one_part_is_raised_when_all_have_ended():
    ended = []

    def step(params, batch):
        if batch[0][0, 0] == X[0, 0]:
            raise KeyError("mine")
        ended.append(1)
        return regression(params, batch)

    params = {"w": np.ones((4, 2), np.float32), "b": np.zeros(2, np.float32)}
    made = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.1), replicas=3)
    with pytest.raises(KeyError, match="mine"):
        made.step(X[:9], Y[:9])
    assert (params["w"] == 1).all()


def test_batches_of_every_form_and_fewer_rows_than_parts():
    x, y = np.arange(3), np.arange(6).reshape(3, 2)
    assert [part.tolist() for part in parts_of_batch(x, 2)] == [[0], [1, 2]]
    assert [list(part) for part in parts_of_batch({"x": x, "y": y}, 3)] == [["x", "y"]] * 3
    assert [type(part) for part in parts_of_batch([x, y], 2)] == [list, list]
    parts = parts_of_batch((x, y), 8)
    assert [None if part is None else len(part[0]) for part in parts] == [None, None, 1, None, None, 1, None, 1]
    assert trained(epochs=1, replicas=2).step(X[:1], Y[:1]) >= 0
    for odd in (3.0, (x, np.arange(4)), "text", np.float32(1), {}):
        with pytest.raises(TypeError, match="cut a batch along the first axis"):
            parts_of_batch(odd, 2)
    for empty in ((), x[:0], (x[:0], y[:0])):
        with pytest.raises(ValueError, match="the batch has no rows"):
            parts_of_batch(empty, 2)


def test_parts_whose_gradients_come_in_the_same_memory():
    memory = {"w": np.empty((4, 2)), "b": np.empty(2)}

    def reusing(params, batch):
        loss, grads = regression(params, batch)
        for name, grad in grads.items():
            memory[name][...] = grad
        return loss, memory

    assert bits(trained(reusing, dtype=np.float64, shards=4)) == bits(trained(dtype=np.float64, shards=4))
