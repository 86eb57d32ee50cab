"""Trainer(step=fn, params=..., optimizer=...): gradients of one's own."""

import numpy as np
import pytest

import gradring as gr


def regression(params, batch):
    """Least squares and its gradients, by hand."""
    x, y = batch
    error = x @ params["w"] + params["b"] - y
    scale = 2 / error.size
    return float(np.mean(error**2)), {"w": scale * (x.T @ error), "b": scale * error.sum(0)}, len(x)


def parameters(dtype=np.float64):
    rng = np.random.default_rng(1)
    return {"w": rng.standard_normal((4, 2)).astype(dtype), "b": np.zeros(2, dtype)}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 4))
    return x, x @ rng.standard_normal((4, 2)) + 0.5


def reference(params, grads, state, optimizer, rate, t):
    """One update, as the optimizers' docstrings state it."""
    for name, p in params.items():
        g = grads[name]
        if optimizer.kind == "sgd":
            g = g + optimizer.weight_decay * p
            if optimizer.momentum:
                v = state[name] = optimizer.momentum * state.get(name, 0) + g
                g = g + optimizer.momentum * v if optimizer.nesterov else v
            p -= rate * g
            continue
        if optimizer.kind == "adamw":
            p -= rate * optimizer.weight_decay * p
        b1, b2 = optimizer.betas
        m, v = state.get(name, (0, 0))
        m, v = state[name] = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p -= rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + optimizer.eps)


OPTIMIZERS = [
    gr.optim.SGD(0.05),
    gr.optim.SGD(gr.optim.schedule.cosine(0.05, 9), momentum=0.9),
    gr.optim.SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
    gr.optim.Adam(0.05, betas=(0.8, 0.95)),
    gr.optim.AdamW(gr.optim.schedule.warmup(0.05, 4), weight_decay=0.2),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_updates_are_those_of_the_formulas(optimizer, data):
    params, wanted, state = parameters(), parameters(), {}
    trainer = gr.Trainer(step=regression, params=params, optimizer=optimizer)
    for t in range(1, 12):
        batch = tuple(array[t : t + 8] for array in data)
        loss, grads, _ = regression(wanted, batch)
        assert trainer.step(*batch) == pytest.approx(loss, rel=1e-12)
        reference(wanted, grads, state, optimizer, optimizer.learning_rates(t - 1, 1)[0], t)
        for name, array in wanted.items():
            np.testing.assert_allclose(params[name], array, rtol=1e-10, atol=1e-12)
    assert trainer.step_count == 11 and all(trainer.params[name] is params[name] for name in params)


def test_accumulated_batches_of_different_sizes_are_one_large_batch(data):
    x, y = data
    parts = [slice(0, 10), slice(10, 13), slice(13, 30)]
    split, whole = parameters(), parameters()
    trainer = gr.Trainer(step=regression, params=split, optimizer=gr.optim.SGD(0.1), accumulate=3)
    for part in parts:
        trainer.step(x[part], y[part])
    gr.Trainer(step=regression, params=whole, optimizer=gr.optim.SGD(0.1)).step(x[:30], y[:30])
    for name in whole:
        np.testing.assert_allclose(split[name], whole[name], rtol=1e-12)
    assert trainer.step_count == 1


def test_an_incomplete_group_is_applied_at_the_end_of_an_epoch(data):
    trainer = gr.Trainer(step=regression, params=parameters(), optimizer=gr.optim.SGD(0.1), accumulate=4)
    trainer.fit(data, epochs=2, batch_size=5)
    assert trainer.step_count == 2 * 3


def test_gradients_are_clipped_by_their_global_norm(data):
    params = parameters()
    before = {name: array.copy() for name, array in params.items()}
    gr.Trainer(step=regression, params=params, optimizer=gr.optim.SGD(1.0), clip_norm=0.25).step(*data)
    moved = np.sqrt(sum(np.square(params[name] - before[name]).sum() for name in params))
    norm = np.sqrt(sum(np.square(g).sum() for g in regression(before, data)[1].values()))
    assert moved == pytest.approx(0.25 * norm / (norm + 1e-6), rel=1e-12)  # PyTorch's formula, as in a native program
    grads = regression(before, data)[1]
    cosine = sum(np.vdot(before[name] - params[name], grads[name]) for name in params)
    assert cosine == pytest.approx(moved * np.sqrt(sum(np.square(g).sum() for g in grads.values())), rel=1e-12)


def test_fit_learns_and_evaluates(data):
    trainer = gr.Trainer(step=regression, params=parameters(), optimizer=gr.optim.Adam(0.05))
    history = trainer.fit(gr.Loader(data, 8, shuffle=True), epochs=60, validate=data)
    assert list(history.metrics) == ["epoch", "loss", "val_loss", "lr", "seconds"] and len(history) == 60
    assert history.last["val_loss"] < 1e-3 < history.metrics["val_loss"][0]
    assert trainer.evaluate(data) == {"loss": pytest.approx(history.last["val_loss"], rel=1e-9)}
    assert trainer.step_count == 60 * 7 and trainer.epoch == 60
    timings = trainer.timings()
    assert timings["compute"] > 0 and timings["update"] > 0 and timings.bottleneck in timings


def test_any_iterable_of_batches(data):
    x, y = data
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, 50, 10)]
    a, b = parameters(), parameters()
    gr.Trainer(step=regression, params=a, optimizer=gr.optim.SGD(0.1)).fit(batches, epochs=2)
    gr.Trainer(step=regression, params=b, optimizer=gr.optim.SGD(0.1)).fit(gr.Loader(data, 10), epochs=2)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_a_read_only_array_is_copied_once(data):
    params = parameters()
    params["w"].flags.writeable = False
    first = params["w"].copy()
    seen = []

    def step(given, batch):
        seen.append(given["w"])
        return regression(given, batch)

    trainer = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.1))
    trainer.step(*data)
    np.testing.assert_array_equal(params["w"], first)
    assert trainer.params["w"] is seen[0] and not np.array_equal(trainer.params["w"], first)


def test_a_single_argument_is_the_batch_itself():
    def step(params, batch):
        assert batch == {"x": 1}
        return 1.0, {"w": np.zeros(3)}

    assert gr.Trainer(step=step, params={"w": np.zeros(3)}, optimizer=gr.optim.SGD(0.1)).step({"x": 1}) == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(value):
    params = {"w": np.ones(3)}

    def step(params, batch):
        return (value if batch == 2 else 1.0), {"w": np.ones(3)}

    trainer = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.5))
    trainer.step(1)
    with pytest.raises(gr.NonFinite, match=r"\[step\] the loss of step 1 is (nan|inf); the parameters are unchanged"):
        trainer.step(2)
    assert params["w"].tolist() == [0.5] * 3 and trainer.step_count == 1
    trainer.step(3)
    relaxed = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.5), nonfinite="ignore")
    assert not np.isfinite(relaxed.step(2))


def returns(*values):
    return lambda params, batch: values


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        ((1.0,), TypeError, r"\[step\] the function must return loss, grads or loss, grads, samples, got tuple"),
        ((1.0, [np.zeros(3)]), TypeError, r"\[step\] grads must be a dict of arrays, got list"),
        ((1.0, {}), ValueError, r"\[step\] grads must have the names of params; missing \['w'\], unknown \[\]"),
        ((1.0, {"w": np.zeros(3), "v": 1}), ValueError, r"missing \[\], unknown \['v'\]"),
        (
            (1.0, {"w": np.zeros(4)}),
            ValueError,
            r"grads\['w'\] is \(4,\) of float64, params\['w'\] is \(3,\) of float64",
        ),
        ((1.0, {"w": np.zeros(3, "f4")}), ValueError, r"grads\['w'\] is \(3,\) of float32"),
        ((1.0, {"w": "abc"}), TypeError, r"grads\['w'\] must be an array in CPU memory, got str"),
        ((1.0, {"w": np.zeros(3)}, 0), ValueError, r"\[step\] the number of samples must be above 0, got 0"),
        (("x", {"w": np.zeros(3)}), ValueError, "could not convert"),
    ],
)
def test_a_step_that_returns_nonsense_changes_nothing(result, error, words):
    params = {"w": np.ones(3)}
    trainer = gr.Trainer(step=returns(*result), params=params, optimizer=gr.optim.SGD(0.5, momentum=0.9))
    with pytest.raises(error, match=words):
        trainer.step(1)
    assert params["w"].tolist() == [1.0] * 3 and trainer.step_count == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, TypeError, r"\[Trainer\] needs either a model, or step and params"),
        ({"step": regression}, TypeError, r"\[Trainer\] step needs params"),
        ({"step": 3, "params": {"w": np.zeros(3)}}, TypeError, r"\[Trainer\] step must be a function"),
        ({"step": regression, "params": {}}, TypeError, r"\[Trainer\] params must be a dict of arrays"),
        ({"step": regression, "params": [np.zeros(3)]}, TypeError, r"params must be a dict of arrays, got list"),
        (
            {"step": regression, "params": {"w": [1.0]}},
            TypeError,
            r"params\['w'\] must be an array in CPU memory, got list",
        ),
        ({"step": regression, "params": {"w": np.zeros(3, int)}}, TypeError, r"must be float32 or float64, got int64"),
        ({"step": regression, "params": {"w": np.zeros((3, 4)).T}}, ValueError, r"params\['w'\] must be C-contiguous"),
        ({"step": regression, "params": {"w": np.zeros(6)[::-1]}}, ValueError, r"params\['w'\] must be C-contiguous"),
    ],
)
def test_bad_arguments(options, error, words):
    with pytest.raises(error, match=words):
        gr.Trainer(optimizer=gr.optim.SGD(0.1), **options)


def test_gradients_that_are_views_of_the_parameters():
    """The gradient of |w|^2 / 2 is w itself; a's is b and b's is a."""
    w = {"w": np.array([1.0, 2.0])}
    gr.Trainer(step=lambda params, batch: (1.0, params), params=w, optimizer=gr.optim.SGD(0.5)).step(0)
    assert w["w"].tolist() == [0.5, 1.0]
    ab = {"a": np.ones(2), "b": np.full(2, 2.0)}
    swap = gr.Trainer(
        step=lambda params, batch: (1.0, {"a": params["b"], "b": params["a"]}), params=ab, optimizer=gr.optim.SGD(0.5)
    )
    swap.step(0)
    assert ab["a"].tolist() == [0.0, 0.0] and ab["b"].tolist() == [1.5, 1.5]


def test_gradients_with_any_strides():
    base = np.arange(12.0).reshape(4, 3)
    for grad in (base.T, np.asfortranarray(base.T), base.T[::-1, ::-1], base.T.astype(">f8").astype("f8")):
        params = {"w": np.zeros((3, 4))}
        gr.Trainer(step=lambda p, batch, g=grad: (1.0, {"w": g}), params=params, optimizer=gr.optim.SGD(1.0)).step(0)
        np.testing.assert_array_equal(params["w"], -grad)


def test_what_only_a_model_can_do():
    trainer = gr.Trainer(step=regression, params=parameters(), optimizer=gr.optim.SGD(0.1))
    with pytest.raises(TypeError, match=r"\[Trainer.predict\] only a trainer with a model predicts"):
        trainer.predict(np.zeros((3, 4)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}], ids=str)
def test_a_gradient_that_is_not_finite_changes_nothing(bad, options):
    gradients = {"w": np.ones(3), "b": np.ones(2)}

    def step(params, batch):
        return 1.0, {name: gradient.copy() for name, gradient in gradients.items()}, 1

    params = {"w": np.ones(3), "b": np.zeros(2)}
    trainer = gr.Trainer(step=step, params=params, optimizer=gr.optim.Adam(0.1), **options)
    for _ in range(options.get("accumulate", 1)):
        trainer.step(0)
    before = {name: array.copy() for name, array in params.items()}
    count, state = trainer.step_count, trainer.state_dict()["optimizer"]
    gradients["b"][1] = bad
    with pytest.raises(gr.NonFinite, match="the gradient of 'b' is not finite in step 1"):
        for _ in range(options.get("accumulate", 1)):
            trainer.step(0)
    assert trainer.step_count == count
    for name, array in before.items():
        np.testing.assert_array_equal(params[name], array)
    for name, array in trainer.state_dict()["optimizer"].items():
        np.testing.assert_array_equal(array, state[name])
    gradients["b"][1] = 1.0
    for _ in range(options.get("accumulate", 1)):
        trainer.step(0)
    assert trainer.step_count == count + 1


def test_an_update_that_fails_halfway_is_torn_until_all_is_loaded(tmp_path):
    params = {"v": np.ones(3), "w": np.ones(3)}
    trainer = gr.Trainer(step=lambda params, batch: (1.0, {"v": batch, "w": batch}), params=params, optimizer=gr.optim.SGD(0.1))
    trainer.step(np.ones(3))
    trainer.save(tmp_path / "whole.safetensors")
    session = trainer._session
    update = session._uninterrupted

    def fails(calls, after):
        if "_updates" not in after:
            return update(calls, after)
        for call in calls[:2]:
            call()
        raise MemoryError("none left")

    session._uninterrupted = fails
    with pytest.raises(MemoryError):
        trainer.step(np.ones(3))
    session._uninterrupted = update
    assert not np.array_equal(params["v"], params["w"])
    for call in (lambda: trainer.step(np.ones(3)), lambda: trainer.save(tmp_path / "torn"), lambda: trainer.fit([np.ones(3)])):
        with pytest.raises(gr.GradringError, match="torn"):
            call()
    trainer.load(tmp_path / "whole.safetensors")
    trainer.step(np.ones(3))
    assert np.array_equal(params["v"], params["w"]) and trainer.step_count == 2
