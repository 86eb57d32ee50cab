"""What a user hears who asks for an array or a stream that cannot be."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gradring as gr
from gradring import cuda


@pytest.mark.parametrize("shape", [-3, (2, -1), (2**62, 8), (-(2**40), -(2**40))])
def test_a_shape_that_no_array_has_is_refused(shape):
    with pytest.raises(ValueError, match=r"\[cuda\.empty\] shape is .*: extents must"):
        cuda.empty(shape)


@pytest.mark.parametrize(
    "arguments", [((2.5,),), ("three",), (None,), ((2,), "float32", "cuda:0"), ((2,), "float32", None)]
)
def test_what_is_no_integer_is_named(arguments):
    with pytest.raises(TypeError, match=r"\[cuda\.empty\] shape is .* and device is .*: must be integers"):
        cuda.empty(*arguments)


@pytest.mark.parametrize(
    "dtype", [object, "U3", "S4", "datetime64[s]", ">f4" if sys.byteorder == "little" else "<f4", "i4,f4"]
)
def test_elements_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=r"\[cuda\.empty\] dtype is .*: must be numbers"):
        cuda.empty(2, dtype)


def test_numpy_integers_are_extents():
    assert cuda.empty(np.int64(3)).shape == (3,) and cuda.empty((np.int32(2), 5)).shape == (2, 5)
    assert cuda.empty(()).size == 1 and cuda.empty([4, 0]).size == 0


@pytest.mark.parametrize("make", [lambda n: cuda.empty(3, "float32", n), cuda.Stream], ids=["empty", "Stream"])
@pytest.mark.parametrize("number", [63, 64, 10**6])
def test_a_device_that_is_not_there_is_named_with_those_that_are(make, number):
    with pytest.raises(gr.DeviceUnavailable, match=rf"there is no cuda:{number}; use one of cuda:0"):
        make(number)
    assert cuda.empty(3).size == 3


def test_without_a_device_arrays_and_streams_say_what_the_doctor_says(tmp_path):
    program = """
import gradring as gr
from gradring import cuda, cuda_devices
if cuda_devices.report()["software"]:
    found = cuda_devices.obstacle()
    for make in (lambda: cuda.empty(3), cuda.Stream):
        try:
            make()
        except gr.DeviceUnavailable as error:
            assert found.what in str(error) and found.fix in str(error), error
        else:
            raise AssertionError("there is no device")
"""
    environment = {**os.environ, "GRADRING_CUDA_DEVICES": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def interface(address, shape, strides=None):
    fields = {"data": (address, False), "shape": shape, "strides": strides, "typestr": "<f4", "version": 3, "stream": 1}
    return SimpleNamespace(__cuda_array_interface__=fields)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((2**62, 8), None), ((2, 2), (2**62, 4)), ((2, 2), (-(2**62), 4)), ((2000,), None), ((2,), (-4,))],
)
def test_an_array_that_reaches_beyond_its_memory_is_refused(shape, strides):
    owner = cuda.empty(1000)
    foreign = interface(owner.__cuda_array_interface__["data"][0], shape, strides)
    with pytest.raises(ValueError, match="must be that of a living array"):
        cuda.as_array(foreign, "x")


@pytest.mark.parametrize(("shape", "strides"), [((-4,), None), ((2, 2), (8,)), ((0, -1), None)])
def test_a_shape_that_does_not_fit_its_strides_is_refused(shape, strides):
    owner = cuda.empty(8)
    foreign = interface(owner.__cuda_array_interface__["data"][0], shape, strides)
    with pytest.raises(ValueError, match="they do not fit together"):
        cuda.as_array(foreign, "x")
