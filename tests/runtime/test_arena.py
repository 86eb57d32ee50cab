"""Arenas as NumPy sees them."""

import gc
import multiprocessing
import os

import numpy as np
import pytest

from gradring import _core
from loader.resources import shared_names


@pytest.mark.parametrize("kind", [_core.AlignedArena, _core.SharedArena])
def test_an_array_keeps_its_arena_alive(kind):
    arena = kind(1 << 20)
    assert arena.nbytes == 1 << 20
    array = np.frombuffer(arena, np.float32, count=100, offset=64)
    assert array.flags.writeable
    assert array.ctypes.data == arena.address + 64
    assert not array.any()
    array[:] = 7
    del arena
    gc.collect()
    kind(1 << 20)
    assert (array == 7).all()


def test_attach_sees_the_same_memory():
    arena = _core.SharedArena(4096)
    descriptor = os.dup(arena.fileno())
    other = np.frombuffer(_core.SharedArena.attach(descriptor), np.int64)
    os.close(descriptor)
    np.frombuffer(arena, np.int64)[:] = 3
    assert (other == 3).all()


@pytest.mark.filterwarnings("ignore")  # other libraries that the tests import warn of any fork
def test_a_forked_child_shares_a_shared_arena_and_not_an_aligned_one():
    shared = np.frombuffer(_core.SharedArena(4096), np.int32)
    private = np.frombuffer(_core.AlignedArena(4096), np.int32)

    def write():
        shared[5] = 11
        private[5] = 11

    child = multiprocessing.get_context("fork").Process(target=write)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert shared[5] == 11
    assert private[5] == 0


def test_an_impossible_arena_says_why():
    with pytest.raises(ValueError, match="bytes is 0: must be at least 1"):
        _core.SharedArena(0)
    with pytest.raises(MemoryError, match=r"cannot reserve 1073741824 MiB of shared memory: \d+ MiB are left"):
        _core.SharedArena(1 << 50)
    with pytest.raises(MemoryError, match="cannot allocate"):
        _core.AlignedArena(1 << 62)
    with pytest.raises(TypeError):
        _core.SharedArena(-1)
    with pytest.raises(ValueError, match="fd 99999 is not an open memfd"):
        _core.SharedArena.attach(99999)


def test_no_name_is_left_in_dev_shm():
    before = shared_names()
    arena = _core.SharedArena(4096)
    assert shared_names() <= before
    assert arena.nbytes == 4096
