"""Several epochs in one native call: what `fit` does for small data sets if nothing listens to it."""

import gc
import signal
import threading
import time

import numpy as np
import pytest

import gradring as gr
from gradring.session.whole_epochs import WholeEpochs

pytestmark = pytest.mark.cpu("one native call has several epochs there alone")

ROWS, BATCH = 50, 16  # the last batch is shorter


class Listener(gr.callbacks.Callback):
    """It does nothing, but while it listens, each epoch comes back to Python."""


@pytest.fixture
def calls(monkeypatch):
    """The numbers of epochs that native calls have completed."""
    counts = []
    train = WholeEpochs.train

    def counted(self, *given):
        try:
            return train(self, *given)
        finally:
            counts.append(self.done)

    monkeypatch.setattr(WholeEpochs, "train", counted)
    return counts


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((ROWS, 6)).astype(np.float32), rng.integers(0, 3, ROWS)


def trainer_of(optimizer=None, *, layers=(), **options):
    model = gr.nn.Sequential(gr.nn.Linear(6, 8), gr.nn.ReLU(), *layers, gr.nn.Linear(8, 3)).init(1)
    return gr.Trainer(model, optimizer=optimizer or gr.optim.Adam(0.01), **options)


def state_of(trainer):
    state = trainer.state_dict()
    return {**{f"params/{n}": a for n, a in state.pop("params").items()}, **state.pop("optimizer"), **state}


def require_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def metrics_of(history):
    return {name: values for name, values in history.metrics.items() if name != "seconds"}


@pytest.mark.parametrize(
    "made",
    [
        lambda: trainer_of(),
        lambda: trainer_of(gr.optim.SGD(0.1, momentum=0.9), threads=1),
        lambda: trainer_of(layers=[gr.nn.Dropout(0.3)], seed=5),
        lambda: trainer_of(layers=[gr.nn.BatchNorm1d(8)], clip_norm=0.1),
        lambda: trainer_of(class_weight={0: 1.0, 1: 2.0, 2: 0.5}, nonfinite="ignore"),
        lambda: trainer_of(gr.optim.AdamW(0.01, groups=[{"params": "*.bias", "lr": 0.1}])),
    ],
)
@pytest.mark.parametrize("order", [{"shuffle": True, "seed": 3}, {"drop_last": True}])
def test_the_same_bits_as_epochs_that_come_one_by_one(made, order, calls):
    results = []
    for callbacks in ((), (Listener(),)):
        trainer, loader = made(), gr.Loader(arrays(), BATCH, **order)
        for epochs in (25, 7):
            history = trainer.fit(loader, epochs=epochs, callbacks=callbacks, verbose=False)
        assert len(history["seconds"]) == 7 and all(0 < seconds < 60 for seconds in history["seconds"])
        results.append((state_of(trainer), metrics_of(history), loader.state_dict()))
        if not callbacks:
            assert max(calls) > 1 and sum(calls) <= 32
            calls.clear()
    assert not calls
    (found, history, position), (state, expected, there) = results
    require_equal(found, state)
    assert history == expected and position == there


@pytest.mark.parametrize(
    ("options", "fitting"),
    [
        ({"accumulate": 2}, {}),
        ({"optimizer": gr.optim.SGD(gr.optim.schedule.cosine(0.1, 100))}, {}),
        ({"metrics": ["accuracy", lambda predictions, targets: float(np.mean(predictions))]}, {}),
        ({"class_weight": "balanced"}, {}),
        ({"replicas": 2}, {}),
        ({}, {"validate": arrays(1)}),
        ({}, {"steps_per_epoch": 2}),
        ({}, {"callbacks": [Listener()]}),
    ],
)
def test_what_needs_python_after_an_epoch_comes_one_by_one(options, fitting, calls):
    trainer = trainer_of(**options)
    history = trainer.fit(arrays(), epochs=10, batch_size=BATCH, verbose=False, **fitting)
    assert len(history) == trainer.epoch == 10 and not calls


def test_weights_come_one_by_one_because_all_of_an_epoch_may_be_zero(calls):
    x, y = arrays()
    trainer = trainer_of()
    trainer.fit({"x": x, "y": y, "weight": np.ones(ROWS, np.float32)}, epochs=10, batch_size=BATCH, verbose=False)
    assert not calls


def test_an_epoch_that_fails_fails_as_it_does_alone(calls):
    """The steps grow until the loss is infinite, in the middle of some epoch."""
    x, _ = arrays()
    target = x[:, :3] * 3
    ends = []
    for callbacks in ((), (Listener(),)):
        trainer = gr.Trainer(
            gr.nn.Sequential(gr.nn.Linear(6, 3)).init(0), loss="mse", optimizer=gr.optim.SGD(3.0), threads=1
        )
        loader = gr.Loader((x, target), BATCH, shuffle=True, seed=1)
        with pytest.raises(gr.errors.NonFinite) as caught:
            trainer.fit(loader, epochs=500, callbacks=callbacks, verbose=False)
        ends.append((str(caught.value), state_of(trainer), metrics_of(trainer.history), loader.epoch))
    (text, found, history, epoch), (expected, state, rows, there) = ends
    assert sum(calls) > 0 and state["epoch"] > 3
    assert text == expected and epoch == there
    require_equal(found, state)
    assert history == rows


class Now(Exception):
    pass


def test_an_exception_at_any_moment_loses_no_epoch(tmp_path, calls):
    """A handler raises between two epochs, or within the call, and the run is resumed until it is complete."""
    epochs, data = 5000, arrays()

    def loader():
        return gr.Loader(data, BATCH, shuffle=True, seed=3)

    whole = trainer_of(threads=1)
    expected = whole.fit(loader(), epochs=epochs, verbose=False)
    rng, batches, path = np.random.default_rng(7), -(-ROWS // BATCH), tmp_path / "state"
    interrupted = 0

    def raise_now(*_):
        raise Now

    before = signal.signal(signal.SIGALRM, raise_now)
    gc.disable()  # Python drops what a handler raises within a callback of the collector, and hypothesis has such a callback
    try:
        trainer, resume = trainer_of(threads=1), None
        while True:
            if interrupted < 200:  # a slow machine may do little between two signals
                signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(0.01, 0.06)))
            try:
                trainer.fit(loader(), epochs=epochs, verbose=False, resume=resume)
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except Now:
                interrupted += 1
            state = trainer.state_dict()
            assert state["epoch"] * batches + state["batch"] == trainer.step_count
            assert len(trainer.history) == trainer.epoch
            trainer.save(path)
            resume = path
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupted > 0 and trainer.epoch == epochs
    require_equal(state_of(trainer), state_of(whole))
    assert metrics_of(trainer.history) == metrics_of(expected)


def test_other_threads_predict_while_epochs_run(calls):
    trainer, (x, y) = trainer_of(), arrays()
    trainer.fit((x, y), epochs=3, batch_size=BATCH, verbose=False)
    ended, waits = threading.Event(), []

    def predict():
        while not ended.is_set():
            began = time.perf_counter()
            trainer.predict(x)
            waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        trainer.fit((x, y), epochs=3000, batch_size=BATCH, verbose=False)
    finally:
        ended.set()
        thread.join()
    assert trainer.epoch == 3003 and len(waits) > 3


def test_the_native_call_refuses_what_it_cannot_fill():
    from gradring import _core

    trainer = trainer_of()
    trainer.step(*(array[:BATCH] for array in arrays()))
    native = trainer.session._native
    x, y = arrays()
    feed = _core.ArrayFeed([(x, "float32"), (y, "int64")], BATCH)
    with pytest.raises(ValueError, match="out must be C-contiguous, with 6 columns"):
        native.epochs(feed, np.ones(4), 0, np.zeros((2, 5)))
    out = np.zeros((2, 6))
    assert native.epochs(feed, np.ones(1), 0, out)["end"] == "rates"  # one update, and the epoch has four
    assert not out.any()
