"""The examples of docs/cuda.md train, with stand-ins for the libraries that they import."""

import re
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, Tensor, Torch, on_device
from gradring import cuda
from gradring.loader import device_batches

PAGE = Path(__file__).parents[2] / "docs/cuda.md"


def example(library):
    """The block of the page that imports the library."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", PAGE.read_text(), re.M)
    (found,) = [block for block in blocks if f"    import {library}\n" in block]
    return textwrap.dedent(found)


def loss_and_gradients(w, b, images, labels):
    """As a user's function would compute them, for tensors of any library on the device."""
    assert all(isinstance(each, Tensor) for each in (w, b, images, labels))
    w, b, x, y = (cuda.from_dlpack(each) for each in (w, b, images, labels))
    logits = gr.ops.linear(x, w, b)
    dlogits = gr.ops.softmax_cross_entropy_vjp(1.0, logits, y, reduction="mean")
    _, dw, db = gr.ops.linear_vjp(dlogits, x, w)
    return gr.ops.softmax_cross_entropy(logits, y, reduction="mean"), type(images)(dw), type(images)(db)


class Ndarray(Interface):
    """CuPy's array, as far as the example goes."""

    def __len__(self):
        return self._array.shape[0]


def cupy():
    module = types.ModuleType("cupy")
    module.ndarray = Ndarray
    module.zeros = lambda shape, dtype: Ndarray(on_device(np.zeros(shape, dtype)))
    module.empty = lambda shape, dtype: Ndarray(cuda.empty(shape, dtype))
    module.asarray = lambda value: Ndarray(cuda.as_array(value))
    stream = types.SimpleNamespace(ptr=0)
    module.cuda = types.SimpleNamespace(get_current_stream=lambda: stream)
    return {"cupy": module}


class Shared(Torch):
    def __len__(self):
        return self._array.shape[0]


def torch():
    module = types.ModuleType("torch")
    module.zeros = lambda *shape, device: Shared(on_device(np.zeros(shape, "float32")))
    module.from_dlpack = lambda array: Shared(cuda.from_dlpack(array))
    return {"torch": module}


class Immutable(Tensor):
    """JAX's array: DLPack alone, read-only."""

    def __init__(self, array, **options):
        super().__init__(array, **options)
        self._array = cuda.Array(array._memory, array._offset, array.shape, array.dtype, array.strides, read_only=True)

    def __len__(self):
        return self._array.shape[0]


def jax():
    module = types.ModuleType("jax")
    module.numpy = types.SimpleNamespace(zeros=lambda shape: Immutable(on_device(np.zeros(shape, "float32"))))
    module.dlpack = types.SimpleNamespace(from_dlpack=lambda array: Immutable(cuda.from_dlpack(array)))
    return {"jax": module}


@pytest.mark.parametrize("library", [cupy, torch, jax], ids=lambda library: library.__name__)
def test_an_example_trains(library, monkeypatch):
    for name, module in library().items():
        monkeypatch.setitem(sys.modules, name, module)
    if library is not cupy:
        monkeypatch.setattr(device_batches, "_installed", lambda: None)
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
    train, test = gr.datasets.digits()
    x, y = (np.asarray(field) for field in (train.x, train.y))
    names = {"x": x, "y": y, "loss_and_gradients": loss_and_gradients}
    exec(compile(example(library.__name__), str(PAGE), "exec"), names)
    trainer = names["trainer"]
    losses = names["history"].metrics["loss"]
    assert len(losses) == 5 and losses[-1] < losses[0]
    w, b = (cuda.as_array(trainer.params[name]).numpy() for name in ("w", "b"))
    assert np.mean((test.x @ w + b).argmax(1) == test.y) > 0.9
    if library is not jax:  # updated where they lie
        np.testing.assert_array_equal(cuda.as_array(names["params"]["w"]).numpy(), w)
    else:
        assert not cuda.as_array(names["params"]["w"]).numpy().any()
