"""Loading work by turboloader's ArrayDataLoader, its loader of arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradring.bench.loader_contenders import Epochs, file_pass
from gradring.bench.loader_data import images, prepare, rows_file
from gradring.bench.loader_pass import Pass


def array_loader(case: dict[str, Any]) -> Pass:
    """Shuffled batches; it has no transforms of arrays, so the batch is scaled in one NumPy expression."""
    import turboloader

    work, batch = case["work"], case["batch"]
    if work not in ("scale", "rows", "warm", "cold"):
        raise ValueError("it loads arrays only")
    prepare(case)

    def make() -> Any:
        data = np.load(rows_file(), mmap_mode="r") if work in ("warm", "cold") else images(work)
        loader = turboloader.ArrayDataLoader(data, batch_size=batch, shuffle=True)
        passes = iter(range(1 << 30))

        def epoch() -> Iterator[NDArray[Any]]:
            loader.set_epoch(next(passes))
            for x in loader:
                yield x.astype(np.float32) / np.float32(255) if work == "scale" else x

        return Epochs(epoch)

    return file_pass(case, make)
