"""Arrays and streams while a stream captures a graph."""

import pytest

from device_producers import run_lazily
from gradring import cuda


def test_an_array_that_dies_while_a_recorded_stream_captures_stays_with_the_graph():
    """A graph reads the array at every launch, so its memory is given to no other array."""
    script = """
import gc
import os
import numpy as np
from gradring import cuda
from gradring.cuda import streams

native, stream = streams.native(), cuda.Stream()
values = np.arange(64.0)
out = cuda.empty((64,), "float64")
wrong = 0
for recorded in (False, True):  # it belongs to the capturing stream, or to another one and says that this one uses it
    with cuda.use_stream(0 if recorded else stream):
        array = cuda.empty((64,), "float64")
        array[...] = values
        out[...] = 0.0
    streams.order(0, 0, stream.handle)
    held, address = [array], array.address
    if recorded:
        array.record_stream(stream)
    del array

    def queue():
        with cuda.use_stream(stream):
            out[...] = held[0]
            held.clear()  # while the stream captures

    graph = native.Recorded(0, stream.handle, queue)
    others = []
    for chosen in (0, stream):
        with cuda.use_stream(chosen):
            for _ in range(16):  # more than the pool has free
                others.append(cuda.empty((64,), "float64"))
                others[-1][...] = -1.0
    wrong += any(other.address == address for other in others)
    for _ in range(3):
        with cuda.use_stream(stream):
            out[...] = 0.0
            graph.launch(stream.handle)
            wrong += int((out.numpy() != values).sum())
    del graph, others, queue, held
    gc.collect()  # the blocks of this turn return to the pool
print(wrong, flush=True)
os._exit(0)  # the pool keeps the graphs' memory until the process ends, which the device would report
"""
    assert run_lazily(script) == "0"


def test_what_a_function_raises_while_it_is_captured_is_raised():
    def queue():
        raise KeyError("in the capture")

    native, stream = cuda.streams.native(), cuda.Stream()
    with pytest.raises(KeyError, match="in the capture"):
        native.Recorded(0, stream.handle, queue)
    with cuda.use_stream(stream):  # it captures no longer
        array = cuda.empty((3,))
        array[...] = 1.0
        assert array.numpy().tolist() == [1.0] * 3
