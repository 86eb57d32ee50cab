"""The hand-off of a ready batch by SPDL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradring.bench.loader_latency import HandOff, hand_off_data


def spdl_hand_off(case: dict[str, Any]) -> HandOff:
    """SPDL's queue behind a pipeline of threads."""
    from spdl.pipeline import PipelineBuilder

    x, y = hand_off_data()

    def make() -> Iterator[Any]:
        order = np.random.default_rng(0).permutation(len(x)).reshape(-1, 64)
        builder = PipelineBuilder().add_source(order).pipe(lambda i: (x[i], y[i]), concurrency=1).add_sink(3)
        pipeline = builder.build(num_threads=1)
        with pipeline.auto_stop():
            yield from pipeline

    return HandOff(make)
