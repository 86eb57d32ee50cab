"""Every transform equals its plain NumPy reference bit for bit, alone and fused with others."""

from __future__ import annotations

import ctypes
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradring.arrays import NATIVE_DTYPES
from gradring.sources import Callable, open_source
from gradring.transforms import Cast, Native, Normalize, OneHot, Python, RandomCrop, RandomFlip, Scale

from . import reference

DTYPES = sorted(NATIVE_DTYPES)


def rows(rng, shape, dtype):
    if np.dtype(dtype).kind == "f":
        x = rng.standard_normal(shape) * 100
        return x.astype(dtype)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def same_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def check(x, transforms, *, layout="HWC", seed=5, epoch=2, samples=(3, 0, 6, 3, 1)):
    opened = open_source(x).transformed(transforms)
    got = opened.read(samples, seed=seed, epoch=epoch)
    steps = [transform.step() for transform in transforms]
    for row, sample in zip(got, samples, strict=True):
        wanted = reference.apply(x[sample], steps, seed=seed, epoch=epoch, sample=sample, layout=layout)
        same_bits(row, np.ascontiguousarray(wanted))
    return got


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_casts_are_those_of_numpy(source, to):
    x = rows(np.random.default_rng(), (7, 37), source)
    if np.dtype(source).kind == "f":  # what the target cannot hold is undefined in NumPy too
        x = x.clip(0 if to.startswith("u") else -100, 100)
        x[0, :4] = 0.5, 0.0, 1.0, 99.9
    with np.errstate(over="ignore"):  # an integer that no half float holds
        check(x, [Cast(to)])


def test_casts_to_half_floats_round_once():
    # A float64 just above the middle of two half floats is the middle itself in float32.
    halves = np.arange(0x3C00, 0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float64)
    above = np.nextafter((halves[1:] + halves[:-1]) / 2, np.inf)
    x = np.stack([above, -above, above.astype(np.float32), halves[1:]])
    with np.errstate(over="ignore"):
        check(x, [Cast("float16")], samples=(0, 1, 2, 3))
    assert (open_source(above).transformed([Cast("float16")]).read(range(len(above))) == halves[1:]).all()
    tiny = np.arange(2001) * 2.0**-26  # subnormal half floats, their middles and quarters
    check(np.stack([tiny, -tiny]), [Cast("float16")], samples=(0, 1))


@pytest.mark.parametrize("source", ["uint8", "float16", "float32", "float64", "int16", "uint64", "bool"])
@pytest.mark.parametrize("width", [1, 7, 16, 63, 784, 1025])
def test_scale_and_normalize(source, width):
    rng = np.random.default_rng()
    x = rows(rng, (7, width), source)
    mean, std = rng.random(width), rng.random(width) + 0.1
    check(x, [Scale(1 / 255)])
    check(x, [Scale(-0.3, 0.7)])
    check(x, [Normalize(0.5, 0.25)])
    check(x, [Normalize(mean, std)])
    check(x, [Cast("float32"), Scale(1 / 255), Normalize(mean, std)])
    check(x, [Cast("float64"), Scale(1 / 255, 1e-3), Normalize(0.1307, std)])
    check(x, [Normalize(mean, std), Scale(3.0), Scale(2.0, 1.0), Normalize(1.0, 3.0)])


@given(st.floats(-1e3, 1e3), st.floats(1e-30, 1e30), st.floats(1e-6, 1e3))
@settings(max_examples=60, deadline=None)
def test_the_division_of_every_byte_is_exact(mean, std, a):
    if np.float32(std) == 0:
        return
    x = np.arange(256, dtype=np.uint8).reshape(1, 256)
    with np.errstate(all="ignore"):
        check(x, [Scale(a), Normalize(mean, std)], samples=(0,))
        check(x, [Normalize(mean, std)], samples=(0,))


SHAPES = {
    "HWC": [(9, 11, 3), (8, 8, 1), (5, 16, 4), (32, 32, 3), (70, 50, 3)],
    "CHW": [(3, 9, 11), (1, 8, 6), (3, 40, 70)],
}


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", "bool"])
@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_crops_and_flips(layout, dtype):
    rng = np.random.default_rng()
    for shape in SHAPES[layout]:
        x = rows(rng, (7, *shape), dtype)
        height, width = shape[:2] if layout == "HWC" else shape[1:]
        for p in (0.0, 0.5, 1.0):
            check(x, [RandomFlip(p, layout=layout)], layout=layout)
            check(x, [RandomFlip(p, vertical=True, layout=layout)], layout=layout)
        check(x, [RandomCrop((height - 2, width - 3), layout=layout)], layout=layout)
        check(x, [RandomCrop((height, width), 4, layout=layout)], layout=layout)
        check(x, [RandomCrop((height + 5, 2), 3, layout=layout)], layout=layout)
        check(x, [RandomCrop((3, 3), 12, layout=layout)], layout=layout)  # often nothing but padding


STEPS = st.lists(
    st.one_of(
        st.builds(RandomFlip, st.sampled_from([0.0, 0.5, 1.0]), vertical=st.booleans()),
        st.builds(RandomCrop, st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(5, 9)),
        st.builds(Cast, st.sampled_from(["float16", "float32", "float64", "int32", "uint8"])),
        st.builds(Scale, st.sampled_from([1 / 255, -2.0, 0.5]), st.sampled_from([0.0, 0.125])),
        st.builds(Normalize, st.just([0.5, 0.4, 0.3]), st.just([0.2, 0.3, 0.7])),
        st.builds(Normalize, st.just(0.5), st.just(0.3)),
    ),
    max_size=6,
)


@given(
    steps=STEPS,
    layout=st.sampled_from(["HWC", "CHW"]),
    dtype=st.sampled_from(["uint8", "float16", "float32"]),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_is_fused_without_changing_a_bit(steps, layout, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rows(rng, (7, 6, 7, 3) if layout == "HWC" else (7, 3, 6, 7), dtype)
    for step in steps:  # casts of what an integer cannot hold are undefined
        if isinstance(step, Cast) and step.dtype in ("int32", "uint8"):
            return
        if hasattr(step, "layout"):
            object.__setattr__(step, "layout", layout)  # users make another transform
    with np.errstate(over="ignore"):
        check(x, steps, layout=layout, seed=seed, epoch=seed % 7)


def test_random_numbers_belong_to_seed_epoch_and_sample():
    x = np.arange(200, dtype=np.uint8).reshape(1, 1, 200).repeat(64, 0)
    opened = open_source(x).transformed([RandomCrop((1, 20))])
    one = opened.read(range(64), seed=1, epoch=0)
    same_bits(one, opened.read(range(64), seed=1, epoch=0))
    same_bits(one[[5, 3]], opened.read([5, 3], seed=1, epoch=0))
    for other in (opened.read(range(64), seed=2, epoch=0), opened.read(range(64), seed=1, epoch=1)):
        assert (one != other).any()
    assert len({bytes(row) for row in one}) > 30  # samples differ from each other
    flips = open_source(np.arange(2000 * 4, dtype=np.int32).reshape(2000, 2, 2)).transformed([RandomFlip(0.25)])
    got = flips.read(range(2000), seed=3)
    flipped = (got[:, 0, 0] > got[:, 0, 1]).mean()
    assert 0.2 < flipped < 0.3  # 5 standard deviations


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int8", "bool"])
def test_one_hot(dtype):
    y = np.array([0, 1, 1, 0], dtype)
    got = open_source(y).transformed([OneHot(3, "float64")]).read([1, 0])
    same_bits(got, np.eye(3)[[1, 0]])
    matrix = np.arange(6).reshape(2, 3)
    same_bits(open_source(matrix).transformed(OneHot(6)).read([1]), np.eye(6, dtype=np.float32)[3:][None])


@pytest.mark.parametrize("bad", [-1, 3])
def test_one_hot_refuses_labels_outside(bad):
    with pytest.raises(ValueError, match=rf"OneHot: label {bad} is not in \[0, 3\)"):
        open_source(np.array([0, bad])).transformed([OneHot(3)]).read([0, 1])


def test_python_functions():
    x = np.arange(12.0).reshape(4, 3)
    opened = open_source((x, np.arange(4))).transformed(
        {0: [Python(lambda row: row * 2), Scale(0.5), Python(np.sum, shape=())]}
    )
    assert opened.python
    total, _ = opened.read([1, 3])
    same_bits(total, x[[1, 3]].sum(1))
    rows_seen = []
    open_source(x).transformed([Python(lambda row: rows_seen.append(row) or row)]).read([0, 1])
    same_bits(rows_seen[0], x[0])  # a row that is kept is not the next one


def test_python_functions_that_fail_or_return_another_shape():
    x = np.arange(12.0).reshape(4, 3)
    with pytest.raises(ValueError, match=r"returned float64 \(2,\) for sample 1, expected float64 \(3,\)"):
        open_source(x).transformed([Python(lambda row: row[:2])]).read([1])
    with pytest.raises(ValueError, match=r"returned float32 \(3,\)"):
        open_source(x).transformed([Python(lambda row: row.astype("f4"))]).read([1])

    def fail(row):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        open_source(x).transformed([Python(fail)]).read([1])
    assert any(entry.name == "fail" for entry in caught.traceback)


def test_python_generators_belong_to_the_sample():
    x = np.zeros((50, 4))
    noisy = open_source(x).transformed([Python(lambda row, rng: row + rng.random(4), rng=True)])
    one = noisy.read(range(50), seed=1)
    same_bits(one[[7, 3]], noisy.read([7, 3], seed=1))
    assert len(np.unique(one)) == 200
    assert (one != noisy.read(range(50), seed=1, epoch=1)).all()


def double_rows(source, from_bytes, target, to_bytes, sample, random, user_data):
    values = ctypes.cast(source, ctypes.POINTER(ctypes.c_float * (from_bytes // 4))).contents
    out = ctypes.cast(target, ctypes.POINTER(ctypes.c_float * (to_bytes // 4))).contents
    for i, value in enumerate(values):
        out[i] = value * 2 + sample
    return 7 if sample == 3 else 0


def test_native_ctypes():
    x = np.random.default_rng().random((4, 5), dtype=np.float32)
    function = Native.PROTOTYPE(double_rows)
    opened = open_source(x).transformed([Native(function), Cast("float64")])
    assert not opened.python
    del function
    same_bits(opened.read([1, 0]), (x[[1, 0]] * 2 + np.float32([[1], [0]])).astype("f8"))
    with pytest.raises(ValueError, match="native transform returned 7 for sample 3"):
        opened.read([3])


def test_native_refuses_what_is_not_its_signature():
    with pytest.raises(TypeError, match="ctypes function takes"):
        Native(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda p: 0))
    with pytest.raises(TypeError, match="expected a PyCapsule"):
        Native(lambda x: x)
    import datetime

    with pytest.raises(TypeError, match="the capsule holds"):
        Native(datetime.datetime_CAPI)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Native(Native.PROTOTYPE(double_rows)))


def test_native_numba():
    numba = pytest.importorskip("numba")
    types = numba.types
    signature = types.int32(
        types.CPointer(types.float32), types.int64, types.CPointer(types.float32), types.int64, types.int64,
        types.uint64, types.voidptr,
    )  # fmt: skip

    @numba.cfunc(signature)
    def square(source, from_bytes, target, to_bytes, sample, random, user_data):
        for i in range(from_bytes // 4):
            target[i] = source[i] * source[i]
        return 0

    x = np.random.default_rng().random((4, 5), dtype=np.float32)
    same_bits(open_source(x).transformed([Native(square)]).read([2]), x[[2]] ** 2)


def test_transforms_follow_a_source_that_python_makes():
    source = Callable(lambda i: (np.full((6, 5, 3), i, np.uint8), i), 900)
    opened = open_source(source).transformed({0: [RandomCrop((3, 3), 1), Scale(1 / 255)]})
    samples = [200, 3] * 300
    x, y = opened.read(samples, seed=9)
    assert y.tolist() == samples
    for row, sample in list(zip(x, samples, strict=True))[:2]:
        steps = [RandomCrop((3, 3), 1).step(), Scale(1 / 255).step()]
        same_bits(row, reference.apply(np.full((6, 5, 3), sample, np.uint8), steps, seed=9, epoch=0, sample=sample))


@pytest.mark.parametrize(
    ("x", "transforms", "error", "message"),
    [
        (np.zeros((4, 3)), [OneHot(3)], ValueError, "labels are float64, expected integers"),
        (np.zeros((4, 3)), [RandomFlip()], ValueError, r"a row is \(3,\), expected an image"),
        (np.zeros((4, 9, 9, 2)), [RandomFlip()], ValueError, "without 1, 3 or 4 channels"),
        (np.zeros((4, 3, 9, 4)), [RandomFlip()], ValueError, "say layout="),
        (np.zeros((4, 9, 9)), [RandomCrop(12, 1)], ValueError, "cannot cut 12 x 12 out of 9 x 9 with 1 of padding"),
        (np.zeros((4, 9)), [Normalize([1.0, 2.0], 1.0)], ValueError, r"have 2 values, but the row is \(9,\)"),
        (np.zeros((4, 9), "f4"), [Normalize(0.0, 1e-300)], ValueError, "std must be finite and not zero"),
        (np.zeros(4, "f2"), [OneHot(3)], ValueError, "OneHot.*labels are float16, expected integers"),
        (np.zeros(4, "c8"), [Scale(2.0)], TypeError, "dtype complex64, which no transform takes"),
        (np.zeros(4), [Scale], TypeError, "Scale is not one of gr.transforms"),
        (np.zeros(4), [len], TypeError, "is not one of gr.transforms"),
        ((np.zeros(4), np.zeros(4)), [Scale(2)], TypeError, "give a dict from field to transforms"),
        ((np.zeros(4), np.zeros(4)), {2: Scale(2)}, ValueError, r"no field 2: expected one of \[0, 1\]"),
        ({"a": np.zeros(4)}, {"b": Scale(2)}, ValueError, r"no field 'b': expected one of \['a'\]"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(x, transforms, error, message):
    with pytest.raises(error, match=message):
        open_source(x).transformed(transforms)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Scale(float("nan")), ValueError),
        (lambda: Normalize(0, 0), ValueError),
        (lambda: Normalize([], 1), ValueError),
        (lambda: OneHot(0), ValueError),
        (lambda: OneHot(2.5), TypeError),
        (lambda: RandomFlip(1.5), ValueError),
        (lambda: RandomCrop(0), ValueError),
        (lambda: RandomCrop(3, -1), ValueError),
        (lambda: RandomFlip(layout="NCHW"), ValueError),
        (lambda: Cast("complex64"), TypeError),
        (lambda: Python(3), TypeError),
        (lambda: Python(len, shape=(-1,)), ValueError),
    ],
)
def test_arguments_are_checked(make, error):
    with pytest.raises(error, match=r"^\["):
        make()
