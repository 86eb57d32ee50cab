"""A file without a name that every rank has open, and who does not get it."""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradring as gr
from gradring.launch import shared_file
from patience import promised


@pytest.fixture
def worlds():
    comms = gr.comm.thread_group(3, timeout=20.0)
    yield comms
    for comm in comms:
        comm.close()


def test_every_rank_has_the_same_file_open(worlds):
    with ThreadPoolExecutor(3) as pool:
        fds = [future.result() for future in [pool.submit(shared_file.share_file, comm, 20.0) for comm in worlds]]
    try:
        assert len(set(fds)) == 3
        os.write(fds[1], b"of all ranks")
        with open(f"/proc/self/fd/{fds[2]}", "r+b") as file:  # opened anew, as a store does
            assert file.read() == b"of all ranks"
        assert os.fstat(fds[0]).st_nlink == 0, "it has a name"
        assert not any(os.get_inheritable(fd) for fd in fds)
    finally:
        for fd in fds:
            os.close(fd)


class Alone:
    """Rank 0, whose other rank is the test: it reads the secret and waits in the barrier until the test is done."""

    def __init__(self):
        self.rank, self.size, self.secret = 0, 2, None
        self.told, self.done = threading.Event(), threading.Event()

    def broadcast(self, x):
        self.secret = x.copy()
        self.told.set()

    def barrier(self):
        assert self.done.wait(60)


@pytest.fixture
def listening():
    world = Alone()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(shared_file.share_file, world, 20.0)
        assert world.told.wait(60)
        yield world
        world.done.set()
        os.close(future.result())


def connected(world):
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(60)
    link.connect(shared_file._address(world.secret))
    return link


def test_random_bytes_and_a_wrong_key_are_refused_and_a_rank_is_served_afterwards(listening):
    address, key = shared_file._address(listening.secret), listening.secret[shared_file._NAME_BYTES :].tobytes()
    with connected(listening) as link:
        assert len(link.recv(100)) == 32  # the challenge
        link.send(os.urandom(64))
        assert link.recv(100) == b""
    with pytest.raises(gr.GradringError, match="rank 0 gave no shared file: the other end refused this key"):
        shared_file._fetch(address, os.urandom(32), 20.0)
    os.close(shared_file._fetch(address, key, 20.0))


def test_a_process_of_another_user_is_refused(listening, monkeypatch):
    monkeypatch.setattr(shared_file, "uid_of", lambda link: os.geteuid() + 1)
    with connected(listening) as link:
        assert link.recv(100) == b""


def test_who_is_silent_is_dropped(listening):
    with connected(listening) as link:
        assert len(link.recv(100)) == 32
        began = time.monotonic()
        assert link.recv(100) == b""
        assert time.monotonic() - began < promised(2.0)


def test_a_rank_0_that_is_gone_is_an_error_and_no_hang():
    with pytest.raises(gr.GradringError, match="rank 0 gave no shared file: "):
        shared_file._fetch(shared_file._address(np.arange(48, dtype=np.uint8)), b"key", 20.0)
