"""Ranks that end while others wait for them, as threads of this process, and operations that outlive a failure or a close."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from patience import promised

from . import functions

DEADLINE = 1.0  # seconds, as promised


def died(call, rank):
    """The error of a call that finds that a rank has died, within the promised time."""
    begin = time.monotonic()
    with pytest.raises(gr.PeerDied) as raised:
        call()
    assert time.monotonic() - begin < promised(DEADLINE)
    assert raised.value.rank == rank and raised.value.signal is None
    return raised.value


CALLS = {
    "barrier": lambda comm: comm.barrier(),
    "all_reduce": lambda comm: comm.all_reduce(np.ones(3)),
    "staged": lambda comm: comm.all_reduce(np.ones(100_000)),
    "reduce_scatter": lambda comm: comm.reduce_scatter(np.ones(50_000)),
    "all_gather": lambda comm: comm.all_gather(np.ones(50_000)),
    "broadcast": lambda comm: comm.broadcast(np.ones(50_000), root=1),
    "send": lambda comm: comm.send(np.ones(50_000), 1),
    "recv": lambda comm: comm.recv(np.ones(3), 1),
    "split": lambda comm: comm.split(0),
    "work": lambda comm: comm.all_reduce(np.ones(3), async_op=True).wait(),
}


@pytest.mark.parametrize("how", CALLS)
def test_a_rank_whose_function_ends_is_a_death(how):
    first, second = gr.comm.thread_group(2, timeout=60.0)
    thread = threading.Thread(target=second.barrier)
    thread.start()
    first.barrier()
    thread.join(60)
    error = died(lambda: CALLS[how](first), rank=1)
    assert "rank 1's thread ended while this rank waited for it" in str(error)
    assert error.op in str(error) and error.sequence >= 2
    with pytest.raises(gr.PeerDied):
        first.barrier()  # the communicator refuses further use


@pytest.mark.parametrize("how", CALLS)
def test_a_communicator_that_is_dropped_is_a_death(how):
    first, second = gr.comm.thread_group(2, timeout=60.0)
    del second
    assert "rank 1 closed its communicator while this rank waited for it" in str(died(lambda: CALLS[how](first), rank=1))


def test_a_rank_that_closes_while_another_waits_is_a_death():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    timer = threading.Timer(0.2, second.close)
    timer.start()
    with pytest.raises(gr.PeerDied, match=r"\[barrier\] rank 1 closed its communicator"):
        first.barrier()
    timer.join()


@pytest.mark.parametrize("how", CALLS)
def test_a_rank_that_does_not_come_is_stalled_at_the_deadline(how):
    first, second = gr.comm.thread_group(2, timeout=0.3)
    begin = time.monotonic()
    with pytest.raises(gr.PeerStalled, match=r"rank 1 did not come within 0.3 s .* it has begun no operation") as raised:
        CALLS[how](first)
    assert 0.29 < time.monotonic() - begin < 0.3 + promised(DEADLINE)
    assert raised.value.rank == 1 and raised.value.sequence == 1 and f"[{raised.value.op}]" in str(raised.value)
    with pytest.raises(gr.PeerStalled):
        first.barrier()
    with pytest.raises(gr.PeerStalled, match=r"\[barrier\] the other ranks declared this rank stalled"):
        second.barrier()


DIFFERENT = {
    "root": (lambda comm, x: comm.broadcast(x, root=0), lambda comm, x: comm.broadcast(x, root=1), "root=0", "root=1"),
    "weight": (
        lambda comm, x: comm.all_reduce(x, "mean"),
        lambda comm, x: comm.all_reduce(x, "mean", weight=2.0),
        "op=mean)",
        "op=mean, with a weight",
    ),
    "split": (lambda comm, x: comm.split(0), lambda comm, x: comm.barrier(), "called split", "called barrier"),
    "a work": (
        lambda comm, x: comm.all_reduce(x, async_op=True).wait(),
        lambda comm, x: comm.all_gather(x[:4], async_op=True).wait(),
        "all_reduce(5 of float32, op=sum)",
        "all_gather(4 of float32)",
    ),
}


@pytest.mark.parametrize("ordinary", [False, True])
@pytest.mark.parametrize("how", DIFFERENT)
def test_calls_that_differ_raise_on_both_ranks_and_name_both(how, ordinary):
    *calls, mine, theirs = DIFFERENT[how]

    def body(comm):
        x = np.empty(5, np.float32) if ordinary else comm.empty(5)
        x[:] = comm.rank + 1
        with pytest.raises(gr.CollectiveMismatch) as raised:
            calls[comm.rank](comm, x)
        assert (x == comm.rank + 1).all(), "an operand was written"
        return str(raised.value)

    comms = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(2) as pool:
        texts = [future.result() for future in [pool.submit(body, comm) for comm in comms]]
    for rank, text in enumerate(texts):
        assert mine in text and theirs in text
        assert f"rank {rank} called" in text and f"rank {1 - rank} called" in text


@pytest.mark.parametrize("count", [3, 60_000])
@pytest.mark.parametrize(
    "other",
    [
        lambda comm, x, out: comm.all_reduce(x[1:], out=out[1:]),
        lambda comm, x, out: comm.all_reduce(x.astype(np.float64), out=out.astype(np.float64)),
        lambda comm, x, out: comm.all_reduce(x, "max", out=out),
        lambda comm, x, out: comm.reduce_scatter(np.concatenate([x, x]), out=out),
        lambda comm, x, out: comm.all_gather(x[:-1]),
        lambda comm, x, out: comm.broadcast(out, root=1),
        lambda comm, x, out: comm.barrier(),
    ],
    ids=["count", "dtype", "op", "reduce_scatter", "all_gather", "broadcast", "barrier"],
)
def test_a_mismatch_is_found_before_an_ordinary_array_is_written(other, count):
    def body(comm):
        x, out = np.full(count, comm.rank + 1.0, np.float32), np.full(count, 7, np.float32)
        with pytest.raises(gr.CollectiveMismatch):
            other(comm, x, out) if comm.rank else comm.all_reduce(x, out=out)
        return (x == comm.rank + 1).all() and (out == 7).all()

    comms = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(2) as pool:
        assert all(future.result() for future in [pool.submit(body, comm) for comm in comms])


@pytest.mark.parametrize("end", ["closed", "dropped", "after a death"])
def test_a_rank_keeps_no_descriptor(end):
    assert gr.comm.spawn(functions.descriptors_left, 2, end, pin=False)[0] == []


def test_a_message_that_differs_from_what_its_receiver_wants_is_named():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    first.send(np.ones(5, np.float32), 1)  # so few bytes do not wait for the receiver
    x = np.full(5, 7, np.int32)
    with pytest.raises(gr.CollectiveMismatch, match=r"\[recv\] rank 1 called recv\(5 of int32\), rank 0 called send\(5 of fl"):
        second.recv(x, 0)
    assert (x == 7).all()
    with pytest.raises(gr.CollectiveMismatch):
        first.barrier()


def test_works_after_a_death_raise_each_time_they_are_waited_for():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    arrays = [np.full(50_000, 3.0) for _ in range(3)]
    works = [first.all_reduce(x, async_op=True) for x in arrays]
    second.close()
    for work in works:
        for _ in range(2):
            died(work.wait, rank=1)
        assert work.done()
    assert all((x == 3).all() for x in arrays)
    with pytest.raises(gr.PeerDied):
        first.all_reduce(arrays[0], async_op=True).wait()
    with pytest.raises(gr.GradringError, match="the communicator has failed: make no more arrays in it") as raised:
        [first.empty(1 << 22) for _ in range(3)]
    assert not isinstance(raised.value, gr.LoaderError)


def test_a_work_that_was_dropped_before_a_death_leaves_nothing_behind():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    first.all_reduce(np.ones(50_000), async_op=True)
    first.recv(np.ones(50_000), 1, async_op=True)
    second.close()
    died(first.barrier, rank=1)
    begin = time.monotonic()
    first.close()
    assert time.monotonic() - begin < promised(DEADLINE)


def test_two_threads_of_a_rank_wait_at_once():
    # A small operation keeps Python's lock until it waits; a thread that waits for another one's operation must not keep it.
    assert gr.comm.spawn(functions.two_threads_wait, 2, pin=False) == [[2.0, 2.0]] * 2


def ends_soon(call):
    """Calls it, which must not take longer than the promised time."""
    begin = time.monotonic()
    call()
    assert time.monotonic() - begin < promised(DEADLINE)


def test_a_close_gives_up_what_it_has_waited_for_long_enough():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    works = [first.all_reduce(np.ones(50_000), async_op=True) for _ in range(2)]
    messages = [first.recv(np.ones(50_000), 1, async_op=True)]
    ends_soon(lambda: first.close(timeout=0.1))
    for work in works + messages:
        with pytest.raises(gr.GradringError, match="this rank left the operation, because it was interrupted or closed its"):
            work.wait()
    died(second.barrier, rank=0)
    for bad in (-1.0, "x"):
        with pytest.raises((ValueError, TypeError), match=r"\[comm.close\] timeout must be None or a finite number of at lea"):
            first.close(timeout=bad)


def test_a_block_that_ends_by_an_exception_does_not_wait_for_works():
    first, second = gr.comm.thread_group(2, timeout=60.0)

    def block():
        with pytest.raises(KeyError, match="a bad batch"), first:
            first.recv(np.ones(50_000), 1, async_op=True)
            raise KeyError("a bad batch")

    ends_soon(block)
    died(second.barrier, rank=0)


def test_a_close_ends_an_operation_in_which_another_thread_waits():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(first.barrier)
        time.sleep(0.2)
        ends_soon(first.close)
        with pytest.raises(gr.GradringError, match="this rank left the operation|the communicator is closed"):
            waits.result(20)
    died(second.barrier, rank=0)


WAITS = {
    "close": lambda comm: comm.close(),
    "a call behind a work": lambda comm: comm.all_reduce(np.ones(50_000)),
    "split": lambda comm: comm.split(0),
}


@pytest.mark.parametrize("how", WAITS)
def test_a_signal_handler_ends_a_wait(how):
    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    first, second = gr.comm.thread_group(2, timeout=60.0)
    if how != "split":
        first.all_reduce(np.ones(50_000), async_op=True)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)

        def call():
            with pytest.raises(Alarm):
                WAITS[how](first)

        ends_soon(call)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    died(second.barrier, rank=0)


@pytest.mark.parametrize("what", ["all_reduce", "close"])
def test_a_signal_handler_that_uses_the_communicator_it_interrupts(what):
    first, second = gr.comm.thread_group(2, timeout=60.0)
    call = (lambda *_: first.all_reduce(np.ones(3))) if what == "all_reduce" else (lambda *_: first.close())
    why = "a signal handler called this while its thread waits" if what == "all_reduce" else "this rank left the operation"
    before = signal.signal(signal.SIGALRM, call)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)

        def wait():
            with pytest.raises(gr.GradringError, match=why):
                first.barrier()

        ends_soon(wait)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    died(second.barrier, rank=0)
