"""Batch norm needs two rows of a batch. A rank does not know how many rows the others have, so all ranks find it together."""

import numpy as np
import pytest

import gradring as gr
from helpers import snapshot

from .test_ranks import on_ranks, saw

RNG = np.random.default_rng(48)
X = RNG.standard_normal((40, 7)).astype(np.float32)
Y = RNG.integers(0, 4, 40)


def trainer_of(comm, **options):
    layers = gr.nn.Linear(7, 9), gr.nn.BatchNorm1d(9), gr.nn.ReLU(), gr.nn.Linear(9, 4)
    return gr.Trainer(gr.nn.Sequential(*layers).init(2), optimizer=gr.optim.AdamW(1e-2), comm=comm, **options)


OPTIONS = [{}, {"replicas": 2}, {"accumulate": 2}, {"clip_norm": 0.1}, {"nonfinite": "ignore"}, {"shards": 4}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_last_batch_of_one_row_is_the_same_error_on_all_ranks(options):
    """33 samples make 2 batches of 16 rows and one of 1, of which the other ranks have none."""

    def body(comm):
        made = trainer_of(comm, **options)
        data = gr.Loader((X[:33], Y[:33]), global_batch=16)
        made.fit(gr.Loader((X[:32], Y[:32]), global_batch=16), verbose=0)
        before = made.step_count, snapshot(made)
        comm.barrier()
        error = saw(lambda: made.fit(data, verbose=0))
        comm.barrier()
        after = made.step_count, snapshot(made)
        made.fit(gr.Loader((X[:32], Y[:32]), global_batch=16), verbose=0)  # they can train again
        comm.barrier()
        return type(error), str(error), before[0], after, made.step_count, snapshot(made)

    for ranks in (2, 4):
        found = on_ranks(ranks, body)
        assert all(one == found[0] for one in found)
        kind, text, before, (steps, _), last, _ = found[0]
        assert kind is ValueError and "training needs at least 2 rows" in text and "drop_last=True" in text
        assert "shards" in options or ("1.BatchNorm1d(9)" in text and "no parameter was changed by this batch" in text)
        each = 2 // options.get("accumulate", 1)
        assert before == each and steps == 2 * each and last == 3 * each


@pytest.mark.parametrize("alone", [0, 1])
def test_a_batch_of_one_row_that_python_makes_changes_nothing_on_any_rank(alone):
    def body(comm, disturbed):
        made = trainer_of(comm)
        batches = [(X[:4], Y[:4])] * 2 + [(X[:1], Y[:1])] * (disturbed and comm.rank == alone)
        error = saw(lambda: made.fit(Batches(batches), verbose=0))
        comm.barrier()
        arrays = {name: array.tobytes() for name, array in (*made.params.items(), *made.buffers.items())}
        comm.barrier()
        return str(error), arrays, made.step_count

    (_, *whole), _ = on_ranks(2, lambda comm: body(comm, False))
    for error, *found in on_ranks(2, lambda comm: body(comm, True)):
        assert "batch 2 of all ranks has 1 row" in error and found == whole


class Batches:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_single_rows_of_ranks_are_a_batch_and_have_moments():
    """The running moments are those of both rows, as of two replicas with a row each."""

    def body(comm):
        made = trainer_of(comm)
        for row in range(0, 8, 2):
            mine = slice(row + comm.rank, row + comm.rank + 1)
            made.step(X[mine], Y[mine])
        comm.barrier()
        return snapshot(made)

    made = trainer_of(None, replicas=2)
    for row in range(0, 8, 2):
        made.step(X[row : row + 2], Y[row : row + 2])
    assert on_ranks(2, body) == [snapshot(made)] * 2
    with pytest.raises(ValueError, match="training needs at least 2 rows"):
        made.step(X[:1], Y[:1])
