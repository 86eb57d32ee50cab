"""Arrays on a device: views, copies, and both ways of other libraries' arrays."""

import gc
import pickle
import sys
import weakref

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, Tensor, Torch, on_device, run_lazily
from gradring import cuda, cuda_devices


def table(dtype=np.float32):
    return np.arange(60).reshape(3, 4, 5).astype(dtype)


KEYS = [
    np.s_[...],
    np.s_[1],
    np.s_[-1, 2],
    np.s_[0, 0, 0],
    np.s_[:, 1:3],
    np.s_[::-1, ::2, 1:],
    np.s_[..., -1],
    np.s_[:, None, 0],
    np.s_[2:2],
    np.s_[np.int64(1), 1:],
    np.s_[np.array(1)],
    np.s_[np.array(-1), np.array(2)],
]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int8", "float64", "complex128", "uint16", "bool"])
def test_a_view_is_numpys_and_can_be_written(key, dtype):
    host = table(dtype)
    array = on_device(host)
    view = array[key]
    np.testing.assert_array_equal(view.numpy(), host[key])
    assert view.shape == host[key].shape and view.contiguous == np.asarray(host[key]).flags.c_contiguous
    values = np.asarray(np.arange(max(host[key].size, 1))[: host[key].size].reshape(host[key].shape)).astype(dtype)
    view[...] = values
    host[key] = values
    np.testing.assert_array_equal(array.numpy(), host)
    array[key] = on_device(values)
    np.testing.assert_array_equal(array.numpy(), host)


def test_values_are_broadcast_and_cast():
    host, array = table(), on_device(table())
    array[:, 1] = host[:, 1] = [1, 2, 3, 4, 5]
    array[1:] = 7
    host[1:] = 7
    array[0] = on_device(np.float32([9] * 5))
    host[0] = 9
    np.testing.assert_array_equal(array.numpy(), host)
    for values in (np.float32([[[1, 2, 3, 4, 5]]]), on_device(np.float32([[[5, 4, 3, 2, 1]]]))):
        array[0, 1] = values  # an assignment drops axes of one element
        np.testing.assert_array_equal(array[0, 1].numpy(), np.asarray(values)[0, 0])
    host[0, 1] = [5, 4, 3, 2, 1]
    array[::-1] = array  # reads what it writes
    np.testing.assert_array_equal(array.numpy(), host[::-1])
    with pytest.raises(ValueError, match="broadcast"):
        array[...] = on_device(np.ones((7, 3), np.float32))
    for values in (np.ones((2, 5), np.float32), on_device(np.ones((2, 5), np.float32))):
        with pytest.raises(ValueError):
            array[0, 1] = values
    np.testing.assert_array_equal(array.numpy(), host[::-1])


def test_what_an_array_does_not_do_is_refused_by_name():
    array = on_device(table())
    for operation, sign in [
        (lambda a: a + 1, r"\+"),
        (lambda a: 1 - a, "-"),
        (lambda a: np.float32(1) * a, r"\*"),
        (lambda a: np.ones(5, np.float32) @ a, "@"),
        (lambda a: a.__iadd__(1), r"\+="),
        (lambda a: a.__imul__(1), r"\*="),
        (lambda a: a == 1, "=="),
        (lambda a: a < 1, "<"),
        (lambda a: -a, "-"),
    ]:
        with pytest.raises(TypeError, match=rf"\[cuda.Array\] {sign}: it computes nothing"):
            operation(array)
    for key in (np.array([0, 1]), [0], True, np.True_, np.array(True), np.array([1]), "x", 1.5, np.array(1.5)):
        with pytest.raises(TypeError, match=r"\[cuda.Array\] an index is a"):
            array[key]
    with pytest.raises(IndexError):
        array[3]
    with pytest.raises(IndexError):
        array[0, 0, 0, 0]
    with pytest.raises(TypeError, match="operand|ufunc"):
        np.sin(array)
    with pytest.raises(ValueError, match="only have a copy"):
        np.asarray(array, copy=False) if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else array.__array__(copy=False)


def test_numbers_and_looks():
    one = on_device(np.float32(2.5))
    assert (float(one), int(one), bool(one), one.shape, one.ndim, one.nbytes) == (2.5, 2, True, (), 0, 4)
    with pytest.raises(TypeError, match="without axes"):
        len(one)
    empty = cuda.empty((0, 3), "int32")
    assert len(empty) == 0 and empty.numpy().shape == (0, 3)
    assert empty.__cuda_array_interface__["data"] == (0, False)
    assert repr(empty) == "cuda.Array((0, 3), int32, 'cuda:0')"


# __cuda_array_interface__


def test_an_interface_is_read_without_a_copy():
    array = on_device(table())
    for part in (array, array[1], array[:, ::2], array[::-1]):
        seen = cuda.as_array(Interface(part))
        assert (seen.address, seen.shape, seen.strides, seen.dtype) == (
            part.address,
            part.shape,
            part.strides,
            part.dtype,
        )
        np.testing.assert_array_equal(seen.numpy(), part.numpy())
    seen[...] = 0
    assert not array.numpy().any()
    assert cuda.as_array(array) is array


def test_the_producer_lives_as_long_as_the_array():
    producer = Interface(on_device(table()))
    gone = weakref.ref(producer)
    seen = cuda.as_array(producer)[1:]
    del producer
    gc.collect()
    assert gone() is not None
    np.testing.assert_array_equal(seen.numpy(), table()[1:])
    del seen
    gc.collect()
    assert gone() is None


def test_a_read_only_array_stays_so():
    array = on_device(table())
    address, _ = array.__cuda_array_interface__["data"]
    seen = cuda.as_array(Interface(array, data=(address, True)))
    with pytest.raises(ValueError, match="read-only"):
        seen[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        seen[0][...] = 1
    assert seen.__cuda_array_interface__["data"] == (address, True)
    with pytest.raises(BufferError, match="read-only"):
        seen.__dlpack__()
    again = cuda.from_dlpack(seen)
    assert again.read_only
    assert not cuda.copied(seen).read_only
    seen.__dlpack__(copy=True)


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"stream": 0}, ValueError, r"\[x\] the stream .* is 0: must be None, 1"),
        ({"stream": -1}, ValueError, "stream"),
        ({"stream": "1"}, ValueError, "stream"),
        ({"mask": object()}, TypeError, r"\[x\] a Interface with a mask"),
        ({"typestr": ">f4"}, TypeError, "byte order"),
        ({"typestr": "|O8"}, TypeError, "must be numbers"),
        ({"typestr": "nonsense"}, TypeError, "must be a dtype"),
        ({"strides": (4,)}, ValueError, "do not fit"),
        ({"strides": (80, 20, 6)}, ValueError, r"\[x\] the address .* no multiples of 4 bytes, which float32 needs"),
        ({"shape": (3, 4, 1 << 40)}, ValueError, r"\[x\] the memory of this Interface was freed, or never was"),
        ({"data": (4096, False)}, ValueError, "was freed, or never was"),
    ],
)
def test_a_bad_interface_is_refused_by_name(changed, error, match):
    with pytest.raises(error, match=match):
        cuda.as_array(Interface(on_device(table()), **changed), "x")


def test_an_address_that_does_not_suit_the_dtype_is_refused_by_name():
    array = on_device(np.arange(6.0))
    with pytest.raises(ValueError, match=r"\[w\] the address 0x.* are no multiples of 8 bytes, which float64 needs: copy"):
        cuda.as_array(Interface(array, shape=(2,), data=(array.address + 4, False)), "w")
    pairs = cuda.as_array(Interface(array, shape=(2,), strides=(24,), typestr="<c16"))  # of which every half is aligned
    assert pairs.numpy().tolist() == [1j, 3 + 4j]
    with pytest.raises(BufferError, match="no multiples of the 16 bytes of complex128: copy the array"):
        pairs.__dlpack__()
    assert cuda.copied(cuda.from_dlpack(Tensor(pairs[:1]))).numpy().tolist() == [1j]


def test_an_array_without_elements_is_on_the_device_that_is_asked_for():
    assert cuda.as_array(Interface(cuda.empty((0, 3))), device=1).device_number == 1
    with pytest.raises(ValueError, match=r"\[w\] it is on cuda:0: must be on cuda:1"):
        cuda.as_array(Torch(cuda.empty((0, 3))), "w", device=1)


def test_host_and_freed_memory_and_other_devices_are_refused_by_name():
    host = np.zeros(4, np.float32)
    look = {"shape": (4,), "typestr": "<f4", "data": (host.ctypes.data, False), "strides": None}
    with pytest.raises(ValueError, match=r"\[w\] the memory of this Interface was freed, or never was on a device"):
        cuda.as_array(Interface(on_device(host), **look), "w")
    arena = cuda.streams.native().DeviceArena(0, 1 << 16)
    freed = cuda.Array(arena, 0, (4,), "float32").__cuda_array_interface__
    del arena
    with pytest.raises(ValueError, match="was freed"):
        cuda.as_array(Interface(on_device(host), **freed), "w")
    with pytest.raises(ValueError, match=r"\[w\] it is on cuda:0: must be on cuda:1; copy it"):
        cuda.as_array(on_device(host), "w", device=1)
    with pytest.raises(TypeError, match=r"\[w\] a list is no array on a CUDA device"):
        cuda.as_array([1], "w")


# DLPack


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool", "complex64"])
def test_a_tensor_is_read_without_a_copy(dtype, old):
    array = on_device(table(dtype))
    for part in (array, array[:, 1:3], array[::-1], array[2:2], array[0, 0, 0]):
        tensor = Tensor(part, old)
        seen = cuda.from_dlpack(tensor)
        assert (seen.shape, seen.dtype, seen.size and seen.address) == (
            part.shape,
            part.dtype,
            part.size and part.address,
        )
        np.testing.assert_array_equal(seen.numpy(), part.numpy())
        assert tensor.asked[0] == {"stream": 1, "max_version": (1, 1)}
        assert cuda.is_device_array(tensor)
        np.testing.assert_array_equal(cuda.as_array(tensor).numpy(), part.numpy())


def test_bfloat16_goes_through_dlpack():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = on_device(np.arange(6).astype(ml_dtypes.bfloat16))
    seen = cuda.from_dlpack(Tensor(array))
    assert seen.dtype == array.dtype
    np.testing.assert_array_equal(seen.numpy(), array.numpy())
    seen = cuda.as_array(Torch(array))  # whose interface knows no bfloat16, either
    assert seen.dtype == array.dtype and seen.address == array.address


def test_a_capsule_keeps_the_memory_until_it_is_consumed_or_dies():
    array = on_device(table())
    block = weakref.ref(array._memory)
    capsules = [array.__dlpack__(), array.__dlpack__(max_version=(1, 0))]
    tensors = [cuda.streams.native().DlpackTensor(capsule) for capsule in capsules]
    del array
    gc.collect()
    assert all(tensor.shape == (3, 4, 5) for tensor in tensors) and block() is not None
    with pytest.raises(TypeError, match="was not consumed"):
        cuda.streams.native().DlpackTensor(capsules[0])
    with pytest.raises(TypeError, match="must be a capsule"):
        cuda.streams.native().DlpackTensor(object())
    del capsules, tensors[0]
    gc.collect()
    assert block() is not None
    del tensors
    gc.collect()
    assert block() is None


def test_dlpacks_streams():
    array, stream = on_device(table()), cuda.Stream()
    for good in (None, 1, 2, -1, stream.handle):
        assert "dltensor" in repr(array.__dlpack__(stream=good))
    for bad in (0, -2):
        with pytest.raises(ValueError, match=rf"\[__dlpack__\] stream is {bad}"):
            array.__dlpack__(stream=bad)
    for bad in ("1", 1.0, True):
        with pytest.raises(TypeError, match="must be None or an integer"):
            array.__dlpack__(stream=bad)


def test_dl_device_and_copy():
    array = on_device(table())
    np.testing.assert_array_equal(np.from_dlpack(OnHost(array)), table())
    with pytest.raises(BufferError, match="copy is False"):
        array.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(BufferError, match=r"dl_device is \(2, 3\)"):
        array.__dlpack__(dl_device=(2, 3))
    copy = cuda.streams.native().DlpackTensor(array.__dlpack__(copy=True, dl_device=(2, 0), max_version=(1, 0)))
    assert copy.address != array.address
    with pytest.raises(BufferError, match=r"must be on CUDA"):
        cuda.from_dlpack(Tensor(array, place=(1, 0)))


class OnHost:
    """A consumer's view of an array that wants it on the CPU."""

    def __init__(self, array):
        self._array = array

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **asked):
        asked.pop("stream", None)
        return self._array.__dlpack__(**{**asked, "dl_device": (1, 0), "copy": None})


# Streams


def test_a_stream_is_known_by_its_protocols():
    stream = cuda.Stream(high_priority=True)
    assert stream.__cuda_stream__() == (0, stream.handle) and stream.device == "cuda:0"

    class Like:
        ptr = 5

    class Torch:
        cuda_stream = 6

    class Property:
        __cuda_stream__ = (0, 7)

    class Later:
        def __cuda_stream__(self):
            return 1, 7

    for given, handle in [(stream, stream.handle), (Like(), 5), (Torch(), 6), (Property(), 7), (2, 2), (None, 0)]:
        assert cuda.streams.handle_of(given, "x") == handle
    with pytest.raises(ValueError, match="version 1"):
        cuda.streams.handle_of(Later(), "x")
    for bad in ("s", -1, True, 1.5):
        with pytest.raises(TypeError, match=r"\[x\] stream is"):
            cuda.streams.handle_of(bad, "x")
    with cuda.use_stream(stream):
        assert cuda.current_stream() == stream.handle
        with cuda.use_stream(2):
            assert cuda.current_stream() == 2
        assert on_device([1.0]).__cuda_array_interface__["stream"] == stream.handle
    assert cuda.current_stream() == 0
    assert on_device([1.0]).__cuda_array_interface__["stream"] == 1


def test_cupys_current_stream_is_the_current_one(monkeypatch):
    class Cupy:
        class cuda:
            @staticmethod
            def get_current_stream():
                return made

    made = type("Stream", (), {"ptr": 0})()
    monkeypatch.setitem(sys.modules, "cupy", Cupy)
    stream = cuda.Stream()
    made.ptr = stream.handle
    assert cuda.current_stream() == stream.handle
    with cuda.use_stream(0):
        assert cuda.current_stream() == 0


ORDER = """
import numpy as np
from gradring import cuda
from device_producers import Interface, Torch, on_device

size = 1 << 12
first, second, wrong = cuda.Stream(), cuda.Stream(), 0
for turn in range(8):
    with cuda.use_stream(first):
        source, array = on_device(np.full(size, turn, np.float32)), on_device(np.full(size, -1, np.float32))
        for _ in range(20):
            array[::2], array[1::2] = source[::2], source[1::2]
        producer = {producer}
    with cuda.use_stream(second):
        seen = {seen}
        wrong += (seen.numpy() != turn).sum()
        seen.record_stream(first)
del producer, seen
print(wrong)
"""


@pytest.mark.parametrize(
    ("producer", "seen", "ordered"),
    [
        ("Interface(array, stream=first.handle)", "cuda.as_array(producer)", True),
        ("Interface(array, stream=None)", "cuda.as_array(producer)", False),
        ("Torch(array, first)", "cuda.as_array(producer)", True),
        ("array.__dlpack__(stream=second.handle)", "cuda.array.Array(P(producer), 0, (size,), 'float32')", True),
        ("array.__dlpack__(stream=-1)", "cuda.array.Array(P(producer), 0, (size,), 'float32')", False),
    ],
    ids=("interface", "interface without a stream", "version 2 and dlpack", "dlpack", "dlpack without an order"),
)
def test_a_consumer_waits_for_the_producers_stream_and_not_without_one(producer, seen, ordered):
    prelude = (
        "class P:\n"
        "    device = 0\n"
        "    def __init__(self, capsule):\n"
        "        from gradring.cuda import streams\n"
        "        self.tensor = streams.native().DlpackTensor(capsule)\n"
        "        self.address = self.tensor.address\n"
    )
    wrong = int(run_lazily(prelude + ORDER.format(producer=producer, seen=seen)))
    assert (wrong == 0) == ordered, wrong


def test_a_stream_may_die_before_its_arrays():
    stream = cuda.Stream()
    handle = stream.handle
    with cuda.use_stream(stream):
        array = on_device(table())
    array.record_stream(cuda.Stream())
    del stream
    gc.collect()
    cuda.streams.native().synchronize(0, handle)
    with cuda.use_stream(handle):
        np.testing.assert_array_equal(array.numpy(), table())
    del array
    assert cuda.Stream().handle != 0 and cuda.empty(60).size == 60

    class Other:  # a stream of another library, which destroys it with its object
        def __init__(self):
            self.own = cuda.Stream()

        def __cuda_stream__(self):
            return self.own.__cuda_stream__()

    first, second = Other(), Other()
    gone = [weakref.ref(first), weakref.ref(second)]
    with cuda.use_stream(first):
        array = cuda.empty(9)
    array.record_stream(second)
    array.record_stream(second)
    del first, second
    gc.collect()
    assert all(each() is not None for each in gone)
    del array
    gc.collect()
    assert all(each() is None for each in gone)


@pytest.mark.parametrize(
    ("taken", "recorded"),
    [
        ("array", "seen.record_stream(second)"),
        ("array", "seen.__dlpack__(stream=second.handle)"),
        ("array", "seen.__dlpack__(stream=-1)"),
        ("cuda.as_array(Interface(array, stream=first.handle))", "seen.record_stream(second)"),
        ("cuda.from_dlpack(Tensor(array))", "seen.record_stream(second)"),
    ],
)
def test_memory_that_another_stream_uses_is_not_reused_too_early(taken, recorded):
    script = """
import numpy as np
from gradring import cuda
from device_producers import Interface, Tensor, on_device

size, wrong = 1 << 12, 0
first, second = cuda.Stream(), cuda.Stream()
for turn in range(6):
    with cuda.use_stream(first):
        array = on_device(np.full(size, turn, np.float32))
    with cuda.use_stream(second):
        copy = cuda.empty(size)
        seen = {taken}
        for _ in range(10):
            copy[::2], copy[1::2] = seen[::2], seen[1::2]
    {recorded}
    del array, seen  # returns its block to the pool, and the next array gets it
    with cuda.use_stream(first):
        other = on_device(np.full(size, -1, np.float32))
        later = cuda.empty(size)
        later[...] = other
    with cuda.use_stream(second):
        wrong += (copy.numpy() != turn).sum()
print(wrong)
"""
    assert run_lazily(script.format(taken=taken, recorded=recorded)) == "0"


def test_a_stream_that_the_device_does_not_have_is_named_and_costs_no_memory():
    found = cuda_devices.report()
    if found is None or not found["software"]:
        pytest.skip("a real runtime does not check handles")
    block = cuda.empty(12345)
    address = block.address
    del block
    with cuda.use_stream(0x1230):
        with pytest.raises(gr.errors.GradringError, match=r"\[memory\] .*; the stream belongs to another device, or was"):
            cuda.empty(12345)
        with pytest.raises(gr.errors.GradringError, match=r"\[stream\] .*; the stream belongs to another device, or was"):
            cuda.streams.order(0, 0x1230, 0)
    assert cuda.empty(12345).address == address  # the pool still has the block


def test_the_owner_of_memory_lives_until_recorded_streams_are_done():
    producer, stream = Interface(on_device(table())), cuda.Stream()
    gone = weakref.ref(producer)
    seen = cuda.as_array(producer)
    seen.record_stream(stream)
    del producer, seen
    gc.collect()
    stream.synchronize()
    cuda.as_array(Interface(on_device(table())))
    gc.collect()
    assert gone() is None


def test_free_blocks_are_given_up_when_memory_is_needed():
    script = """
from gradring import cuda
first = cuda.empty(40 << 20, "int8")
del first  # its block stays in the pool
arena = cuda.streams.native().DeviceArena(0, 40 << 20)
del arena
first = cuda.empty(40 << 20, "int8")
del first
second = cuda.empty(50 << 20, "int8")
print(second.nbytes >> 20)
try:
    cuda.empty(1 << 30, "int8")
except MemoryError as error:
    assert "[memory]" in str(error), error
else:
    raise AssertionError
"""
    assert run_lazily(script, GRADRING_CUDA_MEMORY=str(64 << 20)) == "50"


def test_a_parameter_is_such_an_array(blobs):
    model = gr.nn.Linear(8, 3)
    trainer = gr.Trainer(model, device="cuda", optimizer=gr.optim.SGD(0.1))
    weight = trainer.params["weight"]
    bias = cuda.from_dlpack(trainer.params["bias"])
    before = weight.numpy()
    weight[:2] = 0
    bias[...] = 1
    after = trainer.params["weight"].numpy()
    assert not after[:2].any() and np.array_equal(after[2:], before[2:])
    assert trainer.params["bias"].numpy().tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match=r"\+=: it computes nothing"):
        trainer.params["weight"] += 1
    with pytest.raises(TypeError):
        pickle.dumps(weight)
