"""A loss in Python trains as the native one of the same formula, and errors come out before any parameter changes."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(22)
N = 41
X = RNG.standard_normal((N, 5)).astype(np.float32)
Y = RNG.standard_normal((N, 3))
WEIGHT = RNG.random(N)
LABELS = RNG.integers(0, 3, N)


def square(outputs, targets):
    return ((outputs - targets) ** 2).mean(axis=1)


def square_vjp(dlosses, outputs, targets):
    return dlosses[:, None] * 2 * (outputs - targets) / outputs.shape[1]


def label(outputs, targets):
    assert targets.dtype == np.int64
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]


def label_vjp(dlosses, outputs, targets):
    e = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return dlosses[:, None] * (e / e.sum(axis=1, keepdims=True) - np.eye(outputs.shape[1])[targets])


def trainer(loss, **options):
    model = gr.nn.Sequential(gr.nn.Linear(5, 7), gr.nn.Tanh(), gr.nn.Linear(7, 3)).init(4, "float64")
    return gr.Trainer(model, loss=loss, **{"optimizer": gr.optim.AdamW(1e-2), "dtype": "float64", **options})


@pytest.mark.parametrize(
    ("own", "native", "y"), [((square, square_vjp), "mse", Y), ((label, label_vjp), "cross_entropy", LABELS)]
)
@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 0.1}, {"threads": 2}])
def test_it_trains_as_the_native_loss(own, native, y, options):
    a, b = trainer(gr.losses.Function(*own), **options), trainer(native, **options)
    for data in ((X, y), (X, y, WEIGHT)):
        losses = [t.fit(data, epochs=2, batch_size=7, validate=(X, y), verbose=False).last for t in (a, b)]
        assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-9)
        assert losses[0]["val_loss"] == pytest.approx(losses[1]["val_loss"], rel=1e-9)
    for name, array in a.params.items():
        np.testing.assert_allclose(array, b.params[name], rtol=1e-7, atol=1e-10)


def test_a_sum_is_the_sum():
    a = trainer(gr.losses.Function(square, square_vjp, reduction="sum"))
    want = square(a.predict(X), Y).sum()
    assert a.step(X, Y) == pytest.approx(want) and np.isfinite(a.step(X, Y, WEIGHT))


def test_targets_may_have_any_shape():
    def to_centre(outputs, targets):  # the targets are two points for each sample
        return ((outputs - targets.mean(axis=1)) ** 2).mean(axis=1)

    def vjp(dlosses, outputs, targets):
        return dlosses[:, None] * 2 * (outputs - targets.mean(axis=1)) / outputs.shape[1]

    t = trainer(gr.losses.Function(to_centre, vjp))
    pairs = np.stack([Y, Y + 1], axis=1)
    first = t.step(X, pairs)
    assert first == pytest.approx(((trainer("mse").predict(X) - Y - 0.5) ** 2).mean()) and t.step(X, pairs) < first


@pytest.mark.parametrize(
    ("forward", "vjp", "error", "words"),
    [
        (
            lambda p, t: ((p - t) ** 2).mean(),
            square_vjp,
            ValueError,
            r"forward returned \(\): must be \(41,\), one loss for each sample; the mean over the samples is taken for you",
        ),
        (lambda p, t: (p - t) ** 2, square_vjp, ValueError, r"forward returned \(41, 3\): must be \(41,\)"),
        (
            square,
            lambda d, p, t: d,
            ValueError,
            r"\[losses.Function\] vjp returned \(41,\): must be \(41, 3\), the gradient with respect to the outputs",
        ),
        (square, lambda d, p, t: None, ValueError, r"vjp returned \(\): must be \(41, 3\)"),
        (square, lambda d, p, t: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda p, t: np.full(len(p), np.nan), square_vjp, gr.NonFinite, "loss of step 1 .* is not finite"),
        (square, lambda d, p, t: np.full(p.shape, np.inf), gr.NonFinite, "gradient of step 1 .* is not finite"),
    ],
)
def test_what_a_function_does_wrong(forward, vjp, error, words):
    t = trainer(gr.losses.Function(forward, vjp))
    before = t.params["0.weight"].copy()
    with pytest.raises(error, match=words):
        t.step(X, Y)
    with pytest.raises(error, match=words):
        t.fit((X, Y), batch_size=N, verbose=False)
    np.testing.assert_array_equal(t.params["0.weight"], before)


def test_what_is_no_function():
    with pytest.raises(TypeError, match=r"\[losses.Function\] vjp must be callable, got int"):
        gr.losses.Function(square, 3)
    with pytest.raises(ValueError, match="reduction must be"):
        gr.losses.Function(square, square_vjp, reduction="max")
    with pytest.raises(TypeError, match="class_weight goes with .*cross_entropy"):
        trainer(gr.losses.Function(square, square_vjp), class_weight=[1, 2, 3])
