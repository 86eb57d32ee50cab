"""Methods of a user's callback that have the arguments of another library: an error before the first step."""

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((48, 4)).astype(np.float32), RNG.integers(0, 3, 48)


def trainer():
    return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3)).init(1), optimizer=gr.optim.SGD(0.1))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("def on_epoch_end(self, epoch, logs=None): ...", r"run\.epoch is.*run\.metrics are.*"),
        ("def on_epoch_end(self, epoch, logs): ...", r"def on_epoch_end\(self, run\); run\.epoch"),
        ("def on_fit_start(self, logs=None): ...", r"def on_fit_start\(self, run\); run\.metrics"),
        (
            "def on_fit_end(self): ...",
            r" \(\), and gets one, the run: write def on_fit_end\(self, run\)$",
        ),
        (
            "def on_report(self, trainer, pl_module): ...",
            r"run\.trainer is the trainer; |run\.trainer\.model is the model",
        ),
        ("on_epoch_end = staticmethod(lambda: None)", r"and gets one"),
    ],
)
def test_methods_of_a_callback_with_other_arguments(method, words):
    space = {"gr": gr}
    exec(f"class Mine(gr.callbacks.Callback):\n    {method}", space)
    one = trainer()
    before = {name: array.copy() for name, array in one.params.items()}
    with pytest.raises(TypeError, match=r"\[Mine\] on_\w+ has the arguments.*?" + words):
        one.fit((X, Y), callbacks=[space["Mine"]()], verbose=False)
    assert all(np.array_equal(before[name], array) for name, array in one.params.items())


def test_methods_of_a_callback_that_take_the_run():
    told = []

    class Mine(gr.callbacks.EarlyStop):
        def on_fit_start(self, *given, **named):
            told.append(len(given))
            super().on_fit_start(*given)

        on_report = staticmethod(told.append)

        def on_epoch_end(self, state, extra=3):
            told.append(extra)
            super().on_epoch_end(state)

    trainer().fit((X, Y), validate=(X, Y), callbacks=[Mine()], verbose=False)
    assert told[0] == 1 and told[-1] == 3
