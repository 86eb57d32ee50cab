import numpy as np
import pytest

import gradring as gr
from helpers import mlp, snapshot


def reference_losses(params, batches, rate, momentum):
    """Losses of an 8-16-3 relu network with softmax cross entropy and SGD with momentum, in float64 NumPy."""
    w1, b1, w2, b2 = (params[name].astype(np.float64) for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    velocity = [np.zeros_like(array) for array in (w1, b1, w2, b2)]
    losses = []
    for x, y in batches:
        x = x.astype(np.float64)
        pre = x @ w1 + b1
        hidden = np.maximum(pre, 0)
        logits = hidden @ w2 + b2
        logits -= logits.max(1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses.append(-log_p[np.arange(len(y)), y].mean())
        d = np.exp(log_p)
        d[np.arange(len(y)), y] -= 1
        d /= len(y)
        back = (d @ w2.T) * (pre > 0)
        for array, v, grad in zip(
            (w1, b1, w2, b2), velocity, (x.T @ back, back.sum(0), hidden.T @ d, d.sum(0)), strict=True
        ):
            v *= momentum
            v += grad
            array -= rate * v
    return losses, {"0.weight": w1, "0.bias": b1, "2.weight": w2, "2.bias": b2}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ["step", "fit", "batches"])
def test_training_is_what_the_formulas_say(blobs, dtype, way):
    loader = gr.Loader(blobs, 32, shuffle=True, seed=4)
    trainer = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(0.05, momentum=0.9), dtype=dtype)
    first = {name: array.copy() for name, array in trainer.params.items()}
    epochs = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        epochs.append(list(loader.batches()))
    losses, wanted = reference_losses(first, [batch for batches in epochs for batch in batches], 0.05, 0.9)
    means = [
        np.average(part, weights=[len(y) for _, y in batches])
        for part, batches in zip(np.split(np.array(losses), 3), epochs, strict=True)
    ]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    if way == "step":
        got = [trainer.step(x, y) for batches in epochs for x, y in batches]
        np.testing.assert_allclose(got, losses, rtol=tolerance, atol=tolerance)
    else:
        source = loader if way == "fit" else Epochs(epochs)
        history = trainer.fit(source, epochs=3)
        np.testing.assert_allclose(history.metrics["loss"], means, rtol=tolerance, atol=tolerance)
    for name, array in wanted.items():
        np.testing.assert_allclose(trainer.params[name], array, atol=tolerance * 3 * np.abs(array).max())
    assert trainer.step_count == 30


class Epochs:
    """An iterable of batches of one's own, other ones in each epoch."""

    def __init__(self, epochs):
        self.epochs = epochs

    def set_epoch(self, epoch):
        self.batches = self.epochs[epoch]

    def __iter__(self):
        return iter(self.batches)


def test_fit_learns_and_measures(blobs):
    train, test = (tuple(a[:200] for a in blobs), tuple(a[200:] for a in blobs))
    trainer = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.AdamW(1e-2))
    history = trainer.fit(train, epochs=15, validate=test, batch_size=16)
    assert list(history.metrics) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
    assert history.metrics["epoch"] == list(range(1, 16)) and history.metrics["lr"] == [1e-2] * 15
    assert history.last["accuracy"] > 0.9 and history.last["val_accuracy"] > 0.85
    assert history.metrics["loss"][-1] < history.metrics["loss"][0]
    metrics = trainer.evaluate(test)
    assert metrics["accuracy"] == history.last["val_accuracy"] and metrics["loss"] == history.last["val_loss"]
    outputs = trainer.predict(test[0])
    assert outputs.shape == (100, 3) and np.mean(outputs.argmax(1) == test[1]) == metrics["accuracy"]
    np.testing.assert_allclose(outputs, trainer.model(test[0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3, 64, 65])
def test_any_number_of_samples(blobs, samples):
    data = tuple(a[:samples] for a in blobs)
    trainer = gr.Trainer(mlp(8, 4, 3))
    trainer.fit(data, epochs=2, validate=data, batch_size=64)
    assert trainer.step_count == 2 * -(-samples // 64)
    assert trainer.predict(data[0], batch_size=2).shape == (samples, 3)


def test_metrics_may_be_left_out(blobs):
    trainer = gr.Trainer(mlp(8, 4, 3), metrics=())
    assert "accuracy" not in trainer.fit(blobs, validate=blobs).metrics
    assert list(trainer.evaluate(blobs)) == ["loss"]


def test_other_losses(blobs):
    x, y = blobs
    target = np.column_stack([np.sin(x[:, 0]), x[:, 1]]).astype(np.float32)
    trainer = gr.Trainer(mlp(8, 16, 2), "mse", gr.optim.Adam(1e-2))
    history = trainer.fit((x, target), epochs=20, validate=(x, target))
    assert history.last["val_loss"] < 0.5 * history.metrics["val_loss"][0] and "accuracy" not in history.metrics
    np.testing.assert_allclose(history.last["val_loss"], np.mean((trainer.predict(x) - target) ** 2), rtol=1e-4)
    is_two = (y == 2).astype(np.float32)[:, None]
    binary = gr.Trainer(mlp(8, 16, 1), "binary_cross_entropy", gr.optim.Adam(1e-2))
    assert binary.fit((x, is_two), epochs=10).last["loss"] < 0.4


def test_a_schedule_reaches_every_update(blobs):
    rate = gr.optim.schedule.warmup(gr.optim.schedule.cosine(0.1, 27), 3)
    a = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.SGD(rate, momentum=0.9))
    loader = gr.Loader(blobs, 30)
    history = a.fit(loader, epochs=3)
    assert history.metrics["lr"] == [rate(9), rate(19), rate(29)]
    b = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.SGD(rate, momentum=0.9))
    for _ in range(3):
        for x, y in loader.batches():
            b.step(x, y)
    assert snapshot(a)["0.weight"] == snapshot(b)["0.weight"]


def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads(blobs):
    def trained(threads, seed):
        trainer = gr.Trainer(mlp(8, 33, 3), threads=threads, seed=seed)
        trainer.fit(blobs, epochs=2, batch_size=48)
        return snapshot(trainer)

    one = trained(1, 5)
    assert one == trained(1, 5) == trained(2, 5) == trained("auto", 5) == trained(7, 5)
    assert one["0.weight"] != trained(1, 6)["0.weight"]


def test_plain_arrays_are_shuffled_by_the_trainers_seed(blobs):
    a, b = (gr.Trainer(mlp(8, 4, 3), seed=3) for _ in range(2))
    a.fit(blobs, epochs=2, batch_size=20)
    b.fit(gr.Loader(blobs, 20, shuffle=True, seed=3), epochs=2)
    assert snapshot(a) == snapshot(b)


def test_epochs_go_on_from_call_to_call(blobs):
    a, b = (gr.Trainer(mlp(8, 4, 3)) for _ in range(2))
    a.fit(blobs, epochs=3)
    for _ in range(3):
        b.fit(blobs, epochs=1)
    assert snapshot(a) == snapshot(b) and a.epoch == 3
    assert a.fit(blobs, epochs=0).metrics == {} and snapshot(a) == snapshot(b)


def test_accumulate_is_a_larger_batch(blobs):
    a = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(0.1), accumulate=4, dtype="float64")
    b = gr.Trainer(mlp(8, 16, 3), optimizer=gr.optim.SGD(0.1), dtype="float64")
    a.fit(gr.Loader(blobs, 16), epochs=2)
    b.fit(gr.Loader(blobs, 64), epochs=2)
    assert a.step_count == b.step_count == 10
    for name, array in a.params.items():
        np.testing.assert_allclose(array, b.params[name], rtol=1e-10, atol=1e-12)


def test_timings_and_plan(blobs):
    trainer = gr.Trainer(mlp(8, 16, 3))
    assert trainer.timings().total == 0
    trainer.fit(blobs, epochs=3, validate=blobs)
    timings = trainer.timings()
    assert timings["compute"] > 0 and timings["validation"] > 0 and timings["python"] > 0
    assert timings.bottleneck == max(timings, key=timings.get) and timings.bottleneck in str(timings)
    text = str(trainer.plan())
    assert "0.weight" in text and "cross_entropy" in text and "MFLOP" in text


def test_repr(blobs):
    trainer = gr.Trainer(mlp(8, 4, 3), optimizer=gr.optim.SGD(0.1))
    assert repr(trainer).startswith("Trainer(51 parameters, SGD(lr=0.1") and "epoch=0, step_count=0" in repr(trainer)


def test_state_dict_round_trip(blobs):
    a, b = (gr.Trainer(mlp(8, 4, 3), seed=seed) for seed in (1, 2))
    a.fit(blobs, epochs=2)
    b.load_state_dict(a.state_dict())
    assert snapshot(a) == snapshot(b)
    a.fit(blobs, epochs=1)
    b.fit(blobs, epochs=1)
    assert snapshot(a) == snapshot(b)
    with pytest.raises(ValueError, match=r"\[Trainer.load_state_dict\] tensor '0.weight' is \(8, 4\) of float32"):
        gr.Trainer(mlp(8, 5, 3)).load_state_dict(a.state_dict())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "cuda:99"}, gr.DeviceUnavailable, r"\[Trainer\] device 'cuda:99'"),
        ({"device": None}, TypeError, r"\[Trainer\] device must be a text, 'cpu', 'cuda' or 'cuda:0', got None"),
        ({"device": "tpu"}, ValueError, r"\[Trainer\] device .*'tpu'"),
        ({"replicas": 0}, ValueError, r"\[Trainer\] replicas must be 'auto' or an int from 1 to 256, got 0"),
        ({"replicas": "two"}, ValueError, r"\[Trainer\] replicas must be 'auto' or an int .* got 'two'"),
        ({"replicas": ["cuda:0"]}, gr.NotBuilt, "replicas= as a list of devices is planned"),
        ({"parallel": "zero"}, ValueError, r"\[Trainer\] parallel must be 'allreduce', .*, got 'zero'"),
        ({"parallel": "hogwild"}, ValueError, r"\[Trainer\] parallel='hogwild' updates one number at a time, and AdamW"),
        ({"shards": 6}, ValueError, "shards is 6: must be a power of two"),
        ({"shards": 0}, ValueError, r"\[Trainer\] shards must be an int .* 256, got 0"),
        ({"comm": object()}, TypeError, r"\[Trainer\] comm must be None or a communicator of gr.comm, got <object"),
        ({"dtype": "int8"}, ValueError, r"dtype must be 'float32', 'float64', 'bfloat16', 'float16' or 'tf32', got 'int8'"),
        ({"dtype": None}, TypeError, r"\[Trainer\] dtype must be 'float32', .*, 'float16' or 'tf32', got None"),
        ({"clip_norm": "all"}, TypeError, r"\[Trainer\] clip_norm must be None or a finite number above 0, got 'all'"),
        ({"loss": "hinge"}, ValueError, "hinge"),
        ({"optimizer": "adam"}, TypeError, r"\[Trainer\] optimizer must be one of gr.optim, got 'adam': write"),
        ({"metrics": "accuracy"}, ValueError, r"\[Trainer\] metrics must be a list of 'accuracy', .*, got 'accuracy'"),
        ({"metrics": ("f1",)}, ValueError, r"\[Trainer\] metrics must be of 'accuracy', 'mae', 'r2', .*, got 'f1'"),
        ({"dtype": "int8"}, ValueError, "int8"),
        ({"threads": 0}, ValueError, r"\[Trainer\] threads must be 'auto' or an int from 1 to 256, got 0"),
        ({"threads": "many"}, ValueError, r"\[Trainer\] threads must be 'auto' or .* got 'many'"),
        ({"accumulate": 0}, ValueError, r"\[Trainer\] accumulate must be an int of at least 1, got 0"),
        ({"clip_norm": 0.0}, ValueError, r"\[Trainer\] clip_norm must be None or a finite number above 0, got 0.0"),
        ({"clip_norm": float("nan")}, ValueError, r"\[Trainer\] clip_norm"),
        ({"nonfinite": "pray"}, ValueError, r"\[Trainer\] nonfinite must be 'raise' or 'ignore', got 'pray'"),
        ({"seed": -1}, ValueError, r"\[Trainer\] seed must be an int from 0 to .* got -1"),
        ({"seed": 1.0}, TypeError, r"\[Trainer\] seed must be an int"),
        ({"params": {}}, TypeError, r"\[Trainer\] params go with step"),
    ],
)
def test_bad_arguments(options, error, words):
    with pytest.raises(error, match=words):
        gr.Trainer(mlp(8, 4, 3), **options)


@pytest.mark.cpu("it names device=cpu")
def test_every_argument_of_the_contract_is_taken(blobs):
    every = {"metrics": ("accuracy",), "device": "cpu", "dtype": np.float32, "replicas": "auto", "threads": "auto"}
    every |= {
        "parallel": "allreduce",
        "shards": None,
        "accumulate": 1,
        "clip_norm": None,
        "nonfinite": "raise",
        "seed": 0,
        "comm": None,
    }
    plain, named = gr.Trainer(mlp(8, 4, 3)), gr.Trainer(mlp(8, 4, 3), **every)
    one = gr.Trainer(mlp(8, 4, 3), replicas=1, shards=1)
    for trainer in (plain, named, one):
        trainer.fit(blobs)
    assert snapshot(plain) == snapshot(named) == snapshot(one)


@pytest.mark.parametrize("epochs", [-1, 1.5, True, "2"])
def test_bad_epochs(blobs, epochs):
    with pytest.raises((ValueError, TypeError), match=r"\[Trainer.fit\] epochs must be an int of at least 0"):
        gr.Trainer(mlp(8, 4, 3)).fit(blobs, epochs)


def test_step_takes_its_arguments_by_name(blobs):
    x, y = blobs
    a, b = gr.Trainer(mlp(8, 4, 3)), gr.Trainer(mlp(8, 4, 3))
    assert [a.step(x, y), a.step(x, y)] == [b.step(y=y, x=x), b.step(x, y=y)]
    assert snapshot(a) == snapshot(b)
    for arguments, names, words in (
        ((x,), {}, r"^step\(\) missing 1 required positional argument: 'y'"),
        ((), {}, r"^step\(\) missing 2"),
        ((x, y, None, y), {}, r"^step\(\) takes from 2 to 3 positional arguments but 4 were given"),
        ((x, y), {"labels": y}, r"^step\(\) got an unexpected keyword argument 'labels'"),
    ):
        with pytest.raises(TypeError, match=words):
            a.step(*arguments, **names)
    assert a.step_count == 2


def test_a_fit_that_is_refused_keeps_the_history_and_the_place_in_the_epoch(blobs):
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 3)))
    trainer.fit(blobs, epochs=2)
    before = dict(trainer.history.metrics), trainer.state_dict()["batch"]
    x, y = blobs
    for wrong, options in [((x, y[:-1]), {}), ("nonsense", {}), (blobs, {"validate": (x[:, :3], y)})]:
        with pytest.raises((TypeError, ValueError)):
            trainer.fit(wrong, verbose=False, **options)
        assert (trainer.history.metrics, trainer.state_dict()["batch"]) == before
