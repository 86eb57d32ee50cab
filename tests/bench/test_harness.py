"""The race's bookkeeping: rounds of several runs are pooled, and a file keeps them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradring import _core
from gradring.bench.harness import Case, Row, load, pooled, save, threads_seconds
from gradring.bench.loader import _turn
from gradring.bench.machine import core_round_trip
from gradring.bench.report import describe_cores


def row(name: str, **seconds: list[float]) -> Row:
    return Row(Case(name, {"op": name}, 2.0), seconds, {who: times[-1] for who, times in seconds.items()}, {})


def test_the_same_case_pools_its_rounds_and_others_are_added():
    first = [row("a", ours=[1.0, 2.0], peer=[4.0]), row("b", ours=[1.0])]
    second = [row("c", ours=[5.0]), row("a", ours=[9.0], late=[3.0])]
    a, b, c = pooled(first, second)
    assert [each.case.name for each in (a, b, c)] == ["a", "b", "c"]
    assert a.seconds == {"ours": [1.0, 2.0, 9.0], "peer": [4.0], "late": [3.0]}
    assert a.cpu_seconds == {"ours": 9.0, "peer": 4.0, "late": 3.0}
    assert b.seconds == {"ours": [1.0]} and c.seconds == {"ours": [5.0]}
    assert a.median("ours") == 2.0 and a.ratio("ours") == pytest.approx(1.5)


def test_a_file_keeps_the_rows_to_four_digits(tmp_path):
    path = tmp_path / "race.json"
    save(path, "a title", [row("a", ours=[1.23456e-6], peer=[2e-6])], "ours", {"absent": "not installed"}, peak=1.0)
    (read,) = load(path)
    assert read.case == Case("a", {"op": "a"}, 2.0)
    assert read.seconds == {"ours": [1.235e-6], "peer": [2e-6]}
    document = json.loads(path.read_text())
    assert document["title"] == "a title" and document["missing"] == {"absent": "not installed"}
    assert document["rows"][0]["best_peer"] == "peer" and document["rows"][0]["ratio"] == 1.62


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not count threads' time")
def test_the_time_of_a_spinning_thread_is_seen_from_outside():
    before = threads_seconds(os.getpid())
    spun, leave = threading.Event(), threading.Event()

    def spin() -> None:
        while time.thread_time() < 0.05:
            pass
        spun.set()
        leave.wait()

    thread = threading.Thread(target=spin)
    thread.start()
    spun.wait()
    used = threads_seconds(os.getpid()) - before
    leave.set()
    thread.join()
    assert used > 0.04


def test_a_process_that_has_ended_used_no_time():
    process = subprocess.Popen(["true"])
    process.wait()
    assert threads_seconds(process.pid) == 0.0


def test_the_cores_distance_is_measured_and_waited_for(monkeypatch):
    trips = iter([80e-9, 90e-9, 470e-9, 60e-9])
    monkeypatch.setattr(_core, "core_round_trip", lambda: next(trips))
    monkeypatch.setenv("GRADRING_BENCH_APART", "200")
    assert core_round_trip() == 470e-9
    monkeypatch.delenv("GRADRING_BENCH_APART")
    assert core_round_trip() == 60e-9
    assert describe_cores([60e-9, 470e-9]).endswith("60 ns to 470 ns")


def test_a_turn_in_which_far_cores_came_near_is_repeated(monkeypatch):
    trips = iter([470e-9, 80e-9, 460e-9, 450e-9])
    replies = iter([{"seconds": 1.0}, {"seconds": 2.0}])
    monkeypatch.setattr(_core, "core_round_trip", lambda: next(trips))
    monkeypatch.setenv("GRADRING_BENCH_APART", "200")
    worker = SimpleNamespace(ask=lambda do: next(replies))
    assert _turn(worker) == {"seconds": 2.0, "core_round_trip": 450e-9}


def test_a_row_keeps_how_far_apart_the_cores_were(tmp_path):
    first, second = row("a", ours=[1.0]), row("a", ours=[2.0])
    first.core_round_trips, second.core_round_trips = [80e-9], [470e-9]
    save(tmp_path / "race.json", "a title", pooled([first], [second]), "ours", {})
    (read,) = load(tmp_path / "race.json")
    assert read.core_round_trips == [80e-9, 470e-9]
