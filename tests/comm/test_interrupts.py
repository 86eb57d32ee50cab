"""Signal handlers that raise, and threads that close, while several operations of one rank wait for each other."""

import contextlib
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from patience import promised

from .test_endings import DEADLINE, died, ends_soon

LEFT = "this rank left the operation"


class Alarm(Exception):
    """What a signal handler raises."""


@contextlib.contextmanager
def alarm(handler=None, seconds=0.2):
    """The block gets a signal with this handler after some time; by default, the handler raises ``Alarm``."""

    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring if handler is None else handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


BEHIND = {
    "all_reduce": lambda comm: comm.all_reduce(np.ones(50_000)),
    "brief": lambda comm: comm.all_reduce(np.ones(3)),
    "split": lambda comm: comm.split(0),
}


@pytest.mark.parametrize("how", BEHIND)
def test_a_signal_handler_ends_the_wait_for_another_threads_operation(how):
    first, second = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(first.recv, np.ones(3), 1)
        time.sleep(0.2)

        def call():
            with pytest.raises(Alarm), alarm():
                BEHIND[how](first)

        ends_soon(call)
        with pytest.raises(gr.GradringError, match=LEFT):
            waits.result(20)
    died(second.barrier, rank=0)


def test_a_close_with_a_work_ends_an_operation_in_which_another_thread_waits():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(first.barrier)
        time.sleep(0.2)
        work = first.all_reduce(np.ones(50_000), async_op=True)  # cannot begin before the barrier has ended
        ends_soon(first.close)
        for call in (lambda: waits.result(20), work.wait):
            with pytest.raises(gr.GradringError, match=f"{LEFT}|the communicator is closed"):
                call()
    died(second.barrier, rank=0)


def test_a_signal_in_a_wait_behind_a_work_ends_the_communicator_even_if_the_peer_comes_in_time():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    first.all_reduce(np.ones(50_000), async_op=True)
    peer = []

    def comes():
        second.all_reduce(np.ones(50_000))
        second.all_reduce(np.ones(3))

    with ThreadPoolExecutor(1) as pool:

        def handler(*_):
            peer.append(pool.submit(comes))
            raise Alarm

        # By now the communicator's thread looks only every 200 ms whether to leave, so most times the peer comes before that.
        with pytest.raises(Alarm), alarm(handler, 0.6):
            first.all_reduce(np.ones(3))
        with contextlib.suppress(gr.PeerDied):
            peer[0].result(20)
        died(second.barrier, rank=0)
        begin = time.monotonic()
        with pytest.raises(gr.GradringError, match=LEFT):
            first.barrier()
        assert time.monotonic() - begin < promised(DEADLINE)


def test_a_close_that_a_signal_ends_releases_the_arrays_of_its_operations():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    x = np.ones(50_000)
    kept = weakref.ref(x)
    first.all_reduce(x, async_op=True)
    del x
    with pytest.raises(Alarm), alarm():
        first.close()
    assert kept() is None
    died(second.barrier, rank=0)


def test_a_signal_handler_waits_for_no_work_behind_the_operation_that_it_interrupts():
    first, second = gr.comm.thread_group(2, timeout=60.0)
    done = second.all_reduce(np.ones(3), async_op=True)
    ended = first.all_reduce(np.ones(3), async_op=True)
    for work in (done, ended):
        work.wait()
    within, submitted = threading.Event(), threading.Event()
    works = []

    def submit():
        within.wait(20)
        works.append(first.all_reduce(np.ones(3), async_op=True))
        submitted.set()

    def handler(*_):
        within.set()
        submitted.wait(20)
        ended.wait()
        works[0].wait()

    def wait():
        with (
            pytest.raises(gr.GradringError, match="a signal handler called this while its thread waits"),
            alarm(handler),
        ):
            first.barrier()

    with ThreadPoolExecutor(1) as pool:
        submits = pool.submit(submit)
        ends_soon(wait)
        submits.result(20)
    with pytest.raises(gr.GradringError, match=LEFT):
        works[0].wait()
    died(second.barrier, rank=0)
