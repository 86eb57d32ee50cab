"""Real kills and stops of ranks: every wait of a survivor ends, in time, with an error that names what happened."""

import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from launch.scripts import run
from loader.resources import children, shared_names, wait_until
from patience import promised

from . import functions

DEADLINE = 1.0  # seconds, as promised
COLLECTIVES = ["barrier", "all_reduce", "reduce_scatter", "all_gather", "broadcast", "transfer"]


def survivors_error(function, *arguments, ranks=2):
    """What the first survivor raised and told; the root failure would be raised instead, if it were the first."""
    return survivors_errors(1, function, *arguments, ranks=ranks)[0]


def survivors_errors(count, function, *arguments, ranks):
    """The errors that so many survivors raised and reported."""
    found = []
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_spawn_and_tell, args=(queue, function, ranks, arguments))
    process.start()
    while (len(found) < count and process.is_alive()) or not queue.empty():
        if not queue.empty():
            found.append(queue.get())
        time.sleep(0.01)
    process.join(60)
    assert len(found) >= count, f"of {count} survivors {len(found)} told something"
    return found


def _spawn_and_tell(queue, function, ranks, arguments):
    import gradring.launch.fresh as fresh
    from gradring.launch.notes import unpickle_error

    def results(job):
        for rank in job.order:
            note = job.note_of(rank)
            if note.data:
                error, text = unpickle_error(note.data)
                queue.put(getattr(error, "found", {"error": text}))
        return []

    fresh._results = results
    fresh.spawn(function, ranks, *arguments, pin=False)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_kill_9_before_a_collective(name):
    found = survivors_error(functions.killed_before, name)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGKILL
    assert found["seconds"] < promised(DEADLINE) and found["again"] == "refused" and found["sequence"] > 0


@pytest.mark.parametrize("name", ["barrier", "all_reduce"])
def test_every_survivor_of_three_ranks_hears_of_a_death(name):
    survivors = survivors_errors(2, functions.killed_before, name, ranks=3)
    for found in survivors:
        assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGKILL
        assert found["seconds"] < promised(DEADLINE) and found["again"] == "refused"


def test_the_launcher_tells_the_signal_of_a_rank_of_a_group():
    found = survivors_error(functions.killed_in_a_group, ranks=3)
    assert found["error"] == "PeerDied" and found["rank"] == 0 and found["signal"] == signal.SIGKILL
    # Rank 0 of the group is rank 2 of the world. The other rank may have ended since, by an error but by no signal.
    assert found["signals"] == [signal.SIGKILL, None]


@pytest.mark.parametrize("name", ["out", "out staged"])
def test_with_an_out_array_the_input_stays_whole_after_a_death(name):
    found = survivors_error(functions.killed_at_some_moment, name, 0.0517)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["whole"]


@pytest.mark.parametrize("seconds", [0.05, 0.201, 0.4003])
@pytest.mark.parametrize("name", [*COLLECTIVES[:-1], "staged"])
def test_kill_within_a_collective(name, seconds):
    found = survivors_error(functions.killed_at_some_moment, name, seconds)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] == signal.SIGALRM
    assert found["seconds"] < seconds + promised(DEADLINE) and found["again"] == "refused"


def test_a_stopped_rank_is_stalled_and_touches_nothing_when_it_comes_back():
    found = survivors_error(functions.stopped, 6.0, 2.0)
    assert found["error"] == "PeerStalled" and found["rank"] == 1
    assert 1.5 < found["seconds"] < 2.0 + promised(DEADLINE)
    assert "its process is stopped" in found["text"] and "Python stack" not in found["text"]
    assert found["unchanged"] and found["again"] == "refused"


def test_a_rank_that_is_stopped_for_a_while_changes_nothing():
    first, second = gr.comm.spawn(functions.stopped, 2, 1.0, 60.0, pin=False)
    assert first[:2] == ("none", 3.0) and second == ("none", 3.0)
    assert first[2] > 0.5, "it was not waited for"


@pytest.mark.parametrize("how", ["op", "shape", "dtype", "collective"])
def test_mismatches_raise_on_both_sides_and_change_nothing(how):
    for rank, found in enumerate(gr.comm.spawn(functions.mismatched, 2, how, pin=False)):
        assert found["error"] == "CollectiveMismatch", found
        assert "rank 0 called all_reduce" in found["text"] and "rank 1 called" in found["text"]
        assert found["kept"], f"an operand of rank {rank} was written"
        assert found["seconds"] < promised(DEADLINE) and found["again"] == "refused"


def test_a_rank_that_ends_with_0_is_a_death():
    found = survivors_error(functions.left_early)
    assert found["error"] == "PeerDied" and found["rank"] == 1 and found["signal"] is None
    assert found["seconds"] < promised(DEADLINE)


RAISES = """
import numpy as np
import gradring as gr
comm = gr.comm.init(timeout=60)
x = comm.empty(100_000)
x[:] = 1
for step in range(10):
    if comm.rank == 1 and step == 5:
        raise ValueError("a bad batch")
    comm.all_reduce(x, op="mean")
"""


def test_an_exception_on_one_rank_is_printed_once_and_ends_the_others_with_a_code_that_says_why(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(RAISES)
    begin = time.monotonic()
    done = run("-n", 3, "--bind", "none", script)
    assert done.returncode == 1 and time.monotonic() - begin < promised(30.0)
    assert done.stderr.count("Traceback") == 1 and done.stderr.count("ValueError: a bad batch") == 1
    assert "rank 1 of 3 ended with exit code 1; its traceback:" in done.stderr
    for rank in (0, 2):
        assert f"rank {rank} ended with exit code 81: gradring.errors.PeerDied: [all_reduce] rank 1" in done.stderr


@pytest.mark.parametrize("way", ["kept", "dropped"])
def test_fork_after_init(way):
    assert gr.comm.spawn(functions.forked, 2, way, pin=False) == [(0, 2.0, 72.0)] * 2


def test_a_child_that_exits_ends_no_rank_of_its_parents_threads():
    assert gr.comm.spawn(functions.threads_and_a_child, 1, pin=False) == [[2.0, 2.0]]


def test_a_forked_child_waits_for_no_work_of_its_parent():
    assert gr.comm.spawn(functions.a_child_that_waits, 1, pin=False) == [(0, [2.0, 2.0])]


def test_a_death_is_noticed_while_another_rank_is_late():
    found = survivors_error(functions.killed_while_one_is_late, ranks=3)
    assert found["error"] == "PeerDied" and found["rank"] == 2
    assert found["seconds"] < promised(DEADLINE) and found["again"] == "refused"


def test_a_restart_ends_with_the_bits_of_an_uninterrupted_run(tmp_path):
    done = run("-n", 2, "--max-restarts", 1, functions.__file__, tmp_path / "state.npy")
    assert done.returncode == 0, done.stderr
    total = np.zeros(1000)
    for step in range(10):
        total += np.full(1000, float(step)) + np.full(1000, float(step * 2))
    assert done.stdout.split() == ["1", hashlib.sha256(total.tobytes()).hexdigest()]
    assert "rank 1 of 2 was killed by SIGKILL" in done.stderr and "restarting all ranks (1 of 1)" in done.stderr


def test_no_process_and_no_name_is_left():
    before, names = set(children()), shared_names()
    with pytest.raises(gr.GradringError, match="rank 1 of 2 was killed by SIGKILL"):
        gr.comm.spawn(functions.killed_before, 2, "all_reduce", pin=False)
    assert wait_until(lambda: set(children()) <= before)
    assert shared_names() <= names


def _limited():
    comm = gr.comm.init()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        comm.empty(1 << 28)
    except MemoryError as error:
        x = comm.empty(1000)
        x[:] = 1
        return str(error), float(comm.all_reduce(x)[0])
    raise AssertionError("memory beyond the limit")


def test_memory_beyond_a_limit_is_an_error_at_once():
    for text, value in gr.comm.spawn(_limited, 2, pin=False):
        assert text and value == 2.0


WITHIN_AN_ADDRESS_SPACE = """
import resource, sys
import gradring as gr
gr.comm.thread_group(1)[0].close()  # what is loaded at the first use is loaded now
with open("/proc/self/statm") as file:
    most = int(file.read().split()[0]) * resource.getpagesize() + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    comm, = gr.comm.thread_group(1)
    x = comm.empty(1 << 20)
    x[:] = 1
    print(comm.all_reduce(x)[0])
    comm.empty(1 << 29)
except MemoryError as error:
    print(error)
"""


@pytest.mark.parametrize("megabytes, said", [(20, "[comm] no address space"), (400, "1.0\n[comm] cannot reserve 2048 MiB")])
def test_an_address_space_that_is_limited_is_an_error_at_once(megabytes, said):
    command = [sys.executable, "-c", WITHIN_AN_ADDRESS_SPACE, str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.startswith(said), done.stdout


# /dev/shm in a mount namespace of this command alone: one page, and that page full. No other process sees it.
FULL = """
mount -t tmpfs -o size=4k none /dev/shm || exit 77
head -c 8192 /dev/zero > /dev/shm/full 2>/dev/null && exit 78
exec "$@"
"""


def test_a_full_memory_filesystem_does_not_matter():
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1)")
    as_root = [] if os.geteuid() == 0 else ["--map-root-user", "--user"]
    command = ["unshare", "--mount", *as_root, "sh", "-c", FULL, "sh", sys.executable, "-c", AMID_A_FULL_ONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parent.parent)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4096", "0", "3.0", "3.0"]


AMID_A_FULL_ONE = """
import os
import gradring as gr
from faults import functions
about = os.statvfs("/dev/shm")
print(about.f_blocks * about.f_frsize, about.f_bavail)
print(*gr.comm.spawn(functions.sum_of_ten_million, 2, pin=False))
"""
