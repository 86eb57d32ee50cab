"""``dtype="float16"``: products read matrices that are rounded to float16, and the loss is scaled."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from gradring.graph.spec import check
from helpers import snapshot
from narrow import OPTIONS, check_narrow, check_step, data, model, step_in_float64, two_layers

nn = gr.nn
FIRST = 65536.0


def rounded(values):
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float64)


def trainer(made=None, **options):
    options = {"optimizer": gr.optim.SGD(0.1, momentum=0.9), "dtype": "float16", **options}
    return gr.Trainer(model() if made is None else made, **options)


def with_scale(trained, scale, good=0):
    """Set the scale as a file does."""
    trained.load_state_dict({**trained.state_dict(), "loss_scale": scale, "good_steps": good})
    return trained


def kept(trained):
    """All that a skipped step must leave as it is."""
    arrays = {**trained.params, **trained.buffers, **{f"state {k}": v for k, v in trained.session.state.items()}}
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}, trained.step_count


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("rows", [1, 33, 128])
def test_a_step_follows_a_program_in_float64_that_rounds_where_it_does(rows, activation):
    trained = with_scale(two_layers("float16", activation), 2**12)
    step = step_in_float64(trained, rows, activation, rounded, scale=trained.loss_scale)
    # Where float32 and float64 lie on two sides of a tie, one operand differs by 2**-11 of itself.
    check_step(trained, step, output=1e-3, largest=1e-3, norm=2e-4)


def test_small_gradients_stay_above_zero():
    """The gradients of the output are below 1e-8, and the least float16 is 6e-8: unscaled, all others would be zero."""
    x, _ = data(100)
    noise = np.random.default_rng(3).standard_normal((100, 1000)).astype(np.float32)
    moves = {}
    for dtype in ("float32", "float16"):
        made = nn.Sequential(nn.Linear(70, 32), nn.Tanh(), nn.Linear(32, 1000)).init(seed=1)
        trained = gr.Trainer(made, loss="mse", optimizer=gr.optim.SGD(1e5), dtype=dtype)
        before = trained.params["0.weight"].copy()
        trained.step(x, trained.predict(x) + np.float32(1e-4) * noise)
        moves[dtype] = trained.params["0.weight"] - before
        assert trained.step_count == 1
    largest = np.abs(moves["float32"]).max()
    assert largest > 0 and 2e-4 * np.abs(noise).max() / noise.size < 1e-8
    np.testing.assert_allclose(moves["float16"], moves["float32"], atol=0.01 * largest)


def test_norms_embedding_and_cross_entropy_follow_a_program_in_float64():
    rng = np.random.default_rng(5)
    ids, y = rng.integers(0, 50, (24, 6)), rng.integers(0, 9, 24)
    first, last = (nn.Embedding(50, 16), nn.LayerNorm(16), nn.Flatten()), (nn.GELU(), nn.RMSNorm(40), nn.Linear(40, 9))
    trained = gr.Trainer(nn.Sequential(*first, nn.Linear(96, 40), *last), optimizer=gr.optim.SGD(1.0), dtype="float16", seed=1)
    p = {name: array.astype(np.float64) for name, array in trained.params.items()}
    scale, n = trained.loss_scale, len(y)
    e = p["0.weight"][ids]
    mean, var = e.mean(-1, keepdims=True), e.var(-1, keepdims=True)
    unit = (e - mean) / np.sqrt(var + 1e-5)
    flat = (unit * p["1.weight"] + p["1.bias"]).reshape(n, 96)
    pre = rounded(flat) @ rounded(p["3.weight"]) + p["3.bias"]
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (pre + 0.044715 * pre**3))
    g = 0.5 * pre * (1 + t)
    rms = np.sqrt((g**2).mean(-1, keepdims=True) + trained.model[5].eps)
    h = g / rms * p["5.weight"]
    logits = rounded(h) @ rounded(p["6.weight"]) + p["6.bias"]
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    loss = -np.log(share[np.arange(n), y]).mean()
    dy = (share - np.eye(9)[y]) / n * scale
    dh = rounded(dy) @ rounded(p["6.weight"]).T
    dg = dh * p["5.weight"] / rms - g * (dh * p["5.weight"] * g).mean(-1, keepdims=True) / rms**3
    dpre = dg * (0.5 * (1 + t) + 0.5 * pre * (1 - t**2) * c * (1 + 3 * 0.044715 * pre**2))
    dflat = (rounded(dpre) @ rounded(p["3.weight"]).T).reshape(e.shape)
    du = dflat * p["1.weight"]
    de = (du - du.mean(-1, keepdims=True) - unit * (du * unit).mean(-1, keepdims=True)) / np.sqrt(var + 1e-5)
    table = np.zeros_like(p["0.weight"])
    np.add.at(table, ids, de)
    gradients = {
        "0.weight": table,
        "1.weight": (dflat * unit).sum((0, 1)),
        "1.bias": dflat.sum((0, 1)),
        "3.weight": rounded(flat).T @ rounded(dpre),
        "3.bias": dpre.sum(0),
        "5.weight": (dh * g / rms).sum(0),
        "6.weight": rounded(h).T @ rounded(dy),
        "6.bias": dy.sum(0),
    }
    assert gradients.keys() == p.keys()
    assert trained.step(ids, y) == pytest.approx(loss, rel=1e-4)
    for name, gradient in gradients.items():
        got, gradient = p[name] - trained.params[name], gradient / scale
        assert np.linalg.norm(got - gradient) <= 1e-3 * np.linalg.norm(gradient), name


def test_the_plan_shows_casts_scale_and_check():
    trained = trainer()
    trained.step(*data())
    graph = trained.plan().graph
    check(graph)
    check_narrow(graph, "float16")
    ops = [node.op for node in graph.nodes]
    assert ops.count("scale_gradient") == ops.count("clip") == 1
    assert "float16" in str(trained.plan()) and "loss_scale" in str(trained.plan())


@pytest.mark.parametrize("case", OPTIONS)
def test_training_follows_that_in_float32(case):
    x, y = data()
    runs = {}
    for dtype in ("float32", "float16"):
        trained = with_scale(trainer(dtype=dtype, seed=None, **OPTIONS[case]), 2**10)
        runs[dtype] = trained.fit((x, y), batch_size=32, epochs=6, verbose=0).metrics["loss"]
        assert trained.loss_scale == (2**10 if dtype == "float16" else 1.0)  # nothing was skipped
    assert runs["float32"] != runs["float16"]
    np.testing.assert_allclose(runs["float16"], runs["float32"], rtol=0.003)


def test_the_bits_are_the_same_for_any_number_of_threads_replicas_and_from_run_to_run():
    x, y = data(97)

    def run(**options):
        trained = trainer(model(p=0.2), seed=5, clip_norm=1.0, **options)
        trained.fit((x, y), batch_size=32, epochs=4, verbose=0)
        return {name: array.tobytes() for name, array in trained.params.items()}, trained.loss_scale

    first = run(threads=1)
    assert run(threads=1) == run(threads=2) == run(threads=3) == first
    shards = run(shards=4)
    assert run(shards=4, replicas=2) == run(shards=4, replicas=4) == shards


BAD = {
    "an infinite input": (np.inf, FIRST),
    "a number beyond float16": (70000.0, FIRST),
    "NaN": (np.nan, FIRST),
    "a scale that is too large": (None, 2.0**24),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"nonfinite": "ignore"}, {"replicas": 2}, {"shards": 2}])
@pytest.mark.parametrize("norm", [False, True])
def test_an_overflow_skips_the_update_halves_the_scale_and_changes_nothing_else(bad, options, norm):
    x, y = data()
    value, scale = BAD[bad]
    trained = with_scale(trainer(model(norm=norm), seed=None, optimizer=gr.optim.AdamW(1e-3), **options), int(min(scale, 1024)))
    trained.step(x, y)
    if scale != 1024:
        with_scale(trained, int(scale), good=7)
    before, x = kept(trained), x.copy()
    if value is None:
        x *= 100
    else:
        x[3, 2] = value
    loss = trained.step(x, y)
    assert np.isfinite(loss) == (value is None)
    assert kept(trained) == before
    assert trained.loss_scale == scale / 2
    assert trained.state_dict()["good_steps"] == 0
    with_scale(trained, 1024).step(*data())
    after, count = kept(trained)
    assert count == before[1] + 1 and all(after[name] != before[0][name] for name in trained.params)


def test_a_run_with_a_skipped_batch_is_the_run_without_it():
    """Learning rates and Adam's corrections follow the updates, and not the batches."""
    x, y = data(160)
    broken = x.copy()
    broken[40, 3] = np.inf  # the second of five batches
    optimizer = gr.optim.AdamW(lambda step: 1e-2 / (1 + step))
    loader = gr.Loader((broken, y), 32)
    whole = trainer(optimizer=optimizer, seed=1)
    history = whole.fit(loader, epochs=1, verbose=0)
    assert whole.step_count == 4 and whole.loss_scale == FIRST / 2
    other = trainer(optimizer=optimizer, seed=1)
    losses = []
    for begin in (0, 64, 96, 128):
        losses.append(float(other.step(x[begin : begin + 32], y[begin : begin + 32])))
        if begin == 0:
            with_scale(other, int(FIRST / 2))
    assert kept(other) == kept(whole)
    assert history.last["loss"] == pytest.approx(np.mean(losses), rel=1e-6)  # of what could be measured


@pytest.mark.parametrize("options", [{}, {"replicas": 2}])
@pytest.mark.parametrize("place", [10, 40, 70])
def test_an_overflow_in_any_micro_batch_skips_the_whole_update(options, place):
    x, y = data(192)
    broken = x.copy()
    broken[place, 3] = 1e30
    trained = trainer(accumulate=3, seed=1, **options)
    before = kept(trained)
    trained.fit((broken[:96], y[:96]), batch_size=32, epochs=1, verbose=0)
    assert kept(trained) == before and trained.loss_scale == FIRST / 2 and trained.session.pending == 0
    trained.fit((x, y), batch_size=32, epochs=1, verbose=0)
    assert trained.step_count == 2 and trained.loss_scale == FIRST / 2
    # Two batches wait at the end of the epoch, and are applied, or skipped, then.
    tail = trainer(accumulate=3, seed=1, **options)
    tail.fit((broken[:64] if place < 64 else x[:64], y[:64]), batch_size=32, epochs=1, verbose=0)
    assert tail.step_count == (0 if place < 64 else 1)


def test_the_scale_doubles_after_2000_good_steps_up_to_its_end():
    x, y = data()
    trained = with_scale(trainer(), 1024, good=1998)
    trained.step(x, y)
    assert (trained.loss_scale, trained.state_dict()["good_steps"]) == (1024, 1999)
    trained.step(x, y)
    assert (trained.loss_scale, trained.state_dict()["good_steps"]) == (2048, 0)
    trained = with_scale(trainer(), 2**24, good=1999)
    trained.step(x * 0, y)
    trained.step(x * 0, y)
    assert trained.loss_scale <= 2**24


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}, {"replicas": 2}])
def test_steps_that_overflow_at_every_scale_raise_in_the_end(options):
    x, y = data()
    x[3, 2] = np.inf
    trained = trainer(seed=1, **options)
    before, group = kept(trained), options.get("accumulate", 1)
    for count in range(1, 17):
        for _ in range(group):
            trained.step(x, y)
        assert trained.loss_scale == FIRST / 2**count
    assert trained.loss_scale == 1
    for _ in range(3):
        with pytest.raises(gr.NonFinite):
            for _ in range(group):
                trained.step(x, y)
        assert kept(trained) == before and trained.loss_scale == 1
    again = with_scale(trainer(seed=1, **options), 4)
    with pytest.raises(gr.NonFinite):
        again.fit((np.repeat(x, 4, axis=0), np.repeat(y, 4)), batch_size=32, epochs=9, verbose=0)


def test_a_step_that_is_wrong_for_another_reason_raises_at_any_scale():
    x, y = data()
    trained = trainer()
    with pytest.raises(ValueError, match="label"):
        trained.step(x, np.where(y == 3, 17, y))
    assert trained.loss_scale == FIRST and trained.step_count == 0


def test_files_keep_scale_and_count_and_load_into_trainers_of_all_dtypes(tmp_path):
    x, y = data()
    whole = trainer(seed=6)
    whole.fit((x, y), batch_size=32, epochs=4, verbose=0)
    first = trainer(seed=6)
    first.fit((x, y), batch_size=32, epochs=2, verbose=0)
    path = tmp_path / "m.safetensors"
    first.save(path)
    resumed = trainer(seed=7)
    resumed.fit((x, y), batch_size=32, epochs=4, verbose=0, resume=path)
    assert snapshot(resumed) == snapshot(whole)
    assert resumed.state_dict()["good_steps"] == whole.state_dict()["good_steps"] > 0
    for dtype in ("float32", "bfloat16"):
        plain = trainer(dtype=dtype)
        plain.load(path)
        np.testing.assert_array_equal(plain.params["0.weight"], first.params["0.weight"])
        assert plain.loss_scale == 1.0 and "loss_scale" not in plain.state_dict()
        plain.step(x, y)
        plain.save(tmp_path / "other.safetensors")
        back = with_scale(trainer(), 4, good=9)
        back.load(tmp_path / "other.safetensors")
        assert back.loss_scale == FIRST and back.state_dict()["good_steps"] == 0
    first.reset(3)
    assert first.loss_scale == FIRST and first.state_dict()["good_steps"] == 0


def test_states_with_a_bad_scale_are_refused():
    state = trainer().state_dict()
    for scale in (3, 2**25, -1, 1.5, "many"):
        with pytest.raises((ValueError, TypeError), match="loss_scale"):
            trainer().load_state_dict({**state, "loss_scale": scale})


def test_scaled_gradients_that_wait_go_on_only_where_they_are_scaled():
    x, y = data()
    waiting = trainer(accumulate=3)
    waiting.step(x, y)
    state = waiting.state_dict()
    other = trainer(accumulate=3)
    other.load_state_dict(state)
    for each in (waiting, other):
        each.step(x, y)
        each.step(x, y)
    assert kept(waiting) == kept(other) and waiting.step_count == 1
    with pytest.raises(ValueError, match="scaled sum"):
        trainer(accumulate=3, dtype="float32").load_state_dict(state)


def test_evaluations_and_predictions_round_as_steps_do():
    x, y = data()
    trained = trainer(seed=None)
    narrow = trained.predict(x)
    assert not np.array_equal(narrow, trained.model(x))
    loss = trained.evaluate((x, y))["loss"]
    assert trained.step(x, y) == pytest.approx(loss, rel=1e-6)
    x[0, 0] = np.inf
    with pytest.raises(gr.NonFinite):  # an evaluation has no scale that could be too large
        trained.evaluate((x, y))


def test_the_overflow_of_one_rank_skips_the_update_of_all():
    x, y = data(64)

    def body(comm):
        trained = trainer(comm=comm, seed=1, optimizer=gr.optim.AdamW(1e-3))
        rows = slice(comm.rank * 32, comm.rank * 32 + 32)
        trained.step(x[rows], y[rows])
        before, bad = kept(trained), x[rows].copy()
        if comm.rank == 1:
            bad[0, 0] = np.inf
        trained.step(bad, y[rows])
        assert kept(trained) == before and trained.loss_scale == FIRST / 2
        trained.step(x[rows], y[rows])
        assert trained.step_count == 2
        return kept(trained)[0]

    comms = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(body, comm) for comm in comms])
    assert first == second


@pytest.mark.parametrize("given", ["float16", np.float16, np.dtype(np.float16), "f2", "half"])
def test_every_form_of_the_dtype_is_taken(given):
    assert np.isfinite(gr.Trainer(model(), dtype=given).step(*data()))


def test_what_contradicts_is_refused_by_name():
    with pytest.raises(ValueError, match="products='pieces3' is about matrices of float32.*give one of the two"):
        trainer(products="pieces3")
    with pytest.raises(TypeError, match="dtype"):
        gr.Trainer(step=lambda p, b: None, params={"w": np.zeros(2)}, dtype="float16")
    with pytest.raises(gr.NotBuilt, match="dtype='float16' with parallel='locked'"):
        trainer(parallel="locked", replicas=2, device="cpu")
    with pytest.raises(gr.NotBuilt, match=r"accumulate=2 for a model with running statistics \(1.running_mean.*on replicas"):
        trainer(model(norm=True), accumulate=2, replicas=2, device="cpu")
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64'"):
        model().astype("float16")
    wide = trainer()
    wide.step(data()[0].astype(np.float64), data()[1])  # the batch is cast, as for float32
    assert wide.params["0.weight"].dtype == np.float32


def test_a_model_reaches_the_accuracy_of_float32_on_the_digits():
    train, test = gr.datasets.digits()
    results = {}
    for dtype in ("float32", "float16"):
        made = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        trained = gr.Trainer(made, optimizer=gr.optim.AdamW(2e-3), dtype=dtype, seed=0)
        trained.fit(train, epochs=20, verbose=0)
        results[dtype] = trained.evaluate(test)["accuracy"]
    assert results["float32"] > 0.95
    assert results["float16"] > results["float32"] - 0.01
