"""Worker processes: exceptions, deaths, restarts, stuck workers, Ctrl-C, fork, and what they leave behind."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import gradring as gr

from .functions import Fails, Sample, draws
from .resources import children, descriptors, wait_until


def callable_source(function, length=100, **options):
    return gr.sources.Callable(function, length, workers="processes", num_workers=2, **options)


def numbers(loader):
    return [int(i) for _, y in loader for i in y]


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_an_exception_comes_after_all_earlier_batches_with_type_traceback_and_sample(workers):
    source = gr.sources.Callable(Sample("raise", at=57), 100, workers=workers)
    with gr.Loader(source, 10) as loader:
        seen = []
        with pytest.raises(KeyError, match="sample 57 is bad") as caught:
            for _, y in loader:
                seen += y.tolist()
    assert seen == list(range(50))
    assert caught.value.sample_index == 57
    if hasattr(caught.value, "__notes__"):
        assert "sample 57" in caught.value.__notes__[0]
    if workers == "processes":
        assert "in act" in str(caught.value.__cause__) and "functions.py" in str(caught.value.__cause__)
    else:
        names = []
        traceback = caught.value.__traceback__
        while traceback:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names[-1] == "act"


def test_an_exception_that_cannot_be_pickled_comes_as_text():
    with (
        gr.Loader(callable_source(Sample("unpicklable", at=3)), 10) as loader,
        pytest.raises(gr.LoaderError, match=r"Unpicklable: number 3"),
    ):
        list(loader)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_bad_samples_can_be_skipped(workers):
    source = gr.sources.Callable(Sample("raise", at=57), 100, workers=workers)
    with gr.Loader(source, 10, on_error="skip") as loader:
        for x, y in loader:
            assert np.array_equal(x[:, 0, 0], y)
        assert numbers(loader) == [i for i in range(100) if i != 57]
        assert loader.stats().skipped == 2 and loader.stats().rows == 198


@pytest.mark.parametrize(("mode", "signal_number", "exit_code"), [("kill", signal.SIGKILL, -9), ("exit", None, 7)])
def test_a_dead_worker_is_found_and_named(mode, signal_number, exit_code):
    with gr.Loader(callable_source(Sample(mode, at=57)), 10) as loader:
        seen = []
        with pytest.raises(gr.WorkerDied, match=r"worker process \d \(pid \d+\)") as caught:
            for _, y in loader:
                seen += y.tolist()
    assert seen == list(range(50))
    died = caught.value
    assert (died.signal, died.exit_code) == (signal_number, exit_code)
    assert died.pid > 0 and died.resident_bytes > 1 << 20
    assert f"pid {died.pid}" in str(died) and "MiB resident" in str(died)


@pytest.mark.parametrize("mode", ["kill", "exit"])
def test_a_restarted_worker_gives_the_same_stream(mode, tmp_path):
    source = callable_source(Sample(mode, at=57, marker=str(tmp_path / "died")))
    with gr.Loader(source, 10, shuffle=True, seed=3, restart=1) as loader:
        got = numbers(loader)
        assert loader.stats().restarted == 1
        again = numbers(loader)
    reference = gr.Loader(np.arange(100), 10, shuffle=True, seed=3)
    assert got == np.concatenate(list(reference)).tolist()
    assert again == np.concatenate(list(reference)).tolist()


def test_workers_killed_at_random_moments_change_nothing():
    random = np.random.default_rng()
    expected = np.concatenate(list(gr.Loader(np.arange(300), 7, shuffle=True))).tolist()
    source = gr.sources.Callable(Sample(seconds=0.001), 300, workers="processes", num_workers=2)
    with gr.Loader(source, 7, shuffle=True, restart=100) as loader:
        got = []
        for x, y in loader:
            assert np.array_equal(x[:, 1, 1], y)
            got += y.tolist()
            if random.random() < 0.2:
                os.kill(random.choice(children()), signal.SIGKILL)
        assert got == expected and loader.stats().restarted > 0


def test_a_stuck_worker_raises_with_its_stack():
    with (
        gr.Loader(callable_source(Sample("hang", at=57)), 10, timeout=0.5) as loader,
        pytest.raises(gr.LoaderError, match="timeout") as caught,
    ):
        list(loader)
    assert "in act" in str(caught.value) and "functions.py" in str(caught.value) and "pid " in str(caught.value)


def test_a_stuck_worker_can_be_restarted(tmp_path):
    source = callable_source(Sample("hang", at=57, marker=str(tmp_path / "hung")))
    with gr.Loader(source, 10, timeout=0.5, restart=1) as loader:
        assert numbers(loader) == list(range(100))


def test_a_stopped_worker_is_told_apart():
    with (
        gr.Loader(callable_source(Sample("stop", at=57)), 10, timeout=0.5) as loader,
        pytest.raises(gr.LoaderError, match="process is stopped"),
    ):
        list(loader)


def test_a_stuck_thread_raises_with_its_stack():
    event = threading.Event()

    def wait_for_ever(i):
        if i == 57:
            event.wait(30)
        return np.zeros(2)

    loader = gr.Loader(gr.sources.Callable(wait_for_ever, 100), 10, timeout=0.5)
    with pytest.raises(gr.LoaderError, match="in wait_for_ever"):
        list(loader)
    event.set()
    loader.close()


def test_a_worker_that_cannot_begin_says_why():
    with (
        gr.Loader(gr.sources.Callable(Fails(), 100, workers="processes"), 10) as loader,
        pytest.raises(ImportError, match="this worker lacks a library") as caught,
    ):
        list(loader)
    assert "in fail" in str(caught.value.__cause__)


def test_what_cannot_be_pickled_is_refused_at_once():
    before = set(children())
    loader = gr.Loader(gr.sources.Callable(lambda i: np.zeros(1), 100, workers="processes"), 10)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        iter(loader)
    loader.close()
    assert wait_until(lambda: set(children()) <= before)


def test_nothing_is_left_behind():
    def use(mode):
        try:
            with gr.Loader(callable_source(Sample(mode, at=20)), 10, timeout=1) as loader:
                for i, _ in enumerate(loader):
                    if i == 5:
                        break
        except (KeyError, gr.LoaderError):
            pass

    names = set(os.listdir("/dev/shm"))
    use("")
    gc.collect()
    before, processes = descriptors(), set(children())
    for mode in ("", "raise", "kill", "hang"):
        use(mode)
    gc.collect()
    assert descriptors() == before
    assert wait_until(lambda: set(children()) <= processes)
    assert set(os.listdir("/dev/shm")) == names


def test_batches_outlive_their_workers():
    loader = gr.Loader(callable_source(Sample()), 10)
    kept = list(loader)
    loader.close()
    assert all(np.array_equal(x[:, 2, 1], y) for x, y in kept)


def test_random_numbers_are_keyed_by_the_sample():
    with gr.Loader(callable_source(draws), 10) as loader:
        rows = np.concatenate(list(loader))
    assert len(np.unique(rows)) == rows.size
    assert np.array_equal(rows[57], draws(57))


def test_large_arrays_are_mapped_not_copied():
    """Eight workers over one array: their memory together grows by little more than what they write."""
    ballast = np.zeros(8 << 20)  # 64 MiB
    source = gr.sources.Callable(Sample(ballast=ballast), 100, workers="processes", num_workers=2)
    with gr.Loader(source, 10) as loader:
        assert numbers(loader) == list(range(100))
        for pid in loader._last.workers.pids:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
            assert private < 50 * 1024  # kB


def test_a_forked_child_is_told(tmp_path):
    x = np.arange(1000)
    loader = gr.Loader(x, 10, num_threads=2)
    iterator = iter(loader)
    next(iterator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own, of threads and fork, and JAX's where it is imported
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                next(iterator)
            except gr.LoaderError as error:
                # A new pass works: it makes workers of its own.
                if "before fork" in str(error) and len(np.concatenate(list(loader.batches()))) == 1000:
                    code = 0
            del iterator
            loader.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(np.concatenate(list(iterator))) == 990


def test_a_forked_child_leaves_the_workers_to_its_parent():
    with gr.Loader(callable_source(Sample()), 10) as loader:
        iterator = iter(loader)
        got = next(iterator)[1].tolist()
        pids = loader._last.workers.pids
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                try:
                    next(iterator)
                except gr.LoaderError as error:
                    code = 0 if "before fork" in str(error) else 2
                loader.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        got += [int(i) for _, y in iterator for i in y]
        assert got == list(range(100)) and loader._last.workers.pids == pids


@pytest.mark.parametrize("mode", ["", "raise"])
def test_a_loader_that_is_dropped_ends_its_processes(mode):
    before = set(children())
    try:
        for _ in gr.Loader(callable_source(Sample(mode, at=15)), 10):
            pass
    except KeyError:
        pass
    gc.collect()
    assert wait_until(lambda: set(children()) <= before)


def test_close_from_another_thread_ends_a_wait_for_processes():
    loader = gr.Loader(callable_source(Sample("hang", at=57)), 10)
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
    names = set(os.listdir("/dev/shm"))
    process, pids = start_script(tmp_path, workers)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert set(os.listdir("/dev/shm")) <= names


def test_an_exit_in_the_middle_ends_the_workers(tmp_path):
    process, pids = start_script(tmp_path, "processes", leave=True)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "") and len(pids) == 2
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    names = set(os.listdir("/dev/shm"))
    process, pids = start_script(tmp_path, "processes")
    process.kill()
    process.communicate(timeout=60)

    def gone(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    assert len(pids) == 2 and wait_until(lambda: all(gone(pid) for pid in pids))
    assert set(os.listdir("/dev/shm")) <= names


def test_workers_stop_where_the_budget_ends():
    """However slow the consumer, no more batches are made than fit."""
    with gr.Loader(callable_source(Sample(), 1000), 10, prefetch=3) as loader:
        iterator = iter(loader)
        next(iterator)
        time.sleep(0.3)
        assert loader.stats().slots <= 5
        made = sum(worker["rows"] for worker in loader.stats().per_worker)
        assert made <= 50


def test_a_main_module_without_a_guard_is_named_and_starts_no_flood_of_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np, gradring as gr

        def sample(i):
            return np.zeros(3)

        for _ in gr.Loader(gr.sources.Callable(sample, 100, workers="processes"), 10):
            pass
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "put what is not only definitions under `if __name__" in done.stderr
    assert (
        done.stderr.rstrip().splitlines()[-1].startswith("gradring.errors.LoaderError: [loader] a worker process that")
    )


def is_dead(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("restart", [0, 1])
def test_a_worker_that_dies_in_a_pass_that_is_left_is_missed_in_the_next(tmp_path, restart):
    # Batch 4, which no worker may begin before the first was taken.
    source = callable_source(Sample("kill", at=45, marker=str(tmp_path / "died")))
    with gr.Loader(source, 10, prefetch=4, restart=restart, timeout=60) as loader:
        iterator = iter(loader)
        next(iterator)
        assert wait_until(lambda: any(is_dead(pid) for pid in loader._last.workers.pids))
        del iterator
        if restart:
            assert numbers(loader) == list(range(100))
        else:
            with pytest.raises(gr.WorkerDied, match="was killed by SIGKILL"):
                numbers(loader)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_worker_that_is_stuck_in_a_pass_that_is_left_is_told_of_in_the_next(workers, tmp_path):
    event, marker = threading.Event(), tmp_path / "stuck"

    def wait_for_ever(i):
        if i == 25:
            marker.touch()
            event.wait(60)
        return np.zeros(2)

    function = wait_for_ever if workers == "threads" else Sample("hang", at=25, marker=str(marker))
    loader = gr.Loader(gr.sources.Callable(function, 100, workers=workers), 10, prefetch=4, timeout=0.5)
    iterator = iter(loader)
    next(iterator)
    assert wait_until(marker.exists)
    del iterator
    with pytest.raises(gr.LoaderError, match=r"timeout[^$]*in (wait_for_ever|act)"):
        iter(loader)
    event.set()
    loader.close()
