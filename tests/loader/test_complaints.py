"""Faults of other loaders that their users report, as far as no other test covers them. docs/loader.md has the whole list."""

import ctypes
import re
import threading
from pathlib import Path

import numpy as np
import pytest

import gradring as gr

from .functions import Looks, Meets, Sample, global_draws, in_processes
from .resources import descriptors, resident_bytes, shared_names, threads, wait_until


def mapped_at(address, pid="self"):
    """(permissions, inode, name) of the mapping that an address lies in."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        bounds, permissions, _, _, inode, *name = line.split(maxsplit=5)
        begin, end = (int(bound, 16) for bound in bounds.split("-"))
        if begin <= address < end:
            return permissions, int(inode), "".join(name)
    raise AssertionError("the address is not mapped")


def test_the_memory_of_workers_does_not_grow():
    """Counting references copies pages that fork shared. Here each worker unpickles once, and that is all."""
    with gr.Loader(in_processes(Looks([str(i) for i in range(100_000)]), 40), 4, num_threads=2) as loader:
        list(loader)
        before = [resident_bytes(pid) for pid in loader._last.workers.pids]
        for _ in range(5):
            list(loader)
        after = [resident_bytes(pid) for pid in loader._last.workers.pids]
    assert all(b - a < 8 << 20 for a, b in zip(before, after, strict=True)), (before, after)


@pytest.mark.cpu("a batch on a device is a copy")
def test_a_batch_is_the_shared_memory_that_its_workers_wrote():
    """No copy, no pickle: the array lies in an anonymous mapping that workers have too, fit to be registered once."""
    with gr.Loader(in_processes(Sample()), 10, num_threads=2) as loader:
        places = set()
        for x, y in loader:
            for array in (x, y):
                permissions, inode, name = mapped_at(array.ctypes.data)
                assert permissions.startswith("rw-s") and "memfd:gradring-slots" in name
                places.add(inode)
        assert len(places) == 1
        for pid in loader._last.workers.pids:
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert re.search(rf" {places.copy().pop()} +/memfd:gradring-slots", maps)


def test_workers_go_on_while_someone_holds_the_interpreters_lock():
    x = np.zeros((64, 1 << 18), np.uint8)
    python_threads = set(threading.enumerate())
    with gr.Loader(
        x, 4, prefetch=8, num_threads=2, transforms=[gr.transforms.Scale(0.5)], memory_budget=1 << 30
    ) as loader:
        iterator = iter(loader)
        frozen = 0
        for _ in range(20):
            if frozen == 32:
                break
            ctypes.PyDLL(None).usleep(1_000_000)  # a C function called with the lock held
            frozen = sum(worker["rows"] for worker in loader.stats().per_worker)
        assert set(threading.enumerate()) <= python_threads
        del iterator
    assert frozen == 32


def test_arrays_are_read_without_calling_python():
    class Untouchable(np.ndarray):
        def __getitem__(self, index):
            raise AssertionError("a sample was fetched by Python")

    x = np.arange(1000).view(Untouchable)
    with gr.Loader(x, 10, shuffle=True) as loader:
        assert sorted(np.concatenate(list(loader)).tolist()) == list(range(1000))


def test_workers_start_side_by_side(tmp_path):
    with gr.Loader(in_processes(Meets(tmp_path, 4), 40, num_workers=4), 8) as loader:
        assert np.concatenate(list(loader)).tolist() == list(range(40))


@pytest.mark.cpu("a device made of software has descriptors for its memory")
def test_held_batches_cost_no_descriptors():
    names = shared_names()
    with gr.Loader(in_processes(Sample(), 600), 2) as loader:
        iterator = iter(loader)
        kept = [next(iterator)]
        before = descriptors()
        kept += list(iterator)
        assert len(kept) == 300 and descriptors() <= before
        assert shared_names() <= names


def test_workers_do_not_repeat_each_others_random_numbers():
    with gr.Loader(in_processes(global_draws), 10) as loader:
        rows = np.concatenate([*loader, *loader])
    assert len(np.unique(rows)) == rows.size


def test_generators_are_keyed_by_the_sample_whoever_draws():
    step = gr.transforms.Python(lambda row, generator: row + generator.random(3), rng=True)
    streams = []
    for num_threads in (0, 1, 3):
        with gr.Loader(np.zeros((60, 3)), 7, shuffle=True, transforms=[step], num_threads=num_threads) as loader:
            streams.append(np.concatenate(list(loader)))
    assert all(np.array_equal(streams[0], other) for other in streams)
    assert len(np.unique(streams[0])) == 180


def test_a_slow_sample_does_not_stop_the_others():
    gate = threading.Event()

    def slow_at_20(i):
        if i == 20:
            assert gate.wait(60)
        return np.int64(i)

    loader = gr.Loader(gr.sources.Callable(slow_at_20, 100), 10, num_threads=2, prefetch=5)
    with loader:
        iterator = iter(loader)
        got = [next(iterator), next(iterator)]
        # While one worker is stuck in batch 2, the other one fills batches 3 and 4. Of the two slots that are free again it
        # may learn later, because a worker that sleeps is woken for several batches at a time.
        rows = lambda: sum(worker["rows"] for worker in loader.stats().per_worker)  # noqa: E731
        filled = wait_until(lambda: rows() >= 20 + 2 * 10)
        gate.set()
        assert filled
        got += list(iterator)
    assert np.concatenate(got).tolist() == list(range(100))


@pytest.mark.parametrize("num_threads", ["auto", 4])
def test_tuning_keeps_within_the_budget(num_threads):
    budget = 3 << 20
    kept = []
    with gr.Loader(
        np.zeros((4000, 1024), np.uint8), 32, num_threads=num_threads, memory_budget=budget, timeout=30
    ) as loader:
        for epoch in range(4):
            for i, batch in enumerate(loader):
                if i % 3 == epoch % 3 and len(kept) < 40:
                    kept.append(batch)
                elif kept:
                    kept.pop(0)
                stats = loader.stats()
                assert stats.slots * stats.slot_bytes <= budget
    with pytest.raises(ValueError, match="memory_budget is 1000 bytes"):
        gr.Loader(np.zeros((4000, 1024), np.uint8), 32, memory_budget=1000)


def test_the_own_choice_of_a_budget_is_a_part_of_the_free_memory(monkeypatch):
    from gradring.loader import pipelines

    monkeypatch.setattr(pipelines._core, "memory_left", lambda: 8 << 20)
    loader = gr.Loader(np.zeros((4000, 1024), np.uint8), 32)
    assert loader._maker.size.budget <= 2 << 20


@pytest.mark.cpu("a batch on a device is a copy")
def test_a_hand_off_neither_copies_nor_starts_anything():
    x = np.zeros((400, 3, 64, 64), np.uint8)
    with gr.Loader(x, 20, num_threads=2, prefetch=3) as loader:
        for _ in loader:
            pass
        before = threads(), descriptors()
        addresses = {batch.ctypes.data for _ in range(20) for batch in loader}
        assert threads() <= before[0] and descriptors() <= before[1]
    assert len(addresses) <= 3 + 3  # the same slots again and again


def test_early_breaks_keep_the_same_worker_processes():
    with gr.Loader(in_processes(Sample()), 5, prefetch=4) as loader:
        next(iter(loader))
        pids, fds = loader._last.workers.pids, descriptors()
        for _ in range(100):
            for _ in loader:
                break
        assert loader._last.workers.pids == pids and descriptors() <= fds
        assert [int(i) for _, y in loader for i in y] == list(range(100))


ROOT = Path(__file__).parents[2]
COMPLAINTS = {
    int(row[1]): row[2]
    for row in re.finditer(r"^\| (\d+) \| .* \| ([^|]+) \|$", (ROOT / "docs" / "loader.md").read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("number", range(1, 23))
def test_every_complaint_has_tests_that_exist(number):
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", COMPLAINTS[number])
    assert named
    for path, function in named:
        assert re.search(rf"^def {function}\(", (ROOT / "tests" / "loader" / path).read_text(), re.MULTILINE), function
