"""A plateau while a trainer runs, in its history and in its checkpoints."""

import numpy as np
import pytest

import gradring as gr
from gradring.optim import SGD, schedule

RNG = np.random.default_rng(1)
X = RNG.standard_normal((40, 3)).astype(np.float32)
Y = RNG.standard_normal((40, 2)).astype(np.float32)
HALF = schedule.plateau(0.4, "loss", 0.5, patience=0, threshold=0.9)  # every epoch but the first is one too many


def trainer(optimizer, **options):
    return gr.Trainer(gr.nn.Linear(3, 2), loss="mse", optimizer=optimizer, metrics=(), **options)


def test_the_rate_falls_and_the_history_tells():
    made = trainer(SGD(HALF, groups=[{"params": "bias", "lr": 0.25}]))
    made.fit((X, Y), epochs=4, batch_size=20, verbose=False)
    assert made.history.metrics["lr"] == pytest.approx([0.4, 0.4, 0.2, 0.1])
    made.fit((X, Y), epochs=1, batch_size=20, verbose=False)
    assert made.history.metrics["lr"] == pytest.approx([0.05])  # the rate has not forgotten


def test_the_steps_have_the_reduced_rate():
    made = trainer(SGD(HALF))
    made.fit((X, Y), epochs=3, batch_size=40, verbose=False)
    rates = []
    for _ in range(2):
        before = {name: array.copy() for name, array in made.params.items()}
        made.step(X, Y)
        delta = before["bias"] - made.params["bias"]
        output = X @ before["weight"] + before["bias"]
        rates.append(float((delta / (2 * (output - Y) / Y.size).sum(0)).mean()))
    assert rates == pytest.approx([0.1, 0.1], rel=1e-3)


def own(optimizer):
    params = {"w": np.ones(3)}
    return gr.Trainer(step=lambda p, b: (1.0, {"w": np.ones(3)}), params=params, optimizer=optimizer)


def test_a_step_of_ones_own_has_it_too():
    made = own(SGD(schedule.plateau(1.0, "loss", 0.5, patience=1)))
    made.fit([np.zeros(2)], epochs=6, verbose=False)
    assert made.history.metrics["lr"] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    np.testing.assert_allclose(made.params["w"], 1 - 4.25)


@pytest.mark.parametrize("make", [trainer, own])
def test_a_checkpoint_goes_on_where_it_was(make, tmp_path):
    optimizer = SGD(
        schedule.plateau(schedule.linear(0.4, 0.2, 50), "loss", 0.5, patience=1, threshold=0.9), momentum=0.5
    )
    data = (X, Y)
    whole, first, second = make(optimizer), make(optimizer), make(optimizer)
    whole.fit(data, epochs=7, verbose=False)
    first.fit(data, epochs=4, verbose=False)
    first.save(tmp_path / "m.safetensors")
    second.fit(data, epochs=7, resume=tmp_path / "m.safetensors", verbose=False)
    assert second.history.metrics["lr"] == whole.history.metrics["lr"] and len(set(whole.history.metrics["lr"])) == 7
    for name, array in whole.params.items():
        np.testing.assert_array_equal(second.params[name], array)
    third = make(optimizer)
    third.load_state_dict(first.state_dict())
    third.fit(data, epochs=3, verbose=False)
    assert third.history.metrics["lr"] == whole.history.metrics["lr"][4:]
    third.reset(0) if make is trainer else None
    other = make(SGD(0.1, momentum=0.5))
    with pytest.raises(gr.CheckpointMismatch, match=r"1 plateau schedules with a state"):
        other.load(tmp_path / "m.safetensors")


def test_another_optimizer_keeps_an_equal_plateau():
    made = trainer(SGD(HALF))
    made.fit((X, Y), epochs=3, verbose=False)
    made.optimizer = SGD(HALF, momentum=0.9)
    made.fit((X, Y), epochs=1, verbose=False)
    assert made.history.metrics["lr"] == pytest.approx([0.1])
    made.optimizer = SGD(schedule.plateau(0.4, "loss", 0.5, patience=1))
    made.fit((X, Y), epochs=1, verbose=False)
    assert made.history.metrics["lr"] == [0.4]
    made.reset(0)


def test_a_metric_that_never_comes_is_named_before_the_first_step():
    made = trainer(SGD(schedule.plateau(0.1)))
    before = made.params["weight"].copy()
    with pytest.raises(ValueError, match=r"\[plateau\] there will be no metric 'val_loss' \(there is no validate=\)"):
        made.fit((X, Y), verbose=False)
    made.optimizer = SGD(schedule.plateau(0.1, "val_los"))
    with pytest.raises(ValueError, match=r"did you mean 'val_loss'"):
        made.fit((X, Y), validate=(X, Y), verbose=False)
    np.testing.assert_array_equal(made.params["weight"], before)
    made.optimizer = SGD(schedule.plateau(0.1))
    made.fit((X, Y), validate=(X, Y), verbose=False)


@pytest.mark.parametrize(
    "text", ["{", "3", "[3]", "[{}]", '[{"best": "x", "bad": 0, "wait": 0, "factor": 1}]', "[" * 100000]
)
@pytest.mark.parametrize("key", ["schedules", "groups", "frozen"])
def test_damaged_metadata_are_named_and_change_nothing(key, text, tmp_path):
    made = trainer(SGD(HALF))
    made.save(tmp_path / "m.safetensors")
    tensors, metadata = gr.checkpoint.read(tmp_path / "m.safetensors")
    gr.checkpoint.write(tmp_path / "m.safetensors", tensors, {**metadata, key: text})
    before = made.params["weight"].copy()
    made.params["weight"] += 1
    with pytest.raises(gr.CheckpointCorrupt, match=r"the metadata do not fit"):
        made.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(made.params["weight"], before + 1)
