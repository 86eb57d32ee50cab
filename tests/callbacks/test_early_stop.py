import numpy as np
import pytest

import gradring as gr

LOSSES = [3.0, 2.0, 1.0, 1.5, 1.2, 0.9, 5.0, 5.0, 5.0]


def trainer_with(values, **options):
    """A trainer whose epoch e has the loss values[e]; its parameter counts the steps."""

    def step(params, batch):
        return values[made.epoch], {"w": -np.ones(1)}

    made = gr.Trainer(step=step, params={"w": np.zeros(1)}, optimizer=gr.optim.SGD(1.0), **options)
    return made


@pytest.mark.parametrize(
    ("options", "epochs", "best_epoch"),
    [
        ({"patience": 1}, 4, 2),
        ({"patience": 2}, 5, 2),
        ({"patience": 3}, 9, 5),
        ({"patience": 3, "min_delta": 0.5}, 6, 2),
    ],
)
def test_patience(options, epochs, best_epoch):
    stop = gr.callbacks.EarlyStop("loss", **options)
    assert len(trainer_with(LOSSES).fit(range(1), epochs=9, callbacks=[stop])) == epochs
    assert stop.best_epoch == best_epoch and stop.best == LOSSES[best_epoch]


def test_max():
    stop = gr.callbacks.EarlyStop("loss", patience=2, mode="max")
    assert len(trainer_with([1.0, 4.0, 2.0, 3.0, 9.0]).fit(range(1), epochs=5, callbacks=[stop])) == 4
    assert stop.best == 4.0


def test_nan_is_never_the_best():
    trainer = trainer_with([float("nan"), 2.0, float("nan"), float("nan"), 1.0], nonfinite="ignore")
    stop = gr.callbacks.EarlyStop("loss", patience=2)
    assert len(trainer.fit(range(1), epochs=5, callbacks=[stop])) == 4
    assert stop.best == 2.0


def test_the_best_parameters_come_back():
    trainer = trainer_with(LOSSES)
    trainer.fit(range(1), epochs=9, callbacks=[gr.callbacks.EarlyStop("loss", patience=2, restore_best=True)])
    assert trainer.params["w"].tolist() == [3.0]


def test_a_second_run_begins_anew():
    stop = gr.callbacks.EarlyStop("loss", patience=1)
    trainer = trainer_with([1.0, 2.0, 3.0, 2.9, 2.8])
    assert len(trainer.fit(range(1), epochs=5, callbacks=[stop])) == 2
    assert len(trainer.fit(range(1), epochs=3, callbacks=[stop])) == 3


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"\[EarlyStop\] patience must be an int of at least 1, got 0"):
        gr.callbacks.EarlyStop(patience=0)
    with pytest.raises(ValueError, match=r"\[EarlyStop\] mode must be"):
        gr.callbacks.EarlyStop(mode="up")
    with pytest.raises(ValueError, match=r"\[EarlyStop\] min_delta must be a finite number of at least 0, got -1"):
        gr.callbacks.EarlyStop(min_delta=-1)
    with pytest.raises(ValueError, match=r"there is no metric 'val_loss', only \[.*\]; give fit validate="):
        trainer_with(LOSSES).fit(range(1), callbacks=[gr.callbacks.EarlyStop()])
