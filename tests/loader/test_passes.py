"""Passes over one loader follow each other: how one ended does not spoil the next."""

import gc
import os
import signal
import subprocess
import threading

import numpy as np
import pytest

import gradring as gr

from .functions import Fails, Sample, in_processes, numbers
from .resources import is_dead, wait_until


def test_an_iterator_that_has_finished_closes_nothing():
    loader = gr.Loader(np.arange(5000), 7, shuffle=True)
    expected = list(range(5000))
    iterator, passes = iter(loader), []
    for _ in range(6):
        passes.append([int(i) for batch in iterator for i in batch])
        iterator = iter(loader)  # the one that has finished dies when the next pass has begun
    assert all(sorted(one) == expected for one in passes)
    for _ in range(6):
        iterator = iter(loader)
        assert sorted(int(i) for batch in iterator for i in batch) == expected


@pytest.mark.parametrize("in_a_cycle", [False, True])
@pytest.mark.parametrize("end", ["exhausted", "failed"])
def test_a_finished_iterator_may_die_at_any_batch_of_the_next_pass(end, in_a_cycle):
    fail = [end == "failed"]

    def sample(i):
        if i == 55 and fail[0]:
            raise KeyError("sample 55 is bad")
        return np.int64(i)

    loader = gr.Loader(gr.sources.Callable(sample, 100), 3, num_threads=2, prefetch=4)
    for die_at in range(0, 30, 3):
        fail[0] = end == "failed"
        old = iter(loader)
        if fail[0]:
            with pytest.raises(KeyError, match="sample 55"):
                list(old)
        else:
            list(old)
        fail[0] = False
        cycle = [old]
        if in_a_cycle:
            cycle.append(cycle)
        del old
        got = []
        for number, batch in enumerate(loader):
            got += batch.tolist()
            if number == die_at:
                del cycle
                gc.collect()
        assert got == list(range(100))


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_finished_iterator_may_die_in_another_thread(workers):
    source = gr.sources.Callable(Sample(), 60, workers=workers)
    with gr.Loader(source, 5, num_threads=2) as loader:
        for _ in range(5):
            old = [iter(loader)]
            list(old[0])
            begun = threading.Event()

            def drop(old=old, begun=begun):
                begun.wait(20)
                old.clear()

            thread = threading.Thread(target=drop)
            thread.start()
            got = []
            for _, y in loader:
                got += y.tolist()
                begun.set()
            thread.join()
            assert got == list(range(60))


@pytest.mark.parametrize("at_work", [True, False])
def test_a_pass_after_the_death_of_a_worker_is_whole(at_work):
    """No restart is left. The death ends one pass at most, at once, and no later one."""
    with gr.Loader(in_processes(Sample(seconds=0.001)), 10, num_threads=2, timeout=600.0) as loader:
        for _ in range(3):
            got, victim = [], None
            with pytest.raises(gr.WorkerDied, match="was killed by SIGKILL") as caught:
                for number, (_, y) in enumerate(loader):
                    got += y.tolist()
                    if number == 2 and at_work:
                        victim = loader._last.workers.pids[1]
                        os.kill(victim, signal.SIGKILL)
                if not at_work:
                    victim = loader._last.workers.pids[1]
                    os.kill(victim, signal.SIGKILL)
                    assert wait_until(lambda victim=victim: is_dead(victim))
                    list(loader)
            assert caught.value.pid == victim and got == list(range(len(got)))
            del caught
            gc.collect()
            assert numbers(loader) == list(range(100))


def test_a_pass_after_a_restart_that_failed_is_whole(monkeypatch):
    popen, refused = subprocess.Popen, []

    def refuse_once(*arguments, **options):
        if refused:
            raise refused.pop()
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse_once)
    with gr.Loader(in_processes(Sample(seconds=0.001)), 10, num_threads=2, restart=9, timeout=600.0) as loader:
        with pytest.raises(BlockingIOError, match="no more processes"):
            for number, _ in enumerate(loader):
                if number == 2:
                    refused.append(BlockingIOError("no more processes"))
                    os.kill(loader._last.workers.pids[0], signal.SIGKILL)
        assert not refused
        gc.collect()
        assert numbers(loader) == list(range(100))


def test_a_pass_after_a_stuck_worker_is_whole(tmp_path):
    source = in_processes(Sample("stop", at=57, marker=str(tmp_path / "stopped")))
    with gr.Loader(source, 10, timeout=0.5) as loader:
        with pytest.raises(gr.LoaderError, match="process is stopped"):
            list(loader)
        assert numbers(loader) == list(range(100))


def test_a_source_that_cannot_begin_says_so_in_every_pass():
    with gr.Loader(gr.sources.Callable(Fails(), 100, workers="processes"), 10, timeout=600.0) as loader:
        for _ in range(3):
            with pytest.raises(ImportError, match="this worker lacks a library"):
                list(loader)
            gc.collect()


@pytest.mark.parametrize("other", ["batches", "fit"])
@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_pass_that_was_left_keeps_its_place_while_others_read(other, num_threads):
    x, y = np.arange(400, dtype=np.float32).reshape(100, 4), np.arange(100) % 3
    loader = gr.Loader((x, y), 10, shuffle=True, num_threads=num_threads)
    iterator = iter(loader)
    expected = [next(iterator)[0] for _ in range(3)]
    del iterator
    state = loader.state_dict()
    assert state["position"] == 30
    if other == "batches":
        assert len(list(loader.batches())) == 10
    else:
        trainer = gr.Trainer(gr.nn.Linear(4, 3))
        scaled = gr.Loader((x, y), 10, shuffle=True, num_threads=num_threads, transforms={0: gr.transforms.Scale(1.0)})
        iterator = iter(scaled)
        for _ in range(3):
            next(iterator)
        del iterator
        trainer.evaluate(scaled)
        assert scaled.state_dict() == state
    assert loader.state_dict() == state
    loader.load_state_dict(state)
    whole = [*expected, *(batch for batch, _ in loader)]
    assert sorted(np.concatenate(whole)[:, 0].tolist()) == x[:, 0].tolist()


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_iterators_and_feeds_have_one_pipeline_after_the_other(workers):
    source = gr.sources.Callable(Sample(), 100, workers=workers)
    with gr.Loader(source, 10, num_threads=1) as loader:
        dtypes = [dtype.name for _, dtype in loader.fields().looks]
        assert numbers(loader) == list(range(100))
        first = loader._last
        feed = loader.fields(start=3).open(dtypes)
        assert feed.next_rows() == 10 and loader._last is first
        iterator = iter(loader)  # beside the feed, which goes on with its pipeline
        second = loader._last
        assert second is not first
        assert next(iterator)[1].tolist() == list(range(10))
        assert feed.next_rows() == 10
        del feed  # in the middle of its pass, with a batch that was not trained on
        gc.collect()
        assert numbers(loader) == list(range(100)) and loader._last in (first, second)
        assert loader.stats().held == 0
        casting = loader.fields().open(["float64", "int64"])
        third = loader._last
        assert third is not first and third is not second
        del casting
        gc.collect()
        assert next(iter(loader))[0].dtype == dtypes[0] and loader._last is not third
        assert not any(lease.pipeline.closed for lease in (first, second, third))
    assert all(lease.pipeline.closed for lease in (first, second, third))
    with pytest.raises(gr.LoaderError, match="the loader was closed"):
        loader.fields().open(dtypes)


def test_a_pass_that_could_not_begin_leaves_its_pipeline_to_the_next():
    event = threading.Event()
    at = {"stuck": True}

    def sample(i):
        if i == 15 and at["stuck"]:
            event.wait(60)
        return np.int64(i)

    with gr.Loader(gr.sources.Callable(sample, 100), 10, num_threads=1, timeout=0.3) as loader:
        next(iter(loader))  # left early; its worker is stuck in the second batch
        lease = loader._last
        with pytest.raises(gr.LoaderError, match="timeout"):
            iter(loader)
        at["stuck"] = False
        event.set()
        gc.collect()
        assert [int(i) for batch in loader for i in batch] == list(range(100))
        assert loader._last is lease


@pytest.mark.parametrize("world_size", [1, 3, 7])
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("samples", "batch_size"), [(1, 1), (100, 7), (101, 5), (9, 9), (8, 100)])
def test_the_length_is_the_number_of_batches_that_come(samples, batch_size, drop_last, pad, world_size):
    for rank in range(world_size):
        options = {"rank": rank, "world_size": world_size, "drop_last": drop_last, "pad": pad}
        try:
            loader = gr.Loader(np.arange(samples), batch_size, num_threads=0, **options)
        except ValueError as error:
            assert drop_last and "drop_last leaves nothing" in str(error)
            continue
        assert len(loader) == len(list(loader))
