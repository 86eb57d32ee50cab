"""Arrays in the memory of a CUDA device, and the stream on which a thread works.

``trainer.params`` of a trainer on a device are such arrays. Other libraries read them, and this one reads theirs, without a
copy: through ``__cuda_array_interface__`` and DLPack. Where CuPy is installed it computes with them.
"""

from __future__ import annotations

from gradring.cuda.array import Array, copied, empty
from gradring.cuda.foreign import as_array, from_dlpack, is_device_array
from gradring.cuda.leased import record_stream
from gradring.cuda.number import Number
from gradring.cuda.streams import Stream, current_stream, use_stream

__all__ = [
    "Array",
    "Number",
    "Stream",
    "as_array",
    "copied",
    "current_stream",
    "empty",
    "from_dlpack",
    "is_device_array",
    "record_stream",
    "use_stream",
]
