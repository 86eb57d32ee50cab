"""Batches own their memory: kept, sliced, exported, dropped anywhere, at any time."""

import gc
import threading
import time

import numpy as np
import pytest

import gradring as gr
from helpers import run_script

from .resources import descriptors, resident_bytes, threads, wait_until


@pytest.fixture
def arrays():
    return np.arange(4000, dtype=np.int64).reshape(1000, 4), np.arange(1000)


def right(batch, arrays):
    return all(np.array_equal(got, array[batch[1]]) for got, array in zip(batch, arrays, strict=True))


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_kept_batches_are_never_overwritten(arrays, num_threads):
    with gr.Loader(arrays, 10, shuffle=True, num_threads=num_threads, prefetch=3) as loader:
        kept = list(loader)
        for _ in range(3):
            for batch in loader:
                assert right(batch, arrays)
        assert all(right(batch, arrays) for batch in kept)
    assert all(right(batch, arrays) for batch in kept)  # also when the loader is closed
    assert len({int(i) for _, y in kept for i in y}) == 1000


@pytest.mark.cpu("it counts the slots of the host")
def test_a_slice_or_view_keeps_the_memory(arrays):
    loader = gr.Loader(arrays, 100, num_threads=1, prefetch=1)
    slices = [x[3:5, 1:].T for x, _ in loader]
    before = [view.copy() for view in slices]
    assert loader.stats().held == 10
    for _ in loader:
        pass
    assert all(np.array_equal(*pair) for pair in zip(slices, before, strict=True))
    del slices, _
    gc.collect()
    assert loader.stats().held == 0


@pytest.mark.cpu("it counts the slots of the host")
def test_dlpack_exports_keep_the_memory(arrays):
    loader = gr.Loader(arrays, 100, num_threads=1, prefetch=1)
    exported = [np.from_dlpack(x) for x, _ in loader]
    assert loader.stats().held == 10
    for _ in loader:
        pass
    assert np.array_equal(np.concatenate(exported), arrays[0])


@pytest.mark.parity
def test_torch_reads_batches_without_a_copy(arrays):
    torch = pytest.importorskip("torch")
    loader = gr.Loader(arrays, 100, num_threads=1, prefetch=1)
    tensors = []
    for x, _ in loader:
        tensor = torch.from_dlpack(x)
        assert tensor.data_ptr() == x.ctypes.data
        tensors.append(tensor)
    for _ in loader:
        pass
    assert np.array_equal(torch.cat(tensors).numpy(), arrays[0])


def test_batches_may_die_in_other_threads(arrays):
    loader = gr.Loader(arrays, 10, num_threads=2, prefetch=2, memory_budget=40 * 1000)
    queue, good = [], []

    def consume():
        while True:
            if queue:
                batch = queue.pop(0)
                if batch is None:
                    return
                good.append(right(batch, arrays))

    thread = threading.Thread(target=consume)
    thread.start()
    for _ in range(5):
        for batch in loader:
            queue.append(batch)
    queue.append(None)
    thread.join()
    assert len(good) == 500 and all(good)


def test_a_hoarder_is_told_how_many_it_holds(arrays):
    slot = 10 * 4 * 8 + 10 * 8 + 10 * 8 + 128
    loader = gr.Loader(arrays, 10, num_threads=1, prefetch=2, memory_budget=12 * slot, timeout=0.5)
    kept = []
    with pytest.raises(gr.LoaderError, match=r"\d+ batches are held, .* raise memory_budget") as caught:
        for batch in loader:
            kept.append(batch)
    assert 6 <= len(kept) <= 12 and f"[loader] {len(kept)} batches are held" in str(caught.value)
    assert all(right(batch, arrays) for batch in kept)
    kept.clear()
    assert sum(len(y) for _, y in loader) == 1000


def test_a_consumer_waits_for_a_batch_to_come_back(arrays):
    slot = 10 * 4 * 8 + 10 * 8 + 10 * 8 + 128
    loader = gr.Loader(arrays, 10, num_threads=1, prefetch=2, memory_budget=12 * slot, timeout=20)
    kept, done = [], threading.Event()

    def let_go():
        wait_until(lambda: len(kept) >= 5)  # each of them holds a slot
        while not done.wait(0.01):
            if kept:
                kept.pop(0)

    thread = threading.Thread(target=let_go)
    thread.start()
    count = 0
    for batch in loader:
        kept.append(batch)
        count += 1
    done.set()
    thread.join()
    assert count == 100


@pytest.mark.parametrize("num_threads", [0, 1])
def test_close_from_another_thread_ends_a_wait_for_held_batches(arrays, num_threads):
    slot = 10 * 4 * 8 + 10 * 8 + 10 * 8 + 128
    loader = gr.Loader(arrays, 10, num_threads=num_threads, prefetch=2, memory_budget=6 * slot, timeout=60)
    kept = []
    # Closes once nothing more can come.
    thread = threading.Thread(target=lambda: (wait_until(lambda: len(kept) >= 3), time.sleep(0.3), loader.close()))
    thread.start()
    with pytest.raises(gr.LoaderError, match="closed while it was being read"):
        for batch in loader:
            kept.append(batch)
    thread.join()
    assert all(right(batch, arrays) for batch in kept)


def test_batches_in_reference_cycles_come_back(arrays):
    slot = 10 * 4 * 8 + 10 * 8 + 10 * 8 + 128
    loader = gr.Loader(arrays, 10, num_threads=1, prefetch=2, memory_budget=12 * slot, timeout=20)
    gc.disable()
    try:
        count = 0
        for batch in loader:
            cycle = [batch]
            cycle.append(cycle)
            count += 1
        assert count == 100
    finally:
        gc.enable()


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_thousand_early_breaks_leave_nothing(arrays, num_threads):
    loader = gr.Loader(arrays, 10, shuffle=True, num_threads=num_threads)

    def leave(times):
        for i in range(times):
            for j, _ in enumerate(loader):
                if j == i % 5:
                    break

    leave(50)
    gc.collect()
    before = threads(), descriptors(), resident_bytes()
    leave(1000)
    gc.collect()
    assert threads() <= before[0] and descriptors() <= before[1]
    assert resident_bytes() - before[2] < 2 << 20
    loader.close()
    assert wait_until(lambda: len(threads() & before[0]) <= len(before[0]) - num_threads)


def test_a_loader_that_is_dropped_ends_its_threads(arrays):
    gc.collect()
    before = threads(), descriptors()
    for _ in range(20):
        for _ in gr.Loader(arrays, 10, num_threads=2):
            break
        iterator = iter(gr.Loader(arrays, 10, num_threads=1))
        next(iterator)
        del iterator
        with pytest.raises(ZeroDivisionError):
            for _ in gr.Loader(arrays, 10, num_threads=2):
                raise ZeroDivisionError
    gc.collect()
    assert wait_until(lambda: threads() <= before[0] and descriptors() <= before[1])


def test_two_iterators_at_once(arrays):
    loader = gr.Loader(arrays, 10)
    for (_, a), (_, b) in zip(loader.batches(), loader.batches(5), strict=False):
        assert b[0] - a[0] == 50
    assert [y[0] for _, y in loader.batches(98)] == [980, 990]


EXITS = {
    "at_the_end": "held = list(loader)",
    "in_the_middle": "it = iter(loader); held = next(it)",
    "by_an_exception": "it = iter(loader); held = next(it); raise SystemExit(0)",
    "with_a_thread_reading": (
        "import threading, itertools\n"
        "def read():\n"
        "    for _ in itertools.cycle(loader): pass\n"
        "thread = threading.Thread(target=read, daemon=True); thread.start(); import time; time.sleep(0.2)"
    ),
    "with_python_at_work": (
        "import time\n"
        "loader = gr.Loader(gr.sources.Callable(lambda i: (time.sleep(0.01), x[i])[1], 1000), 10)\n"
        "it = iter(loader); held = next(it)"
    ),
}


@pytest.mark.parametrize("way", EXITS)
def test_the_interpreter_exits_cleanly(way):
    code = f"""
import numpy as np, gradring as gr
x = np.arange(100000).reshape(-1, 10)
loader = gr.Loader(x, 10, num_threads=2)
{EXITS[way]}
"""
    done = run_script(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or way == "with_a_thread_reading"


def test_close_from_another_thread_ends_a_wait():
    event = threading.Event()
    loader = gr.Loader(gr.sources.Callable(lambda i: (event.wait(20), np.zeros(2))[1] if i else np.zeros(2), 10), 5)

    def close():
        threading.Event().wait(0.2)
        threading.Timer(0.2, event.set).start()  # close joins the worker, which must get on
        loader.close()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(gr.LoaderError, match="closed while it was being read"):
        list(loader)
    thread.join()
    with pytest.raises(gr.LoaderError, match="was closed"):
        iter(loader)
