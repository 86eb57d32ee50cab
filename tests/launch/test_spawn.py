"""`gr.comm.spawn`: functions in fresh processes, their results, and their failures."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import gradring as gr
from gradring.launch import spawn
from gradring.launch.notes import RemoteTraceback
from helpers import heed_signals, run_script
from loader.resources import children, descriptors, is_dead, shared_names, wait_until
from patience import promised

from . import functions


def test_results_come_by_rank():
    assert spawn(functions.double, 3, "ab", pin=False) == [(0, "abab"), (1, "abab"), (2, "abab")]


def test_ranks_meet():
    assert spawn(functions.meet, 2) == [[(0, 2)] * 2, [(1, 2)] * 2]


def test_arrays_come_and_go():
    assert spawn(functions.sums, 2, np.arange(1_000_000.0)) == [499999500000.0] * 2
    for rank, array in enumerate(spawn(functions.large, 2)):
        assert array.shape == (1_000_000,) and (array == rank).all()


def test_the_first_failure_is_raised_with_its_traceback():
    begin = time.monotonic()
    with pytest.raises(KeyError, match="a lost key") as caught:
        spawn(functions.fail, 2, 1, "raise")
    assert time.monotonic() - begin < promised(8.0)  # five seconds of grace, and two starts
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert str(caught.value.__cause__).startswith("in rank 1 of 2:\nTraceback")
    assert 'raise KeyError("a lost key")' in str(caught.value.__cause__)
    assert "gradring/launch" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "how, why",
    [
        ("unpicklable", "rank 0 of 2 failed:\n.*(?s:.)*Unpicklable: not to be moved"),
        ("kill", "rank 0 of 2 was killed by SIGKILL"),
        ("exit", "rank 0 of 2 ended with exit code 4"),
    ],
)
def test_other_failures_are_named(how, why):
    with pytest.raises(gr.GradringError, match=why):
        spawn(functions.fail, 2, 0, how)


def test_a_rank_that_leaves_by_itself_is_no_success():
    with pytest.raises(gr.GradringError, match="rank 0 of 1 left before its function returned"):
        spawn(functions.fail, 1, 0, "leave")


def test_what_cannot_be_pickled_is_refused_at_once():
    with pytest.raises((TypeError, AttributeError), match="pickle"):
        spawn(functions.double, 2, threading.Lock())


@pytest.mark.parametrize("arguments, error", [((functions.double, 0), ValueError), (("no function", 2), TypeError)])
def test_misuse(arguments, error):
    with pytest.raises(error, match=r"\[spawn\]"):
        spawn(*arguments)


def test_nothing_is_left():
    spawn(functions.double, 2, 1)
    before, processes, names = descriptors(), set(children()), shared_names()
    spawn(functions.double, 2, 1)
    for how in ("raise", "kill"):
        with pytest.raises((KeyError, gr.GradringError)):
            spawn(functions.fail, 2, 1, how)
    assert descriptors() <= before
    assert set(children()) <= processes
    assert shared_names() <= names


def test_ranks_are_pinned_apart():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one processor")
    first, second = spawn(functions.affinity, 2)
    if first == second:
        pytest.skip("another job holds processors")
    assert not set(first) & set(second)
    assert spawn(functions.affinity, 2, pin=False) == [sorted(os.sched_getaffinity(0))] * 2


def test_a_session_without_a_file_needs_cloudpickle(monkeypatch):
    pytest.importorskip("cloudpickle")
    script = """
        import sys
        from gradring.launch import spawn
        factor = 3
        def times(value):
            return value * factor
        print(spawn(times, 2, 7))
        sys.modules["cloudpickle"] = None
        try:
            spawn(times, 2, 7)
        except ValueError as error:
            print(error)
    """
    done = run_script(script)
    assert done.stdout.splitlines()[0] == "[21, 21]", done.stderr
    assert "[spawn] times is defined in a session" in done.stdout and "install cloudpickle" in done.stdout


def test_a_main_module_without_a_guard_is_named(tmp_path):
    path = tmp_path / "main.py"
    path.write_text("from gradring.launch import spawn\ndef f(): return 1\nprint(spawn(f, 2))\n")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "put everything but definitions under" in done.stderr
    path.write_text(
        "from gradring.launch import spawn\ndef f(): return 1\nif __name__ == '__main__':\n    print(spawn(f, 2))\n"
    )
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[1, 1]\n", done.stderr


def test_ctrl_c_is_one_exception_and_ends_the_ranks(tmp_path):
    path = tmp_path / "main.py"
    path.write_text(
        textwrap.dedent(
            """
            import os, time
            from gradring.launch import spawn
            def f():
                os.write(1, f"{os.getpid()}\\n".encode())
                time.sleep(1000)
            if __name__ == "__main__":
                spawn(f, 2)
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT and err.count("\nKeyboardInterrupt") == 1
    assert wait_until(lambda: all(map(is_dead, pids)))
