"""A run that ends within an epoch and is resumed is one that never ended: parameters, history and callbacks' decisions."""

import json
import signal
import sys
import threading

import numpy as np
import pytest

import gradring as gr
import gradring.session.session
import gradring.session.user
from gradring import checkpoint
from helpers import Batches, Stop, snapshot

N, BATCH = 50, 8  # seven batches, the last one of two samples
RNG = np.random.default_rng(11)
X = RNG.standard_normal((N, 6)).astype("f4")
Y = RNG.integers(0, 3, N)
W = RNG.random(N).astype("f4")
EPOCHS = 6
NATIVE_RUN = gradring.session.session.Session.run


def regression(params, batch):
    x, y = np.asarray(batch[0], np.float64), np.asarray(batch[1], np.float64)
    off = x @ params["w"] + params["b"] - y
    return float((off**2).mean()), {"w": 2 * x.T @ off / len(x), "b": np.array([2 * off.mean()])}


ROUTES = {
    "arrays": lambda: (X, Y),
    "weights": lambda: (X, Y, W),
    "loader of arrays": lambda: gr.Loader((X, Y), BATCH, shuffle=True, seed=3),
    "fed by name": lambda: gr.Loader({"y": Y, "x": X}, BATCH, shuffle=True, seed=3),
    "part": lambda: gr.Loader((np.r_[X, X], np.r_[Y, Y]), BATCH, shuffle=True, indices=range(N)),
    "batches": lambda: Batches(gr.Loader((X, Y), BATCH, shuffle=True, seed=3)),
    "list of batches": lambda: [(X[i : i + BATCH], Y[i : i + BATCH], W[i : i + BATCH]) for i in range(0, N, BATCH)],
    "own": lambda: gr.Loader((X, Y), BATCH, shuffle=True, seed=3),
}


def size(route):
    """The argument ``batch_size`` of ``fit``, which is for arrays."""
    return BATCH if route in ("arrays", "weights") else None


def trainer(route, **options):
    if route == "own":
        params = {"w": np.zeros(6), "b": np.zeros(1)}
        return gr.Trainer(step=regression, params=params, optimizer=gr.optim.SGD(0.2, momentum=0.95), **options)
    nn = gr.nn
    layers = nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 3)
    return gr.Trainer(nn.Sequential(*layers), optimizer=gr.optim.Adam(0.3), seed=2, threads=1, **options)


def callbacks(folder):
    return [
        gr.callbacks.Checkpoint(folder / "best.safetensors", monitor="loss"),
        gr.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1),
        gr.callbacks.EarlyStop("loss", patience=2),
    ]


class At(gr.callbacks.Callback):
    """Saves at a batch of an epoch, and does something there."""

    def __init__(self, epoch, batch, path, act):
        self.at, self.path, self.act = (epoch, batch), path, act

    def on_report(self, run):
        if (run.epoch, run.batch) == self.at:
            run.trainer.save(self.path)
            self.act()


@pytest.fixture(autouse=True)
def a_report_after_each_batch(monkeypatch):
    run = gradring.session.session.Session.run

    def slowly(self, data, **options):
        given = {name: value for name, value in options.items() if value is not None}
        return run(self, data, **{"before_step": lambda: None, **given, "report_every": 0.0})

    monkeypatch.setattr(gradring.session.session.Session, "run", slowly)
    monkeypatch.setattr(gradring.session.session, "REPORT_SECONDS", -1.0)
    monkeypatch.setattr(gradring.session.user, "REPORT_SECONDS", -1.0)


def told(made, folder):
    """All that a run leaves, but times."""
    made.save(folder / "end")
    states = json.loads(checkpoint.read(folder / "end")[1]["callbacks"])
    for state in states.values():
        state.pop("path", None), state.pop("saved", None)
    history = {name: values for name, values in made.history.metrics.items() if name != "seconds"}
    best, metadata = checkpoint.read(folder / "best.safetensors")
    best = {name: array.tobytes() for name, array in best.items()}
    return snapshot(made), json.dumps(history), states, best, metadata["epoch"]


def fitted(route, folder, **options):
    folder.mkdir()
    made = trainer(route, **options)
    made.fit(ROUTES[route](), EPOCHS, callbacks=callbacks(folder), batch_size=size(route), verbose=False)
    return told(made, folder)


def raise_stop():
    raise Stop


def spread(predictions, targets):
    return float(np.ptp(predictions) + targets.sum())


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("route", ROUTES)
def test_interrupted_anywhere(tmp_path, route, accumulate):
    options = {"accumulate": accumulate}
    if route != "own":
        options["metrics"] = ["accuracy", spread] if route in ("arrays", "fed by name", "batches") else ["accuracy"]
    whole = fitted(route, tmp_path / "whole", **options)
    assert len(set(json.loads(whole[1])["lr"])) > 1  # the plateau has made a decision
    # in the first epoch, at an update, within a group, and with nothing left; the rest in other routes
    places = [(0, 1), (2, 7)] if len(route) % 2 else [(1, 6), (2, 2)]
    for epoch, batch in places:
        folder = tmp_path / f"{epoch} {batch}"
        folder.mkdir()
        broken = trainer(route, **options)
        at = At(epoch, batch, folder / "within", raise_stop)
        with pytest.raises(Stop):
            broken.fit(
                ROUTES[route](), EPOCHS, callbacks=[at, *callbacks(folder)], batch_size=size(route), verbose=False
            )
        assert broken.state_dict()["batch"] == batch and broken.state_dict()["pending"] == batch % accumulate
        broken.save(folder / "after")
        best = (folder / "best.safetensors").read_bytes() if epoch else None
        for path in (folder / "within", folder / "after"):
            if best is not None:
                (folder / "best.safetensors").write_bytes(best)
            made = trainer(route, **options)
            made.fit(
                ROUTES[route](), EPOCHS, callbacks=callbacks(folder), batch_size=size(route), verbose=False, resume=path
            )
            assert told(made, folder) == whole, (epoch, batch, path.name)


@pytest.mark.parametrize("route", ["arrays", "fed by name", "batches", "own"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_within_a_group(tmp_path, route, number):
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("no handler of this signal can be set here")
    whole = fitted(route, tmp_path / "whole", accumulate=3)
    folder = tmp_path / "broken"
    folder.mkdir()
    last = gr.callbacks.Checkpoint(folder / "last", every=10**6)
    at = At(1, 5, folder / "within", lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        trainer(route, accumulate=3).fit(
            ROUTES[route](),
            EPOCHS,
            callbacks=[at, last, *callbacks(folder)],
            batch_size=size(route),
            verbose=False,
            on_signal="save",
        )
    metadata = checkpoint.read(folder / "last")[1]
    assert (metadata["epoch"], metadata["batch"], metadata["pending"]) == ("1", "5", "2")
    made = trainer(route, accumulate=3)
    again = [gr.callbacks.Checkpoint(folder / "last", every=10**6), *callbacks(folder)]
    made.fit(ROUTES[route](), EPOCHS, callbacks=again, batch_size=size(route), verbose=False, resume=folder / "last")
    result = told(made, folder)
    result[2].pop("Checkpoint 2"), whole[2].pop("Checkpoint")
    result[2].pop("Checkpoint")
    assert result == whole


@pytest.mark.parametrize("route", ["own", "batches"])
def test_an_interrupt_between_any_two_lines(tmp_path, route):
    """KeyboardInterrupt comes where Python happens to be."""
    session = gradring.session
    files = {part.__file__ for part in (session.user, session.user_updates, session.session, session.single_steps)}
    whole = fitted(route, tmp_path / "whole", accumulate=3)

    def broken(lines):
        made, left = trainer(route, accumulate=3), lines

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        folder = tmp_path / str(lines)
        folder.mkdir()
        before = sys.gettrace()
        try:
            sys.settrace(trace)
            made.fit(ROUTES[route](), EPOCHS, callbacks=callbacks(folder), batch_size=size(route), verbose=False)
        except KeyboardInterrupt:
            return made, folder
        finally:
            sys.settrace(before)
        return None

    tried = 0
    for lines in range(60, 10**6, 83):
        ended = broken(lines)
        if ended is None or tried == 8:
            break
        made, folder = ended
        made.save(folder / "after")
        again = trainer(route, accumulate=3)
        again.fit(
            ROUTES[route](),
            EPOCHS,
            callbacks=callbacks(folder),
            batch_size=size(route),
            verbose=False,
            resume=folder / "after",
        )
        assert told(again, folder) == whole, lines
        tried += 1
    assert tried > 5


# What a file may say and lack


@pytest.fixture
def saved(tmp_path):
    made = trainer("arrays", accumulate=3, metrics=["accuracy", spread])
    with pytest.raises(Stop):
        made.fit((X, Y), 2, callbacks=[At(1, 4, tmp_path / "a", raise_stop)], batch_size=BATCH, verbose=False)
    return tmp_path / "a"


def test_a_file_without_sums_is_read(saved):
    """Files that an earlier version wrote have no sums: such an epoch is measured over its rest."""
    tensors, metadata = checkpoint.read(saved)
    tensors = {name: array for name, array in tensors.items() if not name.startswith("training/")}
    for name in ("sums", "pending", "pending_weight"):
        metadata.pop(name)
    checkpoint.write(saved, tensors, metadata)
    made = trainer("arrays", accumulate=3)
    history = made.fit((X, Y), 2, batch_size=BATCH, resume=saved, verbose=False)
    assert np.isfinite(history.metrics["loss"]).all() and made.epoch == 2


def test_other_readers_leave_the_arrays_of_an_unfinished_epoch_out(saved):
    model = gr.load(saved)
    assert set(model.params) == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}
    made = trainer("arrays")
    assert set(made.load(saved, weights_only=True)) == {*made.params, *made.buffers}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_group_that_does_not_fit_is_refused(saved, accumulate):
    tensors, metadata = checkpoint.read(saved)
    checkpoint.write(saved, tensors, metadata | {"pending": "2"})
    made = trainer("arrays", accumulate=accumulate)
    before = snapshot(made)
    with pytest.raises(
        gr.CheckpointMismatch, match="gradients of 2 batches waited .* give the trainer the same accumulate"
    ):
        made.load(saved)
    assert snapshot(made) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda t, m: m.update(sums="[1]"),
        lambda t, m: m.update(sums='["a", 1, 1, 1, 1, 1, 1, 1]'),
        lambda t, m: m.update(sums="[0, 0, 1.5, 0, 0, 0, 0, 0]"),
        lambda t, m: m.update(sums="[0, 0, -1, 0, 0, 0, 0, 0]"),
        lambda t, m: m.update(sums="[" * 10**5),
        lambda t, m: m.update(sums="{}"),
        lambda t, m: m.update(pending="-1"),
        lambda t, m: m.update(pending_weight="nan"),
        lambda t, m: m.update(pending_weight="many"),
        lambda t, m: t.pop("training/gradients/0.bias"),
        lambda t, m: t.update({"training/gradients/0.bias": np.zeros(3, "f4")}),
        lambda t, m: t.update({"training/gradients/7.bias": np.zeros(3, "f4")}),
        lambda t, m: t.pop("training/epoch/targets"),
        lambda t, m: t.update({"training/epoch/targets": np.zeros(3)}),
        lambda t, m: t.update({"training/epoch/targets": np.array(3.0)}),
        lambda t, m: t.update({"training/other": np.zeros(3)}),
    ],
)
def test_a_file_whose_sums_cannot_be_changes_nothing(saved, change):
    tensors, metadata = checkpoint.read(saved)
    change(tensors, metadata)
    checkpoint.write(saved, tensors, metadata)
    made = trainer("arrays", accumulate=3, metrics=["accuracy", spread])
    before = snapshot(made)
    with pytest.raises((gr.CheckpointCorrupt, gr.CheckpointMismatch), match=r"\[Trainer.load\] .*a: "):
        made.load(saved)
    assert snapshot(made) == before


def test_other_targets_than_before_are_refused(saved):
    made = gr.Trainer(trainer("arrays").model, metrics=[spread], accumulate=3, optimizer=gr.optim.Adam(0.3))
    with pytest.raises(
        ValueError, match=r"\[Trainer.fit\] resume: the epoch had predictions .* resume on the same data"
    ):
        made.fit((X, np.eye(3, dtype="f4")[Y]), 2, batch_size=BATCH, resume=saved, verbose=False)


@pytest.mark.parametrize("route", ["arrays", "own"])
def test_single_steps_within_a_group(tmp_path, route):
    """Saved after each of seven steps, in groups of three: a trainer that loads it goes on as the first one."""
    whole = trainer(route, accumulate=3)
    for number in range(7):
        broken = trainer(route, accumulate=3)
        for i in range(7):
            if i == number:
                broken.save(tmp_path / "a")
                state = broken.state_dict()
                broken, other = trainer(route, accumulate=3), trainer(route, accumulate=3)
                broken.load(tmp_path / "a")
                other.load_state_dict(state)
                assert snapshot(broken) == snapshot(other)
            broken.step(X[i * 5 : i * 5 + 5], Y[i * 5 : i * 5 + 5])
            if number == 0:
                whole.step(X[i * 5 : i * 5 + 5], Y[i * 5 : i * 5 + 5])
        assert snapshot(broken) == snapshot(whole)
        assert broken.state_dict()["pending"] == 1


# The forms of gradients that wait: sums over samples, or, where each batch makes an update, means


def interrupted(accumulate, batches):
    """A trainer with a step of its own that Ctrl-C has ended in the update after these batches."""
    made = trainer("own", accumulate=accumulate)
    for begin, end in batches[:-1]:
        made.step(X[begin:end], Y[begin:end])
    rates = made._session.rates
    with pytest.MonkeyPatch.context() as patch:
        if accumulate == len(batches):
            patch.setattr(rates, "next", raise_interrupt)
            with pytest.raises(KeyboardInterrupt):
                made.step(*(field[slice(*batches[-1])] for field in (X, Y)))
        else:
            made.step(*(field[slice(*batches[-1])] for field in (X, Y)))
    assert made.state_dict()["pending"] == len(batches) and made.step_count == 0
    return made


def raise_interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("saved", "batches", "loading", "fits"),
    [
        (1, [(0, 7)], 1, True),
        (1, [(0, 7)], 2, False),
        (1, [(0, 7)], 3, False),
        (2, [(0, 7)], 1, False),
        (2, [(0, 7)], 3, True),
        (3, [(0, 7)], 2, True),
        (2, [(0, 7), (7, 9)], 2, True),
        (2, [(0, 7), (7, 9)], 3, True),
        (3, [(0, 7), (7, 9)], 1, False),
    ],
)
def test_gradients_that_wait_have_the_form_in_which_they_were_saved(tmp_path, saved, batches, loading, fits):
    broken = interrupted(saved, batches)
    broken.save(tmp_path / "a")
    state = broken.state_dict()
    for way in ("file", "dict"):
        made = trainer("own", accumulate=loading)
        before = snapshot(made)
        if not fits:
            error = gr.CheckpointMismatch if way == "file" else ValueError
            with pytest.raises(error, match="give the trainer the same accumulate"):
                made.load(tmp_path / "a") if way == "file" else made.load_state_dict(state)
            assert snapshot(made) == before
            continue
        made.load(tmp_path / "a") if way == "file" else made.load_state_dict(state)
        whole = trainer("own", accumulate=loading)
        for begin, end in (*batches, (9, 14), (14, 23), (23, 24)):
            whole.step(X[begin:end], Y[begin:end])
        for begin, end in ((9, 14), (14, 23), (23, 24)):
            made.step(X[begin:end], Y[begin:end])
        assert made.step_count == whole.step_count
        assert snapshot(made) == snapshot(whole)


def test_a_file_that_does_not_tell_the_form_has_sums(tmp_path):
    interrupted(2, [(0, 7)]).save(tmp_path / "a")
    tensors, metadata = checkpoint.read(tmp_path / "a")
    metadata.pop("pending_form")
    checkpoint.write(tmp_path / "a", tensors, metadata)
    trainer("own", accumulate=2).load(tmp_path / "a")
    with pytest.raises(gr.CheckpointMismatch, match="a sum over samples, and here a mean waits"):
        trainer("own", accumulate=1).load(tmp_path / "a")


# Steps that a callback takes between two groups


@pytest.mark.parametrize("extra", [1, 2, 3])
@pytest.mark.parametrize("before", [2, 3, 4])
def test_a_group_that_a_callback_begins_is_dropped_alone(before, extra):
    """A gradient that is not finite drops the batches that wait, and none that have updated."""

    def step(params, batch):
        return 1.0, {"w": np.full(2, np.inf if batch == before else 0.5)}, 1.0

    class Extra(gr.callbacks.Callback):
        def on_report(self, run):
            if run.batch == before:
                for _ in range(extra):
                    run.trainer.step(100.0)

    made = gr.Trainer(step=step, params={"w": np.zeros(2)}, optimizer=gr.optim.SGD(0.1), accumulate=2)
    with pytest.raises(gr.NonFinite, match="gradient"):
        made.fit(range(20), callbacks=[Extra()], verbose=False)
    # Where a batch of the epoch waited (3), the callback's first step has completed its group.
    assert made.state_dict()["sums"][:2] == (before, before)


@pytest.mark.parametrize("route", ["arrays", "own"])
@pytest.mark.parametrize("steps", range(1, 6))
def test_sums_without_the_group_that_a_callback_begins(route, steps):
    made = trainer(route, accumulate=2)
    session = made._session
    session.begin(0)
    for i in range(steps):
        made.step(X[i * 5 : i * 5 + 5], Y[i * 5 : i * 5 + 5])
    seen = session.sums[:4]
    with session._aside():
        made.step(X[:9], Y[:9])
    assert session.sums[:4] == seen and session.pending == (steps + 1) % 2
    session.forget()
    assert session.sums[:4] == seen


def test_sums_do_not_depend_on_how_an_epoch_is_cut_into_chunks(monkeypatch):
    made = [trainer("arrays") for _ in range(2)]
    one, cut = (
        NATIVE_RUN(t.session, (X, Y), batch_size=2, before_step=step) for t, step in zip(made, (None, int), strict=True)
    )
    assert one.loss == cut.loss and one.accuracy == cut.accuracy and snapshot(made[0]) == snapshot(made[1])
    whole = made[0].evaluate((X, Y), batch_size=2)
    monkeypatch.setattr(gradring.session.session, "REPORT_SECONDS", 1e-9)
    assert made[0].evaluate((X, Y), batch_size=2) == whole
