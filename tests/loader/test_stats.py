"""The statistics of a loader, and bad arguments."""

import json
import math
import re
import time

import numpy as np
import pytest

import gradring as gr
from gradring import _core
from gradring.loader.stats import _verdict

from .functions import Sample, in_processes, numbers


@pytest.mark.cpu("it measures how a batch of the host is handed over")
def test_a_slow_consumer_is_named():
    loader = gr.Loader(np.zeros((600, 10)), 10, num_threads=1)
    for _ in loader:
        time.sleep(0.01)
    stats = loader.stats()
    assert stats.bottleneck == "consumer" and "Consumer-bound" in stats.advice
    assert stats.batches == 60 and stats.rows == 600 and stats.bytes == 600 * 80
    assert sum(stats.occupancy) == 60 and stats.consumer_work > stats.consumer_wait
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


def read(loader, epochs=1):
    for _ in range(epochs):
        for _ in loader:
            pass
    return loader.stats()


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_a_slow_transform_is_named(num_threads):
    def slow(row):
        time.sleep(0.003)
        return row

    x = np.zeros((120, 8, 8, 3), np.uint8)
    steps = {"image": [gr.transforms.RandomFlip(), gr.transforms.Scale(2.0)], "y": gr.transforms.Python(slow)}
    source = {"image": x, "y": np.zeros(120)}
    stats = read(gr.Loader(source, 10, transforms=steps, num_threads=num_threads))
    assert list(stats.shares) == ["rows of the source", "RandomFlip+Scale of field image", "Python of field y"]
    assert sum(stats.shares.values()) == pytest.approx(1)
    assert stats.shares["Python of field y"] > 0.5
    assert stats.bottleneck == "loader" and "transform Python of field y" in stats.advice


def test_the_shares_of_worker_processes_are_counted_too():
    source = in_processes(Sample())
    with gr.Loader(source, 10, transforms={0: gr.transforms.Scale(2.0)}) as loader:
        stats = read(loader)
    assert set(stats.shares) == {"rows of the source", "Scale of field 0"}
    assert stats.shares["rows of the source"] > 0.3
    assert stats.workers == "processes" and len(stats.per_worker) == 2


def verdict(
    wait, own, busy, idle, *, active=2, workers="threads", python=False, most=2, tuned=False, shares=None, cores=2
):
    return _verdict(100, wait, own, busy, idle, active, workers, python, most, tuned, shares or {}, cores)


def test_the_advice_follows_from_who_waited():
    shares = {"rows of the source": 0.39, "Normalize of field 0": 0.61}
    name, text = verdict(9.0, 1.0, 19.6, 0.4, shares=shares)
    assert name == "loader" and "2 worker threads busy 98%, transform Normalize of field 0 61%" in text
    assert "all cores are in use" in text
    assert "try num_threads=3" in verdict(9.0, 1.0, 19.6, 0.4, cores=8)[1]
    assert "try num_workers=3" in verdict(9.0, 1.0, 19.6, 0.4, workers="processes", cores=8)[1]
    assert "workers='processes'" in verdict(9.0, 1.0, 19.6, 0.4, python=True)[1]
    assert "from time to time" in verdict(9.0, 1.0, 19.6, 0.4, cores=8, most=3, tuned=True)[1]
    assert "num_threads=1" in verdict(9.0, 1.0, 0.0, 0.0, most=0, active=0)[1]
    assert verdict(0.1, 9.9, 1.0, 19.0)[0] == "consumer"
    assert verdict(2.0, 8.0, 10.0, 10.0)[0] == "balanced"


def test_what_was_chosen_is_printed(caplog):
    with caplog.at_level("INFO", logger="gradring.loader"):
        stats = read(gr.Loader(np.zeros((100, 3)), 10), epochs=2)
    assert re.fullmatch(r"\d+ of \d+ worker threads, prefetch \d+", stats.chosen)
    assert stats.chosen in str(stats)
    assert [record.getMessage() for record in caplog.records if "was filled by" in record.getMessage()]


def uneven(i):
    # Each tenth batch of four takes as long as it takes to use six.
    if i % 40 == 0:
        time.sleep(0.006)
    return np.full(25, float(i))


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_prefetch_grows_within_a_pass_where_batches_take_uneven_time(workers):
    seen, most = [], 0
    with gr.Loader(gr.sources.Callable(uneven, 4000, workers=workers, num_workers=1), 4) as loader:
        for x in loader:
            time.sleep(0.001)
            seen.extend(x[:, 0].tolist())
            most = max(most, loader.stats().prefetch)
        stats = loader.stats()
    assert seen == list(range(4000))
    assert 4 < most <= 16 and stats.slots <= most + 2
    assert f"prefetch {stats.prefetch}" in stats.chosen


def test_prefetch_does_not_grow_where_it_was_given_or_the_budget_has_no_room():
    slot = 4 * (25 * 8 + 8)
    for options in ({"prefetch": 4}, {"memory_budget": 8 * (slot + 128)}):
        with gr.Loader(gr.sources.Callable(uneven, 1200, num_workers=1), 4, **options) as loader:
            for _ in loader:
                time.sleep(0.001)
            assert loader.stats().prefetch == 4


@pytest.mark.parametrize("num_threads", [0, 2])
def test_the_trace_shows_who_filled_and_who_waited(tmp_path, num_threads):
    def slow(i):
        time.sleep(0.001)
        return np.zeros(3)

    loader = gr.Loader(gr.sources.Callable(slow, 60), 10, num_threads=num_threads)
    _core.trace_start()
    read(loader)
    _core.trace_stop()
    _core.trace_write(str(tmp_path / "trace.json"))
    spans = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    filled = [span for span in spans if span["name"] == "fill batch"]
    assert sorted(span["args"]["number"] for span in filled) == list(range(6))
    assert all(span["dur"] > 5000 for span in filled)  # microseconds
    if num_threads:
        waits = [span for span in spans if span["name"] == "wait for batch"]
        assert waits and not {span["tid"] for span in waits} & {span["tid"] for span in filled}


@pytest.mark.parametrize("num_threads", ["auto", 3])
def test_how_many_processes_work_is_found_out_unless_it_was_said(num_threads):
    with gr.Loader(in_processes(Sample(), 20_000), 10, num_threads=num_threads) as loader:
        assert numbers(loader) == list(range(20_000))
        stats = loader.stats()
    if num_threads == 3:
        assert stats.active_workers == stats.num_workers == 3
    else:
        assert 1 <= stats.active_workers <= stats.num_workers == 2
    assert f"{stats.active_workers} of {stats.num_workers} worker processes" in stats.chosen


def test_nothing_was_read():
    assert gr.Loader(np.zeros(3), 2).stats().bottleneck == "unknown"


def test_automatic_threads_stay_within_the_cores():
    loader = gr.Loader(np.zeros((20000, 100), np.uint8), 10, transforms=[gr.transforms.Cast("float32")])
    stats = read(loader, epochs=3)
    assert 0 <= stats.active_workers <= stats.num_workers <= max(_core.usable_cores(), 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_threads": -1}, ValueError, "num_threads must be 'auto' or an int from 0 to 64, got -1"),
        ({"num_threads": "many"}, ValueError, "num_threads must be 'auto' or an int from 0 to 64, got 'many'"),
        ({"num_threads": 1.5}, TypeError, "num_threads must be 'auto' or an int from 0 to 64, got 1.5"),
        ({"num_threads": 10**6}, ValueError, "num_threads must be 'auto' or an int from 0 to 64"),
        ({"prefetch": 0}, ValueError, "prefetch must be 'auto' or an int from 1 to 1024, got 0"),
        ({"prefetch": 10**9}, ValueError, "prefetch must be 'auto' or an int from 1 to 1024"),
        ({"memory_budget": math.nan}, ValueError, "memory_budget must be None or a finite number of at least 1"),
        ({"memory_budget": math.inf}, ValueError, "memory_budget must be None or a finite number of at least 1"),
        ({"memory_budget": -5}, ValueError, "memory_budget must be None or a finite number of at least 1"),
        (
            {"memory_budget": "1 GB"},
            TypeError,
            "memory_budget must be None or a finite number of at least 1, got '1 GB'",
        ),
        ({"memory_budget": 100}, ValueError, r"memory_budget is 100 bytes, one batch takes \d+"),
        ({"memory_budget": 1000, "prefetch": 900}, ValueError, "prefetch=900 takes"),
        ({"timeout": 0}, ValueError, "timeout must be None or a finite number above 0"),
        ({"timeout": math.nan}, ValueError, "timeout must be None or a finite number above 0"),
        ({"timeout": "1"}, TypeError, "timeout must be None or a finite number above 0, got '1'"),
        ({"timeout": True}, TypeError, "timeout must be None or a finite number above 0, got True"),
        ({"memory_budget": True}, TypeError, "memory_budget must be None or a finite number of at least 1, got True"),
        ({"device": "cuda:99"}, gr.DeviceUnavailable, "device 'cuda:99': "),
        ({"rank": 2, "world_size": 2}, ValueError, "rank is 2: it must be below world_size"),
        ({"rank": 1}, ValueError, "rank and world_size go together"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'skip'"),
        ({"restart": -1}, ValueError, "restart must be an int of at least 0, got -1"),
        ({"drop_last": True, "batch_size": 11}, ValueError, "drop_last leaves nothing"),
        ({"batch_size": 0}, ValueError, "batch_size must be an int of at least 1, got 0"),
    ],
)
def test_misuse(options, error, words):
    with pytest.raises(error, match=rf"\[Loader\] .*{words}|\[Loader\] {words}"):
        gr.Loader(np.zeros(10), **{"batch_size": 2, **options})


def test_a_huge_batch_is_no_larger_than_the_source():
    (batch,) = gr.Loader(np.arange(10), 10**12)
    assert batch.tolist() == list(range(10))
