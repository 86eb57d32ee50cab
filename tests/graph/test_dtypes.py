"""Values of other dtypes than the model's in a step: casts, forward and backward."""

import numpy as np
import pytest

import gradring as gr
from gradring.graph import check, train_graph
from gradring.nn import Layer

ml_dtypes = pytest.importorskip("ml_dtypes")


class Rounded(Layer):
    """Rounds its input to a dtype of fewer bits; so the gradient is rounded too."""

    def __init__(self, dtype):
        self.dtype = dtype

    def trace(self, tracer, x):
        shape = tracer.shape(x)
        narrow = tracer.node("cast", {"x": x}, shape, {"dtype": self.dtype}, dtype=self.dtype)
        return tracer.node("cast", {"x": narrow}, shape, {"dtype": tracer.dtype})


def numpy_dtype(name):
    return np.dtype(getattr(ml_dtypes, name) if name == "bfloat16" else name)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_with_rounded_activations(name, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 5)), rng.standard_normal((9, 3))
    model = gr.nn.Sequential(gr.nn.Linear(5, 4), Rounded(name), gr.nn.Linear(4, 3))
    trainer = gr.Trainer(model, loss="mse", optimizer=gr.optim.SGD(0.1), dtype=dtype)
    before = {k: v.astype(np.float64) for k, v in trainer.params.items()}
    trainer.step(x, y)
    check(trainer.plan().graph)

    def rounded(values):
        return values.astype(dtype).astype(numpy_dtype(name)).astype(np.float64)

    hidden = x @ before["0.weight"] + before["0.bias"]
    dy = 2 * (rounded(hidden) @ before["2.weight"] + before["2.bias"] - y) / y.size
    dhidden = rounded(dy @ before["2.weight"].T)
    wanted = {
        "0.weight": x.T @ dhidden,
        "0.bias": dhidden.sum(0),
        "2.weight": rounded(hidden).T @ dy,
        "2.bias": dy.sum(0),
    }
    scale = {"float16": 2e-3, "bfloat16": 1e-2}[name]  # a gradient may lie on either side of a tie
    for key, gradient in wanted.items():
        np.testing.assert_allclose((before[key] - trainer.params[key]) / 0.1, gradient, atol=scale * 0.3)


def test_plans_hold_narrow_values():
    model = gr.nn.Sequential(gr.nn.Linear(64, 64), Rounded("bfloat16"), gr.nn.Linear(64, 3))
    graph = train_graph(model, (32, 64), gr.losses.CrossEntropy(), optimizer=gr.optim.SGD(0.1))
    check(graph)
    narrow = [value for value in graph.values.values() if value.dtype == "bfloat16"]
    assert len(narrow) == 2  # the activation and its gradient
    trainer = gr.Trainer(model, optimizer=gr.optim.SGD(0.1))
    trainer.step(np.zeros((32, 64), np.float32), np.zeros(32, int))
    assert "bfloat16" in str(trainer.plan())


def test_a_cast_that_says_another_dtype_is_refused():
    class Wrong(Layer):
        def trace(self, tracer, x):
            return tracer.node("cast", {"x": x}, tracer.shape(x), {"dtype": "float16"})

    with pytest.raises((TypeError, ValueError), match="must be float16, as dtype says"):
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(5, 4), Wrong()), loss="mse").step(np.ones((2, 5)), np.ones((2, 4)))
