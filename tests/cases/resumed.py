"""What the tests of runs that end within an epoch have in common."""

import json

import numpy as np
import pytest

import gradring as gr
import gradring.session.session
import gradring.session.user
from gradring import checkpoint
from helpers import Batches, Stop, snapshot

N, BATCH = 50, 8  # seven batches, the last one of two samples
RNG = np.random.default_rng(11)
X = RNG.standard_normal((N, 6)).astype("f4")
Y = RNG.integers(0, 3, N)
W = RNG.random(N).astype("f4")
EPOCHS = 6
NATIVE_RUN = gradring.session.session.Session.run


def regression(params, batch):
    x, y = np.asarray(batch[0], np.float64), np.asarray(batch[1], np.float64)
    off = x @ params["w"] + params["b"] - y
    return float((off**2).mean()), {"w": 2 * x.T @ off / len(x), "b": np.array([2 * off.mean()])}


ROUTES = {
    "arrays": lambda: (X, Y),
    "weights": lambda: (X, Y, W),
    "loader of arrays": lambda: gr.Loader((X, Y), BATCH, shuffle=True, seed=3),
    "fed by name": lambda: gr.Loader({"y": Y, "x": X}, BATCH, shuffle=True, seed=3),
    "part": lambda: gr.Loader((np.r_[X, X], np.r_[Y, Y]), BATCH, shuffle=True, indices=range(N)),
    "batches": lambda: Batches(gr.Loader((X, Y), BATCH, shuffle=True, seed=3)),
    "list of batches": lambda: [(X[i : i + BATCH], Y[i : i + BATCH], W[i : i + BATCH]) for i in range(0, N, BATCH)],
    "own": lambda: gr.Loader((X, Y), BATCH, shuffle=True, seed=3),
}


def size(route):
    """The argument ``batch_size`` of ``fit``, which is for arrays."""
    return BATCH if route in ("arrays", "weights") else None


def trainer(route, **options):
    if route == "own":
        params = {"w": np.zeros(6), "b": np.zeros(1)}
        return gr.Trainer(step=regression, params=params, optimizer=gr.optim.SGD(0.2, momentum=0.95), **options)
    nn = gr.nn
    layers = nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 3)
    return gr.Trainer(nn.Sequential(*layers), optimizer=gr.optim.Adam(0.3), seed=2, threads=1, **options)


def callbacks(folder):
    return [
        gr.callbacks.Checkpoint(folder / "best.safetensors", monitor="loss"),
        gr.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1),
        gr.callbacks.EarlyStop("loss", patience=2),
    ]


class At(gr.callbacks.Callback):
    """Saves at a batch of an epoch, and does something there."""

    def __init__(self, epoch, batch, path, act):
        self.at, self.path, self.act = (epoch, batch), path, act

    def on_report(self, run):
        if (run.epoch, run.batch) == self.at:
            run.trainer.save(self.path)
            self.act()


@pytest.fixture(autouse=True)
def a_report_after_each_batch(monkeypatch):
    run = gradring.session.session.Session.run

    def slowly(self, data, **options):
        given = {name: value for name, value in options.items() if value is not None}
        return run(self, data, **{"before_step": lambda: None, **given, "report_every": 0.0})

    monkeypatch.setattr(gradring.session.session.Session, "run", slowly)
    monkeypatch.setattr(gradring.session.session, "REPORT_SECONDS", -1.0)
    monkeypatch.setattr(gradring.session.user, "REPORT_SECONDS", -1.0)


def told(made, folder):
    """All that a run leaves, but times."""
    made.save(folder / "end")
    states = json.loads(checkpoint.read(folder / "end")[1]["callbacks"])
    for state in states.values():
        state.pop("path", None), state.pop("saved", None)
    history = {name: values for name, values in made.history.metrics.items() if name != "seconds"}
    best, metadata = checkpoint.read(folder / "best.safetensors")
    best = {name: array.tobytes() for name, array in best.items()}
    return snapshot(made), json.dumps(history), states, best, metadata["epoch"]


def fitted(route, folder, **options):
    folder.mkdir()
    made = trainer(route, **options)
    made.fit(ROUTES[route](), EPOCHS, callbacks=callbacks(folder), batch_size=size(route), verbose=False)
    return told(made, folder)


def raise_stop():
    raise Stop


def spread(predictions, targets):
    return float(np.ptp(predictions) + targets.sum())
