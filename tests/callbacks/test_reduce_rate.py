import numpy as np
import pytest

import gradring as gr

NAN = float("nan")


def trainer_with(values, optimizer=None, **options):
    """A trainer whose epoch e has the loss values[e]."""

    def step(params, batch):
        return values[made.epoch], {"w": np.zeros(1)}

    made = gr.Trainer(step=step, params={"w": np.zeros(1)}, optimizer=optimizer or gr.optim.SGD(1.0), **options)
    return made


@pytest.mark.parametrize(
    ("values", "options", "rates"),
    [
        ([3, 2, 1, 1, 1, 1], {"patience": 2}, [1, 1, 1, 1, 1, 0.5]),
        ([3, 3, 3, 3, 3, 3], {"patience": 1}, [1, 1, 0.5, 0.25, 0.125, 0.0625]),
        ([3, 3, 3, 3, 3, 3], {"patience": 1, "cooldown": 1}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ([3, 3, 3, 3, 3, 3], {"patience": 1, "min_lr": 0.3}, [1, 1, 0.5, 0.3, 0.3, 0.3]),
        ([1, 2, 3, 3, 4, 3], {"patience": 2, "mode": "max"}, [1, 1, 1, 1, 1, 1]),
        ([3, 2.9, 2.8, 2.7, 2.6], {"patience": 2, "min_delta": 0.5}, [1, 1, 1, 0.5, 0.5]),
        ([3, NAN, NAN, 1, 1], {"patience": 2}, [1, 1, 1, 0.5, 0.5]),
    ],
)
def test_the_rate_falls(values, options, rates):
    trainer = trainer_with([float(value) for value in values], nonfinite="ignore")
    history = trainer.fit(
        range(1), len(values), callbacks=[gr.callbacks.ReduceLROnPlateau("loss", 0.5, **options)], verbose=False
    )
    np.testing.assert_allclose(history.metrics["lr"], rates)


def test_the_optimizer_keeps_all_else():
    trainer = trainer_with([1.0] * 4, gr.optim.AdamW(0.5, betas=(0.8, 0.9), weight_decay=0.25))
    trainer.fit(range(1), 4, callbacks=[gr.callbacks.ReduceLROnPlateau("loss", patience=2)], verbose=False)
    assert trainer.optimizer.lr == pytest.approx(0.05)
    assert (trainer.optimizer.betas, trainer.optimizer.weight_decay) == ((0.8, 0.9), 0.25)


@pytest.mark.skipif(not hasattr(gr.optim.SGD(1.0), "groups"), reason="optimizers have no groups")
def test_the_rates_of_groups_fall_with_it():
    x, y = np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32)
    optimizer = gr.optim.SGD(0.5, groups=[{"params": "*.bias", "lr": 0.25}, {"params": "*.weight", "momentum": 0.0}])
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(2, 1)), loss="mse", optimizer=optimizer)
    callback = gr.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9)
    trainer.fit((x, y), 2, callbacks=[callback], verbose=False)
    assert trainer.optimizer.lr == 0.25
    assert [group.options.get("lr") for group in trainer.optimizer.groups] == [0.125, None]


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_resumed_run_goes_on_with_rate_and_patience(cut, tmp_path):
    values = [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0]

    def callbacks():
        kept = gr.callbacks.Checkpoint(tmp_path / "m{epoch}")
        return [gr.callbacks.ReduceLROnPlateau("loss", 0.5, patience=2, cooldown=1), kept]

    want = trainer_with(values).fit(range(1), 8, callbacks=callbacks(), verbose=False).metrics["lr"]
    again = trainer_with(values)
    history = again.fit(range(1), 8, callbacks=callbacks(), resume=tmp_path / f"m{cut}", verbose=False)
    np.testing.assert_allclose(history.metrics["lr"], want)
    assert len(set(want)) > 2


def test_what_it_refuses():
    for options in (
        {"factor": 1.0},
        {"factor": 0},
        {"patience": 0},
        {"cooldown": -1},
        {"min_lr": -1.0},
        {"mode": "up"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            gr.callbacks.ReduceLROnPlateau(**options)
    trainer = trainer_with([1.0])
    with pytest.raises(ValueError, match="give fit validate="):
        trainer.fit(range(1), 1, callbacks=[gr.callbacks.ReduceLROnPlateau()], verbose=False)
    falling = trainer_with([1.0], gr.optim.SGD(gr.optim.schedule.linear(1.0, 0.0, 10)))
    with pytest.raises(ValueError, match=r"is a schedule, which says what each step takes"):
        falling.fit(range(1), 1, callbacks=[gr.callbacks.ReduceLROnPlateau("loss")], verbose=False)
    assert falling.step_count == 0


def test_a_floor_above_the_rate_raises_nothing():
    trainer = trainer_with([1.0] * 6, gr.optim.SGD(0.001))
    trainer.fit(range(1), 6, callbacks=[gr.callbacks.ReduceLROnPlateau("loss", 0.5, 1, min_lr=0.1)], verbose=False)
    assert trainer.optimizer.lr == 0.001


def test_a_resumed_run_has_the_bits_of_the_rates_of_groups(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((24, 5)), rng.standard_normal((24, 3))

    def run(epochs, **options):
        optimizer = gr.optim.SGD(0.013, momentum=0.9, groups=[{"params": "*.bias", "lr": 0.0071}])
        model = gr.nn.Sequential(gr.nn.Linear(5, 3))
        trainer = gr.Trainer(model, "mse", optimizer, dtype="float64", seed=1)
        callbacks = [
            gr.callbacks.ReduceLROnPlateau("loss", 0.37, patience=1, min_delta=1e9),
            gr.callbacks.Checkpoint(tmp_path / "m{epoch}"),
        ]
        trainer.fit((x, y), epochs, batch_size=8, callbacks=callbacks, verbose=False, **options)
        return trainer

    want, again = run(9), run(9, resume=tmp_path / "m6")
    assert again.optimizer == want.optimizer
    for name, value in want.params.items():
        np.testing.assert_array_equal(again.params[name], value)
