"""Who waits for whom, and arguments that do not fit."""

import math
import time

import numpy as np
import pytest

import gradring as gr


def test_a_slow_consumer_is_named():
    loader = gr.Loader(np.zeros((200, 10)), 10, num_threads=1)
    for _ in loader:
        time.sleep(0.01)
    stats = loader.stats()
    assert stats.bottleneck == "consumer" and "Consumer-bound" in stats.advice
    assert stats.batches == 20 and stats.rows == 200 and stats.bytes == 200 * 80
    assert sum(stats.occupancy) == 20 and stats.consumer_work > stats.consumer_wait
    assert 0 < stats.hand_off_p50 <= stats.hand_off_p99


def test_a_slow_source_is_named():
    def slow(i):
        time.sleep(0.002)
        return np.zeros(3)

    loader = gr.Loader(gr.sources.Callable(slow, 200, num_workers=1), 10)
    for _ in loader:
        pass
    stats = loader.stats()
    assert stats.bottleneck == "loader" and "Loader-bound" in stats.advice and "processes" in stats.advice
    assert stats.worker_busy > 0.3 and "Loader-bound" in str(stats)


def test_nothing_was_read():
    assert gr.Loader(np.zeros(3), 2).stats().bottleneck == "unknown"


def test_automatic_threads_stay_within_the_cores():
    loader = gr.Loader(np.zeros((20000, 100), np.uint8), 10, transforms=[gr.transforms.Cast("float32")])
    for _ in range(3):
        for _ in loader:
            pass
    stats = loader.stats()
    from gradring import _core

    assert 1 <= stats.active_workers <= stats.num_workers <= max(_core.usable_cores(), 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_threads": -1}, ValueError, "num_threads must be at least 0"),
        ({"num_threads": "many"}, ValueError, "num_threads must be an int or 'auto'"),
        ({"num_threads": 1.5}, TypeError, "num_threads must be an int"),
        ({"num_threads": 10**6}, ValueError, "num_threads must be at most"),
        ({"prefetch": 0}, ValueError, "prefetch must be at least 1"),
        ({"prefetch": 10**9}, ValueError, "prefetch must be at most"),
        ({"memory_budget": math.nan}, ValueError, "memory_budget must be finite"),
        ({"memory_budget": math.inf}, ValueError, "memory_budget must be finite"),
        ({"memory_budget": -5}, ValueError, "memory_budget must be finite"),
        ({"memory_budget": "1 GB"}, TypeError, "memory_budget must be a number"),
        ({"memory_budget": 100}, ValueError, r"memory_budget is 100 bytes, one batch takes \d+"),
        ({"memory_budget": 1000, "prefetch": 900}, ValueError, "prefetch=900 takes"),
        ({"timeout": 0}, ValueError, "timeout must be above 0"),
        ({"timeout": math.nan}, ValueError, "timeout must be above 0"),
        ({"timeout": "1"}, TypeError, "timeout must be a number"),
        ({"device": "cuda"}, gr.DeviceUnavailable, "device 'cuda' is not available"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank is 2: it must be below world_size"),
        ({"rank": 1}, ValueError, "rank and world_size go together"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'skip'"),
        ({"restart": -1}, ValueError, "restart must be at least 0"),
        ({"drop_last": True, "batch_size": 11}, ValueError, "drop_last leaves nothing"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_misuse(options, error, words):
    with pytest.raises(error, match=rf"\[Loader\] .*{words}|\[Loader\] {words}"):
        gr.Loader(np.zeros(10), **{"batch_size": 2, **options})


def test_a_huge_batch_is_no_larger_than_the_source():
    (batch,) = gr.Loader(np.arange(10), 10**12)
    assert batch.tolist() == list(range(10))
