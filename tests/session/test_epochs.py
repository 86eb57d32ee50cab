"""Epochs over batches that Python makes."""

import numpy as np
import pytest

import gradring as gr
from helpers import mlp

X = np.random.default_rng(3).standard_normal((40, 8)).astype("f4")
Y = np.arange(40) % 3


@pytest.mark.parametrize("wrong", [0, 3])
@pytest.mark.parametrize("start", [0, 2])
def test_the_epochs_batch_is_named_where_python_makes_the_batches(wrong, start):
    y = Y.copy()
    y[8 * wrong + 5] = 7
    batches = [(X[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    trainer = gr.Trainer(mlp(8, 16, 3), seed=1)
    if start:
        good = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 8 * start, 8)]
        trainer.fit(good, epochs=1)
    with pytest.raises(ValueError, match=rf"batch {wrong}, row 5 .*label is 7"):
        trainer.fit(batches, epochs=1)
    with pytest.raises(ValueError, match=r"batch 0, row 5 .*label is 7"):  # a step of its own is in no epoch
        trainer.step(*batches[wrong])


def test_a_loss_that_is_not_finite_names_the_epochs_batch():
    x = X.copy()
    x[27, 2] = np.inf
    trainer = gr.Trainer(mlp(8, 16, 3), seed=1)
    with pytest.raises(
        gr.NonFinite, match=r"\(batch 3\) is not finite.* x of sample 3 of that batch is inf in column 2"
    ):
        trainer.fit([(x[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)], epochs=1)
    assert trainer.step_count == 3
