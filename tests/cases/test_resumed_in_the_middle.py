"""A run that ends within an epoch and is resumed is one that never ended: parameters, history and callbacks' decisions."""

import json
import signal
import sys
import threading

import numpy as np
import pytest

import gradring as gr
import gradring.session.session
from cases.resumed import (  # noqa: F401
    EPOCHS,
    NATIVE_RUN,
    ROUTES,
    At,
    X,
    Y,
    a_report_after_each_batch,
    callbacks,
    fitted,
    raise_stop,
    size,
    spread,
    told,
    trainer,
)
from gradring import checkpoint
from helpers import Stop, snapshot


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
