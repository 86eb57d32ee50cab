"""What happens on one rank alone: an error, a signal, another optimizer. All ranks hear of it in time, and can go on alike."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

import gradring as gr
from gradring.losses.base import balanced

from .test_ranks import W, X, Y, copies, on_ranks, same, saw, trainer_of
from .test_user_ranks import squares
from .test_user_ranks import trainer_of as user_trainer_of

PeerStopped = gr.errors.PeerStopped
PARTS = slice(0, 8), slice(8, 16)


def here_and_there(first, second):
    """``first`` is rank 0, in the main thread, which gets the signals; ``second`` is rank 1."""
    comms = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(second, comms[1])
        return first(comms[0]), other.result()


@contextmanager
def interrupting(function):
    """SIGINT raises KeyboardInterrupt if it comes in ``function``, and nothing elsewhere. Gives what sends it until then."""
    came = threading.Event()

    def handler(number, frame):
        if frame is not None and frame.f_code.co_name == function:
            came.set()
            raise KeyboardInterrupt

    def send():
        end = time.monotonic() + 50
        while not came.is_set() and time.monotonic() < end:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.005)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield send
    finally:
        signal.signal(signal.SIGINT, before)


class Batches:
    """Eight batches, or fewer: ``error`` comes in the place of batch number ``end``."""

    def __init__(self, end=8, error=None):
        self.end, self.error = end, error

    def __iter__(self):
        for at in range(self.end):
            yield X[at * 4 : at * 4 + 4], Y[at * 4 : at * 4 + 4]
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    "source, kind",
    [(Batches(1, OSError("the disk of rank 1")), OSError), (3, TypeError)],
    ids=["while it is read", "before it is read"],
)
def test_an_evaluation_that_fails_leaves_the_group_of_batches(source, kind):
    def body(comm, disturbed):
        trainer = trainer_of(comm, accumulate=3)
        part = PARTS[comm.rank]
        for _ in range(2):
            trainer.step(X[part], Y[part])
        error = saw(lambda: trainer.evaluate(source if comm.rank == 1 else (X, Y))) if disturbed else None
        trainer.step(X[part], Y[part])
        comm.barrier()
        return error, trainer.step_count, copies(trainer)

    (_, steps, whole), _ = on_ranks(2, lambda comm: body(comm, False))
    (first, *found), (second, *also) = on_ranks(2, lambda comm: body(comm, True))
    assert isinstance(first, PeerStopped) and isinstance(second, kind)
    assert found[0] == also[0] == steps == 1 and same(found[1], whole) and same(also[1], whole)


def test_an_interrupt_and_a_fault_in_one_step_end_it_once():
    with interrupting("train") as interrupt:

        def first(comm):
            trainer = trainer_of(comm)
            return saw(lambda: trainer.step(X[:4], Y[:4])), trainer.step(X[:4], Y[:4])

        def second(comm):
            trainer = trainer_of(comm)
            interrupt()
            return saw(lambda: trainer.step(X[:4], Y[:4] + 9)), trainer.step(X[:4], Y[:4])

        (own, loss), (error, other) = here_and_there(first, second)
    assert isinstance(own, KeyboardInterrupt) and isinstance(error, ValueError) and loss == other


def test_an_interrupt_in_the_last_meeting_of_an_evaluation_is_told():
    with interrupting("meet") as interrupt:

        def first(comm):
            trainer = trainer_of(comm)
            return saw(lambda: trainer.evaluate((X, Y))), trainer.step(X[:4], Y[:4])

        def second(comm):
            trainer = trainer_of(comm)
            interrupt()
            found = trainer.evaluate((X, Y))  # all ranks came to the meeting
            return found, saw(lambda: trainer.step(X[:4], Y[:4])), trainer.step(X[:4], Y[:4])

        (own, loss), (found, error, other) = here_and_there(first, second)
    assert isinstance(own, KeyboardInterrupt) and isinstance(error, PeerStopped) and error.interrupted
    assert found["loss"] > 0 and loss == other


def test_an_interrupt_while_a_rank_waits_to_save_is_told(tmp_path):
    with interrupting("meet") as interrupt:

        def first(comm):
            trainer = trainer_of(comm)
            return saw(lambda: trainer.save(tmp_path / "a")), trainer.step(X[:4], Y[:4])

        def second(comm):
            trainer = trainer_of(comm)
            interrupt()
            return saw(lambda: trainer.save(tmp_path / "a")), trainer.step(X[:4], Y[:4])

        (own, loss), (error, other) = here_and_there(first, second)
    assert isinstance(own, KeyboardInterrupt) and isinstance(error, PeerStopped) and error.interrupted and loss == other


@pytest.mark.parametrize("fails", [False, True], ids=["the step is done", "the step fails"])
def test_a_signal_in_a_step_of_ones_own_comes_after_it(fails):
    def raises(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, raises)
    try:

        def first(comm):
            trainer = user_trainer_of(comm)
            return saw(lambda: trainer.step((X[:4, :7], W[:4]))), trainer.step_count

        def second(comm):
            def sends(params, batch):
                if not trainer.step_count:
                    end = time.monotonic() + 50
                    while signal.getsignal(signal.SIGINT) is raises and time.monotonic() < end:
                        time.sleep(0.001)
                    os.kill(os.getpid(), signal.SIGINT)
                    if fails:
                        raise ZeroDivisionError
                return squares(params, batch)

            trainer = user_trainer_of(comm, sends)
            errors = [saw(lambda: trainer.step((X[:4, :7], W[:4]))) for _ in range(1 if fails else 2)]
            return errors, trainer.step_count

        (own, steps), (errors, also) = here_and_there(first, second)
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(own, KeyboardInterrupt) and steps == also == (0 if fails else 1)
    assert isinstance(errors[-1], ZeroDivisionError if fails else PeerStopped)
    assert fails or errors[0] is None


class Remembers(gr.callbacks.Callback):
    def state_dict(self):
        return {"seen": 1}

    def load_state_dict(self, state):
        assert state == {"seen": 1}


def misses_the_file(trainer, rank, folder):
    trainer.fit((X, Y), resume=folder / ("none" if rank else "file"), verbose=0)


def has_no_checkpoint(trainer, rank, folder):
    callbacks = [] if rank else [gr.callbacks.Checkpoint(folder / "new")]
    trainer.fit((X, Y), resume="auto", callbacks=callbacks, verbose=0)


def has_other_callbacks(trainer, rank, folder):
    trainer.fit((X, Y), resume=folder / "file", callbacks=[] if rank else [Remembers()], verbose=0)


def has_no_validation(trainer, rank, folder):
    trainer.fit((X, Y), validate=None if rank else (X, Y), verbose=0)


@pytest.mark.parametrize("fit", [misses_the_file, has_no_checkpoint, has_other_callbacks, has_no_validation])
def test_an_error_before_the_run_is_told(fit, tmp_path):
    waits = gr.optim.schedule.plateau(0.1, monitor="val_loss") if fit is has_no_validation else 0.1
    one = trainer_of(optimizer=gr.optim.SGD(waits))
    one.fit((X, Y), validate=(X, Y), callbacks=[Remembers()], verbose=0)
    one.save(tmp_path / "file")

    def body(comm):
        trainer = trainer_of(comm, optimizer=gr.optim.SGD(waits))
        return saw(lambda: fit(trainer, comm.rank, tmp_path)), trainer.step(X[:4], Y[:4])

    (first, loss), (second, own) = on_ranks(2, body)
    assert isinstance(first, PeerStopped) and first.rank == 1 and loss == own
    assert isinstance(second, (FileNotFoundError, ValueError, gr.errors.CheckpointMismatch)), second


@pytest.mark.parametrize("make", [trainer_of, user_trainer_of], ids=["model", "step"])
def test_another_optimizer_is_one_of_all_ranks(make):
    def body(comm):
        trainer = make(comm)
        x = X[:4] if make is trainer_of else X[:4, :7]
        y = Y[:4] if make is trainer_of else W[:4]

        def assign(optimizer):
            trainer.optimizer = optimizer

        def step():
            return trainer.step(x, y)

        errors = [
            saw(lambda: assign(gr.optim.SGD(0.1 + comm.rank))),
            saw(lambda: assign(gr.optim.SGD(lambda step: 0.1 / (1 + step + comm.rank)))),
            saw(lambda: assign(gr.optim.AdamW(0.5)) if comm.rank else step()),
            saw(lambda: assign(3 if comm.rank else gr.optim.SGD(0.1))),
        ]
        step()
        return errors, step(), repr(trainer.optimizer), trainer.step_count

    found = on_ranks(2, body)
    assert found[0][1:] == found[1][1:] and "AdamW" in found[0][2]
    for other, rates, mismatch, _ in (found[0][0], found[1][0]):
        assert isinstance(other, ValueError) and "optimizer is SGD" in str(other)
        assert isinstance(rates, ValueError) and "learning rate is 0.05, " in str(rates)
        assert isinstance(mismatch, gr.CollectiveMismatch) and "assigns an optimizer" in str(mismatch)
    assert isinstance(found[0][0][3], PeerStopped) and isinstance(found[1][0][3], TypeError)


@pytest.mark.parametrize("make", [trainer_of, user_trainer_of], ids=["model", "step"])
def test_schedules_that_are_functions_of_other_rates_are_named(make):
    def body(comm):
        late = 100 + comm.rank  # the first update in which they differ
        return saw(lambda: make(comm, optimizer=gr.optim.SGD(lambda step: 0.1 if step < late else 0.01)))

    for error in on_ranks(2, body):
        assert isinstance(error, ValueError) and "learning rate is" in str(error)


def test_balanced_classes_are_those_of_all_ranks():
    order = np.argsort(Y, kind="stable")  # each rank has few classes

    def body(comm):
        own = order[:50] if comm.rank == 0 else order[50:]
        trainer = trainer_of(comm, class_weight="balanced")
        trainer.fit((X[own], Y[own]), epochs=2, batch_size=8, verbose=0)
        return trainer.session.class_weights

    expected = tuple(balanced(np.bincount(Y).tolist()).values())
    assert on_ranks(2, body) == [expected, expected]


def test_the_place_after_a_dropped_group_is_before_it():
    def body(comm):
        source = Batches(5, OSError()) if comm.rank else Batches()
        trainer = trainer_of(comm, accumulate=3)
        error = saw(lambda: trainer.fit(source, verbose=0))
        state = trainer.state_dict()
        return type(error), state["batch"], state["pending"], state["sums"], trainer.step_count

    (first, *found), (second, *also) = on_ranks(2, body)
    assert first is PeerStopped and second is OSError and found == also
    batch, pending, sums, steps = found
    assert batch == 3 and pending == 0 and steps == 1 and sums[3] == 24 and sums[:4] == sums[4:]


class FailsToStart(gr.callbacks.Callback):
    def on_fit_start(self, run):
        raise ZeroDivisionError


def test_a_run_that_fails_before_its_epoch_keeps_what_the_file_has_measured(tmp_path):
    one, whole = trainer_of(accumulate=3), trainer_of(accumulate=3)
    assert isinstance(saw(lambda: one.fit(Batches(5, KeyboardInterrupt()), verbose=0)), KeyboardInterrupt)
    assert isinstance(saw(lambda: whole.fit(Batches(3, KeyboardInterrupt()), verbose=0)), KeyboardInterrupt)
    assert one.state_dict()["pending"] == 2
    one.save(tmp_path / "file")

    def body(comm):
        trainer = trainer_of(comm, accumulate=3)
        callbacks = [FailsToStart()]
        error = saw(lambda: trainer.fit(Batches(), resume=tmp_path / "file", callbacks=callbacks, verbose=0))
        state = trainer.state_dict()
        return type(error), state["batch"], state["pending"], state["sums"][:4]

    for error, *found in on_ranks(2, body):
        assert error is ZeroDivisionError and found == [3, 0, whole.state_dict()["sums"][:4]]


def test_a_warning_names_the_line_of_the_user(tmp_path):
    trainer_of(shards=2, replicas=1).save(tmp_path / "file")
    calls = [
        lambda: trainer_of().load(tmp_path / "file"),
        lambda: trainer_of().fit((X, Y), resume=tmp_path / "file", verbose=0),
        lambda: trainer_of().load_state_dict(trainer_of(shards=2, replicas=1).state_dict()),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="shards=2") as found:
            call()
        assert [warning.filename for warning in found] == [__file__]


def test_a_rank_that_is_left_evaluates_all_samples():
    def body(comm):
        trainer = trainer_of(comm)
        trainer.step(X[PARTS[comm.rank]], Y[PARTS[comm.rank]])
        if comm.rank == 1:
            return None
        saw(lambda: trainer.evaluate((X, Y)))
        return trainer.evaluate((X, Y))["loss"], trainer.evaluate([(X, Y)])["loss"]

    loss, whole = on_ranks(2, body, timeout=1.0)[0]
    assert abs(loss - whole) <= 1e-6 * whole > 0


def test_an_evaluation_without_a_batch_on_any_rank_is_refused():
    for error in on_ranks(2, lambda comm: saw(lambda: trainer_of(comm).evaluate(Batches(0)))):
        assert isinstance(error, ValueError) and "gave no batch" in str(error)
