"""Kind 1: one entry point for arrays. A table of objects and entry points, whose rows are uniform."""

import array
import datetime
import importlib.util

import numpy as np
import pytest

import gradring as gr

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(1)
WHOLE = RNG.integers(-8, 8, (24, 4))  # numbers that every dtype below holds exactly
Y = RNG.integers(0, 3, 24)


class Interface:
    """An array-like object that has only __array_interface__."""

    def __init__(self, values):
        self.values = values
        self.__array_interface__ = values.__array_interface__


class Method:
    """An array-like object that has only __array__."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class Capsule:
    """An array-like object that has only DLPack."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class Plain(np.ndarray):
    """A subclass that keeps NumPy's rules."""


class Ruled(np.ndarray):
    """A subclass with rules of its own."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return NotImplemented


class Closed(np.ndarray):
    """A subclass that refuses NumPy's functions."""

    __array_ufunc__ = None


def memory_map(values, folder):
    np.save(folder / "x.npy", values)
    return np.load(folder / "x.npy", mmap_mode="r")


def frame(values, folder):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(values.astype(np.float32), columns=list("abcd"))


def mixed_frame(values, folder):
    pandas = pytest.importorskip("pandas")
    columns = {"a": values[:, 0], "b": values[:, 1].astype(np.float64), "c": values[:, 2].astype(np.int8)}
    return pandas.DataFrame({**columns, "d": pandas.array(values[:, 3], dtype="Int64")})


def polars():
    return pytest.importorskip("polars")


def pyarrow():
    return pytest.importorskip("pyarrow")


def polars_frame(values, folder):
    return polars().DataFrame({c: values[:, i] for i, c in enumerate("abcd")})


def polars_mixed_frame(values, folder):
    kinds = (polars().Int8, polars().Float32, polars().Int64, polars().Float64)
    return polars_frame(values, folder).select(
        polars().col(c).cast(kind) for c, kind in zip("abcd", kinds, strict=True)
    )


def pandas_on_pyarrow(values, folder):
    pandas, _ = pytest.importorskip("pandas"), pyarrow()
    return pandas.DataFrame({c: pandas.array(values[:, i], "int64[pyarrow]") for i, c in enumerate("abcd")})


def requires_grad(values, folder):
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


FLOATS = {
    "float32": lambda v, f: v.astype(np.float32),
    "float64": lambda v, f: v.astype(np.float64),
    "big-endian": lambda v, f: v.astype(">f4"),
    "reversed": lambda v, f: np.ascontiguousarray(v.astype(np.float32)[::-1])[::-1],
    "every second": lambda v, f: np.repeat(v.astype(np.float32), 2, 0)[::2],
    "Fortran": lambda v, f: np.asfortranarray(v, np.float32),
    "a memory map": lambda v, f: memory_map(v.astype(np.float32), f),
    "a plain subclass": lambda v, f: v.astype(np.float32).view(Plain),
    "a matrix": lambda v, f: v.astype(np.float32).view(np.matrix),
    "__array__": lambda v, f: Method(v.astype(np.float32)),
    "__array_interface__": lambda v, f: Interface(v.astype(np.float32)),
    "DLPack": lambda v, f: Capsule(v.astype(np.float32)),
    "a list": lambda v, f: v.astype(float).tolist(),
    "a list of arrays": lambda v, f: list(v.astype(np.float32)),
    "a list of tensors": lambda v, f: list(torch.tensor(v, dtype=torch.float32)),
    "a DataFrame": frame,
    "a tensor": lambda v, f: torch.tensor(v, dtype=torch.float32),
    "a tensor that requires grad": requires_grad,
    "a bfloat16 tensor": lambda v, f: torch.tensor(v, dtype=torch.bfloat16),
    "a negative view": lambda v, f: torch.imag(torch.tensor(-1j * v).conj()).to(torch.float32),
}
OTHERS = {
    "float16": lambda v, f: v.astype(np.float16),
    "big-endian float16": lambda v, f: v.astype(">f2"),
    "a float16 memory map": lambda v, f: memory_map(v.astype(np.float16), f),
    "longdouble": lambda v, f: v.astype(np.longdouble),
    "int8": lambda v, f: v.astype(np.int8),
    "int16": lambda v, f: v.astype(np.int16),
    "int64": lambda v, f: v,
    "a list of ints": lambda v, f: v.tolist(),
    "a mixed DataFrame": mixed_frame,
    "polars": polars_frame,
    "a polars frame of several dtypes": polars_mixed_frame,
    "polars, rows as arrays": lambda v, f: polars().Series(
        v.astype(float).tolist(), dtype=polars().Array(polars().Float64, 4)
    ),
    "pyarrow": lambda v, f: pyarrow().table({c: v[:, i] for i, c in enumerate("abcd")}),
    "pandas on pyarrow": pandas_on_pyarrow,
}


def trainer():
    return gr.Trainer(gr.nn.Sequential(gr.nn.Linear(4, 3)).init(7), optimizer=gr.optim.SGD(0.1))


def fitted(data):
    made = trainer()
    made.fit(data, 2, batch_size=7, verbose=False)
    return made.params["0.weight"].copy()


def stepped(x):
    made = trainer()
    made.step(x, Y)
    return made.params["0.weight"].copy()


# What each entry point makes of x, to be compared with what it makes of the same numbers as float32.
POINTS = {
    "fit": lambda x: fitted((x, Y)),
    "fit, named": lambda x: fitted({"y": Y, "x": x}),
    "evaluate": lambda x: trainer().evaluate((x, Y))["loss"],
    "validate": lambda x: trainer().fit((WHOLE, Y), validate=(x, Y), verbose=False).last["val_loss"],
    "step": stepped,
    "predict": lambda x: trainer().predict(x),
    "a layer": lambda x: trainer().model(x),
    "a loader": lambda x: np.concatenate([b[0] for b in gr.Loader((x, Y), 7)]).astype(np.float32),
    "fit of a loader": lambda x: fitted(gr.Loader((x, Y), 7)),
    "evaluate of a loader": lambda x: trainer().evaluate(gr.Loader((x, Y), 24))["loss"],
    "predict of a loader": lambda x: trainer().predict(gr.Loader((x, Y), 7)),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("form", [*FLOATS, *OTHERS])
def test_what_is_taken_is_taken_everywhere(form, point, tmp_path):
    given = {**FLOATS, **OTHERS}[form](WHOLE, tmp_path)
    np.testing.assert_allclose(POINTS[point](given), POINTS[point](WHOLE.astype(np.float32)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FLOATS)
def test_operations_take_floats_of_every_form(form, tmp_path):
    given, w = FLOATS[form](WHOLE, tmp_path), RNG.standard_normal((4, 3))
    plain = np.asarray(gr.ops.relu(given))
    np.testing.assert_array_equal(plain, np.maximum(WHOLE, 0))
    np.testing.assert_allclose(gr.ops.matmul(given, w.astype(plain.dtype)), WHOLE @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int16", "int8", "uint32", "int64", "bool", "complex64"])
def test_an_operation_says_what_it_takes(dtype):
    for call in (gr.ops.relu, gr.ops.softmax, lambda x: gr.ops.matmul(x, x)):
        with pytest.raises(TypeError, match=rf"dtype {dtype}: must be float32( or float64|, float64, float16 or bfloat16)"):
            call(np.ones((2, 2), dtype))


def sparse():
    return pytest.importorskip("scipy.sparse").csr_matrix(WHOLE.astype(np.float32))


def dates(count=24):
    return [datetime.date(2020, 1, 1) + datetime.timedelta(day) for day in range(count)]


def date_frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": [1.0] * 24, "day": pandas.to_datetime(dates())})


def text_frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": [1.0] * 24, "colour": ["red"] * 24})


REFUSED = {
    "sparse": (sparse, r"sparse csr_matrix.*\.toarray\(\)"),
    "a sparse tensor": (lambda: torch.tensor(WHOLE).to_sparse(), r"to_dense\(\)"),
    "ragged": (lambda: [[1.0, 2.0], [3.0]] * 12, "ragged"),
    "ragged arrays": (lambda: [np.zeros(2), np.zeros(3)] * 12, "ragged"),
    "texts": (lambda: ["one", "two"] * 12, "list of str"),
    "an array of texts": (lambda: np.array(["one", "two"] * 12), "encode it as numbers"),
    "bytes": (lambda: b"numbers", "is a bytes"),
    "objects": (lambda: np.array([None] * 24), "dtype object"),
    "complex": (lambda: WHOLE.astype(complex), "complex128.*real and imaginary"),
    "dates": (lambda: WHOLE.astype("M8[s]"), r"datetime64\[s\]"),
    "masked": (lambda: np.ma.masked_less(WHOLE.astype(np.float32), 0), r"hides values.*\.filled"),
    "an overriding subclass": (lambda: WHOLE.astype(np.float32).view(Ruled), "rules of its own"),
    "a closed subclass": (lambda: WHOLE.astype(np.float32).view(Closed), "rules of its own"),
    "a set": (lambda: {1.0, 2.0}, "is a set"),
    "None": (lambda: None, "is a NoneType"),
    "a column of texts": (text_frame, "column 'colour' has dtype"),
    "a column of dates": (date_frame, "column 'day' has dtype datetime64"),
    "categories": (
        lambda: pytest.importorskip("pandas").Series(["a", "b"] * 12, dtype="category"),
        "category.*cat.codes",
    ),
    "polars, texts": (
        lambda: polars().DataFrame({"a": [1] * 24, "b": ["x"] * 24}),
        "column 'b' has dtype String.*to_dummies",
    ),
    "polars, dates": (lambda: polars().DataFrame({"a": [1] * 24, "day": dates()}), "column 'day' has dtype Date"),
    "polars, categories": (lambda: polars().Series(["a"] * 24, dtype=polars().Categorical), "Categorical.*to_physical"),
    "polars, lazy": (lambda: polars().LazyFrame({"a": [1.0] * 24}), r"LazyFrame.*\.collect\(\)"),
    "polars, lists": (lambda: polars().Series([[1, 2], [3]] * 12), r"dtype List\(Int64\): must be numbers"),
    "pyarrow, texts": (lambda: pyarrow().array(["a"] * 24), "dtype object"),
    "pyarrow, dates": (lambda: pyarrow().array(dates()), "difference to some date"),
}
REFUSING = {name: POINTS[name] for name in ("fit", "fit, named", "evaluate", "validate", "step", "predict", "a layer")}


@pytest.mark.parametrize("point", REFUSING)
@pytest.mark.parametrize("form", REFUSED)
def test_what_is_refused_is_refused_everywhere_with_the_cure(form, point):
    make, words = REFUSED[form]
    with pytest.raises((TypeError, ValueError), match=words):
        REFUSING[point](make())


@pytest.mark.parametrize(
    "form", ["sparse", "a sparse tensor", "masked", "an overriding subclass", "a closed subclass", "bytes", "objects"]
)
def test_operations_refuse_them_too(form):
    make, words = REFUSED[form]
    with pytest.raises((TypeError, ValueError), match=words):
        gr.ops.relu(make())
    with pytest.raises((TypeError, ValueError)):
        gr.ops.matmul(np.ones((4, 24), np.float32), make())


def test_one_pair():
    for call in (lambda t: t.fit(WHOLE, Y), lambda t: t.fit(WHOLE, Y.tolist()), lambda t: t.evaluate(WHOLE, Y)):
        with pytest.raises(TypeError, match=r"\(\(x, y\)"):
            call(trainer())


def test_no_rows():
    none = WHOLE[:0].astype(np.float32)
    assert trainer().predict(none).shape == (0, 3) == trainer().model(none).shape
    flat = gr.nn.Sequential(gr.nn.Flatten(), gr.nn.Linear(12, 5))
    assert gr.Trainer(flat).predict(np.zeros((0, 3, 4))).shape == (0, 5)
    with pytest.raises(ValueError, match="4"):
        trainer().predict(np.zeros((0, 5)))


def test_predict_takes_what_evaluate_takes(tmp_path):
    x = WHOLE.astype(np.float32)
    want = trainer().predict(x)
    np.save(tmp_path / "x.npy", x)
    batches = [(x[i : i + 5], Y[i : i + 5]) for i in range(0, 24, 5)]

    class Batches:
        def __iter__(self):
            return iter(batches)

    shuffled = gr.Loader({"y": Y, "x": x}, 5, shuffle=True)
    alone = gr.Loader(x, 5, num_threads=0)
    for data in (tmp_path / "x.npy", str(tmp_path / "x.npy"), shuffled, alone, Batches(), {"x": x, "y": Y}):
        np.testing.assert_allclose(trainer().predict(data), want, rtol=1e-5)


def test_buffers():
    values = array.array("f", WHOLE.ravel().tolist())
    made = trainer().predict(memoryview(values).cast("B").cast("f", (24, 4)))
    np.testing.assert_allclose(made, trainer().predict(WHOLE), rtol=1e-5)


def test_labels_of_every_form():
    want = trainer().evaluate((WHOLE, Y))
    forms = [Y.tolist(), torch.tensor(Y), Y.astype(np.int8), Y.astype(">i4"), Y[:, None], Method(Y)]
    if pandas := pytest.importorskip("pandas"):
        forms += [pandas.Series(Y), pandas.Series(Y, dtype="Int64"), pandas.DataFrame({"label": Y})]
    if importlib.util.find_spec("polars"):
        forms += [polars().Series(Y), polars().Series(Y, dtype=polars().UInt8), polars().DataFrame({"label": Y})]
    if importlib.util.find_spec("pyarrow"):
        forms += [pyarrow().array(Y), pyarrow().chunked_array([Y[:5], Y[5:]])]
    for labels in forms:
        assert trainer().evaluate((WHOLE, labels)) == want
        made = trainer()
        assert made.step(WHOLE, labels) == trainer().step(WHOLE, Y)


def test_what_is_missing_in_a_table_is_nan():
    pandas = pytest.importorskip("pandas")
    tables = [pandas.DataFrame({"a": pandas.array([1, None], "Int64"), "b": pandas.array([None, True], "boolean")})]
    if importlib.util.find_spec("polars"):
        tables.append(polars().DataFrame({"a": [1, None], "b": [None, True]}))
    for table in tables:
        (x,) = next(iter(gr.Loader((table,), 2)))
        np.testing.assert_array_equal(x, [[1, np.nan], [np.nan, 1]])
