"""How a process ended, as the kernel tells it after the process was reaped."""

import os
import signal
import subprocess
import sys

import pytest

from gradring.launch.ended import Ended, end_of_pidfd

KERNEL = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])


@pytest.mark.parametrize(
    "code, ended", [("import os; os.kill(os.getpid(), 9)", Ended(signal=9)), ("raise SystemExit(3)", Ended(code=3))]
)
def test_the_kernel_tells_the_end_of_a_process_that_was_reaped(code, ended):
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
    pidfd = os.pidfd_open(process.pid)  # of a child that is not reaped yet
    try:
        assert end_of_pidfd(pidfd) == Ended()  # it lives, or was not reaped
        process.wait(60)
        # Linux tells it from 6.15 on; an older kernel, or an emulated one, knows nothing.
        found = end_of_pidfd(pidfd)
        assert found == ended or (found == Ended() and KERNEL < (6, 15))
    finally:
        os.close(pidfd)


def test_an_end_is_told_in_words():
    assert [str(end) for end in (Ended(signal=int(signal.SIGKILL)), Ended(signal=63), Ended(code=0), Ended())] == [
        "was killed by SIGKILL",
        "was killed by signal 63",
        "ended with exit code 0",
        "ended",
    ]


def test_a_descriptor_that_is_no_pidfd_tells_nothing():
    read, write = os.pipe()
    try:
        assert end_of_pidfd(read) == Ended()
    finally:
        os.close(read)
        os.close(write)
