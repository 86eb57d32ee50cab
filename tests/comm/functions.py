"""Functions that ranks in other processes run."""

import contextlib
import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import gradring as gr


def many_meetings(count):
    """CPU seconds of this rank per meeting, on two cores at most."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with gr.comm.init(timeout=100.0) as comm:
        x = comm.empty(20000)
        x[:] = 0
        comm.barrier()
        before = time.process_time()
        for _ in range(count):
            comm.all_reduce(x)
            comm.barrier()
        return (time.process_time() - before) / count


def two_threads_wait():
    """The sums of two small operations, which two threads of rank 0 begin long before rank 1 comes."""
    with gr.comm.init(timeout=20.0) as comm:
        comm.barrier()
        if comm.rank == 1:
            time.sleep(0.4)
            return [float(comm.all_reduce(np.ones(3))[0]) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda _: float(comm.all_reduce(np.ones(3))[0]), range(2)))


def descriptors_left(end):
    """What the descriptors of this rank refer to that its communicators have left open."""

    def opened():
        found = {}
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the folder's own
                found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        return found

    before = opened()
    comm = gr.comm.init(timeout=20.0)
    half = comm.split(0)
    for each in (comm, half):
        shared = each.empty(100_000)
        shared[:] = 1
        each.all_reduce(shared)
        each.all_reduce(np.ones(100_000), async_op=True).wait()
    if end == "after a death":
        half.barrier()
        if half.rank == 1:
            return []  # so this process ends without a close
        for each in (half, comm):
            with contextlib.suppress(gr.PeerDied):
                each.barrier()
    del shared
    if end != "dropped":
        half.close()
        comm.close()
    del comm, half, each
    gc.collect()
    # The communicator's thread lets go of its last operation a moment after the wait for it has returned.
    deadline = time.monotonic() + 5
    while left := sorted(text for number, text in opened().items() if before.get(number) != text):
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return left


def arrays_in_any_order():
    """Makes and frees arrays of `comm.empty` in another order on each rank."""
    with gr.comm.init(timeout=60.0) as comm:
        return in_any_order(comm)


SIZES = {"a": 70_001, "b": 13, "c": 600_000, "d": 1025}


def in_any_order(comm):
    """The sums over arrays that each rank has made in an order of its own, between others that it has freed."""
    for turn in range(2):
        arrays, others = {}, []
        names = sorted(SIZES)
        for name in names[comm.rank :] + names[: comm.rank] if turn == 0 else names[:: 1 - 2 * (comm.rank % 2)]:
            others += [comm.empty(1000 * (comm.rank + 1), "uint8") for _ in range(comm.rank)]
            arrays[name] = comm.empty(SIZES[name])
            del others[::2]
        for number, name in enumerate(names):
            x = arrays[name]
            x[:] = comm.rank + number
            comm.all_reduce(x)
            expected = sum(rank + number for rank in range(comm.size))
            assert (x == expected).all(), (turn, name)
            assert (comm.all_gather(x[: x.size // 2 + 1]) == expected).all(), (turn, name)
    return True
