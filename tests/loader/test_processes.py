"""Worker processes at work: what they share, exceptions, deaths, restarts, stuck workers."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from gradring import _core

from .functions import Fails, Sample, draws, in_processes, numbers
from .resources import children, wait_until


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
        gr.Loader(in_processes(Sample("unpicklable", at=3)), 10) as loader,
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
    with gr.Loader(in_processes(Sample(mode, at=57)), 10) as loader:
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
    source = in_processes(Sample(mode, at=57, marker=str(tmp_path / "died")))
    with gr.Loader(source, 10, shuffle=True, seed=3, restart=1) as loader:
        got = numbers(loader)
        assert loader.stats().restarted == 1
        again = numbers(loader)
    reference = gr.Loader(np.arange(100), 10, shuffle=True, seed=3)
    assert got == np.concatenate(list(reference)).tolist()
    assert again == np.concatenate(list(reference)).tolist()


@pytest.mark.parametrize("restart", [0, 1])
def test_a_worker_that_dies_at_rest_is_found_too(restart, monkeypatch):
    monkeypatch.setattr(_core, "usable_cores", lambda: 1)  # one works, the other rests
    with gr.Loader(in_processes(Sample(), 3000), 10, restart=restart) as loader:
        got = []
        with pytest.raises(gr.WorkerDied, match="was killed by SIGKILL") if not restart else nullcontext():
            for _, y in loader:
                got += y.tolist()
                if len(got) == 100:
                    os.kill(loader._last.workers.pids[1], signal.SIGKILL)
                time.sleep(0.005)
        assert loader.stats().restarted == restart
        assert got == list(range(3000)) if restart else len(got) < 3000


def test_workers_killed_at_random_moments_change_nothing():
    random = np.random.default_rng()
    expected = np.concatenate(list(gr.Loader(np.arange(300), 7, shuffle=True))).tolist()
    source = in_processes(Sample(seconds=0.001), 300)
    with gr.Loader(source, 7, shuffle=True, num_threads=2, restart=100) as loader:
        got = []
        for x, y in loader:
            assert np.array_equal(x[:, 1, 1], y)
            got += y.tolist()
            if random.random() < 0.2:
                os.kill(random.choice(children()), signal.SIGKILL)
        assert got == expected and loader.stats().restarted > 0


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_stuck_worker_raises_with_its_stack(workers):
    event = threading.Event() if workers == "threads" else None
    loader = gr.Loader(gr.sources.Callable(Sample("hang", at=57, until=event), 100, workers=workers), 10, timeout=0.5)
    with pytest.raises(gr.LoaderError, match="timeout") as caught:
        list(loader)
    assert "in act" in str(caught.value) and "functions.py" in str(caught.value)
    assert ("pid " in str(caught.value)) == (workers == "processes")
    if event:
        event.set()
    loader.close()


def test_a_stuck_worker_can_be_restarted(tmp_path):
    source = in_processes(Sample("hang", at=57, marker=str(tmp_path / "hung")))
    with gr.Loader(source, 10, timeout=0.5, restart=1) as loader:
        assert numbers(loader) == list(range(100))


def test_a_stopped_worker_is_told_apart():
    with (
        gr.Loader(in_processes(Sample("stop", at=57)), 10, timeout=0.5) as loader,
        pytest.raises(gr.LoaderError, match="process is stopped"),
    ):
        list(loader)


def test_a_worker_that_cannot_begin_says_why():
    with (
        gr.Loader(gr.sources.Callable(Fails(), 100, workers="processes"), 10) as loader,
        pytest.raises(ImportError, match="this worker lacks a library") as caught,
    ):
        list(loader)
    assert "in fail" in str(caught.value.__cause__)


def test_what_cannot_be_pickled_is_refused_at_once():
    before = set(children())
    lock = threading.Lock()  # which cloudpickle cannot pickle either
    with pytest.raises(TypeError, match="cannot be sent to worker processes"):
        iter(gr.Loader(gr.sources.Callable(lambda i: (lock, np.zeros(1))[1], 100, workers="processes"), 10))
    assert wait_until(lambda: set(children()) <= before)


def test_random_numbers_are_keyed_by_the_sample():
    with gr.Loader(in_processes(draws), 10) as loader:
        rows = np.concatenate(list(loader))
    assert len(np.unique(rows)) == rows.size
    assert np.array_equal(rows[57], draws(57))


def test_large_arrays_are_mapped_not_copied():
    """Workers over one array: the memory of each grows by little more than what it writes."""
    ballast = np.zeros(8 << 20)  # 64 MiB
    source = in_processes(Sample(ballast=ballast))
    with gr.Loader(source, 10) as loader:
        assert numbers(loader) == list(range(100))
        for pid in loader._last.workers.pids:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
            assert private < 50 * 1024  # kB


def test_workers_stop_where_the_budget_ends():
    """However slow the consumer, no more batches are made than fit."""
    with gr.Loader(in_processes(Sample(), 1000), 10, prefetch=3) as loader:
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
    assert done.returncode == 1 and "put everything but definitions under `if __name__" in done.stderr
    assert (
        done.stderr.rstrip().splitlines()[-1].startswith("gradring.errors.LoaderError: [loader] a worker process that")
    )
