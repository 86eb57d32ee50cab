"""gradring within PyTorch: all_reduce, DDP's hook, and a process group, against gloo."""

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import gradring as gr  # noqa: E402
import gradring.torch as grt  # noqa: E402

from . import functions  # noqa: E402

pytestmark = pytest.mark.parity

DTYPES = ["float32", "float64", "bfloat16", "float16", "int64", "uint8"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_reduced_where_they_lie(dtype):
    expected = (2 * np.arange(12).reshape(3, 4) + 1).T
    for same, got in gr.comm.spawn(functions.sums, 2, dtype, pin=False):
        assert same and np.array_equal(got, expected)


class Spy:
    """A communicator that notes which memory it is given, and how it is laid out."""

    rank, size = 0, 2

    def __init__(self):
        self.seen = []

    def all_reduce(self, x, op, *, async_op=False):
        self.seen.append((x.ctypes.data, x.shape, tuple(stride // x.itemsize for stride in x.strides), str(x.dtype)))
        return Ended() if async_op else x


class Ended:
    def wait(self, timeout=None):
        pass

    def done(self):
        return True



@pytest.mark.parametrize("dtype", DTYPES)
def test_the_communicator_gets_the_tensors_own_memory(dtype):
    whole = torch.arange(60).to(getattr(torch, dtype)).reshape(6, 10)
    for tensor in (whole, whole.t(), whole[1::2, ::3], whole[2], whole[3, 4]):
        spy = Spy()
        grt.all_reduce(tensor, comm=spy)
        grt.all_reduce(tensor, comm=spy, async_op=True).wait()
        grt.GradringProcessGroup(spy).allreduce([tensor]).wait()
        assert spy.seen == [(tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), dtype)] * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_hook_gives_the_communicator_the_buckets_own_memory(dtype):
    class Bucket:
        def __init__(self):
            self.memory = torch.ones(7, dtype=getattr(torch, dtype))

        def buffer(self):
            return self.memory

    spy, bucket = Spy(), Bucket()
    assert grt.ddp_hook(spy, bucket).wait() is bucket.memory
    assert spy.seen == [(bucket.memory.data_ptr(), (7,), (1,), dtype)]


@pytest.mark.parametrize(
    "tensor, error, why",
    [
        (np.ones(2), TypeError, "must be a torch.Tensor, got ndarray"),
        (torch.ones(2, device="meta"), ValueError, "tensor is on meta: must be on the CPU"),
        (torch.eye(2).to_sparse(), ValueError, "must be dense"),
    ],
    ids=["array", "meta", "sparse"],
)
def test_what_is_no_dense_cpu_tensor_is_refused(tensor, error, why):
    with pytest.raises(error, match=why):
        grt.all_reduce(tensor)


def trained(backend, dtype, folder):
    """The results of two ranks. It tries again if Gloo's own threads abort a process at its exit, as they do now and then."""
    for attempt in range(5):
        try:
            here = folder / f"{backend}{attempt}"
            here.mkdir()
            return gr.comm.spawn(functions.train, 2, backend, dtype, str(here), pin=False)
        except gr.GradringError as error:
            if backend == "gradring" or "killed by SIGABRT after its function had returned" not in str(error):
                raise
    raise AssertionError(f"{backend} aborted five times")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ddp_trains_to_gloos_result(dtype, tmp_path):
    results = {}
    for backend in ("gloo", "gradring", "hook"):
        first, second = trained(backend, dtype, tmp_path)
        for a, b in zip(first[0], second[0], strict=True):
            assert np.array_equal(a, b), "ranks differ"
        results[backend] = first
    assert results["hook"][1] > 1, "one bucket is no test"
    for backend in ("gradring", "hook"):
        for ours, gloos in zip(results[backend][0], results["gloo"][0], strict=True):
            assert np.array_equal(ours, gloos), backend


def test_each_collective_of_the_process_group():
    for refused in gr.comm.spawn(functions.collectives, 2, pin=False):
        assert "NotBuilt: [torch] this collective is planned" in refused[0]
        assert "must be one of SUM, AVG, MAX, MIN, PRODUCT" in refused[1]


def test_groups_of_some_ranks():
    assert gr.comm.spawn(functions.some_of_them, 3, pin=False) == [
        [101.0, 1.0, 111.0, 1.0, 2.0],
        [10.0, 110.0, 111.0, 10.0, 1.0],
        [101.0, 110.0, 111.0, 100.0, 2.0],
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_death_in_the_backward_pass_is_an_error_and_no_hang_and_no_name_is_left(rank, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    begin = time.monotonic()
    with pytest.raises(gr.GradringError, match=f"rank {rank} of 2 was killed by SIGKILL"):
        gr.comm.spawn(functions.dies, 2, rank, pin=False)
    assert time.monotonic() - begin < 60
    assert list(tmp_path.glob("gradring*")) == []
