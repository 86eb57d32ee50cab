"""Training over the ranks of a communicator. Ranks are threads here, each with a model and a trainer of its own. The meetings
and the shared memory are the same as those of processes, which tests/faults kills."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr

RNG = np.random.default_rng(17)
X = RNG.standard_normal((103, 12))
Y = RNG.integers(0, 5, 103)
W = RNG.uniform(0, 2, 103)


def on_ranks(n, body, timeout=60.0):
    """What ``body(comm)`` returns on each rank; the first error is raised."""
    comms = gr.comm.thread_group(n, timeout=timeout)
    with ThreadPoolExecutor(n) as pool:
        return [future.result() for future in [pool.submit(body, comm) for comm in comms]]


def saw(call):
    """The error that a call raises, or None."""
    try:
        call()
    except BaseException as error:
        return error
    return None


def model(dropout=0.0, seed=3):
    layers = gr.nn.Linear(12, 33), gr.nn.ReLU(), gr.nn.Dropout(dropout), gr.nn.Linear(33, 5)
    return gr.nn.Sequential(*layers).init(seed)


def trainer_of(comm=None, *, dropout=0.0, seed=3, optimizer=None, dtype="float64", **options):
    optimizer = optimizer or gr.optim.AdamW(1e-2)
    return gr.Trainer(model(dropout, seed), optimizer=optimizer, dtype=dtype, comm=comm, **options)


def arrays(trainer):
    return {**trainer.params, **trainer.session.state}


def copies(trainer):
    return {name: array.copy() for name, array in arrays(trainer).items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def difference(a, b):
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


OPTIONS = [
    {},
    {"dtype": "float32"},
    {"dropout": 0.4},
    {"clip_norm": 0.1},
    {"accumulate": 3},
    {"accumulate": 2, "clip_norm": 0.05},
    {"optimizer": gr.optim.SGD(0.1, momentum=0.9), "frozen": "0.*"},
    {"optimizer": gr.optim.AdamW(1e-2, groups=[{"params": "*.bias", "weight_decay": 0.0, "lr": 1e-3}])},
]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_steps_of_ranks_have_the_bits_of_replicas(ranks, options):
    def body(comm):
        trainer = trainer_of(comm, **options)
        losses = []
        for begin in range(0, 84, 12):
            mine = slice(begin + 12 * comm.rank // ranks, begin + 12 * (comm.rank + 1) // ranks)
            losses.append(trainer.step(X[mine], Y[mine]))
        comm.barrier()
        return losses, copies(trainer), trainer.step_count

    whole = trainer_of(replicas=ranks, **options)
    losses = [whole.step(X[begin : begin + 12], Y[begin : begin + 12]) for begin in range(0, 84, 12)]
    for theirs, found, steps in on_ranks(ranks, body):
        assert theirs == losses and same(found, arrays(whole)) and steps == whole.step_count


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"accumulate": 3}, {"clip_norm": 0.1}], ids=str)
def test_epochs_with_uneven_batches_are_those_of_one_process(ranks, options):
    data, batch = (X, Y, W), 48  # rank r has every rank-th sample, and so may have a batch less than others

    def body(comm):
        trainer = trainer_of(comm, **options)
        loader = gr.Loader(data, global_batch=batch, shuffle=True, seed=5)
        history = trainer.fit(loader, epochs=3, validate=(X[:31], Y[:31]), verbose=0)
        comm.barrier()
        return history.metrics, copies(trainer), trainer.step_count

    one = trainer_of(**options)
    history = one.fit(gr.Loader(data, batch, shuffle=True, seed=5), epochs=3, validate=(X[:31], Y[:31]), verbose=0)
    for metrics, found, steps in on_ranks(ranks, body):
        assert difference(found, arrays(one)) < 1e-11 and steps == one.step_count
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert metrics[name] == pytest.approx(history.metrics[name], rel=1e-11), name


def test_the_last_group_of_an_epoch_is_applied_although_it_is_incomplete():
    def body(comm):
        trainer = trainer_of(comm, accumulate=2)
        loader = gr.Loader((X[:36], Y[:36]), global_batch=12, shuffle=True, seed=5)
        trainer.fit(loader, epochs=2, verbose=0)  # three batches in each epoch
        comm.barrier()
        return copies(trainer), trainer.step_count, trainer.session.pending

    both = trainer_of(accumulate=2)
    both.fit(gr.Loader((X[:36], Y[:36]), 12, shuffle=True, seed=5), epochs=2, verbose=0)
    first, second = on_ranks(2, body)
    assert same(first[0], second[0]) and first[1:] == second[1:] == (4, 0) and both.step_count == 4
    assert difference(first[0], arrays(both)) < 1e-12


def test_a_flush_of_ranks_has_the_bits_of_replicas():
    def body(comm):
        trainer = trainer_of(comm, accumulate=2)
        mine = [(X[at + 6 * comm.rank :][:6], Y[at + 6 * comm.rank :][:6]) for at in (0, 12, 24)]
        trainer.fit(mine, epochs=2, verbose=0)
        comm.barrier()
        return copies(trainer), trainer.step_count

    both = trainer_of(replicas=2, accumulate=2)
    both.fit([(X[at:][:12], Y[at:][:12]) for at in (0, 12, 24)], epochs=2, verbose=0)
    for found, steps in on_ranks(2, body):
        assert same(found, arrays(both)) and steps == both.step_count == 4


@pytest.mark.parametrize("samples", [1, 3, 5, 9, 17])
def test_ranks_without_samples_take_part_with_weight_zero(samples):
    data = X[:samples], Y[:samples]

    def body(comm):
        trainer = trainer_of(comm)
        trainer.fit(gr.Loader(data, 2), epochs=2, verbose=0)
        found = trainer.evaluate(data)
        comm.barrier()
        return copies(trainer), trainer.step_count, found

    one = trainer_of()
    one.fit(gr.Loader(data, 8), epochs=2, verbose=0)
    wanted = one.evaluate(data)
    for found, steps, metrics in on_ranks(4, body):
        assert difference(found, arrays(one)) < 1e-12 and steps == one.step_count
        assert metrics["loss"] == pytest.approx(wanted["loss"], rel=1e-11)
        assert metrics["accuracy"] == wanted["accuracy"]


def test_batches_that_python_makes_may_end_early_on_a_rank():
    batches = [(X[at : at + 6], Y[at : at + 6]) for at in range(0, 42, 6)]

    def body(comm):
        trainer = trainer_of(comm)
        trainer.fit(batches[:4] if comm.rank == 0 else batches[4:], epochs=2, verbose=0)
        comm.barrier()
        return copies(trainer), trainer.step_count

    one = trainer_of()
    both = [tuple(np.concatenate(parts) for parts in zip(batches[at], batches[at + 4], strict=True)) for at in range(3)]
    one.fit([*both, batches[3]], epochs=2, verbose=0)
    for found, steps in on_ranks(2, body):
        assert difference(found, arrays(one)) < 1e-12 and steps == one.step_count == 8


def test_metrics_of_predictions_see_every_sample_once():
    def sums(predictions, targets):
        return float(predictions.sum() + 1000 * targets.sum()) + len(targets)

    def body(comm):
        trainer = trainer_of(comm, metrics=("accuracy", sums))
        history = trainer.fit(gr.Loader((X[:29], Y[:29]), 4), epochs=2, validate=(X[:5], Y[:5]), verbose=0)
        return history.metrics

    one = trainer_of(metrics=("accuracy", sums))
    history = one.fit(gr.Loader((X[:29], Y[:29]), 12), epochs=2, validate=(X[:5], Y[:5]), verbose=0)
    for metrics in on_ranks(3, body):
        assert metrics["sums"] == pytest.approx(history.metrics["sums"], rel=1e-11)
        assert metrics["val_sums"] == pytest.approx(history.metrics["val_sums"], rel=1e-11)


def test_the_initial_values_of_rank_0_win():
    def body(comm):
        trainer = trainer_of(comm, seed=comm.rank)
        values = copies(trainer)
        comm.barrier()
        if comm.rank == 1:
            trainer.params["0.bias"][...] = 7  # one memory for all ranks
        comm.barrier()
        return values, trainer.params["0.bias"].max(), trainer.seed

    for values, written, seed in on_ranks(3, body):
        assert same(values, arrays(trainer_of(seed=0))) and written == 7 and seed == 0


@pytest.mark.parametrize(
    "other, named",
    [
        (
            lambda: {"width": 34},
            r"parameter '0.weight' is \(12, 34\) of float64 on rank 1 and \(12, 33\) of float64 on rank 0",
        ),
        (lambda: {"dtype": "float32"}, r"parameter '0.weight' is \(12, 33\) of float32 on rank 1"),
        (lambda: {"optimizer": gr.optim.SGD(0.1)}, "optimizer is SGD.* on rank 1 and AdamW.* on rank 0"),
        (lambda: {"accumulate": 2}, "accumulate is 2 on rank 1 and 1 on rank 0"),
        (lambda: {"clip_norm": 0.5}, "clip_norm is 0.5 on rank 1 and None on rank 0"),
    ],
    ids=["shape", "dtype", "optimizer", "accumulate", "clip"],
)
def test_trainers_that_differ_are_named_on_all_ranks(other, named):
    def body(comm):
        options = other() if comm.rank == 1 else {}
        width = options.pop("width", 33)
        layers = gr.nn.Linear(12, width), gr.nn.ReLU(), gr.nn.Linear(width, 5)
        options = {"optimizer": gr.optim.AdamW(), "dtype": "float64", **options}
        return saw(lambda: gr.Trainer(gr.nn.Sequential(*layers), comm=comm, **options))

    for error in on_ranks(2, body):
        with pytest.raises(ValueError, match=named):
            raise error


def test_every_way_to_call_step_takes_the_same_steps():
    """Arrays by position, which run natively after the first step, and those that need a conversion or have weights."""

    def body(comm):
        taken = []
        for native in (True, False):
            trainer, mine = trainer_of(comm, dropout=0.4), slice(8 * comm.rank, 8 * comm.rank + 8)
            losses = [trainer.step(X[mine], Y[mine]) if native else trainer.step(x=X[mine], y=Y[mine]) for _ in range(5)]
            rows = 8 if comm.rank else 3  # ranks may have batches of different sizes
            losses += [trainer.step(X[:rows], Y[:rows] if native else Y[:rows].tolist()) for _ in range(3)]
            losses += [trainer.step(X[mine], Y[mine], W[mine]) for _ in range(2)]
            comm.barrier()
            taken.append((losses, trainer.step_count, copies(trainer)))
            comm.barrier()
        return taken[0][:2] == taken[1][:2] and same(taken[0][2], taken[1][2])

    assert on_ranks(2, body) == [True, True]


def test_a_loader_that_is_divided_already_stays_so():
    def body(comm):
        trainer = trainer_of(comm)
        loader = gr.Loader((X, Y), 8, rank=comm.rank, world_size=2)
        trainer.fit(loader, verbose=0)
        return trainer.step_count

    assert on_ranks(2, body) == [7, 7]


@pytest.mark.parametrize("size", [7, 1])
def test_a_global_batch_that_ranks_cannot_divide_is_named(size):
    def body(comm):
        trainer = trainer_of(comm)
        fits = saw(lambda: trainer.fit(gr.Loader((X, Y), global_batch=size), verbose=0))
        return [fits, saw(lambda: trainer.evaluate(gr.Loader((X, Y), global_batch=size)))], trainer.step_count

    for errors, steps in on_ranks(2, body):
        assert steps == 0
        for error in errors:
            named = rf"\[Loader\] global_batch is {size}: it must be a multiple of world_size \(2\)"
            assert isinstance(error, ValueError) and re.search(named, str(error)), error


def test_an_error_before_the_meeting_is_told_too():
    def body(comm):
        trainer = trainer_of(comm)
        error = saw(lambda: trainer.step(X[:4] if comm.rank == 0 else X[:4, :5], Y[:4]))
        return error, trainer.step(X[:4], Y[:4]), trainer.step_count

    (first, loss, steps), (second, *same_there) = on_ranks(2, body)
    assert isinstance(first, gr.errors.PeerStopped) and isinstance(second, ValueError) and [loss, steps] == same_there


def test_a_world_of_one_trains_as_without():
    with gr.comm.init() as comm:
        trainers = [trainer_of(comm), trainer_of()]
        for trainer in trainers:
            trainer.fit((X, Y), epochs=2, verbose=0)
        assert same(*map(arrays, trainers))


def test_a_source_that_fails_on_one_rank_stops_all():
    class Breaks:
        def __init__(self, rank):
            self.rank = rank

        def __len__(self):
            return 60

        def __getitem__(self, index):
            if self.rank == 1 and index >= 40:
                raise OSError("the disk of rank 1")
            return X[index].astype(np.float32), int(Y[index])

    def body(comm):
        trainer = trainer_of(comm, dtype="float32")
        with gr.Loader(Breaks(comm.rank), 4, num_threads=1) as loader:
            found = saw(lambda: trainer.fit(loader, epochs=2, verbose=0))
        steps = trainer.step_count
        comm.barrier()
        return found, steps, trainer.step(X[:4], Y[:4])

    (first, steps, loss), (second, too, own) = on_ranks(2, body)
    assert isinstance(first, gr.errors.PeerStopped) and first.rank == 1
    assert "the disk of rank 1" in str(second) and steps == too == 5 and loss == own


def test_another_optimizer_and_its_state_are_common_to_all_ranks():
    def body(comm):
        trainer = trainer_of(comm, optimizer=gr.optim.SGD(0.1))
        trainer.step(X[:8], Y[:8])
        trainer.optimizer = gr.optim.AdamW(1e-2)
        for _ in range(3):
            trainer.step(X[:8], Y[:8])
        comm.barrier()
        return copies(trainer)

    both = trainer_of(replicas=2, optimizer=gr.optim.SGD(0.1))
    twice = np.concatenate([X[:8], X[:8]]), np.concatenate([Y[:8], Y[:8]])
    both.step(*twice)
    both.optimizer = gr.optim.AdamW(1e-2)
    for _ in range(3):
        both.step(*twice)
    for found in on_ranks(2, body):
        assert same(found, arrays(both))


@pytest.mark.parametrize(
    "one, other, named",
    [
        ({"loss": gr.losses.CrossEntropy()}, {"loss": gr.losses.CrossEntropy(label_smoothing=0.1)}, "loss is"),
        ({}, {"class_weight": {0: 2.0}}, "class_weight is"),
        ({}, {"metrics": ["accuracy", "r2"]}, "metrics is"),
        ({"metrics": ["mae", "accuracy"]}, {"metrics": ["accuracy"]}, "metrics is"),
        ({"dropout": 0.1}, {"dropout": 0.2}, "the model is"),
    ],
    ids=["smoothing", "class weights", "another metric", "fewer metrics", "dropout"],
)
def test_differences_that_shapes_do_not_show_are_named(one, other, named):
    def body(comm):
        return saw(lambda: trainer_of(comm, **(one if comm.rank == 0 else other)))

    for error in on_ranks(2, body):
        assert isinstance(error, ValueError) and named in str(error)


def test_schedules_that_are_functions_are_no_difference():
    def body(comm):
        trainer = trainer_of(comm, optimizer=gr.optim.SGD(lambda step: 0.1 / (1 + step)))
        return trainer.step(X[:4], Y[:4])

    first, second = on_ranks(2, body)
    assert first == second


def test_an_error_before_the_epochs_of_a_fit_is_told():
    def body(comm):
        trainer = trainer_of(comm)
        data = (X, Y) if comm.rank == 0 else (X, Y[:7])
        error = saw(lambda: trainer.fit(data, verbose=0))
        found = saw(lambda: trainer.evaluate(data))
        return error, found, trainer.step(X[:4], Y[:4])

    (first, also, loss), (second, too, own) = on_ranks(2, body)
    assert isinstance(first, gr.errors.PeerStopped) and isinstance(also, gr.errors.PeerStopped)
    assert isinstance(second, ValueError) and isinstance(too, ValueError) and loss == own
