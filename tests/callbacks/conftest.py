import numpy as np
import pytest

import gradring as gr


@pytest.fixture
def trainer():
    """A trainer whose loss is 1, 1/2, 1/3 ... in its epochs of four batches."""

    def step(params, batch):
        return 1.0 / (1 + made.epoch), {"w": np.ones(2)}

    made = gr.Trainer(step=step, params={"w": np.zeros(2)}, optimizer=gr.optim.SGD(1.0))
    return made


@pytest.fixture
def data():
    return range(4)
