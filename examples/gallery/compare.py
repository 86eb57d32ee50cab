"""What the programs of the gallery share: they time the usual way and gradring's, and check that both compute the same."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

FULL = "full" in sys.argv[1:]
"""Whether to work on the larger sizes, which show more; the small ones are quick."""


def size(small: int, full: int) -> int:
    """The first number, or with the argument ``full`` the second."""
    return full if FULL else small


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """The fewest seconds that the work took, and its last result."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


def difference(a: Any, b: Any) -> float:
    """The largest difference of two arrays, or of two lists of arrays of the same lengths, as a share of the largest number."""
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b), f"one way has {len(a)} arrays, the other {len(b)}"
        return max((difference(one, other) for one, other in zip(a, b, strict=True)), default=0.0)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, f"one way has an array of shape {a.shape}, the other of {b.shape}"
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) if a.size else 0.0


def report(usual: str, usual_seconds: float, ours_seconds: float, found: float, allowed: float) -> None:
    """Print both times and their ratio; ``AssertionError`` unless the results agree."""
    assert found <= allowed, f"the results differ by {found:.1e}, allowed are {allowed:.1e}"
    times = f"{usual}: {usual_seconds * 1e3:.2f} ms; gradring: {ours_seconds * 1e3:.2f} ms"
    print(f"{times}; ratio {usual_seconds / ours_seconds:.2f}; same results (largest difference {found:.1e})")
