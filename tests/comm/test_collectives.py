"""Collectives between threads and between forked processes, against NumPy."""

import os
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from gradring.comm import Communicator
from loader.resources import descriptors

from . import functions


def on_threads(n, body, timeout=20.0):
    """``body(comm)`` of every rank, each in a thread; results by rank."""
    comms = gr.comm.thread_group(n, timeout=timeout)
    with ThreadPoolExecutor(n) as pool:
        return [future.result() for future in [pool.submit(body, comm) for comm in comms]]


def in_processes(n, body, timeout=20.0):
    """``body(comm)`` of every rank, each in a forked process; the exit codes, by rank."""
    segment, data = _core.comm_segment(n), [_core.comm_data_segment() for _ in range(n)]
    children = []
    for rank in range(n):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                body(Communicator(_core.Group(segment, rank, n, 0, [-1] * n, data, timeout)))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(pid)
    for fd in (segment, *data):
        os.close(fd)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def values(rank, shape, dtype):
    generator = np.random.default_rng([rank, *np.atleast_1d(shape)])
    if dtype == "bool":
        return generator.random(shape) < 0.5
    return (generator.normal(size=shape) * 50).astype(dtype)


def check_all(comm):
    """Every collective, on arrays in shared memory and elsewhere."""
    n, rank = comm.size, comm.rank
    for shape in [(), (3,), (5, 7), (300, 41), (2000, 100)]:
        for dtype in ["float32", "float64", "int16", "uint64", "bool"]:
            everyone = [values(r, shape, dtype) for r in range(n)]
            op = "max" if dtype == "bool" else "sum"
            total = np.max(everyone, axis=0) if op == "max" else everyone[0].copy()
            if op == "sum":
                for other in everyone[1:]:
                    total = total + other
            for shared in (True, False):
                x = comm.empty(shape, dtype) if shared else np.empty(shape, dtype)
                x[...] = everyone[rank]
                assert comm.all_reduce(x, op=op) is x
                np.testing.assert_array_equal(x, total)
                x[...] = everyone[rank]
                np.testing.assert_array_equal(comm.all_gather(x), everyone)
                assert comm.broadcast(x, root=n - 1) is x
                np.testing.assert_array_equal(x, everyone[n - 1])
                y = comm.empty((n, *shape), dtype) if shared else np.empty((n, *shape), dtype)
                y[...] = everyone[rank]
                np.testing.assert_array_equal(comm.reduce_scatter(y, op=op), total[None])
                comm.barrier()


def test_threads():
    before = set(threading.enumerate())
    for n in (1, 2, 3):
        on_threads(n, check_all)
    assert len(set(threading.enumerate()) - before) < 10


def test_forked_processes():
    for n in (2, 3):
        assert in_processes(n, check_all) == [0] * n


def test_a_world_of_one_needs_no_launcher():
    with gr.comm.init() as comm:
        check_all(comm)
        assert (comm.rank, comm.size, comm.local_rank, comm.local_size) == (0, 1, 0, 1)
    with pytest.raises(gr.GradringError, match="closed"):
        comm.barrier()


def check_views(comm):
    base = comm.empty((60, 50))
    plain = np.zeros((60, 50), "float32")
    for x in (
        base[3:40],
        base[::-1, ::2],
        base.T,
        plain[:, ::-3],
        plain.T[1:],
        np.zeros(401, "u1")[1:].view("float32"),
    ):
        x[...] = values(comm.rank, x.shape, "float32")
        comm.all_reduce(x, op="mean")
        total = np.float32(0)
        for rank in range(comm.size):
            total = total + values(rank, x.shape, "float32")
        np.testing.assert_array_equal(x, total / np.float32(comm.size))


def test_views_of_any_stride_and_alignment():
    on_threads(2, check_views)
    assert in_processes(3, check_views) == [0] * 3


def test_half_and_bfloat16_accumulate_in_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes")

    def body(comm):
        for dtype in ("float16", ml_dtypes.bfloat16):
            x = comm.empty(1000, dtype)
            x[:] = values(comm.rank, 1000, "float32").astype(dtype)
            comm.all_reduce(x, op="mean")
            total = np.zeros(1000, "float32")
            for rank in range(comm.size):
                total += values(rank, 1000, "float32").astype(dtype).astype("float32")
            np.testing.assert_array_equal(x, (total / np.float32(comm.size)).astype(dtype))

    on_threads(3, body)


def test_weighted_mean_divides_once():
    def body(comm):
        for count in (2, 500, 50000):
            x = np.full(count, comm.rank + 1.0)
            comm.all_reduce(x, op="mean", weight=3.0 * comm.rank + 0.5)
            np.testing.assert_array_equal(x, np.full(count, 6.0 / (0.5 + 3.5 + 6.5)))
            with pytest.raises(ValueError, match="weights add up to 0"):
                comm.all_reduce(x, op="mean", weight=comm.rank - 1.0)

    on_threads(3, body)


def test_an_out_array_leaves_the_input_whole():
    def body(comm):
        for count in (3, 700, 90000):
            for make in (comm.empty, np.empty):
                x, out = make(count, "float32"), make(count, "float32")
                x[:] = comm.rank + 1
                assert comm.all_reduce(x, out=out) is out
                assert (x == comm.rank + 1).all() and (out == 3).all()

    on_threads(2, body)


def test_async_operations_progress_without_their_callers():
    def body(comm):
        arrays = [np.full(50000, comm.rank + i, "float32") for i in range(6)]
        works = [comm.all_reduce(x, async_op=True) for x in arrays]
        if comm.rank == 0:
            return None  # never waits
        for i, (x, work) in enumerate(zip(arrays, works, strict=True)):
            assert work.wait() is x and work.wait(0) is x and work.done()
            assert (x == 2 * i + 1).all()
        return None

    on_threads(2, body)
    assert in_processes(2, body) == [0, 0]


def test_a_dropped_work_keeps_its_arrays():
    def body(comm):
        for _ in range(20):
            comm.all_reduce(np.ones(30000), async_op=True)
        x = np.full(4, 1.0)
        return comm.all_reduce(x)[0]  # a blocking call comes after those under way

    assert on_threads(2, body) == [2.0, 2.0]


def test_a_wait_that_ends_early_leaves_the_operation_alone():
    def body(comm):
        if comm.rank == 0:
            work = comm.all_reduce(np.ones(5), async_op=True)
            with pytest.raises(TimeoutError):
                work.wait(0.05)
            gate.set()
            return work.wait()[0]
        gate.wait()
        return comm.all_reduce(np.ones(5))[0]

    gate = threading.Event()
    assert on_threads(2, body) == [2.0, 2.0]


def test_messages_of_any_size_and_in_both_directions():
    def body(comm):
        peer = 1 - comm.rank
        for count in (0, 1, 12, 13, 5000, 100001):
            for shared in (True, False):
                mine = comm.empty(count) if shared else np.empty(count, "float32")
                theirs = np.empty((count, 2), "float32")[:, 0]
                mine[:] = values(comm.rank, count, "float32")
                sent = [comm.send(mine, peer, async_op=True) for _ in range(3)]
                for _ in range(3):
                    theirs[:] = 0
                    assert comm.recv(theirs, peer, async_op=True).wait() is theirs
                    np.testing.assert_array_equal(theirs, values(peer, count, "float32"))
                for work in sent:
                    work.wait()
                if comm.rank == 0:
                    comm.send(mine, 1)
                else:
                    np.testing.assert_array_equal(comm.recv(np.empty(count, "float32"), 0), values(0, count, "float32"))

    on_threads(2, body)
    assert in_processes(2, body) == [0, 0]


def test_split_groups_agree_among_themselves():
    def body(comm):
        for _ in range(5):
            half = comm.split(comm.rank % 2, key=-comm.rank)
            assert half.size == (comm.size + 1 - comm.rank % 2) // 2
            x = half.empty(70000)
            x[:] = comm.rank
            half.all_reduce(x)
            assert (x == sum(range(comm.rank % 2, comm.size, 2))).all()
            assert half.all_gather(np.array(comm.rank)).tolist() == list(range(comm.rank % 2, comm.size, 2))[::-1]
            nobody = comm.split(None if comm.rank else 3)
            assert (nobody is None) == bool(comm.rank)
            half.close()
        comm.all_reduce(np.ones(3))
        return comm._group.segment_bytes()

    on_threads(4, body)
    assert in_processes(3, body) == [0] * 3


def test_two_communicators_at_once_and_one_by_two_threads():
    def body(comm):
        other = comm.split(0)
        works = [(comm if i % 2 else other).all_reduce(np.full(20000, float(i)), async_op=True) for i in range(10)]
        for i, work in enumerate(works):
            assert (work.wait() == 2.0 * i).all()
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda _: comm.all_reduce(np.ones(100))[0], range(20)))
        assert results == [2.0] * 20
        other.close()

    on_threads(2, body)


def test_ranks_make_arrays_in_any_order():
    assert on_threads(3, functions.in_any_order) == [True] * 3
    assert gr.comm.spawn(functions.arrays_in_any_order, 2, pin=False) == [True] * 2


def test_memory_is_one_growing_segment():
    with gr.comm.init() as comm:
        before = descriptors()
        arrays = [comm.empty(1000 * (i + 1)) for i in range(200)]
        for i, array in enumerate(arrays):
            array[:] = i
        assert descriptors() <= before
        assert all((array == i).all() for i, array in enumerate(arrays))
        size = comm._group.segment_bytes()
        del array
        for _ in range(30):
            arrays = arrays[::2] + [comm.empty(1000) for _ in range(50)]
        assert comm._group.segment_bytes() <= size + (2 << 20)
        del arrays
        assert comm._group.allocated_bytes() == 0
    assert comm.empty(0).shape == (0,)


def test_reductions_that_a_dtype_cannot_do_are_refused():
    with gr.comm.init() as comm:
        with pytest.raises(TypeError, match=r"\[all_reduce\] x is of dtype int32, which has no op='mean'"):
            comm.all_reduce(np.ones(3, "int32"), op="mean")
        with pytest.raises(TypeError, match="bool"):
            comm.all_reduce(np.ones(3, "bool"))
        with pytest.raises(TypeError, match="complex"):
            comm.all_reduce(np.ones(3, "complex64"))
        with pytest.raises(TypeError, match="byte"):
            comm.all_reduce(np.ones(3, ">f4"))
        with pytest.raises(TypeError, match="is a list"):
            comm.all_reduce([1.0])
        with pytest.raises(ValueError, match="op is 'average'"):
            comm.all_reduce(np.ones(3), op="average")
        with pytest.raises(ValueError, match="weight"):
            comm.all_reduce(np.ones(3), weight=2.0)
        assert comm.all_reduce(np.array([np.nan, 1.0]), op="max")[0] != 1


def test_arrays_that_cannot_hold_a_result_are_refused():
    with gr.comm.init() as comm:
        frozen = np.ones(3)
        frozen.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            comm.all_reduce(frozen)
        assert comm.all_reduce(frozen, out=np.empty(3)).tolist() == [1, 1, 1]
        with pytest.raises(ValueError, match="share"):
            comm.all_reduce(np.lib.stride_tricks.as_strided(np.ones(3), (4,), (0,)))
        x = np.ones(10)
        with pytest.raises(ValueError, match="shares memory"):
            comm.all_reduce(x[:-1], out=x[1:])
        with pytest.raises(ValueError, match="shape"):
            comm.all_reduce(x, out=np.empty(9))
        with pytest.raises(TypeError, match="dtype"):
            comm.all_reduce(x, out=np.empty(10, "float32"))
        with pytest.raises(ValueError, match="root is 1"):
            comm.broadcast(x, root=1)
        with pytest.raises(ValueError, match="dst is 0"):
            comm.send(x, 0)
        with pytest.raises(ValueError, match="negative"):
            comm.empty((-1, 2))
        with pytest.raises(ValueError, match="multiple"):
            comm.reduce_scatter(np.array(1, np.float32))


def test_what_is_not_built_says_so():
    with gr.comm.init() as comm:
        for call in (comm.all_to_all, comm.gather, comm.scatter, comm.reduce):
            with pytest.raises(gr.errors.NotBuilt, match="planned"):
                call(np.ones(2))
