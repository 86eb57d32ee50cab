"""Batches of several arrays on a device: containers that tell their slot of other streams."""

import copy
import pickle

import numpy as np
import pytest

import gradring as gr
from device_producers import Interface, on_device, run_lazily
from gradring import cuda

X, Y = np.random.default_rng(3).standard_normal((22, 3)).astype(np.float32), np.arange(22)
SOURCES = {"tuple": (X, Y), "list": [X, Y], "dict": {"a": X, "b": Y}}
PLAIN = {"tuple": tuple, "list": list, "dict": dict}

# A second stream reads odd batches, which die before it has run. Batches hold one slot at a time, so the next copy comes there.
ORDER = """
import sys
import numpy as np
import gradring as gr
from gradring import cuda

class Cupy:
    class cuda:
        @staticmethod
        def get_current_stream():
            return type("Stream", (), {{"ptr": 0}})()

    @staticmethod
    def asarray(value):
        return Shown(value)

class Shown:  # as CuPy's array: it has the interface, keeps the object that it was made of, and has no record_stream
    def __init__(self, value):
        self.value, self.__cuda_array_interface__ = value, value.__cuda_array_interface__

if {cupy}:
    sys.modules["cupy"] = Cupy
x, y = np.arange(4096).reshape(64, 64), np.arange(64) * 3
first, second, wrong = cuda.Stream(), cuda.Stream(), 0
out, marks = cuda.empty((64, 64), "int64"), cuda.empty(64, "int64")
for turn in range(3):
    with cuda.use_stream(first):
        for number, batch in enumerate(gr.Loader({source}, 4, device="cuda")):
            rows, parts = slice(number * 4, number * 4 + 4), list({parts})
            if number % 2:
                cuda.streams.order(0, first.handle, second.handle)
                {recorded}
                with cuda.use_stream(second):
                    for _ in range(10):
                        for to, part in zip((out, marks), parts):
                            to[rows] = cuda.as_array(part)
            else:
                for to, part in zip((out, marks), parts):
                    to[rows] = cuda.as_array(part)
            del batch, parts, part
    first.synchronize()
    second.synchronize()
    wrong += (out.numpy() != x).sum()
    if {both}:
        wrong += (marks.numpy() != y).sum()
    out[...], marks[...] = 0, 0
print(wrong)
del out, marks
"""


@pytest.mark.parametrize("cupy", [False, True], ids=["Array", "CuPy"])
@pytest.mark.parametrize(
    ("source", "parts"),
    [("(x, y)", "batch"), ("[x, y]", "batch"), ("dict(a=x, b=y)", "batch.values()"), ("x", "[batch]")],
    ids=["tuple", "list", "dict", "array"],
)
@pytest.mark.parametrize("said", ["method", "batch", "array", "nothing"])
def test_a_slot_waits_for_streams_that_were_told_of_it(source, parts, cupy, said):
    if said == "method" and source == "x" and cupy:
        pytest.skip("CuPy's array has no such method")
    if said == "array" and not cupy:
        pytest.skip("gr.cuda.Array has the method")
    recorded = {
        "method": "batch.record_stream(second)",
        "batch": "cuda.record_stream(batch, second)",
        "array": "cuda.record_stream(parts[-1], second)",
        "nothing": "pass",
    }[said]
    both = source != "x"
    wrong = int(run_lazily(ORDER.format(source=source, parts=parts, cupy=cupy, recorded=recorded, both=both)))
    assert (wrong == 0) == (said != "nothing"), wrong


@pytest.mark.parametrize("kind", SOURCES)
def test_a_batch_is_a_container_of_its_kind(kind):
    batches = list(gr.Loader(SOURCES[kind], 5, device="cuda"))
    assert [len(batch) for batch in batches] == [2] * 5
    for number, batch in enumerate(batches):
        plain = PLAIN[kind](batch)
        assert isinstance(batch, PLAIN[kind]) and type(plain) is PLAIN[kind]
        assert repr(batch) == repr(plain)
        if kind == "dict":
            assert list(batch) == ["a", "b"]
            assert all(batch[name] is plain[name] for name in plain)
        else:
            a, b = batch
            assert a is batch[0] is plain[0] and b is batch[1] and type(batch[:1]) is PLAIN[kind]
        for made in (copy.copy(batch), batch | {} if kind == "dict" else batch[:]):
            values = made.values() if kind == "dict" else made
            for got, expected in zip(values, (X, Y), strict=True):
                np.testing.assert_array_equal(got.numpy(), expected[number * 5 : number * 5 + 5])
        assert type(copy.copy(batch)) is PLAIN[kind]


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_and_deep_copies_are_those_of_a_plain_container(kind, protocol):
    batch = next(iter(gr.Loader(SOURCES[kind], 5, device="cuda")))

    def host(value):  # what pickles hold is up to the arrays: put NumPy's in their places
        other = copy.copy(batch)
        arrays = [array.numpy() for array in (other.values() if kind == "dict" else other)]
        made = type(batch)(zip("ab", arrays, strict=True) if kind == "dict" else arrays)
        made._lease = batch._lease
        return made

    changed = host(batch)
    for made in (pickle.loads(pickle.dumps(changed, protocol)), copy.deepcopy(changed)):
        assert type(made) is PLAIN[kind]
        for got, expected in zip(made.values() if kind == "dict" else made, (X, Y), strict=True):
            np.testing.assert_array_equal(got, expected[:5])


def test_a_container_whose_arrays_are_gone_holds_no_slot():
    loader, emptied = gr.Loader({"a": X, "b": Y}, 2, device="cuda", memory_budget=600, timeout=5.0), []
    for batch in loader:
        batch.clear()
        emptied.append(batch)  # more of them than there are slots
        batch.record_stream(None)
    assert len(emptied) == 11


def test_what_is_no_batch_is_refused_by_name():
    array = on_device(np.arange(6))
    cuda.record_stream(array, cuda.Stream())
    with pytest.raises(ValueError, match=r"\[record_stream\] this Interface is neither a gr.cuda.Array nor of a"):
        cuda.record_stream(Interface(array, stream=None), None)
    with pytest.raises(TypeError, match=r"\[record_stream\] a ndarray is neither a batch nor an array on a CUDA device"):
        cuda.record_stream(np.arange(3), None)
    batch = next(iter(gr.Loader((X, Y), 5, device="cuda")))
    with pytest.raises(TypeError, match=r"\[record_stream\] stream is 'a': must be a stream"):
        batch.record_stream("a")
    memory = Interface(batch[0], stream=None)
    cuda.record_stream(memory, 0)
    cuda.record_stream(Interface(batch[1][1:3], stream=None), 0)  # a view
