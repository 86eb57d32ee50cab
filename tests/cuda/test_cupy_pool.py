"""Parameters, gradients and optimizer state lie in CuPy's pool where CuPy is in use. A stand-in has the same interface."""

import gc
import sys
import types

import numpy as np
import pytest

import gradring as gr
from gradring import cuda, devices


class Pool:
    """The parts of ``cupy.cuda`` that gradring uses. Freed memory is overwritten at once, on a stream of its own."""

    def __init__(self, fails=False):
        self.taken, self.freed, self.current, self.fails = [], [], [], fails

        class Context:
            def __init__(self, value):
                self.value = value

            def __enter__(context):
                self.current.append(context.value)

            def __exit__(context, *raised):
                self.current.pop()

        class Block:
            def __init__(self, size):
                self.memory = cuda.empty((size,), "uint8")
                self.memory[...] = np.full(size, 0xAB, np.uint8)  # pools do not clear
                self.ptr = self.memory.address

            def __del__(block):
                with cuda.use_stream(other):
                    block.memory[...] = np.full(block.memory.shape, 0xFF, np.uint8)
                    block.memory.numpy()
                self.freed.append(block.ptr)

        def alloc(size):
            self.taken.append((size, tuple(self.current)))
            if self.fails:
                raise MemoryError("out of the pool's memory")
            return Block(size)

        other = cuda.Stream()
        self.module = types.SimpleNamespace(alloc=alloc, Device=Context, ExternalStream=Context)


def trained(blobs, epochs=1):
    model = gr.nn.Sequential(gr.nn.Linear(8, 16), gr.nn.ReLU(), gr.nn.Linear(16, 3))
    trainer = gr.Trainer(model, device="cuda", seed=3, optimizer=gr.optim.AdamW(1e-2))
    trainer.fit(blobs, epochs=epochs, batch_size=32, verbose=False)
    return trainer


def use(monkeypatch, pool):
    module = types.ModuleType("cupy")
    module.cuda = pool.module
    monkeypatch.setitem(sys.modules, "cupy", module)


def test_arenas_come_from_the_pool_and_go_back_when_nothing_uses_them(monkeypatch, blobs):
    expected = {name: array.numpy() for name, array in trained(blobs).params.items()}
    pool = Pool()
    use(monkeypatch, pool)
    trainer = trained(blobs)
    assert pool.taken and not pool.freed
    own = devices._own_stream(0).handle
    assert {current for _, current in pool.taken} == {(0, own)} and own != cuda.current_stream()
    for name, array in trainer.params.items():
        np.testing.assert_array_equal(array.numpy(), expected[name])
    for _ in range(4):
        number = trainer.step(blobs[0][:32], blobs[1][:32])  # they end before the blocks go back
    kept = trainer.params["0.weight"]
    values = kept.numpy()
    del trainer, number, array
    gc.collect()
    assert len(pool.freed) == len(pool.taken) - 1
    np.testing.assert_array_equal(kept.numpy(), values)
    del kept
    gc.collect()
    assert len(pool.freed) == len(pool.taken)


def test_a_pool_without_memory_leaves_the_device_to_say_so(monkeypatch, blobs):
    use(monkeypatch, Pool(fails=True))
    assert trained(blobs).step_count > 0  # the device itself has memory
    with pytest.raises(MemoryError, match="bytes are wanted"):
        devices.reserve("cuda:0", 1 << 50)


def test_what_has_no_pool_is_left_alone(monkeypatch, blobs):
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    assert trained(blobs).step_count > 0
