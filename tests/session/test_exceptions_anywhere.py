"""An exception at any line of the package, such as one from a signal's handler, costs a run of `fit` no epoch and no sample.

A trace function raises it, in each run at another line.
"""

import contextlib
import linecache
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import gradring as gr

PACKAGE = str(Path(gr.__file__).parent)
ROWS, BATCH, EPOCHS = 50, 16, 6
STEPS = -(-ROWS // BATCH)


class Now(Exception):
    pass


class Raises:
    """A trace function that raises the ``time``-th time that ``line``, a file of the package and a number, is reached, or else
    counts in ``reached`` how often each line of ``files`` is."""

    def __init__(self, files, line=None, time=1):
        self.files, self.line, self.time = {f"{PACKAGE}/{name}" for name in files}, line, time
        self.reached = Counter()

    def __call__(self, frame, event, _):
        name = frame.f_code.co_filename
        if name not in self.files:
            return None
        # Python handles no signal at a "try:", which does nothing, so that no handler there needs to cover it.
        if event == "line" and linecache.getline(name, frame.f_lineno).strip() != "try:":
            line = (name, frame.f_lineno)
            self.reached[line] += 1
            if line == self.line and self.reached[line] == self.time:
                sys.settrace(None)
                raise Now
        return self


def traced(function, call):
    before = sys.gettrace()
    sys.settrace(function)
    try:
        call()
    finally:
        sys.settrace(before)


def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, 6)).astype(np.float32), rng.integers(0, 3, ROWS)


def trainer_of():
    model = gr.nn.Sequential(gr.nn.Linear(6, 8), gr.nn.ReLU(), gr.nn.Linear(8, 3)).init(1)
    return gr.Trainer(model, optimizer=gr.optim.Adam(0.01), threads=1)


class Listener(gr.callbacks.Callback):
    """While it listens, epochs come back to Python one by one."""


def fit(trainer, listening, resume=None):
    loader = gr.Loader(arrays(), BATCH, shuffle=True, seed=3)
    callbacks = [Listener()] if listening else []
    trainer.fit(loader, epochs=EPOCHS, callbacks=callbacks, verbose=False, resume=resume)


FILES = [
    ["fit_run.py", "training_state.py", "gate.py", "history.py", "signals.py", "session/whole_epochs.py"],
    ["session/session.py", "session/single_steps.py", "session/evaluation.py", "session/base.py"],
    ["session/state.py", "session/graphs.py", "session/programs.py", "session/batch.py"],
    ["trainer.py", "trainer_base.py", "resume.py", "session/data.py"],
    ["session/results.py", "session/measured.py", "session/rates.py"],
]


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("files", FILES, ids=lambda files: files[0].replace(".py", ""))
def test_a_run_of_fit_is_resumed_exactly(files, listening, tmp_path):
    whole, path = trainer_of(), tmp_path / "state"
    fit(whole, listening)
    counts = Raises(files)
    traced(counts, lambda: fit(trainer_of(), listening))
    assert len(counts.reached) > 20
    # Half of the lines, and the other half with a listener, because all of them take a minute.
    for line, times in sorted(counts.reached.items())[listening::2]:
        trainer = trainer_of()
        # In a later epoch, if there is one: native calls begin after the first.
        with contextlib.suppress(Now):
            traced(Raises(files, line, (times + 1) // 2), lambda trainer=trainer: fit(trainer, listening))
        state = trainer.state_dict()
        assert state["epoch"] * STEPS + state["batch"] == trainer.step_count, line
        assert len(trainer.history) == trainer.epoch, line
        trainer.save(path)
        fit(trainer, listening, resume=path)
        for name, array in whole.params.items():
            np.testing.assert_array_equal(trainer.params[name], array, err_msg=f"{name}, {line}")


def test_predictions_after_an_interrupted_one_are_right():
    x, _ = arrays()
    expected = trainer_of().model(x)
    files = ["session/forward.py", "session/programs.py", "session/arenas.py", "session/batch.py"]
    for many in (x, x.astype(np.float64), x[:7]):
        counts, model = Raises(files), trainer_of().model
        traced(counts, lambda model=model, many=many: (model(many), model(many)))
        for line, times in counts.reached.items():
            fresh = trainer_of().model
            with pytest.raises(Now):
                call = lambda fresh=fresh, many=many: (fresh(many), fresh(many))  # noqa: E731
                traced(Raises(files, line, times), call)
            np.testing.assert_array_equal(fresh(many), expected[: len(many)], err_msg=str(line))
            np.testing.assert_array_equal(fresh(x), expected, err_msg=str(line))


def test_another_optimizer_is_taken_whole_or_not_at_all():
    x, y = arrays()
    optimizers = [gr.optim.SGD(0.1, momentum=0.9), gr.optim.SGD(0.1), gr.optim.Adam(gr.optim.schedule.cosine(0.1, 9))]
    parts = ("state", "graphs", "evaluation", "single_steps", "session", "arenas", "rates", "programs")
    files = [f"session/{part}.py" for part in parts]
    for optimizer in optimizers:
        wholes = []
        for taken in (False, True):
            trainer = trainer_of()
            trainer.step(x, y)
            if taken:
                trainer.optimizer = optimizer
            trainer.step(x, y)
            wholes.append(trainer.state_dict())
        counts, trainer = Raises(files), trainer_of()
        trainer.step(x, y)
        traced(counts, lambda trainer=trainer, optimizer=optimizer: setattr(trainer, "optimizer", optimizer))
        assert len(counts.reached) > 20
        for line in counts.reached:
            trainer = trainer_of()
            trainer.step(x, y)
            with pytest.raises(Now):
                traced(Raises(files, line), lambda trainer=trainer: setattr(trainer, "optimizer", optimizer))  # noqa: B023
            trainer.step(x, y)
            found = trainer.state_dict()
            whole = wholes[trainer.optimizer is optimizer]
            assert found["optimizer"].keys() == whole["optimizer"].keys(), line
            for kind in ("params", "optimizer"):
                for name, array in whole[kind].items():
                    np.testing.assert_array_equal(found[kind][name], array, err_msg=f"{name}, {line}")


def test_a_callback_that_an_exception_ends_leaves_the_trainer_usable():
    """The exception's traceback must not keep what the run has claimed."""
    x, y = arrays()

    def fit(trainer):
        stop = gr.callbacks.EarlyStop("val_loss")
        trainer.fit((x, y), epochs=2, validate=(x, y), callbacks=[stop], verbose=False)

    files = ["gate.py", "callbacks/early_stop.py"]
    counts = Raises(files)
    traced(counts, lambda: fit(trainer_of()))
    for line, times in counts.reached.items():
        trainer = trainer_of()
        with contextlib.suppress(Now):
            traced(Raises(files, line, times), lambda trainer=trainer: fit(trainer))
        trainer.step(x, y)
        assert trainer.predict(x).shape == (ROWS, 3), line


def test_a_state_that_an_exception_kept_from_being_loaded_can_be_loaded_again():
    x, y = arrays()
    target = np.eye(3, dtype=np.float32)[y]

    def step(params, batch):
        away = batch[0] @ params["w"] - batch[1]
        return float((away**2).mean()), {"w": np.float32(2 / away.size) * (batch[0].T @ away)}

    def user():
        return gr.Trainer(step=step, params={"w": np.ones((6, 3), np.float32)}, optimizer=gr.optim.Adam(0.01))

    for made, batch in ((trainer_of, (x, y)), (user, (x, target))):
        trainer = made()
        trainer.step(*batch)
        state = trainer.state_dict()
        trainer.step(*batch)
        whole = trainer.state_dict()["params"]
        files = ["training_state.py", "session/rates.py", "session/base.py", "optim/base.py", "optim/rates.py"]
        counts = Raises(files)
        traced(counts, lambda trainer=trainer, state=state: trainer.load_state_dict(state))
        for line in counts.reached:
            trainer = made()
            with pytest.raises(Now):
                traced(Raises(files, line), lambda trainer=trainer, state=state: trainer.load_state_dict(state))
            trainer.step(*batch)
            trainer.load_state_dict(state)
            trainer.step(*batch)
            for name, array in whole.items():
                np.testing.assert_array_equal(trainer.params[name], array, err_msg=f"{name}, {line}")
