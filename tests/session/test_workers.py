"""Asynchronous updates: what one worker must do exactly, and what several may and may not lose."""

import itertools
import threading
import traceback

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(5)
X = RNG.standard_normal((310, 12))
Y = RNG.integers(0, 5, 310)
W = RNG.uniform(0, 2, 310)
IDS = RNG.integers(0, 50, (310, 3))
FITS = "must be None or an int from 0 to 9223372036854775807"
WAYS = ("locked", "atomic", "hogwild")


def dense():
    layers = gr.nn.Linear(12, 33), gr.nn.ReLU(), gr.nn.Dropout(0.3), gr.nn.Linear(33, 5)
    return gr.nn.Sequential(*layers).init(3)


def sparse():
    return gr.nn.Sequential(gr.nn.Embedding(50, 8), gr.nn.Flatten(), gr.nn.Linear(24, 5)).init(3)


DATA = {"dense": (X, Y), "weighted": (X, Y, W), "sparse": (IDS, Y), "narrow ids": (IDS.astype(np.int32), Y)}


def trained(parallel, workers=1, *, data="dense", optimizer=None, dtype="float64", epochs=2, **options):
    model = dense if data in ("dense", "weighted") else sparse
    trainer = gr.Trainer(
        model(), optimizer=optimizer or gr.optim.SGD(0.1), parallel=parallel, replicas=workers, dtype=dtype, **options
    )
    trainer.fit(gr.Loader(DATA[data], batch_size=32, shuffle=True, seed=5), epochs=epochs, verbose=0)
    return trainer


def arrays(trainer):
    state = trainer.state_dict()
    return {**state["params"], **state["optimizer"]}


def same_bits(a, b):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


FALLING = gr.optim.schedule.linear(0.2, 0.01, steps=20)
EVERY = [
    {},
    {"dtype": "float32"},
    {"optimizer": gr.optim.SGD(FALLING, weight_decay=0.01)},
    {"optimizer": gr.optim.SGD(0.1, groups=[{"params": "*.bias", "lr": 0.3}])},
    {"clip_norm": 0.5, "data": "weighted"},
    {"nonfinite": "ignore", "frozen": "0.weight"},
    {"data": "sparse"},
    {"data": "narrow ids", "optimizer": gr.optim.SGD(0.1, weight_decay=0.1)},
]
LOCKED = [
    {"optimizer": gr.optim.AdamW(1e-2)},
    {"optimizer": gr.optim.SGD(FALLING, momentum=0.9, nesterov=True), "clip_norm": 0.5},
    {"optimizer": gr.optim.Adam(1e-2), "data": "sparse"},
    {"optimizer": gr.optim.Lion(1e-3, groups=[{"params": "*.bias", "lr": 1e-2}]), "dtype": "float32"},
]
CASES = [(way, options) for way in WAYS for options in EVERY] + [("locked", options) for options in LOCKED]


@pytest.mark.parametrize(("way", "options"), CASES, ids=str)
def test_one_worker_trains_as_a_serial_run_bit_for_bit(way, options):
    serial, worker = trained("allreduce", **options), trained(way, **options)
    assert same_bits(serial, worker)
    assert serial.history.metrics["loss"] == worker.history.metrics["loss"]
    assert serial.history.metrics["accuracy"] == worker.history.metrics["accuracy"]
    assert serial.step_count == worker.step_count


@pytest.mark.parametrize("options", [{}, LOCKED[0]], ids=str)
def test_without_any_staleness_several_workers_train_as_one(options):
    serial, workers = trained("allreduce", **options), trained("locked", 3, staleness=0, **options)
    assert same_bits(serial, workers)
    assert workers.sharing()["most_stale"] == 0
    assert workers.sharing()["staleness"] == [workers.step_count] + [0] * 16


def line(way, workers, samples=2000, features=40, held=0.0, batch_size=20):
    """Train on a task whose gradients are integers times a power of two for any weights, so that sums have no rounding."""
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, (samples, features)).astype(np.float32)
    model = gr.nn.Sequential(gr.nn.Linear(features, 1, bias=False)).init(0)
    model.params["0.weight"] = np.zeros((features, 1))
    loss = gr.losses.MAE(reduction="sum")
    trainer = gr.Trainer(model, loss, gr.optim.SGD(2.0**-4), metrics=(), parallel=way, replicas=workers)
    if held:
        trainer.session._programs.replicas.force_collisions(held)
    trainer.fit(gr.Loader((x, np.full((samples, 1), 1e6)), batch_size=batch_size), epochs=1, verbose=0)
    return np.array(trainer.params["0.weight"])[:, 0], x.sum(axis=0) * 2.0**-4, trainer.sharing()


@pytest.mark.parametrize("way", ["locked", "atomic"])
@pytest.mark.parametrize("workers", [2, 4])
def test_integer_gradients_under_locks_and_compare_and_swap_lose_nothing(way, workers):
    weights, expected, counts = line(way, workers)
    assert np.array_equal(weights, expected)
    assert (counts["updates"], counts["lost"], counts["counted"]) == (100, 0, 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_forced_collision_loses_updates_with_hogwild_alone(way):
    # The number of pushes is even, so each meets another one, and none waits for as long as it may. Under a lock, none can.
    weights, expected, counts = line(way, 2, samples=12, held=0.005 if way == "locked" else 60.0, batch_size=2)
    assert counts["updates"] == 6
    assert (counts["lost"] > 0) == (way == "hogwild")
    assert np.array_equal(weights, expected) == (way != "hogwild")


@pytest.mark.parametrize("way", WAYS)
def test_several_workers_learn(way):
    train, test = gr.datasets.digits()
    model = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10))
    trainer = gr.Trainer(model, optimizer=gr.optim.SGD(0.2), parallel=way, replicas=2, staleness=4, seed=1)
    trainer.fit(gr.Loader(train, batch_size=32, shuffle=True), epochs=10, validate=test, verbose=0)
    assert trainer.history.last["val_accuracy"] > 0.9
    counts = trainer.sharing()
    assert counts["most_stale"] <= 4
    assert sum(counts["staleness"]) == counts["updates"] == trainer.step_count


def test_each_sample_is_trained_on_once_per_epoch():
    trainer = trained("atomic", 3, epochs=1)
    assert trainer.session.totals()["samples"] == len(X)
    assert trainer.step_count == -(-len(X) // 32)
    one = trained("allreduce", epochs=1)
    assert trainer.history.last["loss"] == pytest.approx(one.history.last["loss"], rel=0.2)


def test_steps_by_hand_a_checkpoint_another_optimizer_and_a_reset(tmp_path):
    workers, serial = (
        gr.Trainer(dense(), optimizer=gr.optim.SGD(0.1), parallel=way) for way in ("locked", "allreduce")
    )
    for trainer in (workers, serial):
        for at in (0, 10, 20):
            trainer.step(X[at : at + 10], Y[at : at + 10])
        trainer.optimizer = gr.optim.AdamW(1e-2)
        trainer.step(X[:10], Y[:10])
    assert same_bits(workers, serial)
    workers.save(tmp_path / "state.safetensors")
    other = gr.Trainer(dense(), optimizer=gr.optim.AdamW(1e-2), parallel="locked", replicas=2)
    other.load(tmp_path / "state.safetensors")
    for trainer in (other, serial):
        trainer.step(X[:10], Y[:10])
    assert same_bits(other, serial)
    for trainer in (other, serial):
        trainer.reset(7)
        trainer.step(X[:10], Y[:10])
    assert same_bits(other, serial)
    assert "take_shared" in str(other.plan())


@pytest.mark.parametrize("workers", [1, 3])
def test_a_fault_ends_the_run_and_names_its_sample(workers):
    labels = Y.copy()
    labels[100] = 9
    trainer = gr.Trainer(dense(), optimizer=gr.optim.SGD(0.1), parallel="atomic", replicas=workers)
    with pytest.raises(ValueError, match=r"sample 100.*9|9.*sample 100"):
        trainer.fit((X, labels), epochs=1, verbose=0)
    assert all(np.isfinite(array).all() for array in trainer.params.values())
    x = X.copy()
    x[50, 3] = np.inf
    with pytest.raises(gr.NonFinite):
        trainer.fit((x, Y), epochs=1, verbose=0)
    assert all(np.isfinite(array).all() for array in trainer.params.values())
    trainer.fit((X, Y), epochs=1, verbose=0)


def fit_until(error, *, after, parallel, labels=Y):
    """Train with a transform that raises ``error`` once it has seen so many rows."""
    seen = itertools.count()

    def transform(row):
        if next(seen) >= after:
            raise error
        return row

    trainer = gr.Trainer(dense(), optimizer=gr.optim.SGD(0.1), parallel=parallel, replicas=3)
    with gr.Loader((X, labels), 16, transforms={0: gr.transforms.Python(transform)}) as loader:
        trainer.fit(loader, epochs=1, verbose=0)


@pytest.mark.parametrize("parallel", [*WAYS, "allreduce"])
def test_what_a_loader_raises_arrives_whichever_worker_reads_it(parallel):
    for _ in range(4):  # the workers race for the batch
        with pytest.raises(ZeroDivisionError, match="of a transform") as caught:
            fit_until(ZeroDivisionError("of a transform"), after=150, parallel=parallel)
        assert caught.value.sample_index >= 0
        assert "transform" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_an_exception_that_another_fault_displaces_is_not_raised_later():
    labels = Y.copy()
    labels[100] = 9
    for _ in range(4):
        with pytest.raises((ValueError, ZeroDivisionError)):
            fit_until(ZeroDivisionError(), after=112, parallel="locked", labels=labels)
        with pytest.raises(KeyError):
            fit_until(KeyError("another"), after=50, parallel="locked")


def test_the_counts_can_be_read_while_the_workers_train():
    trainer = gr.Trainer(dense(), optimizer=gr.optim.SGD(0.1), parallel="atomic", replicas=2)
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            seen.append(trainer.sharing()["updates"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        trainer.fit((X, Y), epochs=20, verbose=0)
    finally:
        done.set()
        reader.join()
    assert seen == sorted(seen) and seen[-1] <= trainer.sharing()["updates"] == trainer.step_count


def test_other_state_is_used_by_all_or_by_none(monkeypatch):
    trainer = trained("locked", 2, optimizer=gr.optim.AdamW(1e-2), epochs=1)
    programs = trainer.session._programs
    engine = trainer.session._native

    class Full:
        def __getattr__(self, name):
            return getattr(workers, name)

        def set_arenas(self, arenas):
            raise MemoryError

    workers, given = programs.replicas, []
    monkeypatch.setattr(programs, "replicas", Full())
    monkeypatch.setattr(type(engine), "set_arenas", lambda *arguments: given.append(arguments), raising=False)
    with pytest.raises(MemoryError):
        programs.use_state()
    assert programs.stale and not given


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"parallel": "atomic"}, ValueError, "parallel='atomic' updates one number at a time, and AdamW"),
        (
            {"parallel": "hogwild", "optimizer": gr.optim.SGD(0.1, momentum=0.9)},
            ValueError,
            "give gr.optim.SGD without momentum, or parallel='locked', which takes every optimizer",
        ),
        ({"parallel": "locked", "accumulate": 2}, gr.NotBuilt, "accumulate=2 with parallel='locked' is planned"),
        ({"staleness": 3}, ValueError, "staleness=3 bounds asynchronous updates, and parallel is 'allreduce'"),
        ({"parallel": "locked", "staleness": -1}, ValueError, f"staleness {FITS}, got -1"),
        ({"parallel": "locked", "staleness": 2**63}, ValueError, f"staleness {FITS}"),
        ({"parallel": "locked", "staleness": 1.5}, TypeError, "staleness"),
        ({"parallel": "lock"}, ValueError, "parallel must be 'allreduce', 'locked', 'atomic' or 'hogwild', got 'lock'"),
    ],
    ids=str,
)
def test_bad_options(options, error, text):
    with pytest.raises(error, match=text):
        gr.Trainer(dense(), **options)


def test_a_bad_optimizer_later_and_what_needs_workers():
    trainer = trained("hogwild", epochs=1)
    with pytest.raises(ValueError, match="parallel='hogwild' updates one number at a time"):
        trainer.optimizer = gr.optim.Adam(1e-3)
    trainer.step(X[:5], Y[:5])
    with pytest.raises(TypeError, match="has no asynchronous updates"):
        gr.Trainer(dense()).sharing()
    with pytest.raises(gr.NotBuilt, match="gradients"):
        _ = trainer.session.grads
    with pytest.raises(gr.NotBuilt, match="running statistics"):
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3), gr.nn.BatchNorm1d(3)), parallel="locked")
    with pytest.raises(gr.NotBuilt, match="step="):
        gr.Trainer(step=lambda p, b: (0.0, {}), params={"w": np.zeros(2)}, parallel="locked")
