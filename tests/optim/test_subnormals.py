"""State that decays ends at zero: subnormal numbers would stay for ever, and make each step many times as slow."""

import platform

import numpy as np
import pytest

import gradring as gr

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64", "aarch64"), reason="the processor decides")

UPDATES = {
    "sgd": (lambda p, g, state: gr.ops.sgd_update(p, g, state[0], lr=0.1, momentum=0.9), 1),
    "nesterov": (lambda p, g, state: gr.ops.sgd_update(p, g, state[0], lr=0.1, momentum=0.9, nesterov=True), 1),
    "adam": (lambda p, g, state: gr.ops.adam_update(p, g, *state, step=9), 2),
    "amsgrad": (lambda p, g, state: gr.ops.adam_update(p, g, *state, step=9), 3),
    "adamw": (lambda p, g, state: gr.ops.adamw_update(p, g, *state, step=9), 2),
    "rmsprop": (lambda p, g, state: gr.ops.rmsprop_update(p, g, *state, momentum=0.9, centered=True), 3),
    "lion": (lambda p, g, state: gr.ops.lion_update(p, g, *state), 1),
}
OPTIMIZERS = {
    "sgd": gr.optim.SGD(0.1, momentum=0.9),
    "adam": gr.optim.Adam(0.1),
    "adamw": gr.optim.AdamW(0.1),
    "rmsprop": gr.optim.RMSprop(0.1, momentum=0.9, centered=True),
    "lion": gr.optim.Lion(0.1),
}


def keeps_subnormals(dtype):
    """Whether the arithmetic of this thread outside of optimizers keeps subnormal numbers."""
    tiny = np.finfo(dtype).smallest_subnormal
    one = np.ones((1, 1), dtype)
    return tiny * dtype(3) == 3 * tiny and gr.ops.matmul(one * tiny, one)[0, 0] == tiny


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 16, 53, 70000])
@pytest.mark.parametrize("name", UPDATES)
def test_a_state_that_is_subnormal_becomes_zero(name, size, dtype):
    update, states = UPDATES[name]
    largest = np.finfo(dtype).smallest_normal
    parameter, gradient = np.ones(size, dtype), np.zeros(size, dtype)
    rng = np.random.default_rng(size)
    state = [(rng.random(size) * largest * 0.99).astype(dtype) for _ in range(states)]
    assert all(np.any(each) for each in state)
    update(parameter, gradient, state)
    assert not any(np.any(each) for each in state)
    assert keeps_subnormals(dtype)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_a_gradient_whose_square_is_subnormal_leaves_a_sound_state(name):
    update, states = UPDATES[name]
    parameter, gradient = np.ones(40, np.float32), np.full(40, 1e-21, np.float32)
    state = [np.zeros(40, np.float32) for _ in range(states)]
    for _ in range(3):
        update(parameter, gradient, state)
    assert not np.any(state[1 if name != "rmsprop" else 0])
    # Next to eps, so small a gradient moves a parameter by less than half of its last bit (AdamW also decays it).
    np.testing.assert_allclose(parameter, 0.99999**3 if name == "adamw" else 1.0, rtol=1e-6)


@pytest.mark.cpu("a device computes with subnormal numbers as fast as with others, and keeps them")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trainer_without_gradients_has_no_subnormal_state(name, threads):
    model = gr.nn.Sequential(gr.nn.Linear(40, 33), gr.nn.ReLU(), gr.nn.Linear(33, 5))
    trainer = gr.Trainer(model, loss="mse", optimizer=OPTIMIZERS[name], threads=threads, seed=3)
    x, y = np.ones((20, 40), np.float32), np.zeros((20, 5), np.float32)
    trainer.step(x, y)
    state = trainer.state_dict()
    assert state["optimizer"]
    for value in state["optimizer"].values():
        value[...] = 1e-40
    trainer.load_state_dict(state)
    x[...] = 0  # so the gradients of the first weights are zero
    trainer.step(x, y)
    for key, value in trainer.state_dict()["optimizer"].items():
        assert not np.any((np.abs(value) < np.finfo(np.float32).smallest_normal) & (value != 0)), key
    assert keeps_subnormals(np.float32)
