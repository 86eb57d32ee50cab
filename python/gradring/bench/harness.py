"""Races contenders over cases: interleaved rounds, medians with spread, and a report that keeps the rows we lose."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .machine import core_round_trip, describe, require_release_build


@dataclass(frozen=True)
class Contender:
    """A named way to do the work: `factory` is ``module:function option=value ...`` (:mod:`gradring.bench.contender`)."""

    name: str
    factory: str
    threads: int | None = None  # None: all usable cores
    environment: dict[str, str] = field(default_factory=dict)
    ours: bool = False
    folder: str = ""  # where the factory's module lies; empty: in an installed package
    # What it computes differently, by the case's optimizer, or "" for all.
    differs: dict[str, str] = field(default_factory=dict)

    def difference(self, case: dict[str, Any]) -> str:
        """What it computes differently in a case: then only its first result must agree with the others'."""
        return self.differs.get("") or self.differs.get(case.get("optimizer", ""), "")


@dataclass(frozen=True)
class Case:
    """One row: a name, what the factories need to build it, its arithmetic and its arrays' bytes (0: not known).

    With `agree`, the results of the first calls are numbers that must agree among contenders within that relative
    difference: a contender that computes something else is out of the race. The times are of one of the `steps` that each
    call makes.
    """

    name: str
    parameters: dict[str, Any]
    flops: float = 0.0
    agree: float | None = None
    bytes: int = 0
    steps: int = 1


def spread(times: Sequence[float]) -> float:
    """(75th - 25th percentile) / median; 0 with fewer than four."""
    if len(times) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle


@dataclass
class Row:
    """A case's seconds per call, one list per contender that could run it, and how far apart the cores were each round."""

    case: Case
    seconds: dict[str, list[float]]
    cpu_seconds: dict[str, float]
    failures: dict[str, str]
    core_round_trips: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)  # of each contender's result, where the race checks it

    def median(self, name: str) -> float:
        """Median seconds per call over the rounds."""
        return statistics.median(self.seconds[name])

    def spread(self, name: str) -> float:
        """The spread of a contender's seconds."""
        return spread(self.seconds[name])

    def best_peer(self, ours: str) -> str | None:
        """The fastest other contender by median."""
        peers = [name for name in self.seconds if name != ours]
        return min(peers, key=self.median, default=None)

    def ratio(self, ours: str) -> float:
        """Best peer's median over ours: above 1 we are faster. NaN without a peer."""
        peer = self.best_peer(ours)
        return math.nan if peer is None or ours not in self.seconds else self.median(peer) / self.median(ours)


MOMENT = 0.01  # longer than the kernel's tick, at which a running thread's time is counted


def threads_seconds(pid: int) -> float:
    """The seconds of processor time that the living threads of a process have used; 0 if the system does not count them."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except OSError:
            continue  # the thread has ended
    return total * 1e-9


class Worker:
    """Starts one contender process, and sends it requests."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        threads = str(contender.threads or len(os.sched_getaffinity(0)))
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GRADRING_BENCH_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads), **contender.environment}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if contender.folder:
            paths = [contender.folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gradring.bench.contender", *contender.factory.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.missing: str | None = self._read().get("missing")

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return {"missing": "the process ended", "error": "the process ended"}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process ended"}
        return self._read()

    def settle(self, most: float) -> None:
        """Return when the process's threads have used no core for a moment, or after `most` seconds.

        A library's idle threads may spin after its turn. Those of OpenBLAS spin for a tenth of a second.
        """
        end = time.monotonic() + most
        before = threads_seconds(self._process.pid)
        while time.monotonic() < end:
            time.sleep(MOMENT)
            now = threads_seconds(self._process.pid)
            if now - before < MOMENT / 10:
                return
            before = now

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


AGREE_CALLS = 4


def agree(results: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    """Whether all results are within a relative `tolerance` of what is expected; NaN agrees with nothing."""
    return all(abs(r - e) <= tolerance * abs(e) for r, e in zip(results, expected, strict=True))


def race(
    contenders: Sequence[Contender],
    cases: Iterable[Case],
    *,
    rounds: int = 7,
    min_seconds: float = 0.02,
    settle: float = 0.3,
    block: int = 1,
    check: str = "",
) -> tuple[list[Row], dict[str, str]]:
    """Times every contender on every case: in each round, one contender after another.

    Returns the rows and, by name, why a contender is missing. Each timing lasts about `min_seconds`. A contender runs
    `block` cases in a turn. The next turn begins when its threads are idle, or after `settle` seconds, because short
    timings must not run while the last contender's pool still spins.

    ``check`` is ``module:function``, where ``function(case, result)`` returns the error of a call's result, or None.
    """
    require_release_build()
    workers: list[Worker] = []
    missing: dict[str, str] = {}
    for contender in contenders:
        worker = Worker(contender)
        if worker.missing:
            missing[contender.name] = worker.missing
            worker.close()
        else:
            workers.append(worker)
    rows: list[Row] = []
    try:
        for some in blocks(cases, block):
            rows += _race_block(workers, some, rounds, min_seconds, settle, check)
    finally:
        for worker in workers:
            worker.close()
    return rows, missing


BLOCK_BYTES = 128 << 20  # the most bytes of arrays that a contender holds at a time


def blocks(cases: Iterable[Case], most: int) -> Iterator[list[Case]]:
    """The cases in order, up to `most` at a time, and fewer where their arrays are large."""
    some: list[Case] = []
    for case in cases:
        if some and (len(some) == most or sum(c.bytes for c in some) + case.bytes > BLOCK_BYTES):
            yield some
            some = []
        some.append(case)
    if some:
        yield some


def _race_block(
    workers: Sequence[Worker], cases: Sequence[Case], rounds: int, min_seconds: float, settle: float, check: str
) -> list[Row]:
    rows = [Row(case, {}, {}, {}) for case in cases]
    able: dict[str, list[int]] = {worker.contender.name: [] for worker in workers}
    expected: dict[int, list[float]] = {}
    for worker in workers:
        name = worker.contender.name
        for slot, row in enumerate(rows):
            case = row.case
            calls = 0 if case.agree is None else AGREE_CALLS
            reply = worker.ask(
                do="prepare",
                slot=slot,
                case=case.parameters,
                min_seconds=min_seconds,
                agree_calls=calls,
                check=check,
            )
            if "error_of_result" in reply:
                row.errors[name] = reply["error_of_result"]
            if "error" in reply:
                row.failures[name] = reply["error"]
            elif not _agrees(worker.contender, case, reply["first"], expected, slot):
                row.failures[name] = f"its first results are {reply['first']}, others' {expected[slot]}"
            else:
                able[name].append(slot)
        worker.settle(settle)
    for turn in range(rounds):
        round_trip = core_round_trip()
        for row in rows:
            row.core_round_trips.append(round_trip)
        for worker in workers if turn % 2 == 0 else reversed(workers):
            for slot in able[worker.contender.name]:
                reply = worker.ask(do="time", slot=slot)
                _record(rows[slot], worker.contender.name, reply)
            worker.settle(settle)
    return rows


def _agrees(contender: Contender, case: Case, first: list[float], expected: dict[int, list[float]], slot: int) -> bool:
    """Whether a contender's first results agree with the others'; the first contender that must agree sets the
    expectation."""
    tolerance = case.agree or 0.0
    if not contender.difference(case.parameters):
        return agree(first, expected.setdefault(slot, first), tolerance)
    return slot not in expected or agree(first[:1], expected[slot][:1], tolerance)


def _record(row: Row, name: str, reply: dict[str, Any]) -> None:
    if "error" in reply:
        row.failures[name] = reply["error"]
        return
    row.seconds.setdefault(name, []).append(reply["seconds"] / row.case.steps)
    row.cpu_seconds[name] = reply["cpu_seconds"] / row.case.steps


def geometric_mean(values: Iterable[float]) -> float:
    """exp(mean(log)); NaN for nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def format_seconds(seconds: float) -> str:
    """1.5e-6 -> '1.50 us'."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def save(path: Path, title: str, rows: Sequence[Row], ours: str, missing: dict[str, str], **extra: Any) -> None:
    """Writes everything measured, with the machine and versions."""
    document = {"title": title, "machine": describe(), "ours": ours, "missing": missing, **extra}
    write(
        path,
        document,
        [{**asdict(row), "best_peer": row.best_peer(ours), "ratio": row.ratio(ours)} for row in rows],
    )


def write(path: Path, document: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Writes the document and its rows as JSON, one line per row."""
    lines = [json.dumps(_rounded(row), separators=(",", ":")) for row in rows]
    head = json.dumps(document, indent=1).removesuffix("\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + ',\n "rows": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def _rounded(value: Any) -> Any:
    """Round floats to four digits: no timing is more precise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def pooled(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """Merge rows: a case that is in both lists gets the rounds of both."""
    found = {row.case.name: row for row in rows}
    for row in more:
        old = found.setdefault(row.case.name, row)
        if old is not row:
            for name, seconds in row.seconds.items():
                old.seconds[name] = old.seconds.get(name, []) + seconds
            old.cpu_seconds |= row.cpu_seconds
            old.core_round_trips += row.core_round_trips
            old.failures |= row.failures
            old.errors |= row.errors
    return list(found.values())


def load(path: Path) -> list[Row]:
    """The rows that `save` wrote."""
    return [
        Row(
            Case(**row["case"]),
            row["seconds"],
            row["cpu_seconds"],
            row["failures"],
            row.get("core_round_trips", []),
            row.get("errors", {}),
        )
        for row in json.loads(path.read_text())["rows"]
    ]
