"""Functions of ranks in tests of faults: they fail in some way, or report what they saw of a failure."""

import ctypes
import gc
import hashlib
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import gradring as gr
from gradring import activity

ELEMENTS = 300_001


def operation(comm, name, x):
    """One collective, by name."""
    if name == "barrier":
        return comm.barrier()
    if name == "all_reduce":
        return comm.all_reduce(x)
    if name == "reduce_scatter":
        return comm.reduce_scatter(np.resize(x, (comm.size, 1000)))
    if name == "all_gather":
        return comm.all_gather(x)
    if name == "broadcast":
        return comm.broadcast(x, root=1)
    if name == "transfer":
        return comm.send(x, 1) if comm.rank == 0 else comm.recv(x, 0)
    if name == "split":
        return comm.split(0)
    raise KeyError(name)


def saw(call, comm):
    """The error that a call raises: its kind, what it names, and how long it took; and what comes of another call."""
    begin = time.monotonic()
    try:
        call()
    except gr.GradringError as error:
        seconds = time.monotonic() - begin
        try:
            comm.barrier()
            again = "the communicator goes on"
        except gr.GradringError:
            again = "refused"
        about = {name: getattr(error, name, None) for name in ("rank", "signal", "op", "sequence")}
        return {"error": type(error).__name__, "text": str(error), "seconds": seconds, "again": again, **about}
    return {"error": "none", "seconds": time.monotonic() - begin}


def killed_before(name):
    """Rank 1 dies while the others wait for it in a collective."""
    comm = gr.comm.init(timeout=60)
    x = comm.empty(ELEMENTS)
    x[:] = comm.rank
    operation(comm, name, x)
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    report(saw(lambda: [operation(comm, name, x) for _ in range(3)], comm))


def killed_at_a_failpoint(name):
    """Rank 1 comes to the place where its environment lets it die; the operation is called until it does."""
    comm = gr.comm.init(timeout=60)
    x = comm.empty(ELEMENTS) if name != "staged" else np.empty(ELEMENTS, np.float32)
    x[:] = 0
    if name == "transfer":  # the sender is the one to die
        call = (lambda: comm.send(x, 0)) if comm.rank == 1 else (lambda: comm.recv(x, 1))
    else:
        call = lambda: operation(comm, "all_reduce" if name == "staged" else name, x)  # noqa: E731
    times = []

    def until_then():
        for _ in range(8):
            times.append(time.monotonic())
            call()

    found = saw(until_then, comm)
    found["seconds"] -= times[-1] - times[0]  # leaves the time of the last call alone
    report(found)


def killed_at_some_moment(name, seconds):
    """Rank 1 is killed by its own alarm, somewhere within collectives without end. An operation with `out` does
    not change `x`."""
    comm = gr.comm.init(timeout=60)
    x = comm.empty(ELEMENTS) if "staged" not in name else np.empty(ELEMENTS, np.float32)
    x[:] = comm.rank if name.startswith("out") else 0
    out = comm.empty(ELEMENTS) if name == "out" else np.empty(ELEMENTS, np.float32)
    if comm.rank == 1:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which kills, within native code as well
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def without_end():
        while True:
            if name.startswith("out"):
                comm.all_reduce(x, out=out)
            else:
                operation(comm, "all_reduce" if name == "staged" else name, x)

    found = saw(without_end, comm)
    found["whole"] = bool((x == comm.rank).all())
    report(found)


def stopped(resume_after, timeout):
    """Rank 1 stops itself within its own endless collectives; a child process resumes it."""
    comm = gr.comm.init(timeout=timeout)
    x = comm.empty(ELEMENTS)
    x[:] = comm.rank + 1
    comm.barrier()
    if comm.rank == 1:
        pid = os.getpid()
        if os.fork() == 0:
            time.sleep(resume_after)
            os.kill(pid, signal.SIGCONT)
            os._exit(0)
        os.kill(pid, signal.SIGSTOP)
        os.wait()
        found = saw(lambda: comm.all_reduce(x), comm)
        if found["error"] == "none":
            return found["error"], float(x[0])
        time.sleep(resume_after)  # the survivor still looks at its array, and a failure here would end it
        raise SystemExit(9)
    begin = time.monotonic()
    found = saw(lambda: comm.all_reduce(x), comm)
    if found["error"] == "none":
        return found["error"], float(x[0]), time.monotonic() - begin
    x[:] = 7
    before = hashlib.sha256(x.tobytes()).hexdigest()
    time.sleep(resume_after)  # the stalled peer comes back, and may not touch this array
    found["unchanged"] = hashlib.sha256(x.tobytes()).hexdigest() == before
    report(found)


def mismatched(how):
    """Rank 1 calls something else; no operand may have changed."""
    comm = gr.comm.init(timeout=60)
    x = comm.empty(1000)
    x[:] = comm.rank + 1
    calls = {
        "op": lambda: comm.all_reduce(x, "max"),
        "shape": lambda: comm.all_reduce(x[:999]),
        "dtype": lambda: comm.all_reduce(x.view(np.int32)),
        "collective": lambda: comm.broadcast(x),
    }
    found = saw(calls[how] if comm.rank == 1 else lambda: comm.all_reduce(x), comm)
    found["kept"] = bool((x == comm.rank + 1).all())
    return found


def killed_while_one_is_late():
    """Rank 2 dies; rank 1, for which rank 0 waits first, comes later."""
    comm = gr.comm.init(timeout=60)
    comm.barrier()
    if comm.rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if comm.rank == 1:
        time.sleep(30)
    report(saw(comm.barrier, comm))


def a_slow_function():
    """Where rank 1 is when it is given up."""
    time.sleep(1000)


def asleep_in_python(timeout):
    """Rank 1 never comes, and sleeps in a function of its own."""
    comm = gr.comm.init(timeout=timeout)
    comm.barrier()
    if comm.rank == 1:
        a_slow_function()
    report(saw(comm.barrier, comm))


def saving_for_long(timeout):
    """Rank 1 says that it is saving, and never comes."""
    comm = gr.comm.init(timeout=timeout)
    comm.barrier()
    if comm.rank == 1:
        with activity.doing("saving"):
            time.sleep(1000)
    report(saw(comm.barrier, comm))


class SlowRows:
    """Two rows, of which the second takes its time. (A loader looks at the first one when it is made.)"""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 2

    def __getitem__(self, index):
        time.sleep(self.seconds * index)
        return np.ones(3, np.float32)


def every_group(comm):
    """Communicators of all ranks, made in every way."""
    number = np.zeros(1, np.int64)

    def tell(words):
        number[0] = words

    def hear():
        return int(comm.broadcast(number, root=0)[0])

    members = list(range(comm.size))
    part = comm.split(0)
    return [comm, part, part.split(0), comm.group_of(members, tell, hear)]


def slow_loader(timeout, seconds):
    """The sums, in each kind of group, over a batch that rank 1's loader is slow to bring."""
    comm = gr.comm.init(timeout=timeout)
    groups = every_group(comm)
    totals = []
    with gr.Loader(SlowRows(seconds if comm.rank == 1 else 0.0), batch_size=1, num_threads=1, timeout=60.0) as loader:
        for batch in loader:
            x = np.array(batch[0] if isinstance(batch, tuple) else batch, np.float32).ravel()
            works = [group.all_reduce(x.copy(), async_op=True) for group in groups]
            totals = [float(work.wait()[0]) for work in works]
    comm.barrier()
    return totals


def killed_in_a_group():
    """The last of three ranks dies in a group that orders the ranks backwards; a survivor asks how two of them ended."""
    comm = gr.comm.init(timeout=60)
    part = comm.split(0, key=-comm.rank)
    if comm.rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    found = saw(part.barrier, part)
    found["signals"] = [part.group.signal_of(rank) for rank in range(2)]
    report(found)


def asleep_in_a_group(timeout):
    """Rank 1 never comes to a barrier of a group that was split off."""
    comm = gr.comm.init(timeout=timeout)
    part = comm.split(0)
    if comm.rank == 1:
        a_slow_function()
    report(saw(part.barrier, part))


def sum_of_ten_million():
    """Over arrays that no small file system could hold."""
    with gr.comm.init(timeout=60) as comm:
        x = comm.empty(10_000_000)
        x[:] = comm.rank + 1
        return float(comm.all_reduce(x)[-1])


def left_early():
    """Rank 1 ends with 0 while rank 0 waits."""
    comm = gr.comm.init(timeout=60)
    if comm.rank == 1:
        os._exit(0)
    report(saw(comm.barrier, comm))


def forked(way):
    """What a forked child may do with the communicator, and that the parent goes on.

    ``way``: 'kept': the child keeps its copies of the parent's objects until it ends; 'dropped': it drops them.
    """
    comm = gr.comm.init(timeout=60)
    half = comm.split(0)
    x = half.empty(10)
    x[:] = 1
    pid = os.fork()
    if pid == 0:
        refused = 0
        # Parent and child would use the same bytes of an array that the child made.
        for call in (lambda: comm.all_reduce(x), lambda: half.all_reduce(x, async_op=True), lambda: comm.empty(10)):
            try:
                call()
            except gr.GradringError as error:
                refused += "this process was forked from a rank" in str(error)
        comm.close()
        if way == "dropped":
            del comm, half, x, call
            gc.collect()
        os._exit(0 if refused == 3 else 1)
    _, status = os.waitpid(pid, 0)
    # The block of a new group must not take the place of one that is in use.
    others = [comm.split(0) for _ in range(3)]
    total = 0.0
    for turn, other in enumerate(others):
        total += float(other.all_reduce(np.full(3, turn + 1.0))[0]) + float(half.all_reduce(np.full(3, 10.0))[0])
    half.all_reduce(x)
    return os.waitstatus_to_exitcode(status), float(x[0]), total


def a_child_that_waits():
    """A child is forked while an operation with ``async_op`` is under way: it waits for it, and drops what it has."""
    first, second = gr.comm.thread_group(2, timeout=60)
    works = [first.all_reduce(np.ones(3), async_op=True)]
    time.sleep(0.2)  # until the communicator's thread waits for the other rank
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        status = 1
        try:
            works[0].wait()
        except gr.GradringError as error:
            status = 0 if "this process was forked from a rank" in str(error) else 2
        first.close()
        del first, works
        gc.collect()
        os._exit(status)
    _, ended = os.waitpid(pid, 0)
    works.append(second.all_reduce(np.ones(3), async_op=True))
    return os.waitstatus_to_exitcode(ended), [float(work.wait()[0]) for work in works]


def threads_and_a_child():
    """A rank of a group of threads forks a child that ends as a process does, and reduces again."""

    def body(comm):
        comm.all_reduce(np.ones(3))
        if comm.rank == 0:
            pid = os.fork()
            if pid == 0:
                ctypes.CDLL(None).exit(0)  # runs the destructors of this thread's objects
            os.waitpid(pid, 0)
        time.sleep(1.0)  # longer than a thread may leave its rank without a user
        return float(comm.all_reduce(np.ones(3))[0])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(body, gr.comm.thread_group(2, timeout=20.0)))


def report(found):
    """Leave by an exception that carries what was seen: this rank's world has failed."""
    raise Seen(found)


class Seen(Exception):
    """What a survivor saw."""

    def __init__(self, found):
        super().__init__(found)
        self.found = found


def restarted(path):
    """A sum over steps: generation 0 dies in the middle, the next one goes on from a checkpoint."""
    comm = gr.comm.init(timeout=60)
    start, total = 0, np.zeros(1000)
    if comm.generation and os.path.exists(path):
        start, total = np.load(path, allow_pickle=False)[0].astype(int)[0], np.load(path, allow_pickle=False)[1]
    for step in range(int(start), 10):
        total += comm.all_reduce(np.full(1000, float(step * (comm.rank + 1))))
        if comm.rank == 0:
            with open(path + ".tmp", "wb") as file:
                np.save(file, np.stack([np.full(1000, step + 1.0), total]))
            os.replace(path + ".tmp", path)
        comm.barrier()
        if step == 4 and comm.generation == 0 and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    if comm.rank == 0:
        print(comm.generation, hashlib.sha256(total.tobytes()).hexdigest(), flush=True)
    comm.barrier()


if __name__ == "__main__":
    restarted(sys.argv[1])
