"""The fast path of ``step`` on replicas, on shards, and on replicas of ranks: the bits of the usual way, and its errors."""

import numpy as np
import pytest

import gradring as gr
from helpers import snapshot

from .test_ranks import on_ranks, saw

RNG = np.random.default_rng(49)
X = RNG.standard_normal((64, 12)).astype(np.float32)
Y = RNG.integers(0, 5, 64)
W = RNG.random(64).astype(np.float32) + np.float32(0.1)


def trainer_of(comm=None, **options):
    layers = gr.nn.Linear(12, 33), gr.nn.BatchNorm1d(33), gr.nn.ReLU(), gr.nn.Dropout(0.3), gr.nn.Linear(33, 5)
    return gr.Trainer(gr.nn.Sequential(*layers).init(3), optimizer=gr.optim.AdamW(1e-2), comm=comm, **options)


def steps(made, slowly, mine, weighted=False):
    """Ten steps of two sizes, all of them in the usual way or only the first of each size."""
    step, losses = made._session._step_slowly if slowly else made.step, []
    for number in range(10):
        rows = slice(mine.start, mine.stop - number % 2)
        losses.append(step(X[rows], Y[rows], W[rows]) if weighted else step(X[rows], Y[rows]))
    return losses, made.step_count, snapshot(made)


def counted(monkeypatch, made):
    """Steps in the usual way of a trainer: a list that grows."""
    session, seen = made._session, []
    usual = session._programs.train
    monkeypatch.setattr(session._programs, "train", lambda *given: seen.append(1) or usual(*given))
    return seen


OPTIONS = [
    {"replicas": 2},
    {"replicas": 3, "accumulate": 3},
    {"shards": 4},
    {"replicas": 2, "shards": 8, "clip_norm": 0.2},
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_replicas_and_shards(options, weighted, monkeypatch):
    quick = trainer_of(**options)
    usual = counted(monkeypatch, quick)
    found = steps(quick, False, slice(0, 32), weighted)
    assert found == steps(trainer_of(**options), True, slice(0, 32), weighted)
    assert len(usual) == (10 if weighted else 2)  # the first step of a size plans; weights are for the usual way


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 0.2}], ids=str)
def test_replicas_of_ranks(options):
    def body(comm, slowly):
        made = trainer_of(comm, replicas=2, threads=2, **options)
        found = steps(made, slowly, slice(16 * comm.rank, 16 * comm.rank + 16))
        comm.barrier()
        return found

    quick, slow = on_ranks(2, lambda comm: body(comm, False)), on_ranks(2, lambda comm: body(comm, True))
    assert quick == slow and quick[0] == quick[1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_fault_is_told_as_ever_and_changes_nothing(options):
    made, bad, x = trainer_of(**options), Y.copy(), X.copy()
    bad[7], x[9, 2] = 99, np.nan
    for _ in range(3):
        made.step(X[:16], Y[:16])
    before = snapshot(made)
    with pytest.raises(ValueError, match=r"row 7 \(sample 7\)"):
        made.step(X[:16], bad[:16])
    with pytest.raises(gr.NonFinite):
        made.step(x[:16], Y[:16])
    assert snapshot(made) == before
    assert made.step(X[:16], Y[:16]) > 0


def test_a_fault_of_one_rank_with_replicas_stops_all():
    def body(comm):
        made, bad = trainer_of(comm, replicas=2, threads=2), Y.copy()
        for _ in range(3):
            made.step(X[:16], Y[:16])
        bad[7] = 99 if comm.rank == 1 else bad[7]
        before = snapshot(made)
        comm.barrier()
        error = saw(lambda: made.step(X[:16], bad[:16]))
        comm.barrier()
        same = snapshot(made) == before
        comm.barrier()
        return type(error), str(error), same, made.step(X[:16], Y[:16])

    first, second = on_ranks(2, body)
    assert first[0] is second[0] is ValueError and first[2] and second[2] and first[3] == second[3]
    assert "rank 1 found a label that is out of range" in first[1] and "row 7 (sample 23)" in second[1]
