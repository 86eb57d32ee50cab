"""A loader ends when its user wants it to, even while a function in a worker does not return."""

import gc
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import gradring as gr
from gradring.loader import pipelines
from helpers import run_script

from .functions import Sample
from .resources import threads, wait_until

HEAD = """
import gc, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
import numpy as np, gradring as gr

def loader_of(fn, num_threads):
    if num_threads == "rows":
        step = gr.transforms.Python(lambda row: fn(int(row[0])))
        return gr.Loader(np.arange(300.0).reshape(100, 3) // 3, 10, transforms=step, num_threads=2)
    return gr.Loader(gr.sources.Callable(fn, 100), 10, num_threads=num_threads)
"""


def run(script, *arguments):
    done = run_script(HEAD + textwrap.dedent(script), *arguments)
    assert done.returncode in (0, -2, 130), f"{done.returncode}: {done.stderr}"
    return done


def test_ctrl_c_while_a_function_is_stuck():
    script = """
    def stuck(i):
        if i == 20:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(1000)
        return np.zeros(3)

    for _ in loader_of(stuck, 2): pass
    """
    errors = run(script).stderr
    assert errors.count("Traceback") == 1 and "KeyboardInterrupt" in errors


@pytest.mark.parametrize("num_threads", [0, 1, 2, "rows"])
def test_a_function_may_close_its_own_loader(num_threads):
    script = f"""
    def close(i):
        if i == 20: loader.close()
        return np.zeros(3)

    loader = loader_of(close, {num_threads!r})
    try:
        for _ in loader: pass
    except gr.LoaderError as error: print(error)
    """
    assert "closed while it was being read" in run(script).stdout


@pytest.mark.parametrize("num_threads", [1, 2, "rows"])
def test_a_signal_handler_may_close_the_loader_that_it_interrupts(num_threads):
    script = f"""
    event = threading.Event()
    def wait(i):
        if i == 20:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            event.wait(20)
        return np.zeros(3)

    loader = loader_of(wait, {num_threads!r})
    signal.signal(signal.SIGALRM, lambda *_: (loader.close(), event.set()))
    try:
        for _ in loader: pass
    except gr.LoaderError as error: print(error)
    """
    assert "closed while it was being read" in run(script).stdout


def test_garbage_is_collected_under_a_lock_that_a_worker_wants():
    script = """
    lock = threading.Lock()
    def locked(i):
        with lock: time.sleep(0.001)
        return np.zeros(3)

    def leave():
        loader = loader_of(locked, 2)
        iterator = iter(loader)
        next(iterator)
        cycle = [loader, iterator]
        cycle.append(cycle)

    gc.disable()
    leave()
    with lock: gc.collect()
    print("done")
    """
    assert run(script).stdout == "done\n"


def test_garbage_is_collected_in_a_worker_of_its_own():
    script = """
    leave, left = threading.Event(), threading.Event()
    def collect(i):
        if i == 25:
            leave.wait(20)
            gc.collect()
            left.set()
        return np.zeros(3)

    def use():
        loader = loader_of(collect, 1)
        iterator = iter(loader)
        next(iterator), next(iterator)
        cycle = [loader, iterator]
        cycle.append(cycle)

    gc.disable()
    use()
    leave.set()
    assert left.wait(20)
    while gr._core.loaders_left(): time.sleep(0.01)
    print("done")
    """
    assert run(script).stdout == "done\n"


@pytest.mark.parametrize("kind", ["source", "transform"])
def test_a_loader_that_its_own_function_knows_is_garbage_in_the_end(kind):
    """`self.loader = Loader(Callable(self.read, ...))` is what people write."""

    class Data:
        def __init__(self):
            self.x = np.arange(300.0).reshape(100, 3)
            if kind == "source":
                self.loader = gr.Loader(gr.sources.Callable(self.read, 100), 10, num_threads=2)
            else:
                self.loader = gr.Loader(self.x, 10, transforms=gr.transforms.Python(self.row), num_threads=2)

        def read(self, i):
            return self.x[i]

        def row(self, row):
            return row

    gc.collect()
    before = threads()
    data = Data()
    freed = weakref.ref(data)
    held = list(data.loader)
    for _ in data.loader:
        break
    del data, _
    gc.collect()
    assert freed() is None and wait_until(lambda: threads() <= before)
    assert np.array_equal(np.concatenate(held), np.arange(300.0).reshape(100, 3))


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_workers_end_after_a_sample_and_not_after_a_batch(workers):
    source = gr.sources.Callable(Sample(seconds=0.02), 100_000, workers=workers, num_workers=1)
    loader = gr.Loader(source, 40, num_threads=1 if workers == "threads" else "auto", prefetch=1)
    iterator = iter(loader)
    next(iterator)
    rows = loader.stats().per_worker[0]["rows"]
    del iterator
    time.sleep(0.5)
    assert loader.stats().per_worker[0]["rows"] <= rows + 40  # the batch that it was at is left, and no other begun
    assert next(iter(loader))[1].tolist() == list(range(40))
    loader.close()
    assert gr._core.loaders_left() is False


def test_close_does_not_wait_for_ever(monkeypatch, caplog, tmp_path):
    event, marker = threading.Event(), tmp_path / "stuck"
    source = gr.sources.Callable(Sample("hang", at=20, marker=str(marker), until=event), 100)
    loader = gr.Loader(source, 10, num_threads=1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    assert wait_until(marker.exists)
    monkeypatch.setattr(pipelines.Pipelines.close, "__defaults__", (0.2,))
    loader.close()
    assert "did not end within" in caplog.text
    del iterator, loader
    gc.collect()
    assert gr._core.loaders_left()
    event.set()
    assert wait_until(lambda: not gr._core.loaders_left())


@pytest.mark.parametrize("num_threads", [0, 1])
def test_an_iterator_is_not_read_from_within_its_own_read(num_threads):
    seen = []

    class Reads:
        def __del__(self):
            try:
                next(iterator)
            except gr.LoaderError as error:
                seen.append(str(error))

    def read(i):
        if i == 20 and num_threads == 0:
            Reads()
        return np.zeros(3)

    slot = 10 * 24 + 24 + 128
    loader = gr.Loader(
        gr.sources.Callable(read, 100), 10, num_threads=num_threads, prefetch=2, memory_budget=6 * slot, timeout=0.5
    )
    iterator = iter(loader)
    held = []
    cycle = [Reads()]
    cycle.append(cycle)
    del cycle
    gc.disable()  # garbage is then collected where the loader looks for held batches, within a read
    try:
        with pytest.raises(gr.LoaderError, match="batches are held"):
            for batch in iterator:
                held.append(batch)
    finally:
        gc.enable()
    assert seen and all("being read by this thread already" in text for text in seen)


def test_one_loader_read_by_many_threads():
    """Each pass has its own batches, in order, and does not depend on the other passes."""
    x = np.arange(1000)
    loader = gr.Loader(x, 10, num_threads=2)
    wrong = []

    def read():
        try:
            for _ in range(40):
                got = np.concatenate([batch.copy() for batch in loader.batches()])
                if not np.array_equal(got, x):
                    wrong.append(got)
        except BaseException as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong and not any(reader.is_alive() for reader in readers)


def test_one_iterator_read_by_many_threads():
    """Each batch goes to one of them."""
    loader = gr.Loader(np.arange(5000), 10, num_threads=2)
    iterator, got = iter(loader), [[] for _ in range(4)]

    def read(mine):
        for batch in iterator:
            mine += batch.tolist()

    readers = [threading.Thread(target=read, args=(mine,)) for mine in got]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert sorted(i for mine in got for i in mine) == list(range(5000)) and loader.epoch == 1


def test_a_thread_that_comes_back_while_the_interpreter_ends():
    """It finds no interpreter to come back to. (The wait at exit, which is there for that, is taken away.)"""
    script = """
    import atexit
    from gradring.loader import pipelines
    atexit.unregister(pipelines._at_exit)

    def slow(i):
        time.sleep(0.0005)
        return np.zeros(3)

    loader = loader_of(slow, sys.argv[1] if sys.argv[1] == "rows" else 3)
    iterator = iter(loader)
    next(iterator)
    """
    for kind in ("source", "rows", "source", "rows"):
        done = run(script, kind)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize("num_threads", [0, 1, "auto"])
@pytest.mark.parametrize("transforms", [None, {0: gr.transforms.Scale(2.0)}])
def test_fit_ends_when_its_loader_is_closed(num_threads, transforms, blobs):
    """A callback closes the loader, which for the workers is a close by another thread. A closed loader trains no model."""
    loader = gr.Loader(blobs, 16, num_threads=num_threads, transforms=transforms)

    class Close(gr.callbacks.Callback):
        def on_epoch_end(self, run):
            loader.close()

    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(8, 3)))
    with pytest.raises(gr.LoaderError, match="closed"):
        trainer.fit(loader, epochs=5, callbacks=[Close()])
    assert trainer.epoch == 1
    with pytest.raises(gr.LoaderError, match="closed"):
        trainer.evaluate(loader)
    trainer.fit(blobs)
