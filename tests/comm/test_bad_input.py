"""Input at the edges, and misuse: each works, or raises an error that names operation, argument, expectation and value."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from gradring import _core


def on_threads(n, body):
    comms = gr.comm.thread_group(n, timeout=60.0)
    with ThreadPoolExecutor(n) as pool:
        return [future.result() for future in [pool.submit(body, comm) for comm in comms]]


def test_more_ranks_than_cores():
    ranks = len(os.sched_getaffinity(0)) + 3

    def body(comm):
        return [comm.all_reduce(np.full(count, comm.rank + 1.0))[-1] for count in (1, 3000, 200000)]

    assert on_threads(ranks, body) == [[ranks * (ranks + 1) / 2] * 3] * ranks


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5)])
def test_arrays_of_zero_size(shape):
    def body(comm):
        for make in (comm.empty, np.empty):
            x = make(shape, "float32")
            assert comm.all_reduce(x) is x and comm.broadcast(x, root=1) is x
            assert comm.all_gather(x).shape == (2, *shape)
            assert comm.reduce_scatter(make((2, *shape), "float32")).shape == (1, *shape)
            work = comm.send(x, 1, async_op=True) if comm.rank == 0 else comm.recv(x, 0, async_op=True)
            work.wait()
        return comm.all_reduce(np.ones(2))[0]  # and the ranks are still in step

    assert on_threads(2, body) == [2.0, 2.0]


def test_counts_that_differ_beyond_32_bits_are_a_mismatch():
    def body(comm):
        # An array without memory of its own: one element, seen 2**32 + 5 times.
        x = np.broadcast_to(np.int8(1), 2**32 + 5) if comm.rank == 0 else np.zeros(5, np.int8)
        with pytest.raises(gr.CollectiveMismatch, match=r"4294967301 of int8.* called broadcast\(5 of int8|5 of int8"):
            comm.broadcast(x, root=0)
        return x.size

    assert on_threads(2, body) == [2**32 + 5, 5]


def test_more_than_two_to_the_31_elements():
    count = 2**31 + 8
    if _core.memory_left() < 3 * count:
        pytest.skip("too little memory")
    ones = np.broadcast_to(np.uint8(3), count)
    with gr.comm.init() as comm:
        out = np.zeros(count, np.uint8)
        comm.all_reduce(ones, op="max", out=out)
    for place in (0, 2**30, 2**31 - 1, 2**31, count - 1):
        assert out[place] == 3, place
    assert out[-9:].tolist() == [3] * 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(3000.0)[::-1],
        lambda: np.arange(6000.0).reshape(60, 100)[::2, ::-3],
        lambda: np.zeros(8 * 3000 + 1, np.uint8)[1:].view(np.float64),
        lambda: np.arange(3000.0).reshape(50, 60).T,
    ],
    ids=["negative", "strided", "unaligned", "transposed"],
)
def test_strides_and_alignment(make):
    def body(comm):
        x = make()
        before = x.copy()
        assert comm.all_reduce(x) is x
        np.testing.assert_array_equal(x, 2 * before)
        y = make()
        np.testing.assert_array_equal(comm.all_gather(y), np.stack([y, y]))

    on_threads(2, body)


def test_every_call_after_close_says_so():
    comm, _other = gr.comm.thread_group(2)
    x = comm.empty(100)
    comm.close()
    comm.close()
    for call in (
        lambda: comm.all_reduce(x),
        lambda: comm.reduce_scatter(x),
        lambda: comm.all_gather(x),
        lambda: comm.broadcast(x),
        lambda: comm.barrier(),
        lambda: comm.split(0),
        lambda: comm.send(x, 1),
        lambda: comm.recv(x, 1),
        lambda: comm.all_reduce(x, async_op=True),
        lambda: comm.send(x, 1, async_op=True),
        lambda: comm.recv(x, 1, async_op=True),
    ):
        with pytest.raises(gr.GradringError, match="closed"):
            call()
    x[:] = 1  # the array lives on
    assert x.sum() == 100


def test_a_work_may_outlive_its_communicator():
    comms = gr.comm.thread_group(2)
    works = [comm.all_reduce(np.full(70000, rank + 1.0), async_op=True) for rank, comm in enumerate(comms)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda comm: comm.close(), comms))
    del comms
    for work in works:
        assert work.done() and (work.wait() == 3.0).all() and (work.wait() == 3.0).all()


def test_a_group_of_some_ranks_is_made_beside_a_collective_that_waits():
    a, b = gr.comm.thread_group(2, timeout=20.0)
    told, number = threading.Event(), []

    def tell(value):
        number.append(value)
        told.set()

    def hear():
        assert told.wait(20)
        return number[0]

    first, second = np.ones(100_000, np.float32), np.full(100_000, 2, np.float32)
    groups = []
    threads = [threading.Thread(target=a.all_reduce, args=(first,))]
    threads += [
        threading.Thread(target=lambda one=one: groups.append(one.group_of([0, 1], tell, hear))) for one in (a, b)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.1)  # the collective is under way when the first member makes the group's words
    b.all_reduce(second)
    for thread in threads:
        thread.join(20)
    assert [thread.is_alive() for thread in threads] == [False] * 3
    assert (first == 3).all() and (second == 3).all() and len(groups) == 2
