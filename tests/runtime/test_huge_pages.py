"""Memory of 2 MiB and more lies in huge pages, where the kernel gives them: as the kernel itself tells it."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from gradring import _core

HUGE = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE


def huge_bytes(address):
    """How many bytes of the mapping that holds this address lie in huge pages. (Such pages begin at multiples of 2 MiB.)"""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if head:
            low, high = (int(number, 16) for number in head.groups())
            inside = low <= address < high
        elif inside and re.match(r"(AnonHugePages|ShmemPmdMapped|FilePmdMapped):", line):
            found += int(line.split()[1]) << 10
    return found


def kernel_collapses(address):
    """Whether the kernel makes a huge page of these bytes at this moment."""
    return ctypes.CDLL(None).madvise(ctypes.c_void_p(address // HUGE * HUGE), ctypes.c_size_t(HUGE), _COLLAPSE) == 0


def loader_batch():
    loader = gr.Loader(np.ones((256, 1 << 16), np.uint8), batch_size=128, num_threads=1)
    batch = next(iter(loader))
    return (batch[0] if isinstance(batch, tuple) else batch), loader


def parameters():
    trainer = gr.Trainer(gr.nn.Sequential(gr.nn.Linear(1024, 2048)).init(0), loss="mse", threads=1)
    return trainer.params["0.weight"], trainer


def shared_array():
    comm = gr.comm.init()
    return comm.empty(2 * HUGE, np.uint8), comm


@pytest.mark.parametrize("make", [shared_array, parameters, loader_batch], ids=lambda make: make.__name__)
def test_large_arenas_lie_in_huge_pages(make):
    array, keeper = make()
    assert array.nbytes >= 2 * HUGE
    address = array.ctypes.data
    found = huge_bytes(address)
    if found < 2 * HUGE and not kernel_collapses(address):
        pytest.skip(f"the kernel gives no huge page here: {_core.huge_page_support()}")
    assert found >= 2 * HUGE, f"{found} of {array.nbytes} bytes lie in huge pages, and the kernel would have given more"
    del array, keeper
