"""``dtype="bfloat16"``: products read matrices that are rounded to bfloat16, and everything else is float32."""

import copy

import ml_dtypes
import numpy as np
import pytest

import gradring as gr
from gradring.graph.spec import check
from helpers import snapshot
from narrow import OPTIONS, check_narrow, check_step, data, model, step_in_float64, two_layers

nn = gr.nn


def rounded(values):
    return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def trainer(made=None, **options):
    options = {"optimizer": gr.optim.SGD(0.1, momentum=0.9), "dtype": "bfloat16", **options}
    return gr.Trainer(model() if made is None else made, **options)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("rows", [1, 33, 128])
def test_a_step_follows_a_program_in_float64_that_rounds_where_it_does(rows, activation):
    trained = two_layers("bfloat16", activation)
    step = step_in_float64(trained, rows, activation, rounded)
    # Where float32 and float64 lie on two sides of a tie, one operand differs by 2**-8 of itself.
    check_step(trained, step, output=2e-3, largest=4e-3, norm=1e-3)


def test_gradients_are_not_rounded_to_bfloat16():
    x, y = data()
    trained = trainer(optimizer=gr.optim.SGD(1.0), seed=None)
    before = {name: array.copy() for name, array in trained.params.items()}
    trained.step(x, y)
    for name, array in trained.params.items():
        moved = before[name].astype(np.float64) - array
        assert array.dtype == np.float32
        assert (np.abs(moved - rounded(moved)) > 1e-4 * np.abs(moved).max()).any(), name


def test_the_plan_has_narrow_products_and_nothing_else_is_narrow():
    trained = trainer()
    trained.step(*data())
    graph = trained.plan().graph
    check(graph)
    products = [node for node in graph.nodes if node.op in ("linear", "linear_dx", "linear_dw")]
    assert len(products) == 8
    check_narrow(graph, "bfloat16")
    casts = [graph.place(node.inputs["x"]) for node in graph.nodes if node.op == "cast"]
    assert len(casts) == len(set(casts))  # a weight is rounded once for both directions
    for name in ("0.weight", "4.weight", "6.weight"):
        root, begin, end = graph.place(name)
        assert sum(at == root and first <= begin and end <= past for at, first, past in casts) == 1
    assert "bfloat16" in str(trained.plan())


@pytest.mark.parametrize("case", OPTIONS)
def test_training_follows_that_in_float32(case):
    x, y = data()
    runs = {}
    for dtype in ("float32", "bfloat16"):
        trained = trainer(dtype=dtype, seed=None, **OPTIONS[case])
        runs[dtype] = trained.fit((x, y), batch_size=32, epochs=6, verbose=0).metrics["loss"]
    assert runs["float32"] != runs["bfloat16"]
    np.testing.assert_allclose(runs["bfloat16"], runs["float32"], rtol=0.02)


@pytest.mark.parametrize("parallel", ["locked", "atomic", "hogwild"])
def test_asynchronous_updates(parallel):
    x, y = data(960)
    trained = trainer(parallel=parallel, replicas=2, optimizer=gr.optim.SGD(0.1))
    losses = trained.fit((x, y), batch_size=32, epochs=8, verbose=0).metrics["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_buffers_and_dropout():
    x, y = data()
    trained = trainer(model(norm=True, p=0.3), seed=4)
    losses = trained.fit((x, y), batch_size=32, epochs=30, verbose=0).metrics["loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert all(array.dtype == np.float32 for array in trained.buffers.values())


def test_the_bits_are_the_same_for_any_number_of_threads_replicas_and_from_run_to_run():
    x, y = data(97)

    def run(**options):
        trained = trainer(model(p=0.2), seed=5, clip_norm=1.0, **options)
        trained.fit((x, y), batch_size=32, epochs=4, verbose=0)
        return {name: array.tobytes() for name, array in trained.params.items()}

    first = run(threads=1)
    assert run(threads=1) == run(threads=2) == run(threads=3) == first
    shards = run(shards=4)
    assert run(shards=4, replicas=2) == run(shards=4, replicas=4) == shards


def test_evaluations_and_predictions_round_as_steps_do_and_calls_of_the_model_do_not():
    x, y = data()
    made = model()
    trained, plain = trainer(made, seed=None), gr.Trainer(copy.deepcopy(made), seed=None)
    wide = made(x)
    narrow = trained.predict(x)
    assert not np.array_equal(narrow, wide)
    np.testing.assert_array_equal(made(x), wide)
    np.testing.assert_array_equal(plain.predict(x), wide)
    chosen = np.take_along_axis(narrow.astype(np.float64), y[:, None], axis=1)[:, 0]
    highest = narrow.max(axis=1).astype(np.float64)
    loss = np.mean(highest + np.log(np.exp(narrow - highest[:, None]).sum(axis=1)) - chosen)
    assert trained.evaluate((x, y))["loss"] == pytest.approx(loss, rel=1e-6)
    assert trained.evaluate((x, y), batch_size=7)["loss"] == pytest.approx(loss, rel=1e-6)
    assert trained.step(x, y) == pytest.approx(loss, rel=1e-6)


def test_files_hold_float32_and_load_into_trainers_of_both_kinds(tmp_path):
    x, y = data()
    whole = trainer(seed=6)
    whole.fit((x, y), batch_size=32, epochs=4, verbose=0)
    first = trainer(seed=6)
    first.fit((x, y), batch_size=32, epochs=2, verbose=0)
    first.save(tmp_path / "m.safetensors")
    resumed = trainer(seed=7)
    resumed.fit((x, y), batch_size=32, epochs=4, verbose=0, resume=tmp_path / "m.safetensors")
    assert snapshot(resumed) == snapshot(whole)
    plain = gr.Trainer(model(), optimizer=gr.optim.SGD(0.1, momentum=0.9))
    plain.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(plain.params["0.weight"], first.params["0.weight"])
    loaded = gr.load(tmp_path / "m.safetensors").to(plain.session.device)  # the sums of another device have other bits
    np.testing.assert_array_equal(loaded(x), plain.predict(x))


@pytest.mark.parametrize("value", [3.4e38, 3e38, np.inf])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_what_is_too_large_changes_nothing(value, clip_norm):
    """3.4e38 is finite, and rounds to an infinite bfloat16; 3e38 stays finite, but not its products."""
    x, y = data()
    made = nn.Sequential(nn.Linear(70, 32), nn.ReLU(), nn.Linear(32, 10)).init(seed=1)
    made.params["0.weight"] = 2 * np.sign(made.params["0.weight"])
    trained = trainer(made, seed=None, clip_norm=clip_norm)
    trained.step(x, y)
    before = snapshot(trained)
    x = x.copy()
    x[3, 2] = value
    with pytest.raises(gr.NonFinite):
        trained.step(x, y)
    assert snapshot(trained) == before


@pytest.mark.parametrize("given", ["bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_every_form_of_the_dtype_is_taken(given):
    assert np.isfinite(gr.Trainer(model(), dtype=given).step(*data()))


def test_other_dtypes_and_what_contradicts_are_refused_by_name():
    with pytest.raises(ValueError, match="dtype must be 'float32', 'float64', 'bfloat16', 'float16' or 'tf32', got 'int8'"):
        gr.Trainer(model(), dtype="int8")
    with pytest.raises(ValueError, match="products='pieces3' is about matrices of float32.*give one of the two"):
        gr.Trainer(model(), dtype="bfloat16", products="pieces3")
    with pytest.raises(TypeError, match="dtype"):
        gr.Trainer(step=lambda p, b: None, params={"w": np.zeros(2)}, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64'"):
        model().astype("bfloat16")


@pytest.mark.cpu("ranks train on the CPU")
def test_ranks_must_agree():
    def body(comm):
        gr.Trainer(model(), comm=comm, dtype="bfloat16" if comm.rank else "float32")

    from concurrent.futures import ThreadPoolExecutor

    comms = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(body, comm) for comm in comms]:
            with pytest.raises(Exception, match="dtype"):
                future.result()


def test_a_model_reaches_the_accuracy_of_float32_on_the_digits():
    train, test = gr.datasets.digits()
    results = {}
    for dtype in ("float32", "bfloat16"):
        made = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        trained = gr.Trainer(made, optimizer=gr.optim.AdamW(2e-3), dtype=dtype, seed=0)
        trained.fit(train, epochs=20, verbose=0)
        results[dtype] = trained.evaluate(test)["accuracy"]
    assert results["float32"] > 0.95
    assert results["bfloat16"] > results["float32"] - 0.01
