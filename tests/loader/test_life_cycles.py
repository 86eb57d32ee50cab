"""Worker processes and their parent, in every order in which they can begin and end."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from gradring.launch.payload import Payload
from helpers import run_script

from .functions import Raises, Sample, in_processes, numbers
from .resources import children, descriptors, is_dead, wait_until


def test_close_while_the_first_pass_starts_its_workers(monkeypatch):
    closers = []

    def close_meanwhile():
        closer = threading.Thread(target=loader.close)
        closer.start()
        closer.join()
        closers.append(closer)

    def fill(payload, *parts):
        if loader is not None:
            close_meanwhile()  # while the workers start
        real(payload, *parts)

    loader, real = None, Payload.fill
    monkeypatch.setattr(Payload, "fill", fill)
    numbers(gr.Loader(in_processes(Sample()), 10))  # what the first use of worker processes opens for good
    gc.collect()
    before, processes = descriptors(), set(children())
    loader = gr.Loader(in_processes(Sample()), 10)
    with pytest.raises(gr.LoaderError, match="the loader was closed"):
        iter(loader)
    assert closers
    gc.collect()
    assert descriptors() <= before and set(children()) <= processes
    with pytest.raises(gr.LoaderError, match="the loader was closed"):
        iter(loader)


ORPHANS = """
import os, signal, sys, time
import numpy as np, gradring as gr
sys.path.insert(0, {folder!r})
from loader.functions import Sample, in_processes

if __name__ == "__main__":
    loader = gr.Loader(in_processes(Sample(seconds=0.01), 100000), 10, num_threads=2)
    iterator = iter(loader)
    next(iterator)
    pids = loader._last.workers.pids
    if {fork}:
        child = os.fork()
        if child == 0:
            os.close(0), os.close(1), os.close(2)
            time.sleep(60)
            os._exit(0)
        print("child", child, flush=True)
    if {stop}:
        os.kill(pids[1], signal.SIGSTOP)
    print("pids", *pids, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("fork", [False, True])
def test_workers_end_with_a_killed_parent_whoever_lives_on(fork, stop, tmp_path):
    folder = str(Path(__file__).parent.parent)
    script = tmp_path / "script.py"
    script.write_text(ORPHANS.format(folder=folder, fork=fork, stop=stop))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    child = int(process.stdout.readline().split()[1]) if fork else None
    pids = [int(pid) for pid in process.stdout.readline().split()[1:]]
    try:
        assert len(pids) == 2 and not any(map(is_dead, pids))
        process.kill()
        process.wait()
        assert wait_until(lambda: all(map(is_dead, pids)), seconds=5)
        assert child is None or not is_dead(child)
    finally:
        for pid in [*pids, *([child] if child else [])]:
            if not is_dead(pid):
                os.kill(pid, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.parametrize("restart", [False, True])
def test_a_loader_that_was_started_in_a_thread_that_ends_keeps_its_workers(restart):
    with gr.Loader(in_processes(Sample(seconds=0.002), 400), 10, num_threads=2, restart=1) as loader:
        got, iterators = [], []

        def begin():
            iterators.append(iter(loader))
            for _ in range(5):
                got.extend(next(iterators[0])[1].tolist())

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        pids = loader._last.workers.pids
        time.sleep(0.3)
        assert not any(map(is_dead, pids))
        if restart:
            os.kill(pids[0], signal.SIGKILL)
        got.extend(int(i) for _, y in iterators[0] for i in y)
        assert got == list(range(400)) and loader.stats().restarted == restart


@pytest.mark.parametrize("what", ["a handler that reaps", "ignored"])
def test_an_end_that_somebody_else_waited_for_is_unknown(what):
    script = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import gradring as gr
    from loader.functions import Sample, in_processes

    def reap(*_):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]: pass
        except ChildProcessError: pass

    signal.signal(signal.SIGCHLD, signal.SIG_IGN if sys.argv[2] == "ignored" else reap)
    with gr.Loader(in_processes(Sample("kill", at=57)), 10) as loader:
        got = []
        try:
            for _, y in loader: got += y.tolist()
        except gr.WorkerDied as died:
            print(len(got), died.signal, died.exit_code, "unknown" in str(died), "exit code 0" in str(died))
    with gr.Loader(in_processes(Sample("kill", at=57)), 10, restart=99) as loader:
        pass
    """
    done = run_script(script, Path(__file__).parent.parent, what)
    assert done.stdout == "50 None None True False\n", done.stderr


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "GeneratorExit", "MyExit"])
@pytest.mark.parametrize("form", ["function", "transform", "processes"])
@pytest.mark.parametrize("num_threads", [0, 2])
def test_only_exceptions_are_skipped(error, form, num_threads):
    if form == "processes" and num_threads == 0:
        num_threads = "auto"
    raises = Raises(error)
    if form == "transform":
        step = gr.transforms.Python(raises)
        loader = gr.Loader(np.arange(100), 10, transforms=step, num_threads=num_threads, on_error="skip")
    else:
        workers = "processes" if form == "processes" else "threads"
        source = gr.sources.Callable(raises, 100, workers=workers)
        loader = gr.Loader(source, 10, num_threads=num_threads, on_error="skip")
    got = []
    with loader, pytest.raises(BaseException, match="sample 57 ends it all") as caught:
        for batch in loader:
            got += batch.tolist()
    assert type(caught.value).__name__ == error and caught.value.sample_index == 57
    assert got == [i for i in range(50) if i != 33]


def test_ctrl_c_in_a_function_is_not_skipped():
    script = """
    import os, signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    import numpy as np, gradring as gr
    sent = []

    def sample(i):
        if i == 57 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
        return np.int64(i)

    got = []
    try:
        for batch in gr.Loader(gr.sources.Callable(sample, 100), 10, num_threads=0, on_error="skip"):
            got += batch.tolist()
    except KeyboardInterrupt:
        print(len(got))
    """
    assert run_script(script).stdout == "50\n"


def test_nothing_leaks_where_descriptors_run_out():
    script = """
    import gc, os, resource, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import gradring as gr
    from loader.functions import Sample, in_processes
    from loader.resources import children, descriptors, wait_until

    sys.path.append(Path("/nowhere"))
    def read():
        with gr.Loader(in_processes(Sample()), 50) as loader:
            return len(list(loader))

    assert read() == 2
    gc.collect()
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    for more in range(40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + more, hard))
        try:
            got = read()
        except (OSError, gr.LoaderError):
            got = 0
            refused += 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gc.collect()
        assert descriptors() <= before, (more, os.listdir("/proc/self/fd"))
        assert not children(), more
        if got == 2: break
    print(refused > 10, got)
    """
    done = run_script(script, Path(__file__).parent.parent)
    assert done.stdout == "True 2\n", done.stderr


@pytest.mark.parametrize(
    ("length", "batch_size", "options"),
    [
        (2**62, 2**33, {"rank": 0, "world_size": 2**31}),
        (2**63 - 1, 2**20, {"rank": 1, "world_size": 2}),
        (2**63 - 1, 7, {"rank": 1, "world_size": 2, "pad": True, "shuffle": True}),
        (2**63 - 1, 2**61, {}),
        (2**63 - 1, 5, {"rank": 2**31 - 1, "world_size": 2**31, "drop_last": True}),
    ],
)
@pytest.mark.parametrize("num_threads", [0, 2])
def test_lengths_beyond_all_bounds_mean_what_they_say_or_are_refused(length, batch_size, options, num_threads):
    script = """
    import sys
    import numpy as np, gradring as gr
    length, batch_size, options, num_threads = eval(sys.argv[1])
    world_size = options.get("world_size", 1)
    try:
        source = gr.sources.Callable(lambda i: np.uint8(i % 251), length)
        loader = gr.Loader(source, batch_size, num_threads=num_threads, timeout=20, **options)
        assert loader.state_dict()["position"] == 0
        loader.load_state_dict({"epoch": 3, "seed": 1, "position": min(length, batch_size * world_size)})
        iterator = iter(loader)
        assert loader.state_dict()["position"] == min(length, batch_size * world_size)
        if batch_size < 100:
            assert len(next(iterator)) == batch_size
            assert loader.state_dict()["position"] == 2 * batch_size * world_size
        if batch_size < 2**30:
            assert len(loader) > 2**20
    except (ValueError, MemoryError) as error:
        print("refused", error)
    print("done")
    """
    done = run_script(script, repr((length, batch_size, options, num_threads)))
    assert done.stdout.endswith("done\n"), done.stderr
    assert batch_size > 2**30 or "refused" not in done.stdout


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_loader_of_small_batches_reserves_what_it_may_use(kind):
    script = """
    import resource, sys
    import numpy as np, gradring as gr
    sys.path.insert(0, sys.argv[1])
    from loader.functions import Sample, in_processes

    def reserved():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()

    def iterate():
        source = in_processes(Sample(), 8192) if sys.argv[2] == "processes" else np.zeros((8192, 1024), np.uint8)
        loader = gr.Loader(source, 8, num_threads=1, memory_budget=600 << 20)
        return loader, iter(loader)

    kept = iterate()  # what the first use of a loader opens for good
    next(kept[1])
    before = reserved()
    loader, iterator = iterate()
    next(iterator)
    print(reserved() - before)
    # What is needed later can still be had, and only once it is needed.
    held = [next(iterator) for _ in range(500)]
    assert loader.stats().slots >= 500
    print(reserved() - before)
    del held, iterator
    loader.close()
    del loader
    print(reserved() - before)
    """
    done = run_script(script, Path(__file__).parent.parent, kind, MALLOC_ARENA_MAX="1")
    assert done.returncode == 0, done.stderr
    first, holding, closed = map(int, done.stdout.split())
    assert first < 24 << 20  # of which a thread's stack takes eight
    assert holding < 48 << 20
    assert closed < 16 << 20  # the C library keeps the stack of a thread that has ended


def test_a_loader_works_where_few_addresses_are_left():
    script = """
    import resource
    import numpy as np, gradring as gr
    rows = np.zeros((1 << 16, 1024), np.uint8)[:, ::2]
    for batch in gr.Loader(rows[:80], 8, num_threads=1): pass
    with open("/proc/self/statm") as file:
        reserved = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + (48 << 20), resource.RLIM_INFINITY))
    loader = gr.Loader(rows, 16, num_threads=1, memory_budget=1 << 30, timeout=0.5)
    held = []
    try:
        for batch in loader: held.append(batch)
    except gr.LoaderError as error:
        print("batches are held" in str(error), 100 < len(held) < 8192)
    held.clear()
    print(sum(len(batch) for batch in loader))
    """
    done = run_script(script)
    assert done.stdout == "True True\n65536\n", done.stderr
