"""Stand-ins for the arrays, tensors and streams of other libraries."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np

from gradring import cuda, devices


class Interface:
    """A CuPy array, as far as its interface goes. ``keep`` says nothing about the memory: that is the test's."""

    def __init__(self, array, **changed):
        self._array, self._changed = array, changed

    @property
    def __cuda_array_interface__(self):
        return {**self._array.__cuda_array_interface__, **self._changed}


class Tensor:
    """A tensor that has DLPack alone. It notes what its consumer asked for."""

    def __init__(self, array, old=False, place=None):
        self._array, self._old, self._place, self.asked = array, old, place, []

    def __dlpack_device__(self):
        return self._place or self._array.__dlpack_device__()

    def __dlpack__(self, **asked):
        self.asked.append(asked)
        if self._old and "max_version" in asked:
            raise TypeError("unexpected keyword argument 'max_version'")
        return self._array.__dlpack__(**asked)


class Torch(Tensor):
    """A tensor of PyTorch, which a stream computes: its ``__cuda_array_interface__`` is of version 2 and names no stream."""

    def __init__(self, array, stream=0):
        super().__init__(array)
        self._stream = stream

    @property
    def __cuda_array_interface__(self):
        interface = {**self._array.__cuda_array_interface__, "version": 2}
        del interface["stream"]
        return interface

    def __dlpack__(self, **asked):
        with cuda.use_stream(self._stream):
            return super().__dlpack__(**asked)


class CupyPool:
    """The parts of ``cupy.cuda`` that gradring uses. Freed memory is overwritten at once, on a stream of its own. ``late``:
    the stream that is current at an allocation still has to write there. ``skew`` moves the address."""

    def __init__(self, fails=False, late=False, skew=0):
        self.taken, self.freed, self.current, self.fails = [], [], [], fails

        class Context:
            def __init__(self, value):
                self.value = value

            def __enter__(context):
                self.current.append(context.value)

            def __exit__(context, *raised):
                self.current.pop()

        class Block:
            def __init__(block, size):
                block.memory = cuda.empty((size + skew,), "uint8")
                block.filled = on_device(np.full(size + skew, 0xAB, np.uint8))
                block.memory[...] = block.filled  # pools do not clear
                if late:
                    own = self.current[-1]
                    cuda.streams.order(0, 0, own)
                    with cuda.use_stream(own):
                        for _ in range(50):
                            block.memory[...] = block.filled
                block.ptr = block.memory.address + skew

            def __del__(block):
                with cuda.use_stream(other):
                    block.memory[...] = np.full(block.memory.shape, 0xFF, np.uint8)
                    block.memory.numpy()
                for used in (block.memory, block.filled):
                    used.record_stream(devices._own_stream(0))
                self.freed.append(block.ptr)

        def alloc(size):
            self.taken.append((size, tuple(self.current)))
            if self.fails:
                raise MemoryError("out of the pool's memory")
            return Block(size)

        other = cuda.Stream()
        self.module = types.SimpleNamespace(alloc=alloc, Device=Context, ExternalStream=Context)


def on_device(values, device=0):
    values = np.asarray(values)
    array = cuda.empty(values.shape, values.dtype, device)
    array[...] = values
    return array


def run_lazily(script, whole=False, **more):
    """The first word, or all, of what a script prints on a device that does all work at the last moment."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "GRADRING_CUDA_SCHEDULE": "lazy", "PYTHONPATH": path, **more}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip() if whole else done.stdout.split()[0]


def sample(i):
    """A sample that a worker process makes."""
    return np.full(3, i, np.float32), i
