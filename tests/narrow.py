"""What the tests of mixed precision share: data, models, options, and a step in float64 that rounds where the trainer does."""

from dataclasses import dataclass

import numpy as np

import gradring as gr
from whole_device import device

nn = gr.nn
OPTIONS = {
    "plain": {},
    "clipped": {"clip_norm": 0.5},
    "accumulated": {"accumulate": 3},
    "unchecked": {"nonfinite": "ignore"},
    "replicas": {"replicas": 2},
    "shards": {"shards": 4, "replicas": 2},
    "replicas that accumulate": {"replicas": 2, "accumulate": 3},
    "frozen": {"frozen": ["0.*"]},
    "AdamW": {"optimizer": gr.optim.AdamW(1e-3)},
    "groups": {"optimizer": gr.optim.Adam(1e-3, groups=[{"params": "*.bias", "lr": 1e-2}])},
    "Lion": {"optimizer": gr.optim.Lion(1e-4)},
    "weights of classes": {"class_weight": {0: 2.0}},
    "smoothed": {"loss": gr.losses.CrossEntropy(label_smoothing=0.1)},
    "schedule": {"optimizer": gr.optim.AdamW(lambda step: 1e-3 / (1 + step))},
}


def data(rows=96, columns=70, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    return x, (x[:, :classes] + 0.1 * rng.standard_normal((rows, classes))).argmax(axis=1)


def model(*, norm=False, p=0.0):
    layers = [nn.Linear(70, 90), nn.BatchNorm1d(90) if norm else nn.LayerNorm(90), nn.GELU(), nn.Dropout(p)]
    return nn.Sequential(*layers, nn.Linear(90, 65), nn.Tanh(), nn.Linear(65, 10)).init(seed=2)


def check_narrow(graph, dtype):
    """Check that casts make all values of 16 bits, or, in programs of a device, products, and that only products read them."""
    products = ("linear", "linear_dx", "linear_dw")
    for node in graph.nodes:
        made = [name for _, name in node.written() if graph.values[name].dtype == dtype]
        read = [name for name in node.inputs.values() if graph.values[name].dtype == dtype]
        assert not made or node.op == "cast" or (device != "cpu" and node.op in products), node
        assert not read or node.op in products, node


@dataclass
class Step:
    """A batch for a trainer of two layers, whose loss is the mean of squares, and its step in float64."""

    x: np.ndarray
    target: np.ndarray
    output: np.ndarray
    loss: float
    gradients: dict


def two_layers(dtype, activation):
    made = nn.Sequential(nn.Linear(200, 80), nn.ReLU() if activation == "relu" else nn.Tanh(), nn.Linear(80, 33))
    return gr.Trainer(made, loss="mse", optimizer=gr.optim.SGD(0.5), dtype=dtype, seed=3)


def step_in_float64(trained, rows, activation, rounded, scale=1.0):
    rng = np.random.default_rng(rows)
    x, target = rng.standard_normal((rows, 200)).astype(np.float32), rng.standard_normal((rows, 33)).astype(np.float32)
    p = {name: array.astype(np.float64) for name, array in trained.params.items()}
    pre = rounded(x) @ rounded(p["0.weight"]) + p["0.bias"]
    hidden = np.maximum(pre, 0) if activation == "relu" else np.tanh(pre)
    output = rounded(hidden) @ rounded(p["2.weight"]) + p["2.bias"]
    dy = 2 * (output - target) / target.size * scale
    dhidden = rounded(dy) @ rounded(p["2.weight"]).T
    dpre = dhidden * ((pre > 0) if activation == "relu" else 1 - hidden**2)
    gradients = {
        "0.weight": rounded(x).T @ rounded(dpre),
        "0.bias": dpre.sum(axis=0),
        "2.weight": rounded(hidden).T @ rounded(dy),
        "2.bias": dy.sum(axis=0),
    }
    gradients = {name: gradient / scale for name, gradient in gradients.items()}
    return Step(x, target, output, np.mean((output - target) ** 2), gradients)


def check_step(trained, step, *, output, largest, norm):
    """The trainer's step is within these bounds of ``step``: absolute for the output, relative for the gradients."""
    before = {name: array.astype(np.float64) for name, array in trained.params.items()}
    np.testing.assert_allclose(trained.predict(step.x), step.output, atol=output)
    np.testing.assert_allclose(trained.step(step.x, step.target), step.loss, rtol=1e-3)
    for name, gradient in step.gradients.items():
        got = (before[name] - trained.params[name]) / 0.5
        assert np.abs(got - gradient).max() <= largest * np.abs(gradient).max(), name
        assert np.linalg.norm(got - gradient) <= norm * np.linalg.norm(gradient), name
