"""What several tests need."""

from itertools import pairwise

import gradring as gr


def mlp(*sizes, activation="ReLU"):
    """Linear layers of these sizes with an activation between them."""
    layers = []
    for i, o in pairwise(sizes):
        layers += [gr.nn.Linear(i, o), getattr(gr.nn, activation)()]
    return gr.nn.Sequential(*layers[:-1])


def snapshot(trainer):
    """Every bit that training changes, by name."""
    state = trainer.state_dict()
    arrays = {**state.pop("params"), **{f"optimizer/{name}": array for name, array in state.pop("optimizer").items()}}
    return {name: array.tobytes() for name, array in arrays.items()} | state
