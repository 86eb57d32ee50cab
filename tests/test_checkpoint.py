import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gradring as gr
from gradring import checkpoint

dtypes = st.sampled_from(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "bool"])
tensors = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))),
    max_size=4,
)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        assert a[name].tobytes() == b[name].tobytes()


@in_one_folder
@given(tensors)
def test_round_trip_and_the_reference_reader_agrees(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, tensors, {"epoch": "3"})
    got, metadata = checkpoint.read(path)
    assert metadata == {"epoch": "3"}
    same(got, tensors)
    same(safetensors.numpy.load_file(path), tensors)


@pytest.mark.parametrize("length", [0x0280, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path, length):
    tensors = {"w": np.arange(3.0)}
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, tensors, {"note": ""})
    (short,) = struct.unpack("<Q", path.read_bytes()[:8])
    checkpoint.write(path, tensors, {"note": "n" * (length - short)})
    assert path.read_bytes()[:2] == struct.pack("<H", length)
    same(checkpoint.read(path)[0], tensors)


def test_bfloat16_strides_and_foreign_byte_order(tmp_path):
    given = {
        "half": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
        "turned": np.arange(6.0).reshape(2, 3).T[:, ::-1],
        "big": np.arange(3, dtype=">f4"),
    }
    checkpoint.write(tmp_path / "a", given, {})
    got, _ = checkpoint.read(tmp_path / "a")
    for name, array in given.items():
        np.testing.assert_array_equal(got[name].astype(float), array.astype(float))
    assert got["half"].dtype == ml_dtypes.bfloat16


def test_a_dtype_that_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match=r"\[checkpoint\] tensor 'w' has dtype complex128"):
        checkpoint.write(tmp_path / "a", {"w": np.zeros(2, complex)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((3, 4), np.float32), "b": rng.standard_normal(3)}
    checkpoint.write(path, arrays, {"epoch": "12", "step": "345"})
    return path


def test_every_truncation_is_found(whole):
    content = whole.read_bytes()
    for length in range(len(content)):
        whole.write_bytes(content[:length])
        with pytest.raises(gr.CheckpointCorrupt, match=r"a\.safetensors"):
            checkpoint.read(whole)
    whole.write_bytes(content[:-1])
    with pytest.raises(gr.CheckpointCorrupt, match="tensor 'w' is truncated: it ends at byte"):
        checkpoint.read(whole)


def test_every_flipped_bit_is_found(whole):
    content = bytearray(whole.read_bytes())
    clean = checkpoint.read(whole)
    for position in range(len(content)):
        for bit in (0, 3, 5, 7):
            content[position] ^= 1 << bit
            whole.write_bytes(content)
            try:
                tensors, metadata = checkpoint.read(whole)
            except gr.CheckpointCorrupt:
                pass
            else:  # a change that says the same, such as a tab for a space
                same(tensors, clean[0])
                assert metadata == clean[1]
            content[position] ^= 1 << bit
    content[-1] ^= 1
    whole.write_bytes(content)
    with pytest.raises(gr.CheckpointCorrupt, match=r"a\.safetensors: tensor 'w' is damaged"):
        checkpoint.read(whole)


@in_one_folder
@given(content=st.binary(max_size=64), announced=st.integers(0, 2**64 - 1) | st.integers(0, 80))
def test_foreign_bytes(tmp_path, content, announced):
    path = tmp_path / "a"
    for data in (content, struct.pack("<Q", announced) + content):
        path.write_bytes(data)
        with pytest.raises(gr.CheckpointCorrupt, match=r"\[checkpoint\] .*/a"):
            checkpoint.read(path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ([], "no JSON object"),
        ({"w": 1}, "tensor 'w' is described by 1"),
        ({"w": {**ENTRY, "dtype": "F31"}}, "tensor 'w' is described by"),
        ({"w": {**ENTRY, "dtype": ["F32"]}}, "tensor 'w' is described by"),
        ({"w": {**ENTRY, "shape": [-2]}}, "tensor 'w' is described by"),
        ({"w": {**ENTRY, "shape": 2}}, "tensor 'w' is described by"),
        ({"w": {**ENTRY, "shape": [2.0]}}, "tensor 'w' is described by"),
        ({"w": {**ENTRY, "shape": [1] * 40 + [2]}}, "tensor 'w' is said to be"),
        ({"w": {**ENTRY, "data_offsets": [0, 8, 9]}}, "tensor 'w' is described by"),
        ({"w": {**ENTRY, "data_offsets": [8, 0]}}, "tensor 'w' is said to be"),
        ({"w": {**ENTRY, "shape": [2**62]}}, "tensor 'w' is said to be"),
        ({"w": {**ENTRY, "shape": [2**42], "data_offsets": [0, 2**44]}}, "tensor 'w' is truncated: it ends at"),
        ({"w": {**ENTRY, "data_offsets": [2, 10]}}, "tensor 'w' is truncated"),
        ({"w": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}, "tensor 'w' begins at byte 4"),
        ({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, "4 bytes follow its last tensor"),
        ({"v": ENTRY, "w": ENTRY}, "tensor 'w' begins at byte 0 of the data, expected 8"),
        ({"w": ENTRY}, "not a checkpoint of gradring; to take only its weights"),
        ({"w": ENTRY, "__metadata__": []}, "not a checkpoint of gradring"),
        ({"w": ENTRY, "__metadata__": {"crc32": "{}", "header_crc32": "1"}}, "the header is damaged"),
    ],
)
def test_foreign_headers(tmp_path, header, words):
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    with pytest.raises(gr.CheckpointCorrupt, match=words):
        checkpoint.read(tmp_path / "a")


@pytest.mark.parametrize("text", [b'{"w":1,"w":2}', b"[" * 100_000, b"\xff\xfe{}", b"9" * 10_000])
def test_foreign_json(tmp_path, text):
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(gr.CheckpointCorrupt, match="no JSON"):
        checkpoint.read(tmp_path / "a")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "none")


def test_tensors_that_share_bytes_take_no_memory(tmp_path, monkeypatch):
    """A small file may describe many tensors over the same bytes: it is refused before any of them is allocated."""
    size = 1 << 20
    header = {f"t{i}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]} for i in range(50)}
    text = json.dumps(header).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))

    def refuse(*given):
        raise AssertionError("memory was allocated")

    monkeypatch.setattr(checkpoint.np, "empty", refuse)
    with pytest.raises(gr.CheckpointCorrupt, match="begins at byte 0 of the data"):
        checkpoint.read(tmp_path / "m")
