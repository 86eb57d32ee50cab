"""Checkpoints: safetensors files that appear whole or not at all. Reading checks every byte of a file.

The format is https://huggingface.co/docs/safetensors: the length of a JSON header as a little-endian uint64, the
header, and the tensors' bytes without gaps. Any safetensors reader opens these files. Reading one never runs code and
never trusts it: lengths are checked against the file before memory is allocated, and every tensor, and the header
itself, has a CRC-32 in the metadata, so that a flipped bit is found and named.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradring.errors import CheckpointCorrupt
from gradring.files import as_path, reading, remove_leftovers, replacing

__all__ = ["read", "write"]

Tensors: TypeAlias = Mapping[str, NDArray[Any]]

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in _CODES.items()}
_MAX_HEADER = 100_000_000  # the limit of the reference implementation
_SUMS, _HEADER_SUM = "crc32", "header_crc32"


_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as PyTorch's .pt and NumPy's .npz files are (take the weights out with torch.load or "
    "numpy.load, and assign them to trainer.params)",
    b"\x80\x02": "a pickle, which is never opened here (take the weights out with torch.load and assign them to "
    "trainer.params)",
    **dict.fromkeys((b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle, which is never opened here"),
    b"\x1f\x8b\x08": "compressed by gzip (decompress it first, if a safetensors file is inside)",
    b"\x89HDF": "an HDF5 file (take the weights out with h5py and assign them to trainer.params)",
    b"\x93NUMPY": "an .npy file",
}


def write(path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to ``path``, which is replaced in one step when all is on the disk.

    >>> write("a.safetensors", {"w": np.zeros((2, 3), np.float32)}, {"epoch": "4"})
    >>> tensors, metadata = read("a.safetensors")
    >>> tensors["w"].shape, metadata["epoch"]
    ((2, 3), '4')
    """
    for name in tensors:
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"[checkpoint] a tensor cannot be called {name!r}: safetensors has another use for it")
    arrays = {name: _plain(name, tensors[name]) for name in sorted(tensors, key=lambda n: (-tensors[n].itemsize, n))}
    header: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": _CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": span}
        offset = span[1]
    sums = {name: zlib.crc32(_bytes(array)) for name, array in arrays.items()}
    header["__metadata__"] = {**metadata, _SUMS: json.dumps(sums, sort_keys=True)}
    header["__metadata__"][_HEADER_SUM] = str(_header_sum(header))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for array in arrays.values():
            file.write(_bytes(array))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read every tensor, and the metadata, of a file that :func:`write` made.

    A file that is truncated, damaged, or was not written by gradring raises ``CheckpointCorrupt``, naming the file
    and, where it is known, the tensor.
    """
    name = as_path("checkpoint", path)
    remove_leftovers(name)
    with reading("checkpoint", name) as file:
        size = os.fstat(file.fileno()).st_size
        header, start = _header(file, name, size)
        metadata = header.pop("__metadata__", None)
        dtypes = {tensor: _dtype_of(name, tensor, entry, start, size) for tensor, entry in header.items()}
        _check_layout(name, header, size - start)  # After this, the tensors together are no larger than the file.
        tensors = {tensor: _tensor(file, name, tensor, header[tensor], dtypes[tensor], start) for tensor in header}
    if isinstance(metadata, dict) and not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointCorrupt(f"[checkpoint] {name} is foreign or damaged: its metadata are not all texts")
    if not isinstance(metadata, dict) or _HEADER_SUM not in metadata or _SUMS not in metadata:
        raise CheckpointCorrupt(
            f"[checkpoint] {name} is a safetensors file, but not a checkpoint of gradring; to take only its weights, "
            "read it with safetensors.numpy.load_file and assign them to trainer.params"
        )
    said = metadata.pop(_HEADER_SUM)
    if said != str(_header_sum({**header, "__metadata__": metadata})):
        raise CheckpointCorrupt(f"[checkpoint] {name}: the header is damaged (its checksum differs)")
    sums = _sums(name, metadata.pop(_SUMS), tensors)
    for tensor, array in tensors.items():
        if zlib.crc32(_bytes(array)) != sums[tensor]:
            raise CheckpointCorrupt(f"[checkpoint] {name}: tensor {tensor!r} is damaged (its checksum differs)")
    return tensors, metadata


def _sums(name: str, text: Any, tensors: Mapping[str, Any]) -> dict[str, int]:
    try:
        sums = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        sums = None
    if not isinstance(sums, dict) or sums.keys() != tensors.keys() or not all(map(_whole, sums.values())):
        raise CheckpointCorrupt(f"[checkpoint] {name}: the metadata hold no checksums of its tensors")
    return sums


def _plain(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The array in C order and little-endian."""
    if array.dtype.name not in _CODES:
        raise TypeError(
            f"[checkpoint] tensor {name!r} has dtype {array.dtype}, which safetensors cannot hold: convert it to bools, "
            "integers, or floats of at most 64 bits, for example with .astype(numpy.float64)"
        )
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _header_sum(header: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _header(file: IO[bytes], name: str, size: int) -> tuple[dict[str, Any], int]:
    """The header, and the offset at which the tensors' bytes begin."""
    if size < 8:
        raise CheckpointCorrupt(f"[checkpoint] {name} is truncated or foreign: {size} bytes, expected at least 8")
    beginning = file.read(9)
    for magic, what in _FOREIGN.items():
        # A header's length may look like another format's magic number: a file with a length of 640 begins like a
        # pickle.
        if beginning.startswith(magic) and beginning[8:] != b"{":
            raise CheckpointCorrupt(f"[checkpoint] {name} is foreign: it is {what}, not a safetensors file")
    if beginning[:8].isascii() and beginning[:8].decode().isprintable():  # as a length it would be absurd
        raise CheckpointCorrupt(
            f"[checkpoint] {name} is foreign: it is a text, such as a .csv or .json file, and not a safetensors file as "
            "model.save, trainer.save and Checkpoint write it"
        )
    (length,) = struct.unpack("<Q", beginning[:8])
    file.seek(8)
    if length > min(size - 8, _MAX_HEADER):
        raise CheckpointCorrupt(
            f"[checkpoint] {name} is truncated or foreign: it announces a header of {length} bytes and has {size - 8}"
        )
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"[checkpoint] {name} is foreign or damaged: its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointCorrupt(f"[checkpoint] {name} is foreign: its header is no JSON object")
    return header, 8 + length


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _dtype_of(name: str, tensor: str, entry: Any, start: int, size: int) -> np.dtype[Any]:
    """The dtype of a tensor, after a check of its description."""
    where = f"[checkpoint] {name}: tensor {tensor!r}"
    try:
        code, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sound = code in _NAMES and all(map(_whole, (*shape, first, last)))
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise CheckpointCorrupt(
            f"{where} is described by {json.dumps(entry)[:200]}, which is not dtype, shape, data_offsets"
        )
    dtype = _dtype(_NAMES[code])
    if last - first != math.prod(shape) * dtype.itemsize or len(shape) > 32:
        raise CheckpointCorrupt(f"{where} is said to be {shape} of {dtype}, in {last - first} bytes")
    if start + last > size:
        raise CheckpointCorrupt(f"{where} is truncated: it ends at byte {start + last} of a file of {size}")
    return dtype


def _tensor(
    file: IO[bytes], name: str, tensor: str, entry: Mapping[str, Any], dtype: np.dtype[Any], start: int
) -> NDArray[Any]:
    where = f"[checkpoint] {name}: tensor {tensor!r}"
    shape, (first, _) = entry["shape"], entry["data_offsets"]
    try:
        array = np.empty(shape, dtype)
    except (ValueError, OverflowError) as error:
        raise CheckpointCorrupt(f"{where} is said to be {shape} of {dtype}: {error}") from error
    file.seek(start + first)
    got = file.readinto(_bytes(array)) if array.size else 0  # type: ignore[attr-defined]
    if got != array.nbytes:
        raise CheckpointCorrupt(f"{where} is truncated: {got} of {array.nbytes} bytes")
    return array


def _dtype(name: str) -> np.dtype[Any]:
    dtype: np.dtype[Any]
    if name == "bfloat16":
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(name).newbyteorder("<")
    return dtype


def _check_layout(name: str, header: Mapping[str, Any], size: int) -> None:
    """Check that tensors lie side by side, without gaps, to the file's end."""
    end = 0
    for tensor, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != end:
            raise CheckpointCorrupt(
                f"[checkpoint] {name}: tensor {tensor!r} begins at byte {first} of the data, expected {end}"
            )
        end = last
    if end != size:
        raise CheckpointCorrupt(f"[checkpoint] {name} is foreign: {size - end} bytes follow its last tensor")
