"""What ends a training of ranks: a fault, an exception, a stop, or another call on one of them. All ranks stop after the same
update, and can go on."""

import re
import sys

import numpy as np
import pytest

import gradring as gr

from .test_ranks import X, Y, arrays, copies, difference, on_ranks, same, saw, trainer_of


def test_a_fault_on_one_rank_stops_all_and_changes_nothing():
    def body(comm):
        trainer = trainer_of(comm)
        trainer.step(X[:8], Y[:8])
        before, errors = copies(trainer), []
        bad = Y[:8].copy()
        x = X[:8].copy()
        if comm.rank == 1:
            bad[3], x[2, 1] = 9, np.nan
        errors.append(saw(lambda: trainer.step(X[:8], bad)))
        errors.append(saw(lambda: trainer.step(x, Y[:8])))
        comm.barrier()
        unchanged = same(before, copies(trainer))
        comm.barrier()
        return errors, unchanged, trainer.step(X[:8], Y[:8]), trainer.step_count

    (first, unchanged, loss, steps), (second, too, own, _) = on_ranks(2, body)
    assert unchanged and too and loss == own and steps == 2
    assert isinstance(first[0], ValueError) and "rank 1 found a label that is out of range" in str(first[0])
    assert isinstance(second[0], ValueError) and "9" in str(second[0])
    assert isinstance(first[1], gr.NonFinite) and "rank 1 found a loss that is NaN" in str(first[1])
    assert isinstance(second[1], gr.NonFinite) and "rank" not in str(second[1])


def test_an_infinity_that_only_the_sum_has_is_found_by_all_alike():
    def body(comm):
        net = gr.nn.Sequential(gr.nn.Linear(1, 1, bias=False)).init(0)
        trainer = gr.Trainer(net, gr.losses.MSE(reduction="sum"), gr.optim.SGD(0.1), metrics=(), comm=comm)
        trainer.params["0.weight"][...] = 0
        comm.barrier()
        before = copies(trainer)
        x = np.full((1, 1), 1e19, np.float32)
        error = saw(lambda: trainer.step(x, np.full((1, 1), -1e19, np.float32)))
        comm.barrier()
        return error, same(before, copies(trainer))

    for error, unchanged in on_ranks(2, body):
        assert isinstance(error, gr.NonFinite) and unchanged


class FailsAt(gr.callbacks.Callback):
    def __init__(self, epoch, error):
        self.epoch, self.error = epoch, error

    def on_epoch_end(self, run):
        if run.epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt()], ids=repr)
def test_an_exception_on_one_rank_stops_all_after_the_same_update(error):
    def body(comm):
        trainer = trainer_of(comm)
        callbacks = [FailsAt(1, error)] if comm.rank == 1 else []
        found = saw(lambda: trainer.fit((X, Y), epochs=5, batch_size=16, callbacks=callbacks, verbose=0))
        steps, epoch = trainer.step_count, trainer.epoch
        trainer.fit((X, Y), epochs=1, batch_size=16, verbose=0)  # the ranks can go on
        comm.barrier()
        return found, steps, epoch, trainer.step_count

    (other, *first), (own, *second) = on_ranks(2, body)
    assert own is error and first == second and first[1] == 2
    assert isinstance(other, gr.errors.PeerStopped) and other.rank == 1


def test_a_stop_that_one_rank_wants_is_everyones():
    class Stops(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.stop = True

    def body(comm):
        trainer = trainer_of(comm)
        trainer.fit((X, Y), epochs=5, callbacks=[Stops()] if comm.rank == 1 else [], verbose=0)
        return trainer.epoch

    assert on_ranks(2, body) == [1, 1]


@pytest.mark.parametrize("steps", [0, 2])  # only the first step of a shape runs in Python
def test_ranks_that_do_different_things_are_told(steps):
    def body(comm):
        trainer = trainer_of(comm)
        for _ in range(steps):
            trainer.step(X[:4], Y[:4])
        if comm.rank == 0:
            return saw(lambda: trainer.evaluate((X, Y)))
        return saw(lambda: trainer.step(X[:4], Y[:4]))

    first, second = on_ranks(2, body)
    assert isinstance(first, gr.CollectiveMismatch) and "rank 0 evaluates while rank 1 takes a training step" in str(
        first
    )
    assert isinstance(second, gr.CollectiveMismatch) and "rank 1 takes a training step while rank 0 evaluates" in str(
        second
    )


class Evaluates(gr.callbacks.Callback):
    def on_epoch_end(self, run):
        run.trainer.evaluate((X, Y))


def evaluates_at_once(trainer, alone):
    return trainer.evaluate((X, Y)) if alone else trainer.fit((X, Y), epochs=2, verbose=0)


def evaluates_in_a_callback(trainer, alone):
    return trainer.fit((X, Y), epochs=2, callbacks=[Evaluates()] if alone else [], verbose=0)


@pytest.mark.parametrize("call, other", [(evaluates_at_once, "begins fit"), (evaluates_in_a_callback, "ends an epoch")])
def test_a_rank_that_evaluates_while_others_fit_is_named(call, other):
    def body(comm):
        trainer = trainer_of(comm)
        error = saw(lambda: call(trainer, comm.rank == 1))
        steps = trainer.step_count
        return error, steps, trainer.step(X[:4], Y[:4])

    found = on_ranks(3, body)
    for rank, (error, steps, loss) in enumerate(found):
        named = (
            f"rank 1 evaluates while rank [02] {other}" if rank == 1 else f"rank {rank} {other} while rank 1 evaluates"
        )
        assert isinstance(error, gr.CollectiveMismatch) and re.search(named, str(error)), error
        assert (steps, loss) == found[0][1:]


@pytest.mark.parametrize(
    "options, named",
    [
        (lambda rank: {"epochs": 2 + rank}, "the last epoch is 3 on rank 1 and 2 on rank 0"),
        (
            lambda rank: {"epochs": 2, "steps_per_epoch": 3 if rank else None},
            "steps_per_epoch is 3 on rank 1 and None on",
        ),
        (
            lambda rank: {"epochs": 2, "validate": (X, Y) if rank == 0 else None},
            "validate is False on rank 1 and True on",
        ),
    ],
)
def test_runs_of_ranks_that_would_end_apart_are_refused(options, named):
    """A rank that had more to do would wait for the others until its deadline."""

    def body(comm):
        trainer = trainer_of(comm)
        before = copies(trainer)
        error = saw(lambda: trainer.fit((X, Y), batch_size=8, verbose=0, **options(comm.rank)))
        comm.barrier()
        unchanged = same(before, copies(trainer)) and trainer.step_count == 0
        comm.barrier()
        trainer.fit((X, Y), epochs=1, batch_size=8, validate=(X, Y), steps_per_epoch=2, verbose=0)
        return error, unchanged, trainer.step_count

    for error, unchanged, steps in on_ranks(3, body):
        assert isinstance(error, ValueError) and named in str(error)
        assert unchanged and steps == 2


def test_runs_of_ranks_without_an_end_go_on_until_one_stops_them():
    class Stops(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            run.stop = run.epoch >= 2

    def body(comm):
        trainer = trainer_of(comm)
        trainer.fit((X, Y), epochs=1, verbose=0)
        trainer.fit((X, Y), epochs=sys.maxsize, callbacks=[Stops()], verbose=0)
        return trainer.epoch

    assert on_ranks(2, body) == [3, 3]


def test_a_file_that_one_rank_cannot_read_is_loaded_on_none(tmp_path):
    def body(comm):
        trainer = trainer_of(comm)
        trainer.step(X[:4], Y[:4])
        trainer.save(tmp_path / "state.safetensors")
        trainer.step(X[:4], Y[:4])
        comm.barrier()
        before = copies(trainer)
        error = saw(
            lambda: trainer.load(tmp_path / ("state" if comm.rank == 0 else "none") / ".." / "state.safetensors")
        )
        comm.barrier()
        unchanged = same(before, copies(trainer))
        comm.barrier()
        return error, unchanged, trainer.step_count, trainer.step(X[:4], Y[:4])

    (tmp_path / "state").mkdir()
    (first, *rest), (second, *others) = on_ranks(2, body)
    assert isinstance(first, gr.PeerStopped) and first.rank == 1 and isinstance(second, FileNotFoundError)
    assert rest == others and rest[:2] == [True, 2]


@pytest.mark.parametrize("options", [{}, {"replicas": 2}, {"shards": 4}, {"accumulate": 2}], ids=str)
def test_weights_of_one_rank_may_all_be_zero(options):
    """As those of a part of a batch may: what ranks add up is the weight of all."""
    weight = np.where(np.arange(16) < 8, 0.0, np.linspace(0.5, 2, 16))

    def body(comm):
        trainer = trainer_of(comm, **options)
        mine = slice(8 * comm.rank, 8 * comm.rank + 8)
        losses = [trainer.step(X[mine], Y[mine], weight[mine]) for _ in range(4)]
        comm.barrier()
        return losses, copies(trainer), trainer.step_count

    one = trainer_of(**{name: value for name, value in options.items() if name == "accumulate"})
    expected = [one.step(X[:16], Y[:16], weight) for _ in range(4)]
    for losses, found, steps in on_ranks(2, body):
        assert losses == pytest.approx(expected, rel=1e-12) and difference(found, arrays(one)) < 1e-12
        assert steps == one.step_count
