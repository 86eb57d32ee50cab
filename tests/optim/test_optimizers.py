import numpy as np
import pytest

import gradring as gr
from gradring.optim import SGD, Adam, AdamW, Lion, RMSprop


def test_kinds_states_and_hyperparameters():
    assert (SGD.kind, Adam.kind, AdamW.kind) == ("sgd", "adam", "adamw")
    assert SGD(0.1).state_names == () and SGD(0.1, momentum=0.9).state_names == ("momentum",)
    assert Adam().state_names == AdamW().state_names == ("m", "v")
    assert Adam(amsgrad=True).state_names == ("m", "v", "vmax") and Lion().state_names == ("m",)
    assert RMSprop().state_names == ("v",) and RMSprop(centered=True).state_names == ("v", "mean")
    assert SGD(0.1, 0.9, True, 1e-4).hyperparameters() == {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    assert Adam(1e-2, betas=[0.8, 0.9]).hyperparameters() == {
        "betas": (0.8, 0.9),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
    }


def test_they_are_values():
    assert SGD(0.1) == SGD(0.1) != SGD(0.2)
    assert Adam() != AdamW()
    assert repr(SGD(0.1, momentum=0.9)) == "SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0)"
    with pytest.raises(AttributeError):
        SGD(0.1).lr = 0.2


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD("fast"), TypeError, r"\[SGD\] lr must be a finite number of at least 0, got 'fast'"),
        (lambda: SGD(-0.1), ValueError, r"\[SGD\] lr must be a finite number of at least 0, got -0.1"),
        (lambda: Adam(float("inf")), ValueError, r"\[Adam\] lr must be a finite number"),
        (
            lambda: SGD(0.1, momentum=1.0),
            ValueError,
            r"\[SGD\] momentum must be a finite number of at least 0 and below 1, got 1.0",
        ),
        (lambda: SGD(0.1, momentum=None), TypeError, r"\[SGD\] momentum must be a finite number .* got None"),
        (lambda: SGD(0.1, nesterov=True), ValueError, r"\[SGD\] nesterov needs momentum"),
        (lambda: SGD(0.1, momentum=0.9, nesterov=1), TypeError, r"\[SGD\] nesterov must be True or False, got 1"),
        (
            lambda: SGD(0.1, weight_decay=-1),
            ValueError,
            r"\[SGD\] weight_decay must be a finite number of at least 0, got -1",
        ),
        (lambda: Adam(betas=0.9), TypeError, r"\[Adam\] betas must be two numbers, got 0.9"),
        (lambda: AdamW(betas=(0.9, 1.0)), ValueError, r"\[AdamW\] betas\[1\] must be a finite number .* below 1"),
        (lambda: AdamW(eps=-1e-8), ValueError, r"\[AdamW\] eps must be a finite number of at least 0, got -1e-08"),
        (lambda: AdamW(weight_decay=float("nan")), ValueError, r"\[AdamW\] weight_decay .* got nan"),
        (lambda: Adam(weight_decay=-1), ValueError, r"\[Adam\] weight_decay .* got -1"),
        (lambda: Adam(amsgrad=1), TypeError, r"\[Adam\] amsgrad must be True or False, got 1"),
        (lambda: RMSprop(alpha=1.0), ValueError, r"\[RMSprop\] alpha .* below 1, got 1.0"),
        (lambda: RMSprop(momentum=float("nan")), ValueError, r"\[RMSprop\] momentum .* got nan"),
        (lambda: RMSprop(eps=-1), ValueError, r"\[RMSprop\] eps .* got -1"),
        (lambda: RMSprop(centered=0), TypeError, r"\[RMSprop\] centered must be True or False, got 0"),
        (lambda: Lion(-1e-4), ValueError, r"\[Lion\] lr .* got -0.0001"),
        (lambda: Lion(betas=(0.9,)), TypeError, r"\[Lion\] betas must be two numbers, got \(0.9,\)"),
        (lambda: Lion(weight_decay="a"), TypeError, r"\[Lion\] weight_decay .* got 'a'"),
    ],
)
def test_bad_input(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_errors_are_one_family():
    for name in gr.errors.__all__:
        assert issubclass(getattr(gr, name), gr.GradringError)
    assert issubclass(gr.WorkerDied, gr.LoaderError)


@pytest.mark.parametrize("own_step", [False, True])
@pytest.mark.parametrize("before", ["Lion", "RMSprop", "SGD"])
def test_another_kind_of_optimizer_begins_without_state(before, own_step):
    """Else its first steps divide what one rule has summed by what another has."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))

    def step(params, batch):
        error = x @ params["0.weight"] + params["0.bias"] - y
        return float((error**2).mean()), {
            "0.weight": 2 * x.T @ error / error.size,
            "0.bias": 2 * error.sum(0) / error.size,
        }

    def made(optimizer, start=None):
        start = start or {"0.weight": np.zeros((5, 3)), "0.bias": np.zeros(3)}
        if own_step:
            return gr.Trainer(
                step=step, params={name: array.copy() for name, array in start.items()}, optimizer=optimizer
            )
        trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(5, 3)), "mse", optimizer, dtype="float64")
        for name, array in start.items():
            trainer.params[name][...] = array
        return trainer

    first = {"Lion": Lion(0.01), "RMSprop": RMSprop(0.01), "SGD": SGD(0.01, momentum=0.9)}[before]
    turned = made(first)
    for _ in range(20):
        turned.step((x, y)) if own_step else turned.step(x, y)
    anew = made(Adam(0.01), {name: np.array(array) for name, array in turned.params.items()})
    turned.optimizer = Adam(0.01)
    for _ in range(5):
        for trainer in (turned, anew):
            trainer.step((x, y)) if own_step else trainer.step(x, y)
    for name, array in anew.params.items():
        np.testing.assert_array_equal(turned.params[name], array)


def test_amsgrad_goes_on_from_the_moments_of_adam():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))
    made = [
        gr.Trainer(gr.nn.Sequential(gr.nn.Linear(5, 3)), "mse", Adam(0.01), dtype="float64", seed=s) for s in (1, 1)
    ]
    for trainer in made:
        for _ in range(10):
            trainer.step(x, y)
    made[1].optimizer = AdamW(0.01, weight_decay=0.0, amsgrad=True)
    for trainer in made:  # the second moments grow from one step to the next, so the largest is the newest
        trainer.step(10 * x, y)
    for name, array in made[0].params.items():
        np.testing.assert_allclose(made[1].params[name], array, rtol=1e-12)
