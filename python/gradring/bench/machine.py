"""The machine, the date and the versions with which a figure was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path


def require_release_build() -> None:
    """Raises RuntimeError unless the native core is an optimized build, because other timings mean nothing."""
    from gradring import _core

    if _core.build_type != "Release":
        raise RuntimeError(
            f"[bench] the native core is a {_core.build_type or 'nameless'} build: install a Release one"
            " (pip install . without -e, or cmake -DCMAKE_BUILD_TYPE=Release) to measure"
        )


def cpu_model() -> str:
    """The processor's name as the kernel reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of this package, Python and every peer that is installed."""
    found = {"python": platform.python_version()}
    peers = "torch", "jax", "jaxlib", "spdl-core", "grain", "tensorflow-cpu", "turboloader", "nn-engine-core"
    for name in ("gradring", "numpy", *peers):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def core_round_trip() -> float:
    """The round trip, in seconds, of a word between two cores; 0 if there is only one core.

    It shows whether the two processors of a virtual machine share a last-level cache at the moment. With
    ``GRADRING_BENCH_APART=NANOSECONDS`` it waits, a minute at most, until a round trip takes that long, and the
    processors share none.
    """
    from gradring import _core

    until = time.monotonic() + 60
    while (seconds := _core.core_round_trip()) < least_round_trip() and time.monotonic() < until:
        time.sleep(0.1)
    return seconds


def least_round_trip() -> float:
    """Seconds that ``GRADRING_BENCH_APART`` asks for; 0 if it does not."""
    return float(os.environ.get("GRADRING_BENCH_APART", "0")) * 1e-9


def describe() -> dict[str, object]:
    """Machine, date and versions, for the head of every report."""
    from gradring import _core

    return {
        "cpu": cpu_model(),
        "usable_cores": _core.usable_cores(),
        "isa": _core.active_isa(),
        "kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d"),
        "load_average": os.getloadavg()[0],
        "versions": versions(),
    }
