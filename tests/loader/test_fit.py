"""A loader feeds `Trainer.fit` natively, whether threads or processes fill its batches, and its errors are raised there."""

import json
import tracemalloc

import numpy as np
import pytest

import gradring as gr
from helpers import mlp, snapshot

from .functions import InForm, Rows
from .resources import children, wait_until


@pytest.fixture
def blobs(blobs):
    x, y = blobs
    return x[:96], y[:96]


def trained(source, *, epochs=2, callbacks=(), **options):
    with gr.Loader(source, 16, shuffle=True, seed=3, **options) as loader:
        trainer = gr.Trainer(mlp(8, 12, 3), seed=1)
        trainer.fit(loader, epochs=epochs, callbacks=list(callbacks))
    return snapshot(trainer)


def test_the_result_does_not_depend_on_who_fills_the_batches(blobs):
    expected = trained(blobs)
    for num_threads in (0, 1, 3):
        assert trained(blobs, num_threads=num_threads) == expected
    source = gr.sources.Callable(Rows(*blobs), 96, workers="processes", num_workers=2)
    pickled = Rows.pickled
    assert trained(source) == expected
    assert Rows.pickled == pickled + 1  # once for both workers


@pytest.mark.parametrize("form", ["tuple", "dict", "array"])
@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_samples_of_other_dtypes_are_cast_whoever_makes_them(blobs, workers, form):
    """A trainer asks for float32, and samples that Python makes are often float64."""
    x, y = blobs
    wide = InForm(form, x.astype(np.float64), y.astype(np.int16))
    source = gr.sources.Callable(wide, 96, workers=workers, num_workers=2)
    if form == "array":
        trainer = gr.Trainer(mlp(8, 12, 3), seed=1)
        with gr.Loader(source, 16) as loader:
            np.testing.assert_array_equal(trainer.predict(loader), trainer.predict(x))
    else:
        assert trained(source) == trained(blobs)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_an_exception_arrives_with_its_type_and_sample(blobs, workers):
    source = gr.sources.Callable(Rows(*blobs, mode="raise", at=57), 96, workers=workers)
    with pytest.raises(KeyError, match="sample 57 is bad") as caught:
        trained(source)
    assert caught.value.sample_index == 57


def test_a_dead_worker_ends_the_training_or_is_restarted(blobs, tmp_path):
    before = set(children())
    with pytest.raises(gr.WorkerDied, match="was killed by SIGKILL"):
        trained(gr.sources.Callable(Rows(*blobs, mode="kill", at=57), 96, workers="processes"))
    assert wait_until(lambda: set(children()) <= before)
    restarted = Rows(*blobs, mode="kill", at=57, marker=str(tmp_path / "died"))
    source = gr.sources.Callable(restarted, 96, workers="processes")
    assert trained(source, restart=1) == trained(blobs)


def test_skipped_samples_are_left_out(blobs):
    with gr.Loader(gr.sources.Callable(Rows(*blobs, mode="raise", at=57), 96), 16, on_error="skip") as loader:
        trainer = gr.Trainer(mlp(8, 12, 3), seed=1)
        trainer.fit(loader, epochs=2)
        assert loader.stats().skipped == 2 and loader.stats().rows == 190
    assert trainer.step_count == 12 and np.isfinite(trainer.evaluate(blobs)["loss"])


def test_a_stuck_worker_ends_the_training(blobs):
    source = gr.sources.Callable(Rows(*blobs, mode="hang", at=57), 96, workers="processes")
    with pytest.raises(gr.LoaderError, match="timeout") as caught:
        trained(source, timeout=0.5)
    assert "in act" in str(caught.value)


def test_the_trace_of_a_training_shows_the_loader(blobs, tmp_path):
    steps = {0: gr.transforms.Scale(2.0)}
    trained(blobs, transforms=steps, num_threads=1, callbacks=[gr.callbacks.Trace(tmp_path / "trace.json")])
    spans = [e["name"] for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert spans.count("fill batch") >= 6


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("x_dtype", "y_dtype"), [("float32", "int64"), ("float64", "int32"), ("uint8", "uint8")])
def test_each_rank_reads_arrays_where_they_lie_with_the_bits_of_the_ring(
    blobs, monkeypatch, x_dtype, y_dtype, shuffle, drop_last, pad
):
    x, y = blobs
    arrays = (np.round(x * 20 + 100).astype(x_dtype)[:-1], y.astype(y_dtype)[:-1])  # 95: the ranks differ

    def results():
        found = []
        for rank in range(3):
            loader = gr.Loader(
                arrays, 16, shuffle=shuffle, seed=3, drop_last=drop_last, pad=pad, rank=rank, world_size=3
            )
            trainer = gr.Trainer(mlp(8, 12, 3), seed=1)
            history = trainer.fit(loader, epochs=2)
            found.append((snapshot(trainer), history.metrics["loss"], trainer.evaluate(loader), trainer.step_count))
        return found

    assert gr.Loader(arrays, 16, rank=0, world_size=3).arrays is not None
    straight = results()
    monkeypatch.setattr(gr.Loader, "arrays", None)  # through the ring
    assert straight == results()
    assert [steps for *_, steps in straight] == [2 if drop_last and not pad else 4] * 3


def test_a_loader_says_how_its_batches_look_without_memory_for_one():
    source = gr.sources.Callable(lambda i: {"y": np.uint8(i % 3), "x": np.zeros((4, 5), ">f8")}, 2**40)
    with gr.Loader(source, 2**30) as loader:  # 170 GB per batch
        tracemalloc.start()
        looks = loader.fields().looks
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
    assert looks == (((2**30, 4, 5), np.dtype("float64")), ((2**30,), np.dtype("uint8")))
    trainer = gr.Trainer(mlp(8, 12, 3), seed=1)
    for wrong, message in [
        ((np.ones((96, 8), np.float32), np.ones(96, np.float32)), "y must be integer labels, got dtype float32"),
        (
            (np.ones((96, 8), np.float32), np.ones((96, 2), np.int64)),
            r"y is \(16, 2\) of int64: must be \(batch,\) integer labels",
        ),
        ((np.ones((96, 0), np.float32), np.ones(96, np.int64)), "a sample must have at least one element"),
    ]:
        loader = gr.Loader(wrong, 16, transforms={0: gr.transforms.Scale(2.0)})
        with loader, pytest.raises((TypeError, ValueError), match=message):
            trainer.fit(loader, epochs=1)


HALVES = {
    "an array": lambda x, folder: x,
    "rows apart": lambda x, folder: x.repeat(2, 0)[::2],
    "big-endian": lambda x, folder: x.astype(">f2"),
    "columns apart": lambda x, folder: np.asfortranarray(x),
    "a memory map": lambda x, folder: np.lib.format.open_memmap(saved(x, folder), mode="r"),
    "a file": lambda x, folder: saved(x, folder),
}


def saved(x, folder):
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", HALVES)
def test_half_floats_train_like_the_same_numbers_in_single_precision(blobs, form, dtype, tmp_path):
    x, y = blobs[0].astype(np.float16), blobs[1]

    def results(x):
        trainer = gr.Trainer(mlp(8, 12, 3), seed=1, dtype=dtype)
        history = trainer.fit((x, y), batch_size=16, epochs=2)
        return snapshot(trainer), history.metrics["loss"], trainer.evaluate((x, y))

    assert results(HALVES[form](x, tmp_path)) == results(x.astype(dtype))


def test_half_floats_are_cast_natively_and_not_copied(blobs, monkeypatch):
    x, y = blobs[0].astype(np.float16), blobs[1]
    loader = gr.Loader((x, y), 16)
    assert loader.computable and loader.arrays[0] is x
    assert next(iter(loader))[0].dtype == np.float16  # as given
    large = np.zeros((1 << 16, 64), np.float16)
    trainer = gr.Trainer(mlp(64, 4, 3), seed=1)
    trainer.predict(large[:100])
    tracemalloc.start()
    trainer.fit((large, np.zeros(1 << 16, np.int64)), batch_size=1024, epochs=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes / 2


def test_a_half_float_that_is_not_finite_is_named(blobs):
    x, y = blobs[0].astype(np.float16), blobs[1]
    x[37, 5] = np.nan
    with pytest.raises(gr.NonFinite, match="37"):
        gr.Trainer(mlp(8, 12, 3), seed=1).fit((x, y), batch_size=16, epochs=1)
