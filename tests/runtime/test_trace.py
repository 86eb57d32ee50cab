"""The trace as Python records and writes it."""

import json
import threading
import time

import pytest

from gradring import _core


@pytest.fixture
def spans(tmp_path):
    """Record from here on; call for the spans so far."""
    _core.trace_start()

    def written():
        path = tmp_path / "trace.json"
        _core.trace_write(str(path))
        return json.loads(path.read_text())["traceEvents"]

    yield written
    _core.trace_stop()


def test_each_thread_has_a_lane(spans):
    def record(name):
        now = time.perf_counter_ns()
        _core.trace_record(name, now, now + 1500)

    threads = [threading.Thread(target=record, args=(f"thread {i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record("here")
    events = [event for event in spans() if event["ph"] == "X"]
    assert sorted(event["name"] for event in events) == ["here", "thread 0", "thread 1", "thread 2"]
    assert {event["dur"] for event in events} == {1.5}
    named = [event for event in spans() if event["ph"] == "M"]
    assert len(named) == 4


def test_nothing_is_recorded_while_it_is_off(spans):
    _core.trace_record("on", 0, 1)
    _core.trace_stop()
    assert not _core.trace_is_on()
    _core.trace_record("off", 0, 1)
    assert [event["name"] for event in spans() if event["ph"] == "X"] == ["on"]


def test_an_unwritable_path_is_an_error():
    with pytest.raises(OSError, match="cannot write /no/such/folder/t.json: No such file or directory"):
        _core.trace_write("/no/such/folder/t.json")
