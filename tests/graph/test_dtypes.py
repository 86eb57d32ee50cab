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


class HalfLinear(gr.nn.Linear):
    """A linear layer whose product reads its input, its weight and perhaps its bias in bfloat16."""

    def __init__(self, inputs, outputs, *, activation=None, result="float32", half_bias=False):
        super().__init__(inputs, outputs)
        self.activation, self.result, self.half_bias = activation, result, half_bias

    def trace(self, tracer, x):
        def half(value):
            return tracer.node("cast", {"x": value}, tracer.shape(value), {"dtype": "bfloat16"}, dtype="bfloat16")

        bias = tracer.parameter("bias", (self.outputs,))
        weight = half(tracer.parameter("weight", (self.inputs, self.outputs)))
        given = {"x": half(x), "w": weight, "b": half(bias) if self.half_bias else bias}
        shape = (*tracer.shape(x)[:-1], self.outputs)
        attributes = {"activation": self.activation} if self.activation else {}
        y = tracer.node("linear", given, shape, attributes, dtype=self.result)
        return y if self.result == "float32" else tracer.node("cast", {"x": y}, shape, {"dtype": "float32"})


@pytest.mark.parametrize("result", ["float32", "bfloat16"])
@pytest.mark.parametrize("half_bias", [False, True])
@pytest.mark.parametrize("kind", [None, "relu", "tanh", "fused relu"])
def test_a_linear_layer_of_bfloat16_in_a_step(result, half_bias, kind):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 200)).astype(np.float32), rng.standard_normal((40, 33)).astype(np.float32)
    activation = kind if kind != "fused relu" else None
    layers = [HalfLinear(200, 48, activation=activation, result=result, half_bias=half_bias)]
    layers += [gr.nn.ReLU()] if kind == "fused relu" else []
    model = gr.nn.Sequential(*layers, HalfLinear(48, 33))
    trainer = gr.Trainer(model, loss="mse", optimizer=gr.optim.SGD(0.1), seed=3)
    last = f"{len(layers)}"
    trainer.evaluate((x, y))
    before = {name: value.astype(np.float64) for name, value in trainer.params.items()}
    trainer.step(x, y)
    graph = trainer.plan().graph
    check(graph)
    products = [node for node in graph.nodes if node.op in ("linear", "linear_dx", "linear_dw")]
    assert len(products) == 5
    assert all(graph.values[name].dtype == "bfloat16" for node in products for r, name in node.inputs.items() if r in "xw")

    def half(values):
        return values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)

    apply = {None: lambda z: z, "tanh": np.tanh}.get(kind, lambda z: np.maximum(z, 0))
    slope = {None: np.ones_like, "tanh": lambda h: 1 - h * h}.get(kind, lambda h: (h > 0) * 1.0)
    w0, w1 = half(before["0.weight"]), half(before[f"{last}.weight"])
    b0 = half(before["0.bias"]) if half_bias else before["0.bias"]
    hidden = apply(half(x) @ w0 + b0)
    out = half(hidden) @ w1 + before[f"{last}.bias"]
    dy = 2 * (out - y) / y.size
    dz = half(half(dy) @ w1.T) * slope(hidden)
    wanted = {
        "0.weight": half(x).T @ dz,
        "0.bias": dz.sum(0),
        f"{last}.weight": half(hidden).T @ dy,
        f"{last}.bias": dy.sum(0),
    }
    for name, gradient in wanted.items():
        got = (before[name] - trainer.params[name]) / 0.1
        assert np.abs(got - gradient).max() <= 0.03 * np.abs(gradient).max(), name


def test_a_step_of_bfloat16_has_the_same_bits_for_any_number_of_lanes():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((64, 300)).astype(np.float32), rng.integers(0, 10, 64)
    results = []
    for threads in (1, 2, 3):
        model = gr.nn.Sequential(HalfLinear(300, 256), gr.nn.GELU(), HalfLinear(256, 10))
        trainer = gr.Trainer(model, optimizer=gr.optim.Adam(1e-3), threads=threads, seed=5)
        for _ in range(3):
            trainer.step(x, y)
        results.append([value.tobytes() for value in trainer.params.values()])
    assert results[0] == results[1] == results[2]
