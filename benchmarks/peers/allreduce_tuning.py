"""The best algorithm of a library for each size, found before the race by trying all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from gradring.bench.allreduce_entrants import Entrant
from gradring.bench.allreduce_group import Ranks

__all__ = ["chosen_by_size", "tuned"]

_ALGORITHMS = range(1, 26)  # those of I_MPI_ADJUST_ALLREDUCE, and a few numbers that no version knows yet
_SWEEPS = 10
_REPEAT = 20  # arrays that are reduced one after another in a sweep over small ones


def tuned(
    entrant: Entrant,
    variable: str,
    ranks: int,
    cores: list[int],
    sizes: Sequence[int],
    start: Callable[[Entrant, int, list[int]], Ranks] = Ranks,
) -> list[Entrant]:
    """An entrant whose ``variable`` chooses for each of these sizes, in bytes, the algorithm that was fastest at it; none if
    no algorithm runs."""
    print(f"trying the algorithms of {entrant.name} ...", flush=True)
    seconds: dict[int, dict[int, float]] = {size: {} for size in sizes}
    for algorithm in _ALGORITHMS:
        group = start(_with(entrant, variable, str(algorithm)), ranks, cores)
        if group.missing:
            continue
        try:
            for size in sizes:
                took = _try(group, size)
                if took is None:
                    break  # the algorithm cannot do it, and the ranks have ended
                seconds[size][algorithm] = took
        finally:
            group.close()
    best = {size: min(took, key=took.__getitem__) for size, took in seconds.items() if took}
    if not best:
        return []
    return [replace(_with(entrant, variable, chosen_by_size(best)), name=f"{entrant.name}, best algorithms")]


def chosen_by_size(best: dict[int, int]) -> str:
    """The variable's value that chooses these algorithms.

    >>> chosen_by_size({8: 3, 1024: 3, 4096: 5})
    '3:0-8;3:9-1024;5:1025-4096'
    """
    begin, parts = 0, []
    for size in sorted(best):
        parts.append(f"{best[size]}:{begin}-{size}")
        begin = size + 1
    return ";".join(parts)


def _with(entrant: Entrant, variable: str, value: str) -> Entrant:
    return replace(entrant, environment={**entrant.environment, variable: value})


def _try(group: Ranks, size: int) -> float | None:
    """The median of the slowest rank's times; None if a rank has failed."""
    small = size < 1 << 16
    if any("error" in answer for answer in group.ask(do="prepare", elements=size // 4, arrays=_REPEAT if small else 1)):
        return None
    answers = group.ask(do="time", sweeps=_SWEEPS, each=not small)
    if any("error" in answer for answer in answers):
        return None
    slowest = [float(max(times)) for times in zip(*(answer["nanoseconds"] for answer in answers), strict=True)]
    return statistics.median(slowest)
