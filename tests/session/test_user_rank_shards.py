"""Trainer(step=fn, comm=, shards=, replicas=): the same bits for any number of ranks, and those of one process. Ranks are
threads here; tests/faults/test_training.py has processes."""

import threading

import numpy as np
import pytest

import gradring as gr

from .test_ranks import on_ranks, saw
from .test_user_replicas import X, Y, regression

OPTIONS = [{}, {"accumulate": 3, "clip_norm": 0.1}, {"optimizer": gr.optim.SGD(0.05, momentum=0.9)}]


def trainer_of(comm=None, function=regression, **options):
    first = 0 if comm is None else comm.rank
    params = {"w": np.full((4, 2), 1 + first, np.float32), "b": np.zeros(2, np.float32)}  # those of rank 0 win
    return gr.Trainer(
        step=function, params=params, comm=comm, shards=8, **{"optimizer": gr.optim.AdamW(1e-2), **options}
    )


def everything(made):
    state = made.state_dict()
    arrays = {**state["params"], **state["optimizer"], **state.get("gradients", {})}
    metrics = {name: values for name, values in made.history.metrics.items() if name != "seconds"}
    return {name: array.tobytes() for name, array in arrays.items()}, made.step_count, metrics


def trained(ranks, body):
    """What ``body(comm)`` returns, which is the same on all ranks; ``ranks`` 0 means one process without ranks."""

    def each(comm):
        found = body(comm)
        comm.barrier()
        return found

    found = on_ranks(ranks, each) if ranks else [body(None)]
    assert all(one == found[0] for one in found)
    return found[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bits_do_not_depend_on_the_number_of_ranks(options):
    """51 rows make 3 batches of 16 and one of 3, in which a rank of 4 has no row."""

    def body(comm, replicas=1):
        made = trainer_of(comm, replicas=replicas, **options)
        loader = gr.Loader((X[:51], Y[:51]), global_batch=16, shuffle=True, seed=2)
        made.fit(loader, epochs=4, validate=gr.Loader((X, Y), global_batch=16), verbose=0)
        return everything(made)

    one = trained(0, body)
    assert one[1] >= 4
    for ranks, replicas in ((1, 4), (2, 1), (4, 1), (2, 2), (4, 2)):
        assert trained(ranks, lambda comm, replicas=replicas: body(comm, replicas)) == one


def test_fifty_updates_on_eight_ranks():
    def body(comm):
        made = trainer_of(comm, accumulate=3, clip_norm=0.3)
        made.fit(gr.Loader((X, Y), global_batch=16, shuffle=True, seed=1), epochs=26, verbose=0)
        return everything(made)

    one = trained(0, body)
    assert one[1] >= 50 and trained(8, body) == one


@pytest.mark.parametrize("rows", [3, 16])
def test_steps_and_batches_by_hand(rows):
    batches = [slice(begin, begin + rows) for begin in range(0, 48, rows)][:3]

    def body(comm):
        made, size, rank = trainer_of(comm), 1 if comm is None else comm.size, 0 if comm is None else comm.rank
        mine = [slice(b.start + rows * rank // size, b.start + rows * (rank + 1) // size) for b in batches]
        losses = [made.step(X[each], Y[each]) for each in mine]
        made.fit([(X[each], Y[each]) for each in mine], epochs=1, verbose=0)
        losses.append(made.step({"x": X[mine[0]], "y": Y[mine[0]]}))
        return losses, everything(made)

    one = trained(0, body)
    for ranks in (2, 4):
        assert trained(ranks, body) == one


def test_a_rank_whose_rows_are_not_its_block_is_named():
    def body(comm):
        made = trainer_of(comm)
        errors = [saw(lambda: made.step(X[: 8 + 2 * comm.rank], Y[: 8 + 2 * comm.rank]))]
        errors.append(saw(lambda: made.fit([(X[:8], Y[:8])] * (2 - comm.rank), verbose=0)))
        errors.append(saw(lambda: made.step(X[:0], Y[:0])))
        return [str(error) for error in errors], made.step(X[:8], Y[:8]), made.step_count

    errors, _, steps = trained(2, body)
    assert "rank 0 has 8 rows of a batch of 18: must be 9" in errors[0]
    assert "rank 0 has 8 rows of a batch of 8: must be 4" in errors[1]
    assert "no rows on any rank" in errors[2] and steps == 2


def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path):
    """In the middle of a group of accumulated batches."""
    path = tmp_path / "shards.safetensors"

    def steps(made, numbers, comm):
        size, rank = (1, 0) if comm is None else (comm.size, comm.rank)
        for begin in (16 * number for number in numbers):
            mine = slice(begin + 16 * rank // size, begin + 16 * (rank + 1) // size)
            made.step(X[mine], Y[mine])
        return made

    def first(comm):
        made = steps(trainer_of(comm, accumulate=3), range(2), comm)
        made.save(path)
        return everything(steps(made, range(2, 3), comm))

    def second(comm):
        made = trainer_of(comm, accumulate=3)
        made.load(path)
        assert made.state_dict()["pending"] == 2
        return everything(steps(made, range(2, 3), comm))

    whole = trained(0, first)
    for saving in (0, 2, 4):
        assert trained(saving, first) == whole
        for loading in (0, 2, 4):
            assert trained(loading, second) == whole


def found_by_rank_1(comm, spoil):
    """The error of the second step, in which ``spoil`` changes what rank 1 returns, and whether all is as before."""

    def odd(params, batch):
        loss, grads = regression(params, batch)
        return spoil(loss, grads) if comm.rank == 1 and made.step_count == 1 else (loss, grads)

    made = trainer_of(comm, odd)
    mine = slice(8 * comm.rank, 8 * comm.rank + 8)
    made.step(X[mine], Y[mine])
    before = everything(made)
    return saw(lambda: made.step(X[mine], Y[mine])), everything(made) == before


@pytest.mark.parametrize(
    "spoil, kinds",
    [
        (lambda loss, grads: (np.nan, grads), [gr.PeerStopped, gr.NonFinite]),
        (lambda loss, grads: (loss, {**grads, "w": np.full_like(grads["w"], np.inf)}), [gr.NonFinite, gr.NonFinite]),
        (lambda loss, grads: (loss, {"w": grads["w"]}), [gr.PeerStopped, ValueError]),
    ],
    ids=["loss", "gradient", "missing"],
)
def test_what_one_rank_finds_stops_all_alike(spoil, kinds):
    found = on_ranks(2, lambda comm: found_by_rank_1(comm, spoil))
    assert [type(error) for error, _ in found] == kinds and all(same for _, same in found)
    if kinds[1] is ValueError:
        assert "part 4 of the batch" in str(found[1][0]) and "missing ['b']" in str(found[1][0])


def test_losses_whose_sum_alone_is_infinite_stop_all_alike():
    def body(comm, size=1):
        large = {"w": np.zeros((4, 2), np.float32), "b": np.zeros(2, np.float32)}
        made = trainer_of(comm, lambda params, batch: (1.5e308, large))
        mine = slice(0, 16 // size)
        return str(saw(lambda: made.step(X[mine], Y[mine]))), made.step_count

    one = trained(0, body)
    assert "loss of step 0 is inf" in one[0] and one[1] == 0
    assert trained(2, lambda comm: body(comm, 2)) == one


def test_replicas_of_ranks_call_the_function_from_threads():
    def body(comm):
        meeting = threading.Barrier(2, timeout=60)

        def step(params, batch):
            meeting.wait()  # both threads of this rank are inside
            return regression(params, batch)

        params = {"w": np.ones((4, 2), np.float32), "b": np.zeros(2, np.float32)}
        made = gr.Trainer(step=step, params=params, optimizer=gr.optim.SGD(0.1), replicas=2, comm=comm)
        mine = slice(0, 9) if comm.rank == 0 else slice(9, 20)
        return made.step(X[mine], Y[mine]), params["w"].copy()

    (loss, w), (other, same) = on_ranks(2, body)
    params = {"w": np.ones((4, 2), np.float32), "b": np.zeros(2, np.float32)}
    one = gr.Trainer(step=regression, params=params, optimizer=gr.optim.SGD(0.1))
    assert loss == other == pytest.approx(one.step(X[:20], Y[:20]), rel=1e-6) and np.array_equal(w, same)
    assert np.abs(w - params["w"]).max() < 1e-6


def test_evaluations_read_every_sample_once_and_in_order():
    """Also with a loader that shuffles and drops the last batch."""
    loader = gr.Loader((X, Y), global_batch=16, shuffle=True, drop_last=True)
    seen = []

    def body(comm):
        def step(params, batch):
            seen.extend(batch[0][:, 0].tolist())
            return regression(params, batch)

        return trainer_of(comm, step).evaluate(loader)["loss"]

    one = trained(0, body)
    assert seen == X[:, 0].tolist()
    for ranks in (2, 4, 8):
        seen.clear()
        assert trained(ranks, body) == one and sorted(seen) == sorted(X[:, 0].tolist())


def test_ranks_that_make_different_trainers_or_have_other_samples_are_told():
    def body(comm):
        params = {"w": np.zeros((4, 2), np.float32), "b": np.zeros(2, np.float32)}
        shards = 4 if comm.rank else 8
        error = saw(lambda: gr.Trainer(step=regression, params=params, comm=comm, shards=shards))
        made = trainer_of(comm)
        rows = 48 - 8 * comm.rank
        return str(error), str(saw(lambda: made.evaluate((X[:rows], Y[:rows]))))

    error, other = trained(2, body)
    assert "shards is 4 on rank 1 and 8 on rank 0" in error and "samples of the ranks differ" in other
