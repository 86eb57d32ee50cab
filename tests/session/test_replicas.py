"""Data-parallel replicas on threads: the same training as that of one replica on the whole batch, but for rounding."""

import numpy as np
import pytest

import gradring as gr
from helpers import mlp

RNG = np.random.default_rng(11)
X = RNG.standard_normal((103, 12))
Y = RNG.integers(0, 5, 103)
W = RNG.uniform(0, 2, 103)
W[:30] = 0  # whole parts of a batch without weight


def model(dropout=0.3):
    layers = gr.nn.Linear(12, 33), gr.nn.ReLU(), gr.nn.Dropout(dropout), gr.nn.Linear(33, 5)
    return gr.nn.Sequential(*layers).init(3)


def trained(replicas, *, dtype="float64", epochs=2, data=(X, Y), batch_size=32, optimizer=None, **options):
    trainer = gr.Trainer(
        model(), optimizer=optimizer or gr.optim.AdamW(1e-2), replicas=replicas, dtype=dtype, **options
    )
    loader = gr.Loader(data, batch_size=batch_size, shuffle=True, seed=5)
    trainer.fit(loader, epochs=epochs, verbose=0)
    return trainer


def arrays(trainer):
    state = trainer.state_dict()
    return {**state["params"], **state["optimizer"]}


def difference(a, b):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def same_bits(a, b):
    a, b = arrays(a), arrays(b)
    return all(np.array_equal(a[name], b[name]) for name in a)


OPTIONS = [
    {},
    {"clip_norm": 0.1},
    {"accumulate": 3},
    {"accumulate": 3, "clip_norm": 0.05},
    {"optimizer": gr.optim.SGD(0.1, momentum=0.9, nesterov=True)},
    {"optimizer": gr.optim.Lion(1e-3), "frozen": "0.*"},
    {"optimizer": gr.optim.AdamW(1e-2, groups=[{"params": "*.bias", "weight_decay": 0.0, "lr": 1e-3}])},
    {"data": (X, Y, W)},
    {"data": (X, Y, W), "accumulate": 2},
    {"nonfinite": "ignore"},
    {"loss": gr.losses.CrossEntropy(label_smoothing=0.1)},
    {"class_weight": "balanced"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_replicas_train_as_one_on_the_whole_batch(options):
    one = trained(1, **options)
    for replicas in (2, 3, 4):
        several = trained(replicas, **options)
        assert difference(one, several) < 1e-11
        assert several.step_count == one.step_count
        assert several.history.last["loss"] == pytest.approx(one.history.last["loss"], rel=1e-12)
        assert several.history.last["accuracy"] == one.history.last["accuracy"]
    assert same_bits(several, trained(4, **options))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_the_same_from_run_to_run_and_for_any_number_of_threads(dtype):
    runs = [trained(2, dtype=dtype, threads=threads) for threads in (2, 2, 4, 6)]
    assert all(same_bits(runs[0], run) for run in runs[1:])


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 33, 34])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_with_fewer_rows_than_replicas_are_exact(samples, accumulate):
    data = X[:samples], Y[:samples]
    one = trained(1, data=data, accumulate=accumulate)
    assert difference(one, trained(4, data=data, accumulate=accumulate)) < 1e-12
    assert one.step_count == trained(4, data=data, accumulate=accumulate).step_count


def test_steps_by_hand_and_an_evaluation():
    trainers = [gr.Trainer(model(), replicas=n, dtype="float64") for n in (1, 2)]
    for begin in range(0, 90, 9):
        batch = X[begin : begin + 9], Y[begin : begin + 9]
        losses = [trainer.step(*batch) for trainer in trainers]
        assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    assert difference(*trainers) < 1e-12
    one, two = (trainer.evaluate((X, Y)) for trainer in trainers)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-12)
    assert two["accuracy"] == one["accuracy"]
    assert np.allclose(trainers[0].predict(X), trainers[1].predict(X), rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="all 9 weights are zero"):
        trainers[1].step(X[:9], Y[:9], np.zeros(9))


LOSSES = [gr.losses.MSE(), gr.losses.MSE(reduction="sum"), gr.losses.MAE(), gr.losses.Huber(0.5)]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses_of_regression(loss):
    y = RNG.standard_normal((50, 3))
    nets = [gr.nn.Sequential(gr.nn.Linear(12, 3)).init(1) for _ in range(2)]
    one, two = (
        gr.Trainer(net, loss, gr.optim.SGD(1e-3), metrics=(), replicas=n, dtype="float64", clip_norm=0.5)
        for net, n in zip(nets, (1, 3), strict=True)
    )
    for trainer in (one, two):
        trainer.fit((X[:50], y), epochs=2, verbose=0)
    assert difference(one, two) < 1e-12
    assert two.history.last["loss"] == pytest.approx(one.history.last["loss"], rel=1e-12)


def test_dropout_draws_the_same_masks():
    plain = {"data": (X[:64], Y[:64]), "batch_size": 64}
    one, two = trained(1, **plain), trained(2, **plain)
    assert difference(one, two) < 1e-12
    other = gr.Trainer(model(0.0), optimizer=gr.optim.AdamW(1e-2), dtype="float64")
    other.fit(gr.Loader(plain["data"], batch_size=64, shuffle=True, seed=5), epochs=2, verbose=0)
    assert difference(one, other) > 1e-4  # the masks matter


def test_training_goes_on_from_a_checkpoint_of_another_number_of_replicas(tmp_path):
    first, straight = trained(2, epochs=1), trained(2, epochs=2)
    first.save(tmp_path / "state.safetensors")
    for replicas in (1, 2, 3):
        again = gr.Trainer(model(), optimizer=gr.optim.AdamW(1e-2), replicas=replicas, dtype="float64")
        again.load(tmp_path / "state.safetensors")
        again.fit(gr.Loader((X, Y), batch_size=32, shuffle=True, seed=5), epochs=1, verbose=0)
        assert difference(again, straight) < 1e-12
        assert same_bits(again, straight) == (replicas == 2)


def test_another_optimizer_and_a_reset():
    trainer, one = trained(2), trained(1)
    for each in (trainer, one):
        each.optimizer = gr.optim.SGD(0.1, momentum=0.9)
        each.fit((X, Y), epochs=1, verbose=0)
    assert difference(trainer, one) < 1e-11
    for each in (trainer, one):
        each.reset(4)
        each.fit((X, Y), epochs=1, verbose=0)
    assert difference(trainer, one) < 1e-11


# Faults: all replicas decide alike, and change nothing.


@pytest.mark.parametrize("row", [0, 17, 40, 63])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}], ids=str)
def test_a_label_that_is_wrong_on_one_replica_is_named_and_nothing_changes(row, options):
    y = Y[:64].copy()
    y[row] = 99
    trainer = gr.Trainer(model(), replicas=3, **options)
    before = arrays(trainer)
    with pytest.raises(ValueError, match=rf"batch 0, row {row} .*label is 99"):
        trainer.fit(gr.Loader((X[:64], y), batch_size=64), epochs=1, verbose=0)
    assert all(np.array_equal(before[name], value) for name, value in arrays(trainer).items())
    assert trainer.step_count == 0
    trainer.fit((X, Y), epochs=1, verbose=0)  # and goes on
    assert trainer.step_count > 0


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}], ids=str)
def test_a_loss_that_is_not_finite_on_one_replica(options):
    x = X[:64].astype("f4")
    x[50, 3] = np.nan
    trainer = gr.Trainer(model(0.0), replicas=2, **options)
    before = arrays(trainer)
    with pytest.raises(gr.NonFinite, match="x of sample 50 is nan in column 3"):
        trainer.fit(gr.Loader((x, Y[:64]), batch_size=64), epochs=1, verbose=0)
    assert all(np.array_equal(before[name], value) for name, value in arrays(trainer).items())


@pytest.mark.parametrize(("replicas", "accumulate"), [(2, 1), (2, 2), (5, 2), (5, 3)])
@pytest.mark.parametrize(("kind", "row"), [("label", 0), ("label", 6), ("nan", 3)])
def test_a_fault_in_the_last_batch_of_a_shuffled_epoch(tmp_path, kind, row, replicas, accumulate):
    """The batch has 7 rows, which the replicas share unevenly, and belongs to a group of batches where there are groups."""
    x, y = X.copy(), Y.copy()
    dropout = 0.3 if row == 6 else 0.0
    order = [batch[0][:, 0].astype(int) for batch in numbered()]
    sample = order[-1][row]
    if kind == "label":
        y[sample], error, words = 99, ValueError, rf"batch 3, row {row} .*label is 99"
    else:
        x[sample, 4], error, words = np.nan, gr.NonFinite, f"x of sample {sample} is nan in column 4"

    def fresh():
        optimizer = gr.optim.AdamW(1e-2)
        return gr.Trainer(
            model(dropout), optimizer=optimizer, dtype="float64", replicas=replicas, accumulate=accumulate
        )

    broken, whole, again = fresh(), fresh(), fresh()
    with pytest.raises(error, match=words):
        broken.fit(gr.Loader((x, y), batch_size=32, shuffle=True, seed=5), epochs=1, verbose=0)
    # The replicas without the fault have added to the gradients that waited: these are dropped, and their batches with them.
    done = 3 // accumulate * accumulate
    state = broken.state_dict()
    assert (state["batch"], state["pending"], state["step"]) == (done, 0, done // accumulate)
    assert state["sums"][3] == 32 * done if done else "sums" not in state
    broken.save(tmp_path / "a")
    good = gr.Loader((X, Y), batch_size=32, shuffle=True, seed=5)
    whole.fit(good, epochs=1, verbose=0)
    again.fit(good, epochs=1, verbose=0, resume=tmp_path / "a")
    assert same_bits(again, whole) and again.step_count == whole.step_count
    assert again.history.last["loss"] == whole.history.last["loss"]
    for batch in order[done:]:
        broken.step(X[batch], Y[batch])
    assert broken.step_count == 4 // accumulate
    if 4 % accumulate == 0 and not dropout:  # whose masks belong to the numbers of the samples in the data
        assert same_bits(broken, whole)


def numbered():
    """The batches of ``X`` in the order of a shuffled epoch, with the numbers of the samples in place of their values."""
    return gr.Loader((np.arange(103.0)[:, None], Y), batch_size=32, shuffle=True, seed=5).batches()


@pytest.mark.parametrize("clip_norm", [None, 1e30])
def test_an_infinity_that_only_the_sum_has(clip_norm):
    # A linear model with the gradient of w being the sum of x: finite in each replica, infinite in their sum.
    x = np.zeros((4, 2), "f4")
    x[:, 0] = 1.2e38
    net = gr.nn.Sequential(gr.nn.Linear(2, 1)).init(0)
    net.params["0.weight"][...] = 0
    y = np.full((4, 1), -1, "f4")
    loss = gr.losses.MAE()
    # The rate is above the subnormal numbers, which optimizers take for zeros.
    trainer = gr.Trainer(net, loss, gr.optim.SGD(2e-38), metrics=(), replicas=2, clip_norm=clip_norm)
    before = net.params["0.weight"].copy()
    with pytest.raises(gr.NonFinite):
        trainer.step(x, y)
    assert np.array_equal(net.params["0.weight"], before)
    # Half as large, the sum is finite, though its bound is doubtful.
    trainer.step(x / 2, y)
    assert not np.array_equal(net.params["0.weight"], before)


def test_what_cannot_be_replicated_yet_says_so():
    with pytest.raises(gr.errors.NotBuilt, match=r"session\.grads"):
        gr.Trainer(model(), replicas=2).session.grads  # noqa: B018


def test_timings_tell_what_meeting_and_summing_takes(tmp_path):
    one, two = trained(1), trained(2)
    assert one.timings()["reduction"] == 0
    assert 0 < two.timings()["reduction"] < two.timings().total
    assert two.timings()["update"] > 0
    two.fit((X, Y), epochs=1, verbose=0, callbacks=[gr.callbacks.Trace(tmp_path / "trace.json")])
    assert "meet" in (tmp_path / "trace.json").read_text()


def test_more_replicas_than_cores_and_the_plan():
    trainer = trained(9, epochs=1)
    assert difference(trainer, trained(1, epochs=1)) < 1e-12
    printed = str(trainer.session.plan())
    assert all(word in printed for word in ("meet", "sum_planes", "adam", "end_update"))


def test_replicas_of_a_model_in_several_threads_of_python():
    import threading

    done = []

    def work():
        done.append(trained(2))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(done[0], other) for other in done)


def test_ctrl_c_ends_between_two_steps():
    trainer = gr.Trainer(mlp(12, 16, 5), replicas=2)
    seen = []

    class Stop(gr.callbacks.Callback):
        def on_report(self, run):
            seen.append(run.batch)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(
            gr.Loader((np.tile(X, (300, 1)), np.tile(Y, 300)), batch_size=8), epochs=100, callbacks=[Stop()], verbose=0
        )
    assert seen
    assert trainer.step_count >= seen[0]
    trainer.step(X, Y)
