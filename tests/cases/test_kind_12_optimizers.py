"""Kind 12, of optimizers: what a user plainly expects of them is there."""

import numpy as np
import pytest

import gradring as gr
from gradring.optim import SGD, Adam, AdamW, Lion, RMSprop, schedule


def model():
    return gr.nn.Sequential(gr.nn.Linear(8, 6), gr.nn.ReLU(), gr.nn.Linear(6, 3))


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(0.02, weight_decay=1e-3, amsgrad=True),
        AdamW(schedule.one_cycle(0.05, 40), groups=[{"params": "*.bias", "weight_decay": 0.0}]),
        AdamW(schedule.polynomial(0.05, 100), groups=[{"params": "0.*", "lr": 0.01}, {"params": "2.*", "lr": 0.03}]),
        RMSprop(schedule.plateau(0.02, "loss", patience=1), momentum=0.5),
        Lion(lambda step: 0.01 / (1 + step / 50), weight_decay=0.1),
    ],
    ids=lambda optimizer: optimizer.kind,
)
@pytest.mark.parametrize("frozen", [(), ("0.weight",)])
def test_it_learns(optimizer, frozen, blobs):
    trainer = gr.Trainer(model(), optimizer=optimizer, frozen=frozen, seed=1)
    before = {name: array.copy() for name, array in trainer.params.items()}
    history = trainer.fit(blobs, epochs=8, verbose=False)
    assert history.metrics["loss"][-1] < 0.7 * history.metrics["loss"][0]
    same = {name for name, array in trainer.params.items() if np.array_equal(array, before[name])}
    assert same == set(frozen) == set(trainer.frozen)


@pytest.mark.parametrize("given", ["adam", "rmsprop", "Lion", RMSprop, None, 0.1])
def test_an_optimizer_that_is_none_names_the_cure(given):
    if given is None:
        assert gr.Trainer(model(), optimizer=given).optimizer == AdamW()
        return
    with pytest.raises(TypeError, match=r"optimizer must be one of gr.optim, .*(write optimizer=gr.optim|got float)"):
        gr.Trainer(model(), optimizer=given)


def test_a_frozen_first_layer_makes_a_cheaper_step(blobs):
    plans = []
    for frozen in ((), ("0.*",)):
        trainer = gr.Trainer(model(), optimizer=SGD(0.1), frozen=frozen)
        trainer.fit(blobs, epochs=1, verbose=False)
        plans.append(trainer.plan())
    assert plans[1].flops < plans[0].flops and len(plans[1].instructions) < len(plans[0].instructions)
