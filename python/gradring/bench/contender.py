"""One contender in a process of its own: it answers one JSON line on standard output for each on standard input.

Each library has a process of its own, with its own thread pool and environment: many read the thread count once, when they
are imported. Between its turns a contender blocks in a read, so its idle threads do not disturb another one's timing.

Run as ``python -m gradring.bench.contender module:function [option=value ...]``, where ``function(case, **options)``
prepares a case (a dict) and returns a callable without arguments: one unit of work, finished when it returns; or an
object with ``facts`` and with ``measure()``, both dicts of numbers, which times itself. A callable whose results depend on
random numbers has a method ``check(count)``, which returns that many results that do not. Options are integers or words.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Work = Callable[[], object]


def seconds_of(work: Work, calls: int) -> float:
    """Wall seconds of `calls` calls, one after the other."""
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - begin


def calibrate(work: Work, min_seconds: float) -> int:
    """How many calls fill `min_seconds`. Doubling finds the number, and also warms up."""
    work()
    calls = 1
    while True:
        seconds = seconds_of(work, calls)
        if seconds >= min_seconds / 2 or calls >= 1 << 22:
            return max(1, round(calls * min_seconds / max(seconds, 1e-9)))
        calls *= 2 if seconds > min_seconds / 50 else 8


def answer(
    factory: Callable[[dict[str, Any]], Work], state: dict[int, tuple[Work, int]], request: dict[str, Any]
) -> dict[str, Any]:
    """Carries out one request: ``prepare`` a case in a slot (slot 0 forgets all others), or ``time`` a slot."""
    slot = request.get("slot", 0)
    if request["do"] == "prepare":
        if slot == 0:
            state.clear()
            gc.collect()
        work: Any = factory(request["case"])
        if hasattr(work, "measure"):
            state[slot] = work, 1
            return dict(work.facts)
        count = request["agree_calls"]
        first = work.check(count) if hasattr(work, "check") else [work() for _ in range(count)]
        reply: dict[str, Any] = {"first": first}
        if request.get("check"):
            error = load(request["check"])(request["case"], work())
            reply |= {} if error is None else {"error_of_result": error}
        state[slot] = work, calibrate(work, request["min_seconds"])
        return reply
    work, calls = state[slot]
    if hasattr(work, "measure"):
        return dict(work.measure())
    seconds_of(work, max(1, calls // 4))  # wake the pool and the caches again
    cpu = time.process_time()
    seconds = seconds_of(work, calls)
    return {"seconds": seconds / calls, "cpu_seconds": (time.process_time() - cpu) / calls}


def load(factory: str, *words: str) -> Callable[..., Any]:
    """The function that ``module:function`` and its options name."""
    module, _, function = factory.partition(":")
    pairs = (word.split("=") for word in words)
    options = {name: int(value) if value.isdecimal() else value for name, value in pairs}
    return functools.partial(getattr(importlib.import_module(module), function), **options)


def main() -> None:
    """Serves requests until standard input ends."""
    out = os.fdopen(os.dup(1), "w")  # a library that prints must not break the protocol
    os.dup2(2, 1)
    try:
        factory = load(*sys.argv[1:])
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return
    print(json.dumps({"ready": True}), file=out, flush=True)
    gc.disable()
    state: dict[int, tuple[Work, int]] = {}
    for line in sys.stdin:
        try:
            reply = answer(factory, state, json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
