"""Writes the seeds of the corpus: small files of every kind that the parsers know, and some that they refuse."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "corpus"
ALIGNED = np.dtype([("a", "<f4", (2, 3)), ("b", ">i2"), ("c", "?")], align=True)
ARRAYS = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "vector": np.arange(3, dtype=">i8"),
    "fortran": np.asfortranarray(np.zeros((2, 3))),
    "records": np.zeros(2, ALIGNED),
    "titles": np.zeros(2, np.dtype({"names": ["a"], "formats": ["u1"], "titles": ["long"]})),
    "dates": np.zeros(2, "M8[25us]"),
    "text": np.array(["ab", "c"]),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 3)),
}
IDX = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def main() -> None:
    HERE.mkdir(parents=True, exist_ok=True)
    for name, array in ARRAYS.items():
        for version in ((1, 0), (2, 0), (3, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version=version)
            (HERE / f"{name}-{version[0]}.npy").write_bytes(file.getvalue())
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1024), }"
    (HERE / "terabytes.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    for code, dtype in IDX.items():
        x = np.arange(6).reshape(2, 3).astype(dtype)
        (HERE / f"{code:02x}.idx").write_bytes(struct.pack(">BBBBII", 0, 0, code, 2, 2, 3) + x.tobytes())
    (HERE / "terabytes.idx").write_bytes(struct.pack(">BBBBIII", 0, 0, 14, 3, *[2**32 - 1] * 3))


if __name__ == "__main__":
    main()
