"""Replicas in each rank of a communicator: ranks and replicas are one group. Ranks are threads here, and processes in
tests/faults/test_replicas.py."""

import numpy as np
import pytest

import gradring as gr
from helpers import snapshot

from . import test_shards
from .test_rank_shards import fitted, trained
from .test_ranks import OPTIONS, W, X, Y, arrays, copies, difference, on_ranks, same, saw, trainer_of
from .test_shards import everything


@pytest.mark.parametrize("options", test_shards.OPTIONS, ids=str)
def test_with_shards_the_bits_do_not_depend_on_ranks_and_replicas(options):
    one = everything(fitted(test_shards.trainer(1, **options)))
    for ranks, replicas in ((2, 2), (4, 2), (2, 4)):

        def body(comm, replicas=replicas):
            return everything(fitted(test_shards.trainer(replicas, comm=comm, threads=replicas, **options)))

        assert trained(ranks, body) == one


def test_fifty_updates_with_everything_at_once():
    options = {"accumulate": 3, "clip_norm": 0.3, "threads": 2}
    one = fitted(test_shards.trainer(1, **options), epochs=25, data=(X, Y, W))
    assert one.step_count >= 50

    def body(comm):
        return everything(fitted(test_shards.trainer(2, comm=comm, **options), epochs=25, data=(X, Y, W)))

    assert trained(2, body) == everything(one)


@pytest.mark.parametrize(("ranks", "replicas"), [(2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_steps_have_the_bits_of_as_many_replicas_of_one_process(ranks, replicas, options):
    def body(comm):
        trainer = trainer_of(comm, replicas=replicas, **options)
        losses = []
        for begin in range(0, 84, 12):
            mine = slice(begin + 12 * comm.rank // ranks, begin + 12 * (comm.rank + 1) // ranks)
            losses.append(trainer.step(X[mine], Y[mine]))
        comm.barrier()
        return losses, copies(trainer), trainer.step_count

    whole = trainer_of(replicas=ranks * replicas, **options)
    losses = [whole.step(X[begin : begin + 12], Y[begin : begin + 12]) for begin in range(0, 84, 12)]
    for theirs, found, steps in on_ranks(ranks, body):
        assert theirs == losses and same(found, arrays(whole)) and steps == whole.step_count


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"accumulate": 3}, {"clip_norm": 0.1}], ids=str)
def test_epochs_with_uneven_and_missing_batches_are_those_of_one_process(options):
    """103 samples in batches of 48 leave batches of 4 and 3 rows for the ranks, of which some replicas get none."""

    def body(comm):
        trainer = trainer_of(comm, replicas=4, **options)
        loader = gr.Loader((X, Y, W), global_batch=48, shuffle=True, seed=5)
        history = trainer.fit(loader, epochs=3, validate=(X[:31], Y[:31]), verbose=0)
        comm.barrier()
        return history.metrics, copies(trainer), trainer.step_count

    one = trainer_of(**options)
    history = one.fit(gr.Loader((X, Y, W), 48, shuffle=True, seed=5), epochs=3, validate=(X[:31], Y[:31]), verbose=0)
    for metrics, found, steps in on_ranks(2, body):
        assert difference(found, arrays(one)) < 1e-11 and steps == one.step_count
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert metrics[name] == pytest.approx(history.metrics[name], rel=1e-11), name


@pytest.mark.parametrize(("ranks", "replicas"), [(2, 4), (4, 2), (2, 8), (8, 2)])
def test_each_replica_reads_rows_that_it_has_filled(ranks, replicas):
    """A replica does not wait for what another one fills. Of few rows, a cut among the replicas of one rank has other bounds
    than the cut among those of all ranks."""

    def history(comm=None, replicas=1):
        found = []
        for rows in (3, 5, 11, 13, 21, 43):
            made = test_shards.trainer(replicas, 16, norm=False, comm=comm, threads=replicas)
            data = X[:rows].astype(np.float32), Y[:rows]
            made.fit(gr.Loader(data, global_batch=48, shuffle=True), epochs=6, verbose=0)
            found.append(everything(made))
        return found

    assert trained(ranks, lambda comm: history(comm, replicas)) == history()


def test_a_rank_whose_source_ends_early_takes_part_without_rows():
    def body(comm):
        trainer = trainer_of(comm, replicas=2, accumulate=2)
        mine = (X[:60], Y[:60]) if comm.rank == 0 else (X[60:71], Y[60:71])
        trainer.fit(gr.Loader(mine, 10, rank=0, world_size=1), epochs=2, verbose=0)
        trainer.fit([(mine[0][i : i + 5], mine[1][i : i + 5]) for i in range(0, len(mine[0]), 5)], verbose=0)
        comm.barrier()
        return copies(trainer), trainer.step_count

    (first, steps), (second, same_there) = on_ranks(2, body)
    assert same(first, second) and steps == same_there == 3 * 2 + 6


def test_batches_of_one_row():
    def body(comm):
        trainer = trainer_of(comm, replicas=2)
        losses = [
            trainer.step(X[i + comm.rank : i + comm.rank + 1], Y[i + comm.rank : i + comm.rank + 1]) for i in (0, 2)
        ]
        comm.barrier()
        return losses, copies(trainer)

    one = trainer_of()
    losses = [one.step(X[i : i + 2], Y[i : i + 2]) for i in (0, 2)]
    for theirs, found in on_ranks(2, body):
        assert theirs == pytest.approx(losses, rel=1e-12) and difference(found, arrays(one)) < 1e-11


@pytest.mark.parametrize("shards", [None, 8])
def test_a_fault_names_the_sample_on_its_rank_and_all_go_on(shards):
    y = Y.copy()
    y[37] = 77

    def body(comm):
        made = test_shards.trainer(2, shards, norm=False, comm=comm)
        loader = gr.Loader((X, y), global_batch=24, shuffle=True, seed=5)
        error = saw(lambda: made.fit(loader, verbose=0))
        before = made.step_count
        comm.barrier()
        whole = snapshot(made)
        comm.barrier()
        made.fit(gr.Loader((X, Y), global_batch=24, shuffle=True, seed=5), verbose=0)
        comm.barrier()
        return str(error), before, whole, made.step_count, snapshot(made)

    found = on_ranks(2, body)
    assert sum("sample 37" in text for text, *_ in found) == 1
    assert all("found a label that is out of range" in text for text, *_ in found if "sample 37" not in text)
    assert found[0][1:] == found[1][1:] and found[0][3] == found[0][1] + 5


@pytest.mark.parametrize("fault", ["nan", "sum"])
def test_a_number_that_is_not_finite_stops_all_before_anything_changes(fault):
    """An infinity that only the sum of all planes has, or a NaN on one rank."""

    def body(comm):
        layer = gr.nn.Linear(4, 3, bias=False)
        net = gr.nn.Sequential(layer).init(3)
        made = gr.Trainer(net, "mse", optimizer=gr.optim.SGD(0.1), comm=comm, replicas=2, metrics=())
        size = 1e19 if fault == "sum" else 1.0
        x = np.full((4, 4), size, np.float32)
        y = np.full((4, 3), -size, np.float32)
        if fault == "nan" and comm.rank == 1:
            x[3, 0] = np.nan
        before = made.params["0.weight"].copy()
        error = saw(lambda: made.step(x, y))
        unchanged = np.array_equal(before, made.params["0.weight"]) and made.step_count == 0
        comm.barrier()
        return type(error), unchanged, made.step(np.ones_like(x), np.zeros_like(y))

    for kind, unchanged, loss in on_ranks(2, body):
        assert kind is gr.NonFinite and unchanged and np.isfinite(loss)


def test_an_error_on_one_rank_is_told_to_the_other_and_both_go_on():
    def body(comm):
        trainer = trainer_of(comm, replicas=2)
        error = saw(lambda: trainer.step(X[:4] if comm.rank == 0 else X[:4, :5], Y[:4]))
        return error, trainer.step(X[:4], Y[:4]), trainer.step_count

    (first, loss, steps), (second, *same_there) = on_ranks(2, body)
    assert isinstance(first, gr.errors.PeerStopped) and isinstance(second, ValueError) and [loss, steps] == same_there


@pytest.mark.parametrize("shards", [None, 8])
def test_a_checkpoint_goes_on_with_another_division(tmp_path, shards):
    """In the middle of a group of accumulated batches."""
    path, options = tmp_path / "state.safetensors", {"accumulate": 3, "clip_norm": 0.5, "norm": False}
    batches = [slice(begin, begin + 16) for begin in range(0, 80, 16)]

    def stepped(made, of, size=1, rank=0):
        for each in of:
            mine = slice(each.start + 16 * rank // size, each.start + 16 * (rank + 1) // size)
            made.step(X[mine], Y[mine])
        return made

    whole = snapshot(stepped(test_shards.trainer(4, shards, **options), batches))

    def first(comm):
        stepped(test_shards.trainer(2, shards, comm=comm, **options), batches[:2], comm.size, comm.rank).save(path)

    def then(comm):
        made = test_shards.trainer(4 // comm.size, shards, comm=comm, **options)
        made.load(path)
        return snapshot(stepped(made, batches[2:], comm.size, comm.rank))

    on_ranks(2, first)
    for ranks in (2, 4):
        assert trained(ranks, then) == whole


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norm_has_the_bits_of_replicas(accumulate):
    def steps(made, first, past):
        for begin in range(0, 60, 20):
            made.step(
                X[begin + 20 * first // 4 : begin + 20 * past // 4], Y[begin + 20 * first // 4 : begin + 20 * past // 4]
            )
        return snapshot(made)

    whole = steps(test_shards.trainer(4, None, accumulate=accumulate), 0, 4)

    def body(comm):
        made = test_shards.trainer(2, None, comm=comm, accumulate=accumulate)
        return steps(made, 2 * comm.rank, 2 * comm.rank + 2)

    assert trained(2, body) == whole


def test_a_function_in_python_runs_on_the_replicas_of_all_ranks():
    def net():
        double = gr.nn.Function(lambda x: 2 * x, lambda g, x, y: 2 * g)
        return gr.nn.Sequential(gr.nn.Linear(12, 8), double, gr.nn.Linear(8, 5)).init(3)

    def steps(made, first, past):
        return [made.step(X[begin + first : begin + past], Y[begin + first : begin + past]) for begin in (0, 8, 16)]

    whole = steps(gr.Trainer(net(), optimizer=gr.optim.SGD(0.1), replicas=4, dtype="float64"), 0, 8)

    def body(comm):
        made = gr.Trainer(net(), optimizer=gr.optim.SGD(0.1), replicas=2, dtype="float64", comm=comm)
        return steps(made, 4 * comm.rank, 4 * comm.rank + 4)

    assert on_ranks(2, body) == [whole] * 2


def test_an_assigned_optimizer_and_the_plan():
    def body(comm):
        made = trainer_of(comm, replicas=2)
        mine = slice(6 * comm.rank, 6 * comm.rank + 6)
        made.step(X[mine], Y[mine])
        made.optimizer = gr.optim.SGD(0.1, momentum=0.9)
        losses = [made.step(X[mine], Y[mine]) for _ in range(3)]
        made.reset(7)
        return losses, str(made.plan()).count("sum_planes"), made.step(X[mine], Y[mine])

    whole = trainer_of(replicas=4)
    whole.step(X[:12], Y[:12])
    whole.optimizer = gr.optim.SGD(0.1, momentum=0.9)
    losses = [whole.step(X[:12], Y[:12]) for _ in range(3)]
    whole.reset(7)
    after = whole.step(X[:12], Y[:12])
    for found, sums, loss in on_ranks(2, body):
        assert found == losses and sums > 0 and loss == after


def test_other_replicas_on_another_rank_are_named():
    def body(comm):
        return saw(lambda: trainer_of(comm, replicas=1 + comm.rank))

    for error in on_ranks(2, body):
        assert isinstance(error, ValueError) and "replicas is 2 on rank 1 and 1 on rank 0" in str(error)


def test_shards_that_the_ranks_and_replicas_cannot_divide_are_refused():
    def body(comm):
        return saw(lambda: test_shards.trainer(3, comm=comm))

    for error in on_ranks(2, body):
        assert isinstance(error, ValueError)
        assert "shards is 8, comm has 2 ranks of 3 replicas, which are 6: must divide shards" in str(error)
