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
        (lambda: Adam(amsgrad=1), TypeError, r"\[Adam\] amsgrad must be a bool, got int"),
        (lambda: RMSprop(alpha=1.0), ValueError, r"\[RMSprop\] alpha .* below 1, got 1.0"),
        (lambda: RMSprop(momentum=float("nan")), ValueError, r"\[RMSprop\] momentum .* got nan"),
        (lambda: RMSprop(eps=-1), ValueError, r"\[RMSprop\] eps .* got -1"),
        (lambda: RMSprop(centered=0), TypeError, r"\[RMSprop\] centered must be a bool, got int"),
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
