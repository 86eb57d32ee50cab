"""Races contenders over cases: interleaved rounds, medians with spread, and a report that keeps the rows we lose."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .machine import describe, require_release_build


@dataclass(frozen=True)
class Contender:
    """A named way to do the work: `factory` is ``module:function`` for :mod:`gradring.bench.contender`."""

    name: str
    factory: str
    threads: int | None = None  # None: all usable cores
    environment: dict[str, str] = field(default_factory=dict)
    ours: bool = False


@dataclass(frozen=True)
class Case:
    """One row: a name, what the factories need to build it, and its arithmetic (0 if that says nothing).

    With `agree`, the results of the first calls are numbers that must agree among contenders within that relative
    difference: a contender that computes something else is out of the race.
    """

    name: str
    parameters: dict[str, Any]
    flops: float = 0.0
    agree: float | None = None


@dataclass
class Row:
    """A case's seconds per call, one list per contender that could run it."""

    case: Case
    seconds: dict[str, list[float]]
    cpu_seconds: dict[str, float]
    failures: dict[str, str]

    def median(self, name: str) -> float:
        """Median seconds per call over the rounds."""
        return statistics.median(self.seconds[name])

    def spread(self, name: str) -> float:
        """(75th - 25th percentile) / median; 0 with fewer than four rounds."""
        times = self.seconds[name]
        if len(times) < 4:
            return 0.0
        low, _, high = statistics.quantiles(times, n=4)
        return (high - low) / self.median(name)

    def best_peer(self, ours: str) -> str | None:
        """The fastest other contender by median."""
        peers = [name for name in self.seconds if name != ours]
        return min(peers, key=self.median, default=None)

    def ratio(self, ours: str) -> float:
        """Best peer's median over ours: above 1 we are faster. NaN without a peer."""
        peer = self.best_peer(ours)
        return math.nan if peer is None or ours not in self.seconds else self.median(peer) / self.median(ours)


class Worker:
    """The harness's end of one contender process."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        threads = str(contender.threads or len(os.sched_getaffinity(0)))
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GRADRING_BENCH_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads), **contender.environment}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gradring.bench.contender", contender.factory],
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
    settle: float = 0.0,
) -> tuple[list[Row], dict[str, str]]:
    """Times every contender on every case, in turn within each round.

    Returns the rows and, by name, why a contender is missing. Each timing lasts about `min_seconds`, and waits
    `settle` seconds first: short timings must not run while the last contender's pool still spins.
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
    try:
        return [_race_case(workers, case, rounds, min_seconds, settle) for case in cases], missing
    finally:
        for worker in workers:
            worker.close()


def _race_case(workers: Sequence[Worker], case: Case, rounds: int, min_seconds: float, settle: float) -> Row:
    row = Row(case, {}, {}, {})
    able = []
    calls = 0 if case.agree is None else AGREE_CALLS
    expected: list[float] = []
    for worker in workers:
        reply = worker.ask(do="prepare", case=case.parameters, min_seconds=min_seconds, agree_calls=calls)
        if "error" in reply:
            row.failures[worker.contender.name] = reply["error"]
            continue
        expected = expected or reply["first"]
        if not agree(reply["first"], expected, case.agree or 0.0):
            row.failures[worker.contender.name] = f"its first results are {reply['first']}, others' {expected}"
            continue
        able.append(worker)
    for turn in range(rounds):
        for worker in able if turn % 2 == 0 else reversed(able):
            time.sleep(settle)
            reply = worker.ask(do="time")
            if "error" in reply:
                row.failures[worker.contender.name] = reply["error"]
                continue
            row.seconds.setdefault(worker.contender.name, []).append(reply["seconds"])
            row.cpu_seconds[worker.contender.name] = reply["cpu_seconds"]
    return row


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
    """Writes everything measured, with the machine and versions, as JSON."""
    document = {
        "title": title,
        "machine": describe(),
        "ours": ours,
        "missing": missing,
        **extra,
        "rows": [{**asdict(row), "best_peer": row.best_peer(ours), "ratio": row.ratio(ours)} for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
