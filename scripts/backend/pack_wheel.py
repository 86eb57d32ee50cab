"""Pack zip files, such as wheels, again: with libdeflate's search for short encodings, or with zlib's where that is missing.

    python scripts/backend/pack_wheel.py WHEEL...       # pip install deflate

Any program that reads zip files reads the result: the format is the same, and so are names, order, dates and permissions. The
encoder alone differs from zipfile's, which has no way to choose one, so this module writes the few headers itself.
"""

from __future__ import annotations

import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20  # of the format: files that are compressed by deflate
_UNIX = 3  # the high half of external_attr has Unix's permissions
_UTF8 = 0x800
_MOST_FILES = 0xFFFF - 1
_MOST_BYTES = 0xFFFFFFFF - 1  # more of either would need the headers of zip64


def encoder() -> Callable[[bytes], bytes]:
    """A function that encodes bytes as a raw deflate stream."""
    try:
        from deflate import deflate_compress
    except ImportError:

        def by_zlib(data: bytes) -> bytes:
            # Which length of zlib's blocks is best differs from file to file.
            streams = (zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, memory) for memory in range(6, 10))
            return min((stream.compress(data) + stream.flush() for stream in streams), key=len)

        return by_zlib
    return lambda data: bytes(deflate_compress(data, 12))


def pack(path: Path) -> None:
    """Replace a zip file by a smaller one with the same content. Does nothing where that would need zip64's headers."""
    encode = encoder()
    content, directory = bytearray(), bytearray()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_FILES or path.stat().st_size + sum(e.file_size for e in entries) > _MOST_BYTES:
            return
        for entry in entries:
            data = archive.read(entry)
            method, stream = zipfile.ZIP_DEFLATED, encode(data)
            if zlib.decompress(stream, -zlib.MAX_WBITS) != data:
                raise RuntimeError(f"the encoder damaged {entry.filename} of {path}")
            if len(stream) >= len(data):
                method, stream = zipfile.ZIP_STORED, data
            year, month, day, hour, minute, second = entry.date_time
            name = entry.filename.encode()
            described = (
                _VERSION,
                0 if name.isascii() else _UTF8,
                method,
                hour << 11 | minute << 5 | second // 2,
                (year - 1980) << 9 | month << 5 | day,
                entry.CRC,
                len(stream),
                len(data),
                len(name),
            )
            made_by = _UNIX << 8 | _VERSION
            directory += _CENTRAL.pack(b"PK\1\2", made_by, *described, 0, 0, 0, 0, entry.external_attr, len(content))
            directory += name
            content += _LOCAL.pack(b"PK\3\4", *described, 0) + name + stream
    end = _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(content), 0)
    packed = path.with_name(f"{path.name}.packed")
    packed.write_bytes(content + directory + end)
    os.replace(packed, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        before = os.path.getsize(name)
        pack(Path(name))
        print(f"{name}: {before:,} bytes, now {os.path.getsize(name):,}")
