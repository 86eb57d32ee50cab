"""Arrays on a device: views, copies, and both ways of other libraries' arrays."""

import gc
import weakref

import numpy as np
import pytest

from device_producers import Interface, Tensor, Torch, on_device
from gradring import cuda


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
