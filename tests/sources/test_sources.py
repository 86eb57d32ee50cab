"""Sources give the rows that NumPy gives, and refuse files that cannot be read."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradring.sources import Callable, Idx, Npy, RawRecords, open_source
from helpers import run_script

ORDER = [3, 0, 2, 3]


def same(got, wanted):
    assert got.dtype == wanted.dtype.newbyteorder("=")
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got, wanted)


ARRAYS = {
    "plain": np.random.default_rng().random((5, 7, 3)),
    "vector": np.arange(5),
    "rows apart": np.arange(70).reshape(10, 7)[::2],
    "backwards": np.arange(35, dtype=np.int16).reshape(5, 7)[::-1, ::-1],
    "inner stride": np.arange(105, dtype=np.uint8).reshape(5, 7, 3)[:, ::2, 1:],
    "transposed": np.arange(35, dtype=np.float32).reshape(7, 5).T,
    "fortran": np.asfortranarray(np.random.default_rng().random((5, 4, 3))),
    "broadcast": np.broadcast_to(np.arange(4.0), (5, 4)),
    "big-endian": np.arange(20, dtype=">i4").reshape(5, 4),
    "big-endian strided": np.arange(40, dtype=">f8").reshape(5, 8)[:, ::2],
    "unaligned": np.frombuffer(bytes(range(1, 42)), np.int64, offset=1).reshape(5, 1),
    "no elements": np.zeros((5, 0, 3), np.float32),
    "bool": np.arange(10).reshape(5, 2) % 3 == 0,
    "half": np.arange(10, dtype=np.float16).reshape(5, 2),
    "complex": np.arange(10).reshape(5, 2) * (1 + 2j),
    "dates": np.arange(0, 5).astype("M8[D]"),
    "bytes": np.array([b"a", b"bc", b"def", b"", b"g"]),
    "text": np.array(["a", "bc", "é", "", "g"])[::1],
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_rows_of_arrays(name):
    x = ARRAYS[name]
    same(open_source(x).read(ORDER), x[ORDER])


@given(
    x=hnp.arrays(
        st.sampled_from(["u1", "<i2", ">i4", "<f4", ">f8", "?", "u8"]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    ),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_any_view_of_any_array(x, data):
    axes = data.draw(st.permutations(range(x.ndim)))
    view = x.transpose(axes)
    view = view[tuple(slice(None, None, data.draw(st.sampled_from([1, -1, 2]))) for _ in range(x.ndim))]
    samples = data.draw(st.lists(st.integers(0, len(view) - 1), max_size=9))
    got = open_source(view).read(samples)
    assert got.tobytes() == view[np.array(samples, np.int64)].astype(view.dtype.newbyteorder("=")).tobytes()


def test_forms():
    x, y = np.arange(12).reshape(4, 3), np.arange(4.0)
    assert isinstance(open_source(x).read([1]), np.ndarray)
    for source in ((x, y), [x, y]):
        got = open_source(source).read([1, 2])
        assert type(got) is type(source)
        same(got[1], y[[1, 2]])
    got = open_source({"image": x, "label": y}).read([3])
    assert list(got) == ["image", "label"]
    same(got["image"], x[[3]])


def test_records_become_their_fields():
    records = np.zeros(5, np.dtype([("a", "<f4", (2, 3)), ("b", ">i2"), ("c", "?")], align=True))
    records["a"], records["b"] = np.random.default_rng().random((5, 2, 3)), np.arange(5) * 300
    got = open_source(records).read(ORDER)
    for name in ("a", "b", "c"):
        same(got[name], records[name][ORDER])
    with pytest.raises(TypeError, match=r"field '0' holds records \(a, b, c\)"):
        open_source((records, np.arange(5)))


def test_other_libraries_arrays():
    torch = pytest.importorskip("torch")
    same(open_source(torch.arange(12).reshape(4, 3)).read([2]), np.array([[6, 7, 8]]))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ((np.zeros(4), np.zeros(5)), ValueError, "field '1' has 5 samples and field '0' has 4"),
        ({"x": np.zeros(4), "y": np.zeros((3, 2))}, ValueError, "field 'y' has 3 samples"),
        (np.zeros((0, 3)), ValueError, "the source is empty"),
        ((), ValueError, "empty tuple"),
        ({}, ValueError, "empty dict"),
        (np.array([None, 1]), TypeError, "dtype object"),
        ([np.zeros(3), np.array(["a", 3, None], object)], TypeError, "field '1' has dtype object"),
        (np.zeros(()), ValueError, "single value"),
        ([1.0, 2.0], TypeError, "field '0' is a float"),
        (3, TypeError, "expected an array"),
        ("data.csv", ValueError, "does not end in .npy"),
        ("/nowhere/x.npy", OSError, "/nowhere/x.npy: No such file"),
        (np.zeros(3, [("a", object)]), TypeError, "field 'a' has dtype object"),
        (np.zeros(3, "V0"), TypeError, "no bytes"),
    ],
)
def test_what_is_not_a_source_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        open_source(source)


@pytest.mark.parametrize("sample", [-1, 5, 2**62])
def test_samples_out_of_range(sample):
    with pytest.raises(ValueError, match=f"sample {sample} is out of range: the source has 5 samples"):
        open_source(np.arange(5)).read([0, sample])


FILES = [np.asfortranarray(ARRAYS["fortran"])] + [ARRAYS[name] for name in (
    "plain", "vector", "big-endian", "bool", "half", "complex", "dates", "bytes", "text", "no elements"
)]  # fmt: skip


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("x", FILES, ids=lambda x: f"{x.dtype.str}{x.shape}")
def test_npy(tmp_path, x, version):
    path = tmp_path / "x.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, x, version=version)
    for source in (Npy(path), path, str(path)):
        same(open_source(source).read(ORDER), x[ORDER])


def test_structured_npy(tmp_path):
    records = np.zeros(
        5, np.dtype({"names": ["a", "b"], "formats": ["(2,)<f4", ">i8"], "offsets": [4, 16], "itemsize": 32})
    )
    records["a"], records["b"] = np.random.default_rng().random((5, 2)), np.arange(5) - 2
    np.save(tmp_path / "x.npy", records)
    got = open_source(tmp_path / "x.npy").read(ORDER)
    assert list(got) == ["a", "b"]
    same(got["a"], records["a"][ORDER])
    same(got["b"], records["b"][ORDER])


def test_mixed_sources(tmp_path):
    x, y = np.random.default_rng().random((6, 3)), np.arange(6, dtype=np.int32)
    np.save(tmp_path / "x.npy", x)
    y.astype(">i4").tofile(tmp_path / "y.bin")
    got = open_source({"x": tmp_path / "x.npy", "y": RawRecords(tmp_path / "y.bin", ">i4"), "z": y}).read(ORDER)
    same(got["x"], x[ORDER])
    same(got["y"], y[ORDER])
    same(got["z"], y[ORDER])


NONSENSE = [
    *("<M8[nonsense]", "<M8[s\xa5]", "<M8[]", "<M8[s", "<M8[s]s", "<M8[0x1s]", "<M8[99999999999s]", "<m8[7generic]"),
    *("<i3", "<u16", "<f3", "<c4", "<c10", "|b2", "<M4", "<m16[s]", "<f4[s]", "\xa5f4", "<\xa54", "<f\xa5"),
]


def damage_npy():
    good = b"\x93NUMPY\x01\x00"
    for name, header, data in [
        ("terabytes", "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1024), }", b""),
        ("overflow", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", b""),
        ("hidden overflow", "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296), }", b""),
        ("truncated data", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", b"1234567"),
        ("object", "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'x'\ntR."),
        ("code", "{'descr': '<f4', 'fortran_order': __import__('os').abort(), 'shape': (3,), }", bytes(12)),
        ("negative", "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }", bytes(12)),
        ("scalar", "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", bytes(4)),
        ("no shape", "{'descr': '<f4', 'fortran_order': False, }", bytes(4)),
        *((descr, f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (3,), }}", bytes(99)) for descr in NONSENSE),
        *(
            (f"field {descr}", f"{{'descr': [('a', '{descr}')], 'fortran_order': False, 'shape': (3,), }}", bytes(99))
            for descr in NONSENSE
        ),
    ]:
        yield name, good + struct.pack("<H", len(header)) + header.encode("latin1") + data
    yield "no header", good + b"\xff\xff{"
    yield "long header", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"
    yield "version 9", b"\x93NUMPY\x09\x00\x01\x00{"
    yield "not npy", b"PK\x03\x04" + bytes(100)
    yield "empty", b""


@pytest.mark.parametrize(("name", "content"), list(damage_npy()), ids=lambda x: x if isinstance(x, str) else "")
def test_damaged_npy(tmp_path, name, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^\[loader\] .*x\.npy ") as caught:
        open_source(Npy(path))
    assert "unpickled" in str(caught.value) or name != "object"


@pytest.mark.parametrize("descr", ["<M8[s]", ">M8[25us]", "<m8[generic]", "<m8", "<c16", "<f2", "<U3", "|S5", "|V7"])
@pytest.mark.parametrize("name", ["a", "länge", "长"])
def test_dtypes_and_names_that_numpy_writes_are_read(tmp_path, descr, name):
    random = np.random.default_rng()
    x = np.frombuffer(random.bytes(3 * np.dtype(descr).itemsize), descr).copy()
    if x.dtype.kind == "U":
        x[:] = ["äb", "", "长c"]
    path = tmp_path / "x.npy"
    np.save(path, x)
    assert open_source(path).read(np.array([2, 0])).tobytes() == x[[2, 0]].tobytes()
    records = np.zeros(3, [(name, descr)])
    records[name] = x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's own, of names that need version 3
        np.save(path, records)
    opened = open_source(path)
    assert [field.name for field in opened.fields] == [name]
    assert opened.read(np.array([2, 0]))[name].tobytes() == x[[2, 0]].tobytes()


def test_every_truncation_of_a_file_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(4, dtype=np.int16))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated|damaged|not a .npy"):
            open_source(path)


def idx(x, code):
    return struct.pack(f">BBBB{x.ndim}I", 0, 0, code, x.ndim, *x.shape) + x.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("dtype", "code"), [("u1", 8), ("i1", 9), (">i2", 11), (">i4", 12), (">f4", 13), (">f8", 14)])
def test_idx(tmp_path, dtype, code, zipped):
    x = np.arange(5 * 4 * 3).reshape(5, 4, 3).astype(dtype)
    path = tmp_path / "x-ubyte"
    path.write_bytes(gzip.compress(idx(x, code)) if zipped else idx(x, code))
    same(open_source(Idx(path)).read(ORDER), x[ORDER])


@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx(tmp_path, zipped):
    path = tmp_path / "x-ubyte"
    good = idx(np.arange(5, dtype=np.uint8), 8)
    huge = struct.pack(">BBBBIII", 0, 0, 14, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    for content in (
        *(good[:length] for length in range(len(good))),
        huge,
        b"\0\0\x07\x01" + good[4:],
        b"\0\0\x08\x09" + good,
    ):
        if zipped and not content:
            continue
        path.write_bytes(gzip.compress(content) if zipped else content)
        with pytest.raises(ValueError, match="x-ubyte"):
            open_source(Idx(path))
    if zipped:
        whole = gzip.compress(good)
        for length in range(2, len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match="x-ubyte"):
                open_source(Idx(path))


def test_raw_records(tmp_path):
    path = tmp_path / "x.bin"
    x = np.random.default_rng().integers(0, 999, (5, 3, 2), dtype=np.int32)
    path.write_bytes(b"header" + x.tobytes())
    same(open_source(RawRecords(path, np.int32, (3, 2), offset=6)).read(ORDER), x[ORDER])
    same(open_source(RawRecords(path, ("i4", (2,)), 3, offset=6)).read(ORDER), x[ORDER])
    with pytest.raises(ValueError, match="126 bytes are not a whole number of records of 24"):
        open_source(RawRecords(path, np.int32, (3, 2)))
    with pytest.raises(ValueError, match="cannot begin at offset 1000"):
        open_source(RawRecords(path, np.int32, (3, 2), offset=1000))
    with pytest.raises(ValueError, match="must be \\(\\)"):
        RawRecords(path, [("a", "i4")], (2,))
    with pytest.raises(TypeError, match="dtype object"):
        open_source(RawRecords(path, object))
    with pytest.raises(OSError, match="Is a directory"):
        open_source(RawRecords(tmp_path, np.int32))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memory_maps_and_their_slices(tmp_path, mode):
    path = tmp_path / "x.bin"
    x = np.random.default_rng().random((3000, 5))
    path.write_bytes(bytes(100) + x.tobytes())
    mapped = np.memmap(path, np.float64, mode, offset=100, shape=x.shape)
    for part in (slice(None), slice(1500, None), slice(7, 2900, 3), slice(None, None, -1)):
        same(open_source(mapped[part]).read(ORDER), x[part][ORDER])
    same(open_source(mapped[:, 1:4:2]).read(ORDER), x[:, 1:4:2][ORDER])
    if mode != "r":
        mapped[3] = 7.0
        assert (open_source(mapped).read([3]) == 7.0).all()


def test_a_memory_map_whose_name_is_another_file_now(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(5))
    mapped = np.load(path, mmap_mode="r")
    np.save(tmp_path / "y.npy", np.zeros(5))
    os.replace(tmp_path / "y.npy", path)
    same(open_source(mapped).read(ORDER), np.arange(5)[ORDER])


@pytest.mark.parametrize("how", ["npy", "memmap", "idx", "raw", "fortran"])
def test_a_file_that_shrinks_is_an_error_with_file_and_offset(tmp_path, how):
    x = np.random.default_rng().integers(0, 255, (4000, 64), dtype=np.uint8)
    path = tmp_path / "x.npy"
    if how == "idx":
        path.write_bytes(idx(x, 8))
    elif how == "raw":
        x.tofile(path)
    else:
        np.save(path, np.asfortranarray(x) if how == "fortran" else x)
    kinds = {"idx": Idx(path), "raw": RawRecords(path, np.uint8, 64)}
    opened = open_source(np.load(path, mmap_mode="r") if how == "memmap" else kinds.get(how, path))
    same(opened.read([3999, 0]), x[[3999, 0]])
    os.truncate(path, 100_000)
    with pytest.raises(OSError, match=r"x\.npy was cut short while it was being read: offset \d+ is gone"):
        opened.read([5, 3999])
    if how != "fortran":
        same(opened.read([5, 0]), x[[5, 0]])


def test_a_bus_error_that_is_not_ours_still_ends_the_process(tmp_path):
    script = f"""
        import faulthandler, mmap, os
        import numpy as np
        from gradring.sources import open_source
        path = {str(tmp_path / "x.npy")!r}
        np.save(path, np.arange(10000))
        opened = open_source(path)
        opened.read([1])
        theirs = np.load(path, mmap_mode="r")
        os.truncate(path, 0)
        try:
            opened.read([9000])
        except OSError:
            print("error", flush=True)
        theirs[9000]
        print("unreachable")
    """
    result = run_script(script)
    assert result.stdout == "error\n"
    assert result.returncode == -7


def squares(i):
    return np.full(3, i, np.float32), i * i


def test_callables():
    source = Callable(squares, 10, workers="processes", num_workers=3)
    opened = open_source(source)
    assert (opened.workers, opened.num_workers, opened.python, opened.length) == ("processes", 3, True, 10)
    x, y = open_source(pickle.loads(pickle.dumps(source))).read([4, 2])
    same(x, np.repeat(np.float32([4, 2]), 3).reshape(2, 3))
    same(y, np.array([16, 4]))
    assert open_source(Callable(lambda i: {"a": i}, 3)).read([2])["a"].tolist() == [2]
    assert open_source(Callable(float, 3)).read([2]).tolist() == [2.0]


def test_callables_that_fail():
    with pytest.raises(ZeroDivisionError) as caught:
        open_source(Callable(lambda i: 1 / (i - 5), 10)).read([2, 5])
    assert any(entry.name == "<lambda>" for entry in caught.traceback)
    with pytest.raises(ValueError, match=r"fn\(3\) returned float64 \(3,\) for field '0', fn\(0\) float64 \(0,\)"):
        open_source(Callable(np.zeros, 10)).read([0, 3])
    with pytest.raises(ValueError, match=r"fn\(1\) returned tuple"):
        open_source(Callable(lambda i: (i,) * (i + 1), 10)).read([1])
    with pytest.raises(TypeError, match="dtype object"):
        open_source(Callable(lambda i: object(), 10))
    for arguments, error in [((3, 10), TypeError), ((squares, 0), ValueError), ((squares, 2.5), TypeError)]:
        with pytest.raises(error, match=r"^\[Callable\]"):
            Callable(*arguments)
    with pytest.raises(ValueError, match="'threads' or 'processes'"):
        Callable(squares, 3, workers="fibers")
    with pytest.raises(TypeError, match="cannot be a part"):
        open_source((Callable(squares, 3), np.zeros(3)))


def test_what_a_source_reads_stays_alive():
    opened = open_source(np.arange(1_000_000))
    np.ones(1_000_000)
    same(opened.read([999_999]), np.array([999_999]))
