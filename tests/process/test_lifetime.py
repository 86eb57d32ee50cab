"""Nothing outlives its last user."""

import gc
import weakref

import numpy as np
import pytest

import gradring as gr
from helpers import mlp
from loader.resources import descriptors


def test_a_trainer_that_nobody_holds_is_freed():
    x, y = np.zeros((8, 5), np.float32), np.zeros(8, np.int64)
    gc.collect()
    before, sessions = descriptors(), []
    for _ in range(20):
        trainer = gr.Trainer(mlp(5, 4, 3), optimizer=gr.optim.SGD(0.1))
        trainer.step(x, y)
        trainer.fit((x, y))
        trainer.predict(x)
        sessions.append(weakref.ref(trainer.session))
    del trainer
    gc.collect()
    assert not any(session() for session in sessions)
    assert descriptors() <= before


def test_a_step_keeps_its_trainer_alive():
    step = gr.Trainer(mlp(5, 4, 3), optimizer=gr.optim.SGD(0.1)).step
    gc.collect()
    losses = [step(np.ones((rows, 5), np.float32), np.zeros(rows, np.int64)) for rows in (8, 8, 3)]
    assert losses[0] > losses[1] > losses[2]


def test_a_layer_in_two_places_is_refused():
    shared = gr.nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"\[Sequential\] layer 2, Linear\(4, 4\), is layer 0 again"):
        gr.nn.Sequential(shared, gr.nn.ReLU(), shared).init()
    relu = gr.nn.ReLU()
    assert len(gr.nn.Sequential(gr.nn.Linear(4, 4), relu, gr.nn.Linear(4, 2), relu).init().params) == 4


def test_a_model_must_be_a_layer():
    with pytest.raises(TypeError, match=r"\[Session\] model must be a gradring layer, got int"):
        gr.Trainer(3)
