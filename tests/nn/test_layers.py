from __future__ import annotations

import numpy as np
import pytest

import gradring as gr
from gradring import nn


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Residual(nn.Linear(5, 5)), nn.Linear(5, 3, bias=False))


def test_parameters_have_names_and_shapes():
    shapes = {name: array.shape for name, array in small().init().params.items()}
    assert shapes == {
        "0.weight": (6, 5),
        "0.bias": (5,),
        "2.layer.weight": (5, 5),
        "2.layer.bias": (5,),
        "3.weight": (5, 3),
    }


def test_initial_values_depend_on_seed_and_name_alone():
    a, b = small().init(3).params, small().init(3).params
    assert all((a[n] == b[n]).all() for n in a)
    assert (small().init(4).params["0.weight"] != a["0.weight"]).any()
    longer = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5)).init(3)
    assert (longer.params["0.weight"] == a["0.weight"]).all()
    wide = small().init(3, "float64").params
    np.testing.assert_allclose(wide["0.weight"], a["0.weight"], rtol=1e-7)


def test_initial_values_are_uniform_within_the_bound():
    weight = nn.Linear(400, 300).init(0).params["weight"]
    bound = 1 / np.sqrt(400)
    assert np.abs(weight).max() <= bound
    # The mean of 120000 uniform values has deviation bound / sqrt(3 n), their variance is bound^2 / 3.
    assert abs(weight.mean()) < 6 * bound / np.sqrt(3 * weight.size)
    np.testing.assert_allclose(weight.var(), bound**2 / 3, rtol=0.03)


def test_params_are_live_and_stay_so():
    model = small().init(0)
    views, x = model.params, np.ones((2, 6), np.float32)
    before = model(x)
    views["3.weight"][...] = 0
    assert (model(x) == 0).all()
    model.init(0)
    assert (views["3.weight"] != 0).any()
    assert (model(x) == before).all()


def test_parameters_begin_on_cache_lines():
    for array in small().init(0).params.values():
        assert array.ctypes.data % 64 == 0


def test_astype_keeps_values():
    model = small().init(2)
    old = {name: array.copy() for name, array in model.params.items()}
    model.astype("float64")
    assert all(model.params[n].dtype == np.float64 and (model.params[n] == old[n]).all() for n in old)
    assert model(np.ones((2, 6))).dtype == np.float64
    with pytest.raises(ValueError, match="float16"):
        model.astype("float16")


def test_forward_takes_what_numpy_takes():
    model = nn.Linear(3, 2).init(1)
    w, b = model.params["weight"], model.params["bias"]
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for given in (x[:, ::2], x[::-1, :3], x[:, :3].astype(">f4"), x[:, :3].astype(np.uint8), x[:, :3].tolist()):
        np.testing.assert_allclose(model(given), np.asarray(given, np.float32) @ w + b, rtol=1e-5)
    assert model(np.ones((2, 5, 3))).shape == (2, 5, 2)
    assert model(np.ones((5000, 3))).shape == (5000, 2)
    assert model(np.empty((0, 3))).shape == (0, 2)
    with pytest.raises(ValueError, match="batch axis"):
        model(3.0)
    with pytest.raises(TypeError, match="complex"):
        model(np.ones((2, 3), complex))


def test_summary():
    text = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)).summary((64, 784))
    lines = text.splitlines()
    assert lines[1].split() == ["0:", "Linear(784,", "256)", "(64,", "256)", "200960", "25706496", "869376"]
    assert lines[-1].split()[1] == str(784 * 256 + 256 + 2560 + 10)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(0, 3), ValueError, r"\[Linear\] inputs must be an int of at least 1, got 0"),
        (lambda: nn.Linear(2, "3"), TypeError, r"\[Linear\] outputs must be an int of at least 1, got '3'"),
        (lambda: nn.Linear(True, 3), TypeError, "got True"),
        (
            lambda: nn.Dropout(1.5),
            ValueError,
            r"\[Dropout\] p must be a finite number of at least 0 and at most 1, got 1.5",
        ),
        (lambda: nn.Dropout("x"), TypeError, "must be a finite number .* got 'x'"),
        (lambda: nn.Sequential(nn.ReLU), TypeError, "forget the brackets"),
        (lambda: nn.Sequential(3), TypeError, "layer 0 must be a gradring layer, got 3"),
        (lambda: nn.GELU("erf"), ValueError, r"\[GELU\] approximate must be 'tanh' or 'none', got 'erf'"),
        (lambda: nn.Residual(), ValueError, "needs a layer"),
        (lambda: nn.Function(1, 2), TypeError, "forward must be callable"),
        (lambda: nn.Linear(2, 2).init(0, "float16"), ValueError, "float16"),
    ],
)
def test_misuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_layers_print_as_they_are_written():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Dropout(0.1), nn.Residual(nn.GELU()))
    assert repr(model) == "Sequential(Linear(2, 3, bias=False), Dropout(0.1), Residual(GELU()))"
    assert len(model) == 3
    assert isinstance(model[1], nn.Dropout)


def test_arrays_that_a_function_keeps_stay_as_they_were():
    kept, copies = [], []

    def forward(x):
        kept.append(x)
        copies.append(x.copy())
        return np.sin(x)

    def vjp(dy, x, y):
        for array in (dy, x, y):
            kept.append(array)
            copies.append(array.copy())
        dy *= np.cos(x)  # in place: the array is the function's own
        copies[-3] = dy.copy()
        return dy

    model = nn.Sequential(nn.Linear(4, 6), nn.Function(forward, vjp), nn.Linear(6, 2))
    trainer = gr.Trainer(model, optimizer=gr.optim.SGD(0.1))
    rng = np.random.default_rng(0)
    for rows in (5, 3, 5, 8):
        trainer.step(rng.standard_normal((rows, 4), np.float32), rng.integers(0, 2, rows))
    trainer.predict(rng.standard_normal((9, 4)))
    del trainer, model
    assert len(kept) >= 4 * 4
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_function_errors_come_out_unchanged():
    def fail(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nn.Function(fail, lambda dy, x, y: dy)(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"forward returned \(2, 3\), must be \(2, 2\)"):
        nn.Function(lambda x: np.ones((2, 3)), lambda dy, x, y: dy)(np.ones((2, 2)))
    wide = nn.Function(lambda x: np.repeat(x, 2, axis=1), lambda dy, x, y: dy[:, ::2], shape=lambda s: (s[0], 2 * s[1]))
    assert wide(np.ones((2, 2))).shape == (2, 4)


def test_a_dropout_of_everything_leaves_nothing_to_learn_before_it():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(1.0), nn.Linear(8, 3)).init(0)
    trainer = gr.Trainer(model, optimizer=gr.optim.SGD(0.5))
    first = {name: array.copy() for name, array in model.params.items()}
    x, y = np.ones((6, 4), np.float32), np.arange(6) % 3
    assert trainer.step(x, y) == pytest.approx(np.log(3), abs=0.5)
    for name in ("0.weight", "0.bias", "2.weight"):
        np.testing.assert_array_equal(model.params[name], first[name])
    assert (model.params["2.bias"] != first["2.bias"]).any() or not (y.sum() % 6)
    assert np.isfinite(model(x)).all() and model(x).any()
