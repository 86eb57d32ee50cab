"""Input at the edges, and misuse: each works, or raises an error that names operation, argument, expectation and value."""

import contextlib
import ctypes
import mmap
import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from gradring.comm import start
from gradring.launch.messages import LARGEST_WORLD


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


# GRADRING_LARGE_TESTS=1 pytest tests/comm/test_bad_input.py -k 31_elements: also those that need 4 GiB and up to a minute.
LARGE = pytest.mark.skipif("GRADRING_LARGE_TESTS" not in os.environ, reason="takes long; see GRADRING_LARGE_TESTS above")


@pytest.mark.parametrize(
    "way, gibibytes", [("broadcast", 2), pytest.param("shared", 4, marks=LARGE), pytest.param("exchanged", 4, marks=LARGE)]
)
def test_more_than_two_to_the_31_elements(way, gibibytes):
    shape = 2049, 2**20 + 7
    assert np.prod(shape) > 2**31
    if _core.memory_left() < (gibibytes + 2) << 30:
        pytest.skip("too little memory")
    row = np.random.default_rng(31).integers(0, 256, shape[1], np.uint8)

    def body(comm):
        if way == "broadcast":
            if comm.rank == 0:
                comm.broadcast(np.broadcast_to(row, shape))  # in which the rows share memory
                return True
            x, expected = np.empty(shape, np.uint8), row
            comm.broadcast(x)
        else:
            x, expected = comm.empty(shape, np.uint8) if way == "shared" else np.empty(shape, np.uint8), 2 * row + 1
            x[...] = row + np.uint8(comm.rank)
            comm.all_reduce(x)
        return all((x[number] == expected).all() for number in [*range(0, shape[0], 97), *range(shape[0] - 3, shape[0])])

    assert on_threads(2, body) == [True, True]


def test_more_memory_than_is_left():
    left = _core.memory_left()
    if left > 64 << 30:
        pytest.skip("so much memory would take long to reserve, if this test were wrong")
    with gr.comm.init() as comm:
        with pytest.raises(MemoryError, match=r"\[comm\] cannot reserve \d+ MiB of shared memory: \d+ MiB are left"):
            comm.empty(left + (256 << 20), np.uint8)
        assert (comm.all_reduce(comm.empty(5)) == comm.empty(5)).size == 5  # and smaller arrays can be made


PERIOD = 2 << 20


@contextlib.contextmanager
def repeated(times):
    """An array of bytes whose every 2 MiB are the same memory."""
    mapped = ctypes.CDLL(None, use_errno=True).mmap
    mapped.restype, mapped.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    fd = os.memfd_create("repeated")
    try:
        os.truncate(fd, PERIOD)
        with mmap.mmap(-1, times * PERIOD) as space:
            x = np.frombuffer(space, np.uint8)
            begin = x.ctypes.data
            for at in range(begin, begin + times * PERIOD, PERIOD):
                flags = mmap.MAP_SHARED | 0x10  # MAP_FIXED
                assert mapped(at, PERIOD, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0) == at, os.strerror(ctypes.get_errno())
            yield x
            del x
    finally:
        os.close(fd)


def test_sums_of_more_than_two_to_the_31_elements():
    pattern = np.random.default_rng(32).integers(0, 256, PERIOD, np.uint8)

    def body(comm):
        with repeated(1025) as x, repeated(1025) as total:
            x[:PERIOD] = pattern + np.uint8(comm.rank)
            comm.all_reduce(x, out=total)
            assert x.size > 2**31
            good = (total[:PERIOD] == 2 * pattern + 1).all() and (x[-PERIOD:] == pattern + np.uint8(comm.rank)).all()
            del x, total
            return bool(good)

    assert on_threads(2, body) == [True, True]


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
        with pytest.raises(gr.GradringError, match="closed") as raised:
            call()
        assert not isinstance(raised.value, gr.LoaderError)
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


def test_members_of_a_group_learn_that_the_first_one_has_no_memory_for_it():
    class NoMemory:
        def __init__(self, group):
            self.group = group

        def make_words(self, ranks):
            raise MemoryError(f"no memory for the words of {ranks} ranks")

        def __getattr__(self, name):
            return getattr(self.group, name)

    comms = gr.comm.thread_group(2, timeout=100.0)
    comms[0]._group = NoMemory(comms[0]._group)
    told = queue.Queue()
    errors = []

    def make(comm):
        try:
            comm.group_of([0, 1], told.put, lambda: told.get(timeout=20))
        except MemoryError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=make, args=(comm,)) for comm in comms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(errors) == [
        "[split] rank 0 has no shared memory for the new group's words",
        "no memory for the words of 2 ranks",
    ]


@pytest.mark.parametrize(
    "call, error, why",
    [
        (lambda comm, x: comm.empty("ab"), TypeError, r"\[comm.empty\] shape is 'ab': must be an int or a tuple of ints"),
        (lambda comm, x: comm.empty(2.5), TypeError, r"\[comm.empty\] shape is 2.5: must be"),
        (lambda comm, x: comm.empty((2, 2.5)), TypeError, r"\[comm.empty\] shape is \(2, 2.5\): must be"),
        (lambda comm, x: comm.empty(3, "floaty"), TypeError, r"\[comm.empty\] dtype is 'floaty'"),
        (lambda comm, x: comm.empty((1 << 40, 1 << 40)), MemoryError, r"\[comm.empty\] shape is .* bytes are more"),
        (lambda comm, x: comm.empty(1 << 50), MemoryError, r"\[comm\] cannot allocate 4503599627370496 bytes"),
        (lambda comm, x: comm.all_reduce(x, op=None), ValueError, r"\[all_reduce\] op is None: must be 'sum'"),
        (lambda comm, x: comm.all_reduce(x, "mean", weight="a"), TypeError, r"\[all_reduce\] weight is 'a': must be a num"),
        (lambda comm, x: comm.all_reduce(x, async_op=1), TypeError, r"\[all_reduce\] async_op is 1: must be True or Fal"),
        (lambda comm, x: comm.reduce_scatter([1, 2]), TypeError, r"\[reduce_scatter\] x is a list: must be a numpy.nda"),
        (lambda comm, x: comm.reduce_scatter(x[:3]), ValueError, r"\[reduce_scatter\] x is \(3,\): .* multiple of 2 ranks"),
        (lambda comm, x: comm.all_gather(x, out=x), ValueError, r"\[all_gather\] out is \(4,\), x is \(4,\): must have as"),
        (lambda comm, x: comm.all_gather([object()]), TypeError, r"\[all_gather\] x is of dtype object: must be float32"),
        (lambda comm, x: comm.broadcast(x, root=2), ValueError, r"\[broadcast\] root is 2: must be the rank of one of the 2"),
        (lambda comm, x: comm.broadcast(x, root=1 << 70), ValueError, r"\[broadcast\] root is 1180591620717411303424: must"),
        (lambda comm, x: comm.broadcast(x, root="b"), TypeError, r"\[broadcast\] root is 'b': must be the rank of one of"),
        (lambda comm, x: comm.broadcast(x, root=None), TypeError, r"\[broadcast\] root is None: must be the rank of one"),
        (lambda comm, x: comm.send(x, 0), ValueError, r"\[send\] dst is 0: must be the rank of another of the 2 ranks"),
        (lambda comm, x: comm.recv(x, -1), ValueError, r"\[recv\] src is -1: must be the rank of another of the 2 ranks"),
        (lambda comm, x: comm.recv(x, 1.0), TypeError, r"\[recv\] src is 1.0: must be the rank of another of the 2"),
        (lambda comm, x: comm.split("red"), TypeError, r"\[split\] color must be None or an int .*, got 'red'"),
        (lambda comm, x: comm.split(-1), ValueError, r"\[split\] color must be None or an int from 0 .*, got -1"),
        (lambda comm, x: comm.split(0, 1 << 31), ValueError, r"\[split\] key must be an int .*, got 2147483648"),
        (lambda comm, x: comm.doing("saving", -1.0).__enter__(), ValueError, r"\[comm.doing\] patience must be .*, got -1"),
        (lambda comm, x: comm.doing("saving", "x").__enter__(), TypeError, r"\[comm.doing\] patience must be .*, got 'x'"),
        (lambda comm, x: gr.comm.thread_group(0), ValueError, r"\[thread_group\] n must be an int from 1 to 256, got 0"),
        (lambda comm, x: gr.comm.thread_group(257), ValueError, r"\[thread_group\] n must be an int from 1 to 256, got 257"),
        (lambda comm, x: gr.comm.thread_group(2.0), TypeError, r"\[thread_group\] n must be .*, got 2.0"),
        (lambda comm, x: gr.comm.thread_group(2, "x"), TypeError, r"\[thread_group\] timeout must be .*, got 'x'"),
        (lambda comm, x: gr.comm.init(timeout=0), ValueError, r"\[init\] timeout must be a finite number above 0, got 0"),
        (lambda comm, x: gr.comm.init(float("nan")), ValueError, r"\[init\] timeout must be a finite number .*, got nan"),
        (lambda comm, x: gr.comm.spawn(len, 257), ValueError, r"\[spawn\] nprocs must be an int from 1 to 256, got 257"),
        (lambda comm, x: gr.comm.spawn(len, "2"), TypeError, r"\[spawn\] nprocs must be an int from 1 to 256, got '2'"),
    ],
)
def test_an_error_names_operation_argument_expectation_and_value(call, error, why):
    comm, other = gr.comm.thread_group(2)
    with pytest.raises(error, match=why):
        call(comm, np.ones(4, np.float32))
    assert not comm._group.closed and other.size == 2  # the ranks are still in step


def test_there_is_one_limit_of_ranks():
    assert start._MOST_RANKS == LARGEST_WORLD
    os.close(_core.comm_segment(LARGEST_WORLD))
    with pytest.raises(ValueError, match=f"size is {LARGEST_WORLD + 1}: must be 1 to {LARGEST_WORLD} ranks"):
        _core.comm_segment(LARGEST_WORLD + 1)


def test_a_work_refuses_a_bad_timeout():
    with gr.comm.init() as comm:
        work = comm.all_reduce(np.ones(3), async_op=True)
        for bad, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError)):
            with pytest.raises(error, match=r"\[Work.wait\] timeout must be None or a finite number of at least 0, got"):
                work.wait(bad)
        assert work.wait(20).tolist() == [1, 1, 1]


def test_ranks_of_a_group_that_has_failed_cannot_split_and_are_told_why():
    """A failed group makes the memory of its ranks private. The group that they came from goes on without it."""

    def body(comm):
        part = comm.split(0)
        with pytest.raises(gr.CollectiveMismatch):
            part.all_reduce(np.ones(3), op="sum" if comm.rank else "max")
        total = comm.all_reduce(np.ones(3)).tolist()
        with pytest.raises(MemoryError, match="private since a group of these ranks failed"):
            comm.split(0)
        return total, comm.all_reduce(np.ones(3)).tolist()

    assert on_threads(2, body) == [([2.0] * 3, [2.0] * 3)] * 2
