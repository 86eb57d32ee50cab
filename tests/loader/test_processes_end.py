"""Worker processes end: with their loader, on Ctrl-C, at exit, by themselves, around fork; nothing is left behind."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from helpers import exit_of_child

from .functions import Sample, in_processes, numbers
from .resources import children, descriptors, is_dead, shared_names, wait_until


@pytest.mark.cpu("a device made of software has descriptors for its memory")
def test_nothing_is_left_behind():
    def use(mode):
        try:
            with gr.Loader(in_processes(Sample(mode, at=20)), 10, timeout=1) as loader:
                for i, _ in enumerate(loader):
                    if i == 5:
                        break
        except (KeyError, gr.LoaderError):
            pass

    names = shared_names()
    use("")
    gc.collect()
    before, processes = descriptors(), set(children())
    for mode in ("", "raise", "kill", "hang"):
        use(mode)
    gc.collect()
    assert descriptors() <= before
    assert wait_until(lambda: set(children()) <= processes)
    assert shared_names() <= names


def test_batches_outlive_their_workers():
    loader = gr.Loader(in_processes(Sample()), 10)
    kept = list(loader)
    loader.close()
    assert all(np.array_equal(x[:, 2, 1], y) for x, y in kept)


@pytest.mark.cpu("no forked process can use the device of its parent")
def test_a_forked_child_is_told():
    x = np.arange(1000)
    loader = gr.Loader(x, 10, num_threads=2)
    iterator = iter(loader)
    next(iterator)

    def in_child():
        nonlocal iterator
        with pytest.raises(gr.LoaderError, match="before fork"):
            next(iterator)
        # A new pass works: it makes workers of its own.
        assert len(np.concatenate(list(loader.batches()))) == 1000
        del iterator
        loader.close()
        return 0

    assert exit_of_child(in_child) == 0
    assert len(np.concatenate(list(iterator))) == 990


@pytest.mark.cpu("no forked process can use the device of its parent")
def test_a_forked_child_leaves_the_workers_to_its_parent():
    with gr.Loader(in_processes(Sample()), 10) as loader:
        iterator = iter(loader)
        got = next(iterator)[1].tolist()
        pids = loader._last.workers.pids

        def in_child():
            with pytest.raises(gr.LoaderError, match="before fork"):
                next(iterator)
            loader.close()
            return 0

        assert exit_of_child(in_child) == 0
        got += [int(i) for _, y in iterator for i in y]
        assert got == list(range(100)) and loader._last.workers.pids == pids


@pytest.mark.parametrize("mode", ["", "raise"])
def test_a_loader_that_is_dropped_ends_its_processes(mode):
    before = set(children())
    try:
        for _ in gr.Loader(in_processes(Sample(mode, at=15)), 10):
            pass
    except KeyError:
        pass
    gc.collect()
    assert wait_until(lambda: set(children()) <= before)


def test_close_from_another_thread_ends_a_wait_for_processes():
    loader = gr.Loader(in_processes(Sample("hang", at=57)), 10)
    seen = []

    def close():
        wait_until(lambda: len(seen) == 5)
        time.sleep(0.2)
        loader.close()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(gr.LoaderError, match="closed while it was being read"):
        for _, y in loader:
            seen.append(y)
    thread.join()


SCRIPT = """
import signal, sys, time, os
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
import numpy as np, gradring as gr

def slow(i):
    time.sleep(0.02)
    return np.full(4, i)

if __name__ == "__main__":
    loader = gr.Loader(gr.sources.Callable(slow, 100000, workers={workers!r}), 10)
    for i, x in enumerate(loader):
        if i == 1:
            print("pids", *(loader._last.workers.pids if loader._last.workers else []), flush=True)
            if {leave}:
                break
"""


def start_script(tmp_path, workers, leave=False):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(workers=workers, leave=leave)))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    line = process.stdout.readline()
    assert line.startswith("pids"), process.stderr.read()
    return process, [int(pid) for pid in line.split()[1:]]


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_ctrl_c_is_one_exception_and_leaves_nothing(tmp_path, workers):
    names = shared_names()
    process, pids = start_script(tmp_path, workers)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert shared_names() <= names


def test_an_exit_in_the_middle_ends_the_workers(tmp_path):
    process, pids = start_script(tmp_path, "processes", leave=True)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "") and len(pids) == 2
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    names = shared_names()
    process, pids = start_script(tmp_path, "processes")
    process.kill()
    process.communicate(timeout=60)
    assert len(pids) == 2 and wait_until(lambda: all(map(is_dead, pids)))
    assert shared_names() <= names


@pytest.mark.parametrize("restart", [0, 1])
def test_a_worker_that_dies_in_a_pass_that_is_left_is_missed_in_the_next(tmp_path, restart):
    # Batch 4, which no worker may begin before the first was taken, and one that sleeps not before three were.
    source = in_processes(Sample("kill", at=45, marker=str(tmp_path / "died")))
    with gr.Loader(source, 10, prefetch=4, restart=restart, timeout=60) as loader:
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        assert wait_until(lambda: any(map(is_dead, loader._last.workers.pids)))
        del iterator
        if restart:
            assert numbers(loader) == list(range(100))
        else:
            with pytest.raises(gr.WorkerDied, match="was killed by SIGKILL"):
                numbers(loader)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_worker_that_is_stuck_in_a_pass_that_is_left_is_told_of_in_the_next(workers, tmp_path):
    event, marker = threading.Event() if workers == "threads" else None, tmp_path / "stuck"
    function = Sample("hang", at=25, marker=str(marker), until=event)
    loader = gr.Loader(gr.sources.Callable(function, 100, workers=workers), 10, prefetch=4, timeout=0.5)
    iterator = iter(loader)
    next(iterator)
    assert wait_until(marker.exists)
    del iterator
    with pytest.raises(gr.LoaderError, match=r"timeout[^$]*in act"):
        iter(loader)
    if event:
        event.set()
    loader.close()
