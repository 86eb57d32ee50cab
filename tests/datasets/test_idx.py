import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gradring as gr

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array, code=None):
    code = CODES[array.dtype.str[1:]] if code is None else code
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def file(tmp_path):
    def write(content, zipped=False):
        path = tmp_path / "data.idx"
        path.write_bytes(gzip.compress(content) if zipped else content)
        return path

    return write


arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: hnp.arrays(code, hnp.array_shapes(max_dims=4, min_side=0, max_side=5))
)


@given(arrays, st.booleans())
def test_what_was_written_is_read(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / "x"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    got = gr.datasets.read_idx(path)
    assert got.dtype == array.dtype and got.dtype.isnative and got.flags.writeable
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_is_an_error(file, zipped):
    whole = idx(np.arange(6, dtype=np.int32).reshape(2, 3))
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"\[read_idx\] .*data.idx is (not an IDX file|truncated)"):
            gr.datasets.read_idx(file(whole[:length], zipped))


def test_every_truncation_of_the_gzip_itself_is_an_error(tmp_path):
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 255, (10, 10), dtype=np.uint8)))
    path = tmp_path / "x.gz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"\[read_idx\]"):
            gr.datasets.read_idx(path)


def test_every_flipped_byte_of_gzipped_elements_is_an_error(tmp_path):
    whole = bytearray(gzip.compress(idx(np.random.default_rng(0).integers(0, 255, (10, 10), dtype=np.uint8))))
    path = tmp_path / "x.gz"
    for position in range(10, len(whole)):  # before 10 is gzip's own header, with a time and flags that may be anything
        whole[position] ^= 0xFF
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=r"\[read_idx\]"):
            gr.datasets.read_idx(path)
        whole[position] ^= 0xFF


@pytest.mark.parametrize("zipped", [False, True])
def test_a_header_that_promises_terabytes_is_refused(file, zipped):
    liar = struct.pack(">BBBB3I", 0, 0, 14, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"\0" * 100
    with pytest.raises(
        ValueError, match=r"truncated or foreign: its header says .* bytes, but such a file can hold at most"
    ):
        gr.datasets.read_idx(file(liar, zipped))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file: it begins with b''"),
        (b"PK\x03\x04" + b"\0" * 20, "not an IDX file"),
        (b"\x93NUMPY" + b"\0" * 20, "not an IDX file"),
        (struct.pack(">BBBBI", 0, 0, 7, 1, 1) + b"\0", "not an IDX file"),
        (struct.pack(">BBBB", 0, 0, 8, 0) + b"\0", "has 0 dimensions"),
        (struct.pack(">BBBB", 0, 0, 8, 255) + b"\0" * 2000, "has 255 dimensions"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"\0\0\0", "foreign: it goes on after 2 bytes"),
    ],
)
def test_a_foreign_file(file, content, words):
    with pytest.raises(ValueError, match=words):
        gr.datasets.read_idx(file(content))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        gr.datasets.read_idx(tmp_path / "none.gz")
