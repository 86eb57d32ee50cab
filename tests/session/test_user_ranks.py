"""Custom gradients over ranks: the update of all ranks is that of one process on the whole batch."""

import signal
from types import SimpleNamespace

import numpy as np
import pytest

import gradring as gr
from gradring.session import user_ranks

from .test_ranks import on_ranks, saw

RNG = np.random.default_rng(5)
X = RNG.standard_normal((61, 7))
Y = X @ RNG.standard_normal(7) + 0.1


def squares(params, batch):
    x, y = batch
    difference = x @ params["w"] + params["b"] - y
    grads = {"w": 2 * x.T @ difference / len(x), "b": np.array(2 * difference.mean())}
    return float((difference**2).mean()), grads, len(x)


def trainer_of(comm=None, function=squares, **options):
    rank = 0 if comm is None else comm.rank
    params = {"w": np.full(7, 0.1 * rank), "b": np.array(float(rank))}  # those of rank 0 win
    options = {"optimizer": gr.optim.AdamW(0.05), **options}
    return gr.Trainer(step=function, params=params, comm=comm, **options)


def values(trainer):
    return np.concatenate([trainer.params["w"], trainer.params["b"].reshape(1)])


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_norm": 0.5}], ids=str)
@pytest.mark.parametrize("ranks", [2, 3])
def test_uneven_epochs_are_those_of_one_process(ranks, options):
    def body(comm):
        trainer = trainer_of(comm, **options)
        loader = gr.Loader((X, Y), global_batch=6 * ranks, shuffle=True)
        history = trainer.fit(loader, epochs=2, validate=gr.Loader((X, Y), 8), verbose=0)
        return values(trainer), trainer.step_count, history.metrics

    one = trainer_of(**options)
    history = one.fit(gr.Loader((X, Y), 6 * ranks, shuffle=True), epochs=2, validate=gr.Loader((X, Y), 8), verbose=0)
    found = on_ranks(ranks, body)
    for own, steps, metrics in found:
        assert np.array_equal(own, found[0][0]) and np.abs(own - values(one)).max() < 1e-12 and steps == one.step_count
        assert metrics["loss"] == pytest.approx(history.metrics["loss"], rel=1e-11)
        assert metrics["val_loss"] == pytest.approx(history.metrics["val_loss"], rel=1e-11)


def test_a_gradient_that_one_rank_leaves_out_is_named():
    def body(comm):
        def forgetful(params, batch):
            loss, grads, samples = squares(params, batch)
            if comm.rank == 1:
                del grads["b"]
            return loss, grads, samples

        trainer = trainer_of(comm, forgetful)
        before = values(trainer).copy()
        return saw(lambda: trainer.step((X[:4], Y[:4]))), np.array_equal(before, values(trainer))

    (first, whole), (second, too) = on_ranks(2, body)
    assert isinstance(first, gr.errors.PeerStopped) and first.rank == 1 and whole and too
    assert isinstance(second, ValueError) and "missing ['b']" in str(second)


def test_a_gradient_that_is_infinite_stops_all_alike():
    def body(comm):
        def steep(params, batch):
            loss, grads, samples = squares(params, batch)
            if comm.rank == 0:
                grads["w"][3] = np.inf
            return loss, grads, samples

        trainer = trainer_of(comm, steep)
        return saw(lambda: trainer.step((X[:4], Y[:4]))), trainer.step_count

    for error, steps in on_ranks(2, body):
        assert isinstance(error, gr.NonFinite) and "'w'" in str(error) and steps == 0


def test_saving_in_a_group_and_loading_go_on_alike(tmp_path):
    def body(comm):
        trainer = trainer_of(comm, accumulate=2)
        part = slice(8 * comm.rank, 8 * comm.rank + 8)
        for _ in range(2):
            trainer.step((X[part], Y[part]))
        trainer.save(tmp_path / "user.safetensors")
        trainer.step((X[part], Y[part]))
        trainer.step((X[part], Y[part]))
        after = values(trainer).copy()
        trainer.load(tmp_path / "user.safetensors")
        trainer.step((X[part], Y[part]))
        trainer.step((X[part], Y[part]))
        return np.array_equal(after, values(trainer)), after

    (first, a), (second, b) = on_ranks(2, body)
    assert first and second and np.array_equal(a, b)


def test_the_seed_of_rank_0_orders_the_samples_of_all_ranks():
    def body(comm):
        seen = []

        def looks(params, batch):
            seen.extend(batch[1].tolist())
            return squares(params, batch)

        trainer = trainer_of(comm, looks, seed=comm.rank + 4)
        trainer.fit((X, Y), batch_size=8, verbose=0)
        return trainer.seed, seen

    (seed, first), (also, second) = on_ranks(2, body)
    assert seed == also == 4 and sorted({*first, *second}) == sorted(Y.tolist())
    assert len(first) + len(second) - len(Y) in (0, 1)  # no sample is in both, but for one that evens the shares


def test_a_file_from_within_a_group_goes_on_with_any_number_of_ranks(tmp_path):
    path = tmp_path / "group.safetensors"

    def part(number):
        return slice(8 * number, 8 * number + 8)

    def body(comm, again):
        trainer = trainer_of(comm, accumulate=3)
        if again:
            trainer.load(path)
        else:
            for _ in range(2):
                trainer.step((X[part(comm.rank)], Y[part(comm.rank)]))
            trainer.save(path)
        waited = trainer.state_dict()["pending"]
        trainer.step((X[part(comm.rank)], Y[part(comm.rank)]))
        return waited, trainer.step_count, values(trainer).copy()

    (waits, steps, whole), (*_, other) = on_ranks(2, lambda comm: body(comm, False))
    assert waits == 2 and steps == 1 and np.array_equal(whole, other)
    for waits, steps, found in on_ranks(2, lambda comm: body(comm, True)):
        assert waits == 2 and steps == 1 and np.abs(found - whole).max() < 1e-12
    one = trainer_of(accumulate=3)
    one.load(path)
    one.step((X[:16], Y[:16]))
    assert one.step_count == 1 and np.abs(values(one) - whole).max() < 1e-12


class NoBatches:
    def __iter__(self):
        return iter(())


def test_data_without_a_batch_are_refused_on_all_ranks():
    def body(comm):
        trainer = trainer_of(comm)
        errors = [saw(lambda: trainer.fit(NoBatches(), verbose=0)), saw(lambda: trainer.evaluate(NoBatches()))]
        one = trainer.evaluate([(X[:4], Y[:4])] if comm.rank else NoBatches())["loss"]  # a batch on one rank is enough
        return errors, one

    (first, loss), (second, also) = on_ranks(2, body)
    assert loss == also > 0
    assert all(isinstance(error, ValueError) and "gave no batch" in str(error) for error in (*first, *second))


def test_a_rank_that_is_left_evaluates_and_saves_its_own(tmp_path):
    def body(comm):
        trainer = trainer_of(comm, accumulate=3)
        part = slice(8 * comm.rank, 8 * comm.rank + 8)
        trainer.step((X[part], Y[part]))
        if comm.rank == 1:
            return None
        error = saw(lambda: trainer.evaluate([(X[:8], Y[:8])]))
        loss, whole = trainer.evaluate([(X, Y)])["loss"], trainer.evaluate((X, Y))["loss"]
        return error, loss, whole, trainer.state_dict()["pending_weight"]

    error, loss, whole, weight = on_ranks(2, body, timeout=1.0)[0]
    assert isinstance(error, gr.errors.PeerStalled | gr.errors.PeerDied) and loss > 0 and weight == 8
    assert abs(whole - loss) <= 1e-6 * loss  # of all samples, not of its share


def failing_once(trainer):
    """Make the next update fail behind its first array."""
    session = trainer._session
    update = session._uninterrupted

    def fails(calls, after):
        if "_updates" not in after:
            return update(calls, after)
        session._uninterrupted = update
        for call in calls[:2]:  # the mark, and one array
            call()
        raise MemoryError("none left")

    session._uninterrupted = fails


def test_an_update_that_fails_halfway_leaves_torn_parameters_on_its_rank(tmp_path):
    def body(comm):
        trainer = trainer_of(comm)
        mine = slice(0, 8) if comm.rank == 0 else slice(8, 16)
        trainer.step((X[mine], Y[mine]))
        path = tmp_path / "whole.safetensors"
        trainer.save(path)
        if comm.rank == 1:
            failing_once(trainer)
        # Rank 0 hears of each error in its next call, so it makes one call more.
        found = [saw(lambda: trainer.step((X[mine], Y[mine]))) for _ in range(3 - comm.rank)]
        found.append(saw(lambda: trainer.save(tmp_path / "torn.safetensors")))
        trainer.load(path)
        after = trainer.step((X[mine], Y[mine]))
        return found, after, values(trainer)

    (first, loss, own), (second, other, same_there) = on_ranks(2, body)
    assert isinstance(second[0], MemoryError) and "torn" in str(second[1]) and "torn" in str(second[2])
    assert first[0] is None and len(first) == 4 and all(isinstance(error, gr.PeerStopped) for error in first[1:])
    assert loss == other and np.array_equal(own, same_there) and not (tmp_path / "torn.safetensors").exists()
    one = trainer_of()
    losses = [one.step((X[:16], Y[:16])) for _ in range(2)]
    assert loss == pytest.approx(losses[1], rel=1e-12) and np.abs(own - values(one)).max() < 1e-12


def mixed(params, batch):
    """Parameters of two dtypes and several shapes; what it returns has other memory layouts than they have."""
    x, y = batch
    difference = x[:, :3] @ params["a"].astype(np.float64) @ params["c"] + params["b"] - y
    ahead = np.outer(x[:, :3].T @ difference, params["c"]) * (2 / len(x))
    grads = {"a": np.asfortranarray(ahead.astype(np.float32)), "b": np.array(2 * difference.mean())}
    grads["c"] = (2 / len(x)) * (params["a"].astype(np.float64).T @ x[:, :3].T @ difference)
    return float((difference**2).mean()), grads, len(x)


def test_small_gradients_that_meetings_exchange_have_the_bits_of_all_reduce(monkeypatch):
    def body(comm):
        rng = np.random.default_rng(comm.rank)
        params = {"a": rng.standard_normal((3, 4)).astype(np.float32), "b": np.array(0.5), "c": rng.standard_normal(4)}
        trainer = gr.Trainer(step=mixed, params=params, optimizer=gr.optim.AdamW(0.02), clip_norm=2.0, comm=comm)
        loader = gr.Loader((X, Y), global_batch=12, shuffle=True)
        trainer.fit([(X[:8], Y[:8])] * (3 - comm.rank), epochs=1, verbose=0)  # rank 0 has more batches
        trainer.fit(loader, epochs=4, verbose=0)
        spoiled = saw(lambda: trainer.step((X[:4] * (np.nan if comm.rank == 1 else 1), Y[:4])))
        trainer.step((X[:4], Y[:4]))
        state = trainer.state_dict()
        arrays = {**state["params"], **state["optimizer"]}
        return {k: v.tobytes() for k, v in arrays.items()}, trainer.history.metrics["loss"], type(spoiled)

    for ranks in (2, 3):
        monkeypatch.undo()
        small = on_ranks(ranks, body)
        monkeypatch.setattr("gradring.session.user_rank_planes._MOST_BYTES", 0)
        assert [one[:2] for one in small] == [one[:2] for one in on_ranks(ranks, body)]
        assert all(one[:2] == small[0][:2] for one in small)
        assert [kind is gr.NonFinite for *_, kind in small] == [rank == 1 for rank in range(ranks)]


@pytest.mark.parametrize("small", [True, False])
def test_a_file_from_before_an_update_is_updated_first(small, tmp_path, monkeypatch):
    """An interrupt in one process may come between a batch and its update, and the state may be saved then."""
    if not small:
        monkeypatch.setattr("gradring.session.user_rank_planes._MOST_BYTES", 0)
    path = tmp_path / "waits.safetensors"
    one = trainer_of(replicas=2)
    session = one._session
    with monkeypatch.context() as patch:
        patch.setattr(session, "flush", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        assert isinstance(saw(lambda: one.step((X[:8], Y[:8]))), KeyboardInterrupt)
    one.save(path)
    assert one.state_dict()["pending"] == 1 and one.step_count == 0
    one.step((X[8:24], Y[8:24]))

    def body(comm):
        trainer = trainer_of(comm)
        trainer.load(path)
        mine = slice(8 + 8 * comm.rank, 16 + 8 * comm.rank)
        trainer.step((X[mine], Y[mine]))
        return values(trainer), trainer.step_count

    for found, steps in on_ranks(2, body):
        assert np.abs(found - values(one)).max() < 1e-12 and steps == one.step_count == 2


@pytest.mark.parametrize("at", range(6))
def test_handlers_of_signals_are_restored_whenever_one_of_them_raises(at, monkeypatch):
    """Python may run a handler that is in its place again before the others are."""

    class Raised(Exception):
        pass

    def handler(number, frame):
        raise Raised

    numbers = user_ranks._NUMBERS
    before = [signal.signal(number, handler) for number in numbers]
    install, calls = user_ranks._signals.signal, iter(range(99))

    def interrupted(number, new):
        if next(calls) == at:
            raise Raised
        return install(number, new)

    try:
        monkeypatch.setattr(user_ranks, "_signals", SimpleNamespace(signal=interrupted, getsignal=signal.getsignal))
        with pytest.raises(Raised), user_ranks._DeferredSignals():
            pass
        assert [signal.getsignal(number) for number in numbers] == [handler] * 3
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
