"""A loader whose batches come to a device gives those of the CPU's loader."""

import gc
import sys
import threading
import time

import numpy as np
import pytest

import gradring as gr
from device_producers import run_lazily, sample
from gradring import cuda
from gradring.loader import pipeline_maker


def samples(count=100):
    rng = np.random.default_rng(4)
    return rng.standard_normal((count, 7)).astype(np.float32), np.arange(count), rng.random((count, 2, 3)) > 0.5


def on_host(batch):
    if isinstance(batch, dict):
        return {name: array.numpy() for name, array in batch.items()}
    return batch.numpy() if isinstance(batch, cuda.Array) else [array.numpy() for array in batch]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": True, "seed": 3},
        {"drop_last": True},
        {"num_threads": 0},
        {"num_threads": 3, "prefetch": 2},
        {"shuffle": True, "rank": 1, "world_size": 3, "pad": True},
        {"transforms": {1: [gr.transforms.Cast("float32")]}},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", [tuple, list, "dict", "array"])
def test_batches_are_those_of_the_cpu(form, options):
    if form == "array":
        if "transforms" in options:
            pytest.skip("an array has no field 1")
        source = samples()[0]
    elif form == "dict":
        source = dict(zip(("x", "y", "z"), samples(), strict=True))
        options = (
            {**options, "transforms": {"y": [gr.transforms.Cast("float32")]}} if "transforms" in options else options
        )
    else:
        source = form(samples())
    here, there = (gr.Loader(source, 16, device=device, **options) for device in ("cpu", "cuda"))
    assert there.device == "cuda:0" and len(here) == len(there)
    for _ in range(2):  # epochs
        count = 0
        for a, b in zip(here, there, strict=True):
            assert isinstance(b, type(a)) or form == "array"
            got = on_host(b)
            if isinstance(a, dict):
                assert a.keys() == b.keys()
                a, got = list(a.values()), list(got.values())
            for x, y in zip(a, got, strict=True) if form != "array" else [(a, got)]:
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
            count += 1
        assert count == len(here)
    assert here.epoch == there.epoch and here.state_dict() == there.state_dict()


def test_resume_and_early_breaks_are_those_of_the_cpu():
    states = []
    for device in ("cpu", "cuda"):
        loader = gr.Loader(samples(), 8, shuffle=True, device=device)
        for number, _ in enumerate(loader):
            if number == 4:
                break
        state = loader.state_dict()
        other = gr.Loader(samples(), 8, shuffle=True, device=device)
        other.load_state_dict(state)
        _, y, _ = next(iter(other))
        states.append((state, np.asarray(y).tolist()))
    assert states[0] == states[1]


def test_a_batch_that_is_kept_is_not_overwritten():
    loader = gr.Loader(samples(), 10, device="cuda")
    kept = list(loader)
    for number, (x, y, z) in enumerate(kept):
        rows = slice(number * 10, number * 10 + 10)
        for array, whole in zip((x, y, z), samples(), strict=True):
            np.testing.assert_array_equal(array.numpy(), whole[rows])


def test_a_consumer_that_keeps_more_than_the_budget_gets_an_error():
    x = np.zeros((64, 1 << 12), np.float32)
    loader = gr.Loader(x, 1, device="cuda", memory_budget=5 * 17000, prefetch=1, timeout=0.3)
    kept, iterator = [], iter(loader)
    with pytest.raises(gr.LoaderError, match=r"all slots on the device \(16384 bytes each\)"):
        for batch in iterator:
            kept.append(batch)
    assert len(kept) >= 4 and next(iterator, None) is None
    del kept, batch
    assert sum(1 for _ in loader) > 0


def test_close_ends_a_consumer_that_waits_for_the_batches_that_it_holds():
    loader = gr.Loader(np.zeros((64, 1 << 12), np.float32), 1, device="cuda", memory_budget=5 * 17000, prefetch=1)
    kept = []

    def close():
        while len(kept) < 4:
            time.sleep(0.01)
        time.sleep(0.2)
        loader.close()

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    began = time.monotonic()
    with pytest.raises(gr.LoaderError, match="closed while it was being read"):
        for batch in loader:
            kept.append(batch)
    thread.join()
    assert time.monotonic() - began < 30  # and not the timeout of a minute


def test_one_iterator_read_by_many_threads_gives_each_batch_to_one_of_them():
    loader = gr.Loader(np.arange(3000), 10, num_threads=2, device="cuda")
    iterator, got, failed = iter(loader), [[] for _ in range(4)], []

    def read(mine):
        try:
            for batch in iterator:
                mine += batch.numpy().tolist()
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read, args=(mine,)) for mine in got]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert not failed and sorted(i for mine in got for i in mine) == list(range(3000)) and loader.epoch == 1


def test_a_stuck_worker_ends_the_wait_for_a_batch():
    leave = threading.Event()

    def sample(i):
        if i >= 20:
            leave.wait(60)
        return np.full(3, i, np.float32)

    loader, seen = gr.Loader(gr.sources.Callable(sample, 40), 10, device="cuda", timeout=0.4), []
    try:
        with pytest.raises(gr.LoaderError, match=r"no batch came within .* s \(timeout\)"):
            for x in loader:
                seen.append(x.numpy()[0, 0])
    finally:
        leave.set()
    assert seen == [0, 10]


def test_a_budget_of_many_small_batches_is_used():
    kept = list(gr.Loader(np.arange(300), 1, device="cuda"))
    assert [int(batch[0]) for batch in kept] == list(range(300))


def test_a_batch_outlives_its_loader_and_close():
    loader = gr.Loader(samples(), 10, shuffle=False, device="cuda")
    iterator = iter(loader)
    x, y, _ = next(iterator)
    loader.close()
    with pytest.raises(gr.LoaderError, match="closed"):
        list(iterator)
    del loader, iterator
    gc.collect()
    np.testing.assert_array_equal(x.numpy(), samples()[0][:10])
    assert y.numpy().tolist() == list(range(10))


def test_an_error_of_the_source_is_raised_behind_the_batches_before_it():
    def sample(i):
        if i == 25:
            raise KeyError("sample 25")
        return np.full(3, i, np.float32)

    loader, seen = gr.Loader(gr.sources.Callable(sample, 40), 10, device="cuda"), []
    with pytest.raises(KeyError, match="sample 25"):
        for x in loader:
            seen.append(x.numpy()[0, 0])
    assert seen == [0, 10]


def test_python_samples_in_processes_come_to_the_device():
    source = gr.sources.Callable(sample, 50, workers="processes", num_workers=1)
    x, y = zip(*[(batch[0].numpy(), batch[1].numpy()) for batch in gr.Loader(source, 16, device="cuda")], strict=True)
    np.testing.assert_array_equal(np.concatenate(y), np.arange(50))
    np.testing.assert_array_equal(np.concatenate(x)[:, 0], np.arange(50))


def test_a_refused_registration_is_one_warning_and_pageable_copies(monkeypatch):
    script = """
import os
os.environ["GRADRING_CUDA_FAIL"] = "cudaHostRegister:1:2"
import warnings
import numpy as np
import gradring as gr
from gradring import cuda

y = np.arange(60)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        got = np.concatenate([batch.numpy() for batch in gr.Loader(y, 16, device="cuda")])
        assert (got == y).all()
print(len([one for one in said if "not in pinned memory" in str(one.message)]))
"""
    assert run_lazily(script) == "1"


def test_batches_are_ordered_on_the_current_stream_and_with_those_that_are_recorded():
    script = """
import numpy as np
import gradring as gr
from gradring import cuda

y = np.arange(4096).reshape(64, 64)
first, second, wrong = cuda.Stream(), cuda.Stream(), 0
out = cuda.empty((64, 64), "int64")
for turn in range(3):
    with cuda.use_stream(first):
        for number, batch in enumerate(gr.Loader(y, 4, device="cuda")):
            if number % 2:
                cuda.streams.order(0, first.handle, second.handle)
                batch.record_stream(second)
                with cuda.use_stream(second):
                    out[number * 4 : number * 4 + 4] = batch
            else:
                out[number * 4 : number * 4 + 4] = batch
            del batch
    first.synchronize()
    second.synchronize()
    wrong += (out.numpy() != y).sum()
    out[...] = 0
print(wrong)
del out
"""
    assert run_lazily(script) == "0"


def test_a_batch_may_die_in_another_thread():
    for number, batch in enumerate(gr.Loader(np.arange(64), 4, device="cuda")):
        assert batch.numpy()[0] == number * 4
        held = [batch]
        del batch
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()


def test_fit_reads_such_a_loader(blobs):
    x, y = blobs
    losses = []
    for device in ("cpu", "cuda"):
        trainer = gr.Trainer(gr.nn.Linear(8, 3), device="cuda", optimizer=gr.optim.SGD(0.1), seed=1)
        history = trainer.fit(gr.Loader((x, y), 32, shuffle=True, device=device), epochs=2, verbose=False)
        losses.append(history.metrics["loss"])
    assert losses[0] == losses[1]


def test_where_cupy_is_batches_are_its_arrays(monkeypatch):
    class Cupy:
        class cuda:
            @staticmethod
            def get_current_stream():
                return type("Stream", (), {"ptr": 0})()

        @staticmethod
        def asarray(value):
            assert value.__cuda_array_interface__["stream"] is None  # CuPy would wait for it on the host
            return ("cupy", cuda.as_array(value))

    monkeypatch.setitem(sys.modules, "cupy", Cupy)
    got = list(gr.Loader(np.arange(6), 4, device="cuda"))
    assert [name for name, _ in got] == ["cupy"] * 2
    assert [array.numpy().tolist() for _, array in got] == [[0, 1, 2, 3], [4, 5]]


def test_bad_devices_and_fields_are_refused_by_name():
    with pytest.raises(gr.DeviceUnavailable, match="cuda:9"):
        gr.Loader(np.arange(4), 2, device="cuda:9")
    with pytest.raises(ValueError, match="write 'cpu'"):
        gr.Loader(np.arange(4), 2, device="gpu")
    with pytest.raises(TypeError, match=r"\[Loader\] field .* is of dtype <U1: on cuda:0 it must be numbers"):
        gr.Loader(np.array(["a", "b"]), 2, device="cuda")


def test_a_batch_that_did_not_come_is_named_and_not_lost():
    """As on the CPU, an error ends the iterator, and the loader's state is that behind the last batch that the loop got."""
    script = """
import numpy as np
import gradring as gr
call = CALL
x = np.arange(400).reshape(100, 4)
loader = gr.Loader(x, 10, device="cuda", shuffle=True, seed=3, num_threads=1)
iterator, got = iter(loader), []
try:
    for batch in iterator:
        got.append(batch.numpy())
        del batch
except gr.GradringError as error:
    assert f"batch {len(got)} of this pass: {call}: " in str(error), error
else:
    raise AssertionError("nothing failed")
assert next(iterator, None) is None and 0 < len(got) < 10
state = loader.state_dict()
assert state["position"] == 10 * len(got), state
other = gr.Loader(x, 10, device="cuda", shuffle=True, seed=3)
other.load_state_dict(state)
got += [batch.numpy() for batch in other]
print(int((np.concatenate(got) != np.concatenate(list(gr.Loader(x, 10, shuffle=True, seed=3)))).sum()))
"""
    for call, number in (("cudaMemcpyAsync", 9), ("cudaLaunchHostFunc", 5)):
        assert run_lazily(script.replace("CALL", repr(call)), GRADRING_CUDA_FAIL=f"{call}:{number}:800") == "0"


def test_a_batch_that_waits_for_a_slot_is_not_lost():
    loader = gr.Loader(np.arange(64 << 12).reshape(64, -1), 1, device="cuda", memory_budget=5 * 34000, prefetch=1, timeout=0.3)
    kept = []
    with pytest.raises(gr.LoaderError, match="all slots on the device"):
        for batch in loader:
            kept.append(batch)
    state = loader.state_dict()
    assert state["position"] == len(kept)
    here = [int(batch[0, 0]) >> 12 for batch in kept]
    del kept, batch
    other = gr.Loader(np.arange(64 << 12).reshape(64, -1), 1, device="cuda")
    other.load_state_dict(state)
    assert here + [int(batch[0, 0]) >> 12 for batch in other] == list(range(64))
    assert [int(batch[0, 0]) >> 12 for batch in loader] == list(range(64))  # the next epoch is whole


@pytest.fixture(autouse=True)
def no_warning_is_remembered():
    yield
    pipeline_maker._warn.cache_clear()
