"""Every collective for every dtype, blocking and as a Work, in every place of memory, against NumPy in rank order."""

from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
import pytest

import gradring as gr

RANKS = 3
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES = [*INTEGERS, "float16", "float32", "float64", "bfloat16", "bool"]
STEPS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def values(rank, count, dtype):
    """Integers of the whole range, so that sums wrap; floats with a NaN and an infinity in different places of each rank."""
    generator = np.random.default_rng([rank, count])
    if dtype.kind in "biu":
        return generator.integers(0, 256, count * dtype.itemsize, np.uint8).view(dtype) if dtype.kind != "b" else (
            generator.random(count) < 0.5
        )
    x = (generator.normal(size=count) * 3).astype(dtype)
    if count > 4:
        x[rank], x[rank + 1] = np.nan, np.inf
    return x


def expected(op, dtype, count):
    """Half floats add up in float32, and are rounded once."""
    wide = np.dtype(np.float32) if dtype.kind not in "biu" and dtype.itemsize == 2 else dtype
    with np.errstate(all="ignore"):
        parts = [values(rank, count, dtype).astype(wide) for rank in range(RANKS)]
        result = reduce(STEPS["sum" if op == "mean" else op], parts)
        return (result / wide.type(RANKS) if op == "mean" else result).astype(dtype)


def ops_of(dtype):
    return {"b": ["max", "min"], "i": list(STEPS), "u": list(STEPS)}.get(dtype.kind, [*STEPS, "mean"])


@pytest.mark.parametrize("name", DTYPES)
def test_every_collective_blocking_and_as_a_work(name):
    dtype = dtype_of(name)

    def body(comm):
        finish = []

        def end(given, is_work, check):
            if is_work:
                finish.append((given, check))
            else:
                check(given)

        for count in (3, 3 * 700, 3 * 8000):
            for shared in (True, False):
                for is_work in (True, False):

                    def own(length=count, shared=shared):
                        array = comm.empty(length, dtype) if shared else np.empty(length, dtype)
                        array[:] = values(comm.rank, length, dtype)
                        return array

                    for op in ops_of(dtype):
                        total = expected(op, dtype, count)
                        end(comm.all_reduce(own(), op, async_op=is_work), is_work, lambda x, want=total: same(x, want))
                        block = total.reshape(RANKS, -1)[comm.rank]
                        end(comm.reduce_scatter(own(), op, async_op=is_work), is_work, lambda x, want=block: same(x, want))
                    everyone = np.stack([values(rank, count, dtype) for rank in range(RANKS)])
                    end(comm.all_gather(own(), async_op=is_work), is_work, lambda x, want=everyone: same(x, want))
                    end(comm.broadcast(own(), 1, async_op=is_work), is_work, lambda x, want=everyone[1]: same(x, want))
                    if comm.rank < 2:
                        peer, x = 1 - comm.rank, np.empty(count, dtype)
                        sent = comm.send(own(), peer, async_op=True)
                        end(comm.recv(x, peer, async_op=is_work), is_work, lambda x, want=everyone[peer]: same(x, want))
                        sent.wait()
            for work, check in finish:
                check(work.wait())
            finish.clear()
            comm.barrier()
        return True

    comms = gr.comm.thread_group(RANKS, timeout=60.0)
    with ThreadPoolExecutor(RANKS) as pool:
        assert [future.result() for future in [pool.submit(body, comm) for comm in comms]] == [True] * RANKS


def same(got, want):
    """The same bits, but for the payloads of NaN."""
    assert got.dtype == want.dtype
    bits = np.dtype(f"u{got.dtype.itemsize}")
    known = slice(None)
    if got.dtype.kind not in "biu":
        nan = np.isnan(want.astype(np.float64))
        np.testing.assert_array_equal(np.isnan(got.astype(np.float64)), nan)
        known = ~nan
    np.testing.assert_array_equal(got.view(bits)[known], want.view(bits)[known])


@pytest.mark.parametrize("name", [*INTEGERS, "bool"])
def test_what_a_dtype_cannot_do_is_refused_by_name(name):
    refused = ["mean"] if name != "bool" else ["sum", "mean", "prod"]
    comm, other = gr.comm.thread_group(2)
    for op in refused:
        for call in (comm.all_reduce, comm.reduce_scatter):
            with pytest.raises(TypeError, match=rf"x is of dtype {name}, which has no op='{op}': use "):
                call(np.ones(4, name), op)
    assert other.size == 2
