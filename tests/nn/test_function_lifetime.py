"""A Python layer and what runs it are freed together."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import gradring as gr
from gradring import nn


def test_a_function_layer_that_was_called_and_trained_is_freed() -> None:
    x = np.ones((3, 4), np.float32)
    function = nn.Function(lambda x: 2 * x, lambda dy, x, y: 2 * dy)
    assert float(function(x).sum()) == 24.0
    model = nn.Sequential(nn.Linear(4, 2), function)
    trainer = gr.Trainer(model, optimizer=gr.optim.SGD(0.1))
    trainer.step(x, np.array([0, 1, 0]))
    watched = [weakref.ref(function), weakref.ref(model), weakref.ref(trainer)]
    del function, model, trainer
    gc.collect()
    assert [watch() for watch in watched] == [None, None, None]


def test_parameters_of_a_function_are_planned():
    with pytest.raises(gr.NotBuilt, match=r"\[Function\] parameters= is planned: put gr\.nn\.Linear"):
        gr.nn.Function(lambda x: x, lambda dy, x, y: dy, parameters={"w": (3,)})
