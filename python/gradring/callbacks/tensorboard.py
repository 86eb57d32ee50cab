"""Curves for TensorBoard, written without TensorBoard.

A file of events is a series of records, TFRecord's framing around a ``tensorflow.Event`` in protocol-buffer encoding:
https://www.tensorflow.org/tutorials/load_data/tfrecord and tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Mapping

from gradring.callbacks.base import Callback, Run
from gradring.callbacks.log_file import LogFile
from gradring.files import as_path

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Write each epoch's metrics into ``folder`` for ``tensorboard --logdir``, over the number of updates.

    A missing folder is made; a folder that is not writable raises ``OSError`` before the training. Each run of
    ``fit`` writes one file, complete after every epoch.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(as_path("TensorBoard", folder))
        self._file: LogFile | None = None

    def on_fit_start(self, run: Run) -> None:
        try:
            os.makedirs(self.folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(
                f"[TensorBoard] {self.folder} is no folder, or is inside a file: give another one"
            ) from error
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = LogFile("TensorBoard", os.path.join(self.folder, name), "x")
        self._write(_bytes(3, b"brain.Event:2"))

    def on_epoch_end(self, run: Run) -> None:
        self._write(_integer(2, run.trainer.step_count) + _bytes(5, _summary(run.metrics)))

    def on_fit_end(self, run: Run) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close("history.to_csv(path) writes all rows to another place")

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        event = _key(1, 1) + struct.pack("<d", time.time()) + content
        length = struct.pack("<Q", len(event))
        self._file.add(length + _checksum(length) + event + _checksum(event))


def _summary(metrics: Mapping[str, float]) -> bytes:
    values = (_bytes(1, tag.encode()) + _key(2, 5) + _single(value) for tag, value in metrics.items())
    return b"".join(_bytes(1, value) for value in values)


def _single(value: float) -> bytes:
    # Numbers beyond single precision become infinite; struct would raise.
    return struct.pack("<f", ctypes.c_float(value).value)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _integer(field: int, number: int) -> bytes:
    return _key(field, 0) + _varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def crc32c(content: bytes) -> int:
    """The Castagnoli CRC, reflected: RFC 3720, appendix B.4.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _checksum(content: bytes) -> bytes:
    """The masked checksum of TFRecord, which avoids the checksum of data that contain checksums."""
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
