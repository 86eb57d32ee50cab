"""DLPack between CUDA arrays and other libraries."""

import gc
import weakref

import numpy as np
import pytest

from device_producers import Tensor, Torch, on_device
from gradring import cuda


def table(dtype=np.float32):
    return np.arange(60).reshape(3, 4, 5).astype(dtype)


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
