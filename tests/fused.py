"""What the tests of fusion for CUDA devices share: trainers whose graphs are those of a device, with fusion and without it."""

import contextlib
from unittest import mock

import numpy as np

import gradring as gr
from gradring import nn
from gradring.graph import passes
from gradring.session import forward, graphs


def perceptron():
    first = nn.Linear(37, 64), nn.ReLU(), nn.Linear(64, 48), nn.GELU()
    return nn.Sequential(*first, nn.Linear(48, 33), nn.Tanh(), nn.Linear(33, 10))


def block():
    """Norms, dropout and a residual sum: most matrices do not follow an activation."""
    inner = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 32))
    first = nn.Linear(37, 32), nn.LayerNorm(32), nn.Residual(inner), nn.SiLU()
    return nn.Sequential(*first, nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))


def residuals():
    """A residual sum reads the outputs of activations beside products, without a norm between them."""
    inner = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Residual(nn.Linear(32, 32)), nn.ReLU())
    return nn.Sequential(nn.Linear(37, 32, bias=False), nn.ReLU(), nn.Residual(inner), nn.Linear(32, 10))


def normed():
    return nn.Sequential(nn.Linear(37, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


MODELS = {"perceptron": perceptron, "block": block, "residuals": residuals, "normed": normed}

OPTIONS = {
    "plain": {},
    "accumulate": {"accumulate": 3},
    "clip": {"clip_norm": 0.7},
    "accumulate and clip": {"accumulate": 2, "clip_norm": 0.7},
    "frozen": {"frozen": ["[23]*weight"]},
    "frozen, accumulate": {"frozen": ["[23]*weight"], "accumulate": 2},
    "groups": {"optimizer": gr.optim.AdamW(1e-2, groups=[{"params": "*.bias", "weight_decay": 0.0}])},
    "unchecked": {"nonfinite": "ignore"},
}


@contextlib.contextmanager
def fusing(on):
    """Let programs be planned with the pass for CUDA, or without it."""
    same = passes.fuse_for_cuda if on else lambda graph, output: graph
    with mock.patch.object(passes, "fuse_for_cuda", same):
        yield


@contextlib.contextmanager
def as_on_a_device(on):
    """Let the CPU run the programs of a CUDA device, with fusion or without it."""

    def train(*given, **named):
        return passes.train_graph(*given, **{**named, "on_cpu": False, "fuse_update": False})

    def evaluate(*given, **named):
        return passes.evaluate_graph(*given, **{**named, "on_cpu": False})

    def predict(*given, **named):
        return passes.predict_graph(*given, **{**named, "on_cpu": False})

    patches = (graphs, "train_graph", train), (graphs, "evaluate_graph", evaluate), (forward, "predict_graph", predict)
    with contextlib.ExitStack() as stack:
        stack.enter_context(fusing(on))
        for where, name, function in patches:
            stack.enter_context(mock.patch.object(where, name, function))
        yield


def data(rows=50, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 37)).astype(np.float32)
    return x, rng.integers(0, 10, rows)


def trained(model, steps=4, **options):
    """Every bit that some steps, an evaluation and a prediction leave, and the graph of a step."""
    options.setdefault("optimizer", gr.optim.AdamW(1e-2))
    trainer = gr.Trainer(MODELS[model](), seed=3, **options)
    x, y = data()
    losses = [float(trainer.step(x * (1 + number % 2), y)) for number in range(steps)]
    losses += trainer.evaluate((x[:33], y[:33])).values()
    arrays = {**trainer.params, **trainer.buffers, **trainer.session.state}
    found = {name: np.asarray(array.numpy() if hasattr(array, "numpy") else array).tobytes() for name, array in arrays.items()}
    found["losses"] = np.array(losses).tobytes()
    found["predictions"] = np.asarray(trainer.predict(x[:17])).tobytes()
    return found, trainer.plan().graph
