"""Losses as objects: the same training as by name, and errors that say what is wrong."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(20)


def model():
    return gr.nn.Sequential(gr.nn.Linear(5, 7), gr.nn.Tanh(), gr.nn.Linear(7, 3)).init(4)


def targets(kind, rows):
    if kind == "cross_entropy":
        return RNG.integers(0, 3, rows)
    return RNG.random((rows, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("cross_entropy", gr.losses.CrossEntropy()),
        ("mse", gr.losses.MSE()),
        ("binary_cross_entropy", gr.losses.BinaryCrossEntropy()),
        ("mae", gr.losses.MAE()),
        ("huber", gr.losses.Huber()),
    ],
)
def test_an_object_trains_as_its_name_does(name, loss):
    x, y = RNG.standard_normal((41, 5)).astype(np.float32), targets(name, 41)
    histories, params = [], []
    for given in (name, loss):
        trainer = gr.Trainer(model(), loss=given, optimizer=gr.optim.AdamW(1e-2))
        history = trainer.fit((x, y), epochs=3, batch_size=7, validate=(x, y), verbose=False)
        histories.append({k: v for k, v in history.metrics.items() if k != "seconds"})
        params.append(b"".join(array.tobytes() for array in trainer.params.values()))
    assert histories[0] == histories[1] and params[0] == params[1]
    assert str(loss) == name and gr.losses.as_loss("t", name) == loss


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        (
            "hinge",
            ValueError,
            r"\[Trainer\] loss must be 'binary_cross_entropy', 'cross_entropy', 'mse', 'mae' or 'huber', got 'hinge'",
        ),
        (gr.losses.MSE, TypeError, r"\[Trainer\] loss is the class MSE: did you forget the brackets\?"),
        (3, TypeError, r"\[Trainer\] loss must be .*, got 3; or one of gr.losses"),
    ],
)
def test_what_is_no_loss(loss, error, words):
    with pytest.raises(error, match=words):
        gr.Trainer(model(), loss=loss)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan"), "much"])
def test_a_label_smoothing_that_cannot_be(smoothing):
    with pytest.raises((ValueError, TypeError), match=r"\[CrossEntropy\] label_smoothing must be"):
        gr.losses.CrossEntropy(label_smoothing=smoothing)
