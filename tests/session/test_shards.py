"""Shards: the same bits for any number of replicas."""

import numpy as np
import pytest

import gradring as gr
from helpers import snapshot

RNG = np.random.default_rng(31)
X = RNG.standard_normal((103, 12))
Y = RNG.integers(0, 5, 103)
W = RNG.uniform(0, 2, 103)
W[60:90] = 0


def model(norm=True):
    layers = [gr.nn.Linear(12, 33), gr.nn.ReLU(), gr.nn.Dropout(0.3), gr.nn.Linear(33, 5)]
    if norm:
        layers.insert(1, gr.nn.BatchNorm1d(33))
    return gr.nn.Sequential(*layers).init(3)


def trainer(replicas, shards=8, *, norm=True, **options):
    options = {"optimizer": gr.optim.AdamW(1e-2), "dtype": "float32", **options}
    return gr.Trainer(model(norm), replicas=replicas, shards=shards, **options)


def fitted(made, epochs=2, batch_size=25, data=(X, Y), **options):
    # 103 rows make 4 batches of 25 and one of 3, which has fewer rows than there are shards.
    loader = gr.Loader(data, batch_size=batch_size, shuffle=True, seed=5)
    made.fit(loader, epochs=epochs, validate=(X[:50], Y[:50]), verbose=0, **options)
    return made


def everything(made):
    """All arrays, counts and metrics, as bytes where they are arrays."""
    metrics = {name: list(map(repr, values)) for name, values in made.history.metrics.items() if "second" not in name}
    return snapshot(made), metrics


OPTIONS = [
    {"accumulate": 3, "clip_norm": 0.5},
    {"dtype": "float64", "clip_norm": 0.05},
    {"accumulate": 2},
    {"norm": False},
    {"norm": False, "nonfinite": "ignore", "optimizer": gr.optim.SGD(0.1, momentum=0.9)},
    {"frozen": "0.*", "optimizer": gr.optim.Lion(1e-3)},
    {"optimizer": gr.optim.AdamW(1e-2, groups=[{"params": "*.bias", "weight_decay": 0.0, "lr": 1e-3}])},
    {"loss": gr.losses.CrossEntropy(label_smoothing=0.1), "class_weight": "balanced"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_bits_do_not_depend_on_the_number_of_replicas(options):
    one = everything(fitted(trainer(1, **options)))
    for replicas in (2, 8):
        assert everything(fitted(trainer(replicas, **options))) == one


def test_fifty_updates_with_everything_at_once():
    """Dropout, batch norm, clipping, AdamW, groups of three batches, weights, and a last batch of 3 rows: 5 batches, and so
    2 updates, per epoch."""
    options = {"accumulate": 3, "clip_norm": 0.3, "metrics": ["accuracy", lambda p, t: float((p[:, 0] * t).sum())]}
    one = fitted(trainer(1, **options), epochs=25, data=(X, Y, W))
    assert one.step_count >= 50
    for replicas in (2, 4, 8):
        assert everything(fitted(trainer(replicas, **options), epochs=25, data=(X, Y, W))) == everything(one)


@pytest.mark.parametrize("threads", [3, 8])
def test_the_bits_do_not_depend_on_threads(threads):
    assert everything(fitted(trainer(2, threads=threads))) == everything(fitted(trainer(1, threads=1)))


@pytest.mark.parametrize("shards", [2, 16])
def test_shards_train_as_the_whole_batch_but_for_rounding(shards):
    whole = fitted(gr.Trainer(model(False), optimizer=gr.optim.AdamW(1e-2), dtype="float64"))
    made = fitted(trainer(2, shards, norm=False, dtype="float64"))
    for name, array in whole.params.items():
        np.testing.assert_allclose(made.params[name], array, rtol=0, atol=1e-11)
    assert made.history.last["accuracy"] == whole.history.last["accuracy"]
    assert made.history.last["loss"] == pytest.approx(whole.history.last["loss"], rel=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_steps_by_hand_on_few_rows(rows):
    made = [trainer(replicas, norm=rows > 1) for replicas in (1, 2, 4, 8)]
    losses = [
        [each.step(X[begin : begin + rows], Y[begin : begin + rows]) for begin in range(0, 20, 10)] for each in made
    ]
    assert all(loss == losses[0] for loss in losses)
    assert all(snapshot(each) == snapshot(made[0]) for each in made)


# Faults: named as without shards, and nothing changes.


@pytest.mark.parametrize("replicas", [1, 2, 8])
@pytest.mark.parametrize("row", [0, 3, 17, 24])
def test_a_wrong_label_is_named_by_its_row_in_the_batch(replicas, row):
    loader = gr.Loader((np.arange(103.0)[:, None], Y), batch_size=25, shuffle=True, seed=5)
    sample = int(next(iter(loader.batches()))[0][row, 0])
    y = Y.copy()
    y[sample] = 77
    made = trainer(replicas)
    before = snapshot(made)
    with pytest.raises(ValueError, match=rf"batch 0, row {row} \(sample {sample}.*label is 77"):
        fitted(made, data=(X, y))
    assert snapshot(made) == before
    assert fitted(made).step_count > 0


@pytest.mark.parametrize("clip_norm", [None, 1e30])
def test_an_infinity_that_only_the_sum_has(clip_norm):
    x = np.zeros((8, 2), "f4")
    x[:, 0] = 6e37
    for replicas in (1, 2, 8):
        net = gr.nn.Sequential(gr.nn.Linear(2, 1)).init(0)
        net.params["0.weight"][...] = 0
        made = gr.Trainer(net, "mae", gr.optim.SGD(2e-38), metrics=(), replicas=replicas, shards=8, clip_norm=clip_norm)
        before = net.params["0.weight"].copy()
        with pytest.raises(gr.NonFinite):
            made.step(x, np.full((8, 1), -1, "f4"))
        assert np.array_equal(net.params["0.weight"], before)
        made.step(x / 2, np.full((8, 1), -1, "f4"))
        assert not np.array_equal(net.params["0.weight"], before)


# Checkpoints


@pytest.mark.parametrize("batches", [2, 5, 7])
def test_a_resume_with_another_number_of_replicas_is_exact(tmp_path, batches):
    """Within a group of accumulated batches, at the end of an epoch, and within the next one."""
    options = {"accumulate": 3, "clip_norm": 0.5}
    rows = [slice(begin, begin + 7) for begin in range(0, 77, 7)]

    def stepped(made, of):
        for each in of:
            made.step(X[each], Y[each])
        return snapshot(made)

    straight = stepped(trainer(1, **options), rows)
    for before, after in ((1, 8), (8, 2), (2, 1)):
        broken, again = trainer(before, **options), trainer(after, **options)
        stepped(broken, rows[:batches])
        broken.save(tmp_path / "a")
        again.load(tmp_path / "a")
        assert stepped(again, rows[batches:]) == straight


def test_a_resume_of_fit_with_another_number_of_replicas_is_exact(tmp_path):
    options = {"accumulate": 2, "clip_norm": 0.5}
    straight = everything(fitted(trainer(2, **options)))
    broken = fitted(trainer(1, **options), epochs=1)
    broken.save(tmp_path / "a")
    assert everything(fitted(trainer(8, **options), resume=tmp_path / "a")) == straight

    class Stop(gr.callbacks.Callback):
        def on_report(self, run):
            raise KeyboardInterrupt

    many = gr.Loader((np.tile(X, (40, 1)), np.tile(Y, 40)), batch_size=25, shuffle=True, seed=5)
    whole, broken, again = trainer(2, **options), trainer(4, **options), trainer(1, **options)
    whole.fit(many, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(many, callbacks=[Stop()], verbose=0)
    broken.save(tmp_path / "b")
    again.fit(many, resume=tmp_path / "b", verbose=0)
    assert snapshot(again) == snapshot(whole)


def test_a_resume_with_other_shards_goes_on_and_says_so(tmp_path):
    fitted(trainer(1), epochs=1).save(tmp_path / "a")
    with pytest.warns(UserWarning, match="saved with shards=8, and this trainer has shards=4"):
        again = trainer(2, 4)
        again.load(tmp_path / "a")
    assert fitted(again, epochs=1).step_count == 10


# Bad input


def test_shards_that_do_not_fit_are_refused():
    for shards, replicas, words in [
        (6, 2, "shards is 6: must be a power of two"),
        (8, 3, "shards is 8, replicas is 3: must divide shards, so it must be 1 or 2 or 4 or 8"),
        (1, 2, "shards is 1, replicas is 2"),
        (512, 1, "shards .*512"),
        (0, 1, "shards .*0"),
    ]:
        with pytest.raises(ValueError, match=words):
            trainer(replicas, shards)
    with pytest.raises(TypeError, match="shards"):
        trainer(1, "8")


def test_batch_norm_refuses_one_row_with_the_cure():
    for replicas in (1, 2):
        with pytest.raises(ValueError, match="at least 2 rows"):
            trainer(replicas).step(X[:1], Y[:1])
