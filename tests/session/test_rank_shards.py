"""Shards over the ranks of a communicator: the same bits for any number of ranks, and for replicas of one process. Ranks are
threads here; tests/faults/test_training.py has processes."""

import numpy as np
import pytest

import gradring as gr
from helpers import Rows, snapshot

from .test_ranks import on_ranks, saw
from .test_shards import OPTIONS, W, X, Y, everything, trainer


def fitted(made, epochs=2, data=(X, Y), **options):
    """103 rows make 4 batches of 24 and one of 7, which has fewer rows than there are shards."""
    loader = gr.Loader(data, global_batch=24, shuffle=True, seed=5)
    made.fit(loader, epochs=epochs, validate=(X[:50], Y[:50]), verbose=0, **options)
    return made


def trained(ranks, body):
    """What ``body(trainer, comm)`` returns, which is the same on all ranks; ``ranks`` 0 means replicas without ranks."""

    def each(comm):
        made = body(comm)
        comm.barrier()  # until all have read the common parameters
        return made

    found = on_ranks(ranks, each)
    assert all(one == found[0] for one in found)
    return found[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bits_do_not_depend_on_the_number_of_ranks(options):
    one = everything(fitted(trainer(1, **options)))
    for ranks in (2, 8):
        assert trained(ranks, lambda comm: everything(fitted(trainer(1, comm=comm, **options)))) == one


def test_fifty_updates_with_everything_at_once():
    """Dropout, batch norm, clipping, AdamW, groups of three batches, weights, and a last batch of 7 rows: 5 batches, and so
    2 updates, per epoch."""
    options = {"accumulate": 3, "clip_norm": 0.3}
    one = fitted(trainer(2, **options), epochs=25, data=(X, Y, W))
    assert one.step_count >= 50
    for ranks in (2, 8):

        def body(comm):
            return everything(fitted(trainer(1, comm=comm, threads=1, **options), epochs=25, data=(X, Y, W)))

        assert trained(ranks, body) == everything(one)


@pytest.mark.parametrize("rows", [7, 16])
def test_steps_by_hand(rows):
    """Each rank gives its block of each batch; so does an iterator over batches."""
    batches = [slice(begin, begin + rows) for begin in range(0, 80, rows)][:5]

    def steps(comm):
        made, size, rank = trainer(1, comm=comm), 1 if comm is None else comm.size, 0 if comm is None else comm.rank
        mine = [slice(b.start + rows * rank // size, b.start + rows * (rank + 1) // size) for b in batches]
        losses = [made.step(X[each], Y[each]) for each in mine]
        made.fit([(X[each], Y[each]) for each in mine], epochs=1, verbose=0)
        return losses, everything(made)

    one = steps(None)
    for ranks in (2, 4):
        assert trained(ranks, steps) == one


def test_a_rank_whose_rows_are_not_its_block_is_named():
    def body(comm):
        made = trainer(1, comm=comm)
        made.step(X[:8], Y[:8])
        before = snapshot(made)
        errors = [saw(lambda: made.step(X[: 8 + 2 * comm.rank], Y[: 8 + 2 * comm.rank]))]
        unchanged = before == snapshot(made)
        comm.barrier()
        rest = [(X[:8], Y[:8])] * (2 - comm.rank)  # the batches of rank 1 end early
        errors.append(saw(lambda: made.fit(rest, verbose=0)))
        return [str(error) for error in errors], unchanged, made.step(X[:8], Y[:8]), made.step_count

    (errors, unchanged, *rest), (others, too, *own) = on_ranks(2, body)
    assert errors == others and unchanged and too and rest == own and rest[1] == 3
    assert "rank 0 has 8 rows of a batch of 18: must be 9" in errors[0]
    assert "rank 0 has 8 rows of a batch of 8: must be 4" in errors[1]


def test_faults_are_those_of_the_rank_that_has_the_sample():
    y = Y.copy()
    y[37] = 77

    def body(comm):
        made = trainer(1, comm=comm)
        loader = gr.Loader((X, y), global_batch=24, shuffle=True, seed=5)
        error = saw(lambda: made.fit(loader, verbose=0))
        comm.barrier()
        return str(error), made.step_count, snapshot(made)

    found = on_ranks(4, body)
    assert sum("sample 37" in text for text, *_ in found) == 1
    assert all("found a label that is out of range" in text for text, *_ in found if "sample 37" not in text)
    assert all(one[1:] == found[0][1:] for one in found)


def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path):
    """In the middle of a group of accumulated batches."""
    path, options = tmp_path / "shards.safetensors", {"accumulate": 3, "clip_norm": 0.5}
    batches = [slice(begin, begin + 16) for begin in range(0, 80, 16)]

    def stepped(made, of, size=1, rank=0):
        for each in of:
            mine = slice(each.start + 16 * rank // size, each.start + 16 * (rank + 1) // size)
            made.step(X[mine], Y[mine])
        return made

    whole = snapshot(stepped(trainer(2, **options), batches))

    def first(comm):
        stepped(trainer(1, comm=comm, **options), batches[:2], comm.size, comm.rank).save(path)

    def then(comm):
        made = trainer(1, comm=comm, **options)
        made.load(path)
        return snapshot(stepped(made, batches[2:], comm.size, comm.rank))

    on_ranks(2, first)
    assert trained(4, then) == whole
    again = trainer(1, **options)
    again.load(path)
    assert snapshot(stepped(again, batches[2:])) == whole


def test_shards_that_ranks_cannot_divide_are_refused():
    def body(comm):
        return saw(lambda: trainer(1, comm=comm))

    for error in on_ranks(3, body):
        assert isinstance(error, ValueError) and "shards is 8, comm has 3 ranks: must divide shards" in str(error)


def test_other_shards_on_another_rank_are_named():
    def body(comm):
        return saw(lambda: trainer(1, 8 if comm.rank else 4, comm=comm))

    for error in on_ranks(2, body):
        assert isinstance(error, ValueError) and "shards is 8 on rank 1 and 4 on rank 0" in str(error)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norm_without_shards_has_the_bits_of_replicas(ranks, accumulate):
    """The running moments are merged over all ranks, one of which has a single row in the last batch."""
    size = 10 * ranks

    def steps(made, first, past):
        for begin in range(0, 61 - ranks, size):
            rows = min(size, 61 - begin)
            mine = slice(begin + rows * first // ranks, begin + rows * past // ranks)
            made.step(X[mine], Y[mine])
        return snapshot(made)

    whole = steps(trainer(ranks, None, accumulate=accumulate), 0, ranks)

    def body(comm):
        return steps(trainer(1, None, comm=comm, accumulate=accumulate), comm.rank, comm.rank + 1)

    assert trained(ranks, body) == whole


def test_batch_norm_with_uneven_and_empty_batches():
    """Rank 1 has fewer samples, and then takes part without rows."""

    def body(comm):
        made = trainer(1, None, comm=comm)
        mine = slice(0, 60) if comm.rank == 0 else slice(60, 83)
        made.fit(gr.Loader((X[mine], Y[mine]), 10, rank=0, world_size=1), epochs=2, verbose=0)
        return {name: array.copy() for name, array in made.session.buffers.items()}

    found = trained(2, lambda comm: {name: array.tobytes() for name, array in body(comm).items()})
    mean = np.frombuffer(next(one for name, one in found.items() if "mean" in name), np.float32)
    assert np.isfinite(mean).all() and np.abs(mean).max() > 0


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_divide_the_batches_of_an_evaluation(ranks):
    """Each rank evaluates its share of the batches, and one batch more, which shows that the ranks have the same samples."""

    def net(rows):
        def counted(x):
            rows.append(len(x))
            return x

        same = gr.nn.Function(counted, lambda g, x, y: g)
        return gr.nn.Sequential(gr.nn.Linear(12, 9), same, gr.nn.Linear(9, 5)).init(3)

    def metric(predictions, targets):
        return float((predictions[:, 0].astype(np.float64) * targets).sum())

    def evaluated(comm, source, most):
        rows = []
        made = gr.Trainer(net(rows), shards=8, comm=comm, metrics=["accuracy", metric])
        with made._gate.reading():
            found = made.session.evaluate(made.session.source("test", source, most, shuffle=False, seed=0), most)
        return found, sum(rows) // 2  # the metric predicts each batch, too

    loader = gr.Loader((X, Y), 10, transforms={0: gr.transforms.Scale(0.5)}, num_threads=0)
    # Arrays make at least a batch for each of the 8 shards: 13 rows of 103.
    for source, most, each in (((X, Y, W), 10, 10), (loader, 10, 10), ((X, Y, W), 1024, 13)):
        one, every = evaluated(None, source, most)
        assert every == 103
        for found, rows in on_ranks(ranks, lambda comm, source=source, most=most: evaluated(comm, source, most)):
            assert found == one and rows <= -(-103 // each // ranks) * each + each < 103


@pytest.mark.parametrize("ranks", [2, 4])
def test_metrics_that_are_functions_have_the_bits_of_one_process(ranks):
    """They depend on the order of the rows."""

    def metric(predictions, targets):
        return float((predictions[:, 0].astype(np.float64) * np.arange(len(targets)) * targets).sum())

    options = {"metrics": ["accuracy", metric]}
    one = everything(fitted(trainer(1, **options)))
    assert trained(ranks, lambda comm: everything(fitted(trainer(1, comm=comm, **options)))) == one


@pytest.mark.parametrize("workers", ["threads", "processes", "none"])
@pytest.mark.parametrize("ranks", [2, 8])
def test_loaders_whose_samples_are_no_arrays_in_memory(ranks, workers):
    """103 samples in batches of 24 leave one of 7, of which a rank of 8 has no rows."""

    def loader():
        if workers == "processes":
            rows = gr.sources.Callable(Rows((X * 0.5).astype(np.float32), Y), 103, workers="processes")
            return gr.Loader(rows, global_batch=24, shuffle=True, seed=5)
        flip = {0: gr.transforms.Scale(0.5)}
        threads = 0 if workers == "none" else 2
        return gr.Loader((X, Y), global_batch=24, shuffle=True, seed=5, transforms=flip, num_threads=threads)

    def body(comm):
        made = trainer(1, comm=comm, accumulate=2)
        made.fit(loader(), epochs=2, validate=loader(), verbose=0)
        return everything(made)

    if workers == "processes" and ranks == 8:
        ranks = 4
    assert trained(ranks, body) == body(None)


def test_a_fault_in_a_loaders_batch_names_the_sample_on_its_rank():
    y = Y.copy()
    y[37] = 77

    def body(comm):
        made = trainer(1, comm=comm)
        loader = gr.Loader((X, y), global_batch=24, shuffle=True, seed=5, transforms={0: gr.transforms.Scale(0.5)})
        return str(saw(lambda: made.fit(loader, verbose=0))), made.step_count

    found = on_ranks(4, body)
    assert sum("sample 37" in text for text, _ in found) == 1 and len({steps for _, steps in found}) == 1


def test_samples_that_differ_between_ranks_are_refused_by_evaluate():
    """Each rank evaluates all samples then, so that ranks with other samples would report other losses."""

    def body(comm):
        mine = slice(comm.rank, None, comm.size)
        own = gr.Loader((X[mine], Y[mine]), 16, rank=0, world_size=1)
        made = trainer(1, comm=comm)
        error = saw(lambda: made.evaluate(own))
        return str(error), type(error), made.evaluate((X, Y))

    found = on_ranks(2, body)
    assert found[0][2] == found[1][2]
    for text, kind, _ in found:
        assert kind is ValueError and "the samples of the ranks differ" in text
