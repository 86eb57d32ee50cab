"""What a user hears who asks for an array or a stream that cannot be."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gradring as gr
from device_producers import on_device
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


LOOK = {"data": (0, False), "shape": (2,), "strides": None, "typestr": "<f4", "version": 3, "stream": 1}


@pytest.mark.parametrize(
    ("without", "changed", "said"),
    [
        (["typestr"], {}, "has no typestr"),
        (["shape"], {}, "has no shape"),
        (["data"], {}, "has no data"),
        (["typestr", "shape", "data"], {}, "has no typestr, shape, data"),
        ([], {"data": None}, "has the data None: must be a tuple of the address"),
        ([], {"data": (1, False, 3)}, "has the data .*: must be a tuple of the address"),
        ([], {"data": ("a", False)}, "has the data .*: must be a tuple of integers"),
        ([], {"shape": 8}, "has the shape 8: must be a tuple of integers"),
        ([], {"shape": (2.5,)}, "has the shape .*: must be a tuple of integers"),
        ([], {"shape": None}, "has the shape None: must be a tuple of integers"),
        ([], {"strides": "ab"}, "has the strides 'ab': must be a tuple of integers"),
        ([], {"strides": 4}, "has the strides 4: must be a tuple of integers"),
    ],
)
def test_an_interface_that_breaks_its_protocol_is_named_with_the_argument(without, changed, said):
    look = {name: value for name, value in {**LOOK, **changed}.items() if name not in without}
    foreign = SimpleNamespace(__cuda_array_interface__=look)
    x = cuda.empty((2, 2))
    for call, where in (
        (lambda: cuda.as_array(foreign, "x"), "x"),
        (lambda: gr.ops.matmul(x, foreign), "matmul: b"),
        (lambda: gr.Trainer(step=lambda p, b: (0.0, p), params={"w": foreign}), r"Trainer: params\['w'\]"),
    ):
        with pytest.raises(
            TypeError, match=rf"^\[{where}\] the __cuda_array_interface__ of this SimpleNamespace {said}"
        ):
            call()


@pytest.mark.parametrize("given", [7, None, (0,), (0, 1, 2), "ab"], ids=str)
@pytest.mark.parametrize("callable_", [False, True])
def test_a_stream_that_breaks_its_protocol_is_named(given, callable_):
    class Stream:
        __cuda_stream__ = (lambda self: given) if callable_ else given

    for use, who in (
        (lambda: cuda.use_stream(Stream()).__enter__(), "use_stream"),
        (lambda: cuda.empty(3).record_stream(Stream()), "record_stream"),
    ):
        with pytest.raises(TypeError, match=rf"^\[{who}\] __cuda_stream__ is .*: must be a tuple of the version, 0"):
            use()


class Broken:
    """A tensor on a device whose methods are those of ``changed``."""

    def __init__(self, **changed):
        self.changed = changed

    def __dlpack_device__(self):
        return self.changed.get("device", lambda: (2, 0))()

    def __dlpack__(self, **asked):
        return self.changed["make"](**asked)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"make": lambda: 1}, "__dlpack__ must take stream=, and max_version="),
        ({"make": lambda *, max_version: 1}, "__dlpack__ must take stream=, and max_version="),
        ({"make": lambda *, stream: 7}, "__dlpack__ returned a int: must be a capsule"),
        ({"make": lambda **asked: None}, "__dlpack__ returned a NoneType: must be a capsule"),
    ],
)
def test_a_tensor_that_breaks_dlpack_is_named_with_the_argument(changed, said):
    for call, where in (
        (lambda: cuda.as_array(Broken(**changed), "x"), "x"),
        (lambda: cuda.from_dlpack(Broken(**changed)), "from_dlpack"),
        (lambda: gr.ops.relu(Broken(**changed)), "relu: x"),
    ):
        with pytest.raises(TypeError, match=rf"^\[{where}\] a Broken breaks DLPack's protocol: {said}"):
            call()


@pytest.mark.parametrize("device", [lambda: 2, lambda: None, lambda: (2,)])
def test_a_tensor_whose_place_is_no_pair_is_named(device):
    with pytest.raises(TypeError, match=r"^\[from_dlpack\] a Broken breaks .*: __dlpack_device__\(\) must return"):
        cuda.from_dlpack(Broken(device=device))


SHARED = {
    "out is an argument": lambda a, b, c: gr.ops.matmul(a, b, out=a),
    "out is a part of an argument": lambda a, b, c: gr.ops.matmul(a[:4, :4], b[:4, :4], out=a[2:6, 2:6]),
    "out is beside an argument": lambda a, b, c: gr.ops.matmul(a[:, ::2], b[:4, :4], out=a[:, 1::2]),
    "out may be the argument": lambda a, b, c: gr.ops.gelu(a, out=a),
    "out overlaps the argument": lambda a, b, c: gr.ops.softmax(a[:7], out=a[1:]),
    "out is the argument backwards": lambda a, b, c: gr.ops.gelu(a, out=a[::-1]),
    "a result is an argument": lambda a, b, c: gr.ops.linear_vjp(a, b, c, out=(None, c, None)),
    "two results are one array": lambda a, b, c: gr.ops.linear_vjp(a, b, b, out=(c, c, None)),
    "two results overlap": lambda a, b, c: gr.ops.linear_vjp(a, b, b, out=(c, None, c[3])),
    "a parameter is its gradient": lambda a, b, c: gr.ops.sgd_update(a, a, lr=0.5),
    "a parameter overlaps its gradient": lambda a, b, c: gr.ops.sgd_update(a[:7], a[1:], lr=0.5),
    "two states are one": lambda a, b, c: gr.ops.adam_update(a, b, c, c, step=1, lr=0.5),
    "a state is a parameter": lambda a, b, c: gr.ops.adam_update(a, b, a, c, step=1, lr=0.5),
}


@pytest.mark.parametrize("name", SHARED)
def test_results_share_memory_where_they_may_on_the_host(name):
    """A call has the host's error, before anything is written, or the host's results, in all arrays."""
    rng = np.random.default_rng(7)
    host = [rng.standard_normal((8, 8)).astype(np.float32) for _ in range(3)]
    host[2] = abs(host[2])
    there = [on_device(array) for array in host]
    texts = []
    for arrays in (host, there):
        try:
            SHARED[name](*arrays)
            texts.append("")
        except ValueError as error:
            texts.append(str(error))
    assert texts[0] == texts[1]
    for one, other in zip(host, there, strict=True):
        np.testing.assert_allclose(other.numpy(), one, rtol=1e-5, atol=1e-6)


def test_a_result_with_several_elements_in_one_place_is_refused():
    x, row = on_device(np.ones((4, 3), np.float32)), on_device(np.zeros(3, np.float32))
    out = cuda.Array(row._memory, 0, (4, 3), np.float32, (0, 4))
    with pytest.raises(ValueError, match=r"\[gelu\] out may have several elements in one place"):
        gr.ops.gelu(x, out=out)
    assert not row.numpy().any()


USES = {
    "gelu: x": lambda a: gr.ops.gelu(a),
    "gelu: out": lambda a: gr.ops.gelu(on_device(np.ones((3, 4), np.float32)), out=a),
    "cuda.Array.numpy": lambda a: a.numpy(),
    r"cuda.Array: array\[...\] = values": lambda a: a.__setitem__(..., 1.0),
    "cuda.Array: values": lambda a: on_device(np.ones((3, 4), np.float32)).__setitem__(..., a),
    "as_array": lambda a: cuda.as_array(a, "as_array"),
    "Trainer: x": lambda a: gr.Trainer(gr.nn.Linear(4, 2), device="cuda").step(a, on_device(np.zeros(3, np.int32))),
}


@pytest.mark.parametrize("name", USES)
def test_memory_that_was_freed_under_an_array_is_named(name):
    arena = cuda.streams.native().DeviceArena(0, 48)
    interface = {
        "shape": (3, 4),
        "typestr": "<f4",
        "data": (arena.address, False),
        "strides": None,
        "stream": None,
        "version": 3,
    }
    array = cuda.as_array(SimpleNamespace(__cuda_array_interface__=interface))
    USES[name](array)
    del arena
    with pytest.raises(
        ValueError, match=rf"\[{name}\] the memory under this cuda.Array was freed by its owner, a SimpleName"
    ):
        USES[name](array)
