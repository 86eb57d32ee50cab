"""Probabilities and classes of a trainer."""

import numpy as np
import pytest

import gradring as gr
from gradring.losses import BinaryCrossEntropy, CrossEntropy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_and_classes(blobs, dtype):
    x, y = blobs
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 3)), dtype=dtype)
    trainer.fit((x, y), epochs=5, verbose=False)
    shares, outputs = trainer.predict_proba(x), trainer.predict(x).astype(np.float64)
    assert shares.dtype == dtype and shares.shape == (300, 3)
    wanted = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, wanted, rtol=1e-5)
    np.testing.assert_array_equal(trainer.predict_class(x), outputs.argmax(axis=1))
    assert np.mean(trainer.predict_class(x) == y) == pytest.approx(trainer.evaluate((x, y))["accuracy"])


def test_several_labels_at_once(blobs):
    x, y = blobs
    targets = np.stack([y == 1, y > 0], axis=1)
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 2)), loss="binary_cross_entropy")
    trainer.fit((x, targets), epochs=5, verbose=False)
    shares, outputs = trainer.predict_proba(x), trainer.predict(x).astype(np.float64)
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-outputs)), rtol=1e-5)
    np.testing.assert_array_equal(trainer.predict_class(x), shares > 0.5)


def test_extremes_do_not_overflow():
    far = np.array([[1e4, -1e4, 0.0]], np.float32)
    assert CrossEntropy().probabilities(far).tolist() == [[1.0, 0.0, 0.0]]
    assert BinaryCrossEntropy().probabilities(far).tolist() == [[1.0, 0.0, 0.5]]
    assert BinaryCrossEntropy().likeliest(far).tolist() == [[1, 0, 0]]
    for loss in (CrossEntropy(), BinaryCrossEntropy()):
        assert loss.probabilities(np.empty((0, 3))).shape == (0, 3)
    assert CrossEntropy().likeliest(np.empty((0, 3))).shape == (0,)


def test_numbers_are_no_classes(blobs):
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 3)), loss="mse")
    for method in (trainer.predict_proba, trainer.predict_class):
        with pytest.raises(TypeError, match=r"the outputs of mse are no scores of classes: use predict"):
            method(blobs[0])
    own = gr.Trainer(step=lambda p, b: (0.0, {"w": p["w"]}), params={"w": np.zeros(2)})
    with pytest.raises(TypeError, match=r"the outputs of a step of your own are no scores"):
        own.predict_proba(blobs[0])


def test_calls_with_the_look_of_the_last_one_see_what_has_changed():
    """Predictions of rows that look like the last ones skip checks; what the model has become in between still counts."""
    model = gr.nn.Sequential(gr.nn.Linear(4, 3), gr.nn.Dropout(0.5), gr.nn.Linear(3, 2))
    trainer = gr.Trainer(model, seed=1)
    x = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)

    def expected(rows):
        p = {name: np.asarray(array, np.float64) for name, array in trainer.params.items()}
        return (rows @ p["0.weight"] + p["0.bias"]) @ p["2.weight"] + p["2.bias"]

    for rows in (x, x, x[:1], x[:1], x[::-1], x[:0], x[:0], x[1:2], x.astype(np.float64), x[:1], x):
        result = trainer.predict(rows)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected(rows), atol=1e-5)
        np.testing.assert_array_equal(trainer.predict(rows, batch_size=2), result)
    trainer.step(x, np.zeros(5, int))
    np.testing.assert_allclose(trainer.predict(x), expected(x), atol=1e-5)
    model.params["0.weight"] = np.ones((4, 3))
    np.testing.assert_allclose(trainer.predict(x), expected(x), atol=1e-5)
    with pytest.raises(ValueError, match=r"needs \(batch"):
        trainer.predict(x[:, :3].copy())
    np.testing.assert_allclose(trainer.predict(x), expected(x), atol=1e-5)
    trainer.reset(3)
    np.testing.assert_allclose(trainer.predict(x), expected(x), atol=1e-5)


def test_a_model_that_computes_nothing_gives_rows_of_any_number():
    model = gr.nn.Sequential(gr.nn.Flatten())
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for rows in (x, x, x[:1], x[:0], x):
        np.testing.assert_array_equal(model(rows), rows.reshape(len(rows), 12))
