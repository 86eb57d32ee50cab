"""Calls with NumPy's arrays alone take no way through Python, and know of no device."""

import subprocess
import sys

import numpy as np
import pytest

import gradring as gr

rng = np.random.default_rng(2)
x, w, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3, 5), (5,), (4, 5)))
labels, out, ids = np.array([0, 2, 1, 0]), np.empty((4, 5), np.float32), np.array([1, 0])
trainer = gr.Trainer(gr.nn.Linear(3, 3), optimizer=gr.optim.SGD(0.1))

CALLS = {
    "linear": lambda: gr.ops.linear(x, w, b, activation="gelu"),
    "linear with out": lambda: gr.ops.linear(x, w, out=out),
    "linear_vjp": lambda: gr.ops.linear_vjp(dy, x, w),
    "matmul": lambda: gr.ops.matmul(x, w),
    "gelu of an array with gaps": lambda: gr.ops.gelu(x[:, ::2]),
    "embedding": lambda: gr.ops.embedding(ids, w),
    "a loss": lambda: gr.ops.softmax_cross_entropy(x, labels),
    "the mean of a loss": lambda: gr.ops.softmax_cross_entropy(x, labels, reduction="mean"),
    "an update": lambda: gr.ops.sgd_update(b, dy[0], lr=0.1),
    "a step": lambda: trainer.step(x, labels),
}


def python_functions(call):
    """The Python functions that run during a call."""
    found = []

    def note(frame, event, _):
        if event == "call":
            found.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return [name for name in found if name != "<lambda>"]


@pytest.mark.parametrize("name", CALLS)
def test_no_python_runs_for_arrays_of_numpy(name):
    call = CALLS[name]
    call()
    assert python_functions(call) == []


def test_a_call_that_does_run_python_is_seen():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return x

    assert "__array__" in python_functions(lambda: gr.ops.gelu(Tensor()))


def test_no_protocol_of_devices_is_looked_up_on_numpys_arrays():
    seen = []

    class Watched(np.ndarray):
        def __getattribute__(self, name):
            seen.append(name)
            return super().__getattribute__(name)

    watched = x.view(Watched)
    np.testing.assert_array_equal(gr.ops.gelu(watched), gr.ops.gelu(x))
    assert seen  # such look-ups are seen
    assert not [name for name in seen if "cuda" in name or "dlpack" in name]


def test_calls_on_the_host_load_nothing_of_devices():
    code = """
import sys
import numpy as np
import gradring as gr
x = np.ones((4, 3), np.float32)
gr.ops.linear(x, x.T.copy())
gr.ops.softmax_cross_entropy(x, np.zeros(4, int), reduction="mean")
trainer = gr.Trainer(gr.nn.Linear(3, 2))
trainer.fit((x, np.zeros(4, int)), 1, verbose=False)
trainer.predict(x), trainer.evaluate((x, np.zeros(4, int)))
for _ in gr.Loader(x, 2):
    pass
print(sorted({"gradring._cuda", "gradring.ops._device"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
