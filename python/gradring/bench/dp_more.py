"""The further rows of ``gradring bench dp``: the update alone, memory, and how the cost of a step grows with the ranks."""

from __future__ import annotations

import importlib
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from .dp_contenders import Processes, our_ranks

__all__ = ["growth", "memory", "updates"]

UPDATES = ((2000, 2000), (5000, 5000))  # about 4 and 25 million parameters, in steps whose other work is small
GROWTH = (1, 2, 4, 8)
MEMORY = (784, 4096, 4096, 10)
_DDP = {"at its best": "ddp", "by default": "ddp_default"}


def _parameters(sizes: Sequence[int]) -> int:
    return sum(i * o + o for i, o in pairwise(sizes))


def updates(sizes: Sequence[Sequence[int]] = UPDATES, *, ranks: int = 2, steps: int = 20) -> list[dict[str, Any]]:
    """Print, and return, how long the update of all ranks takes beside an all_reduce and an AdamW on each rank."""
    rows = []
    for each in sizes:
        made = our_ranks({"sizes": tuple(each), "batch": ranks, "ranks": ranks, "min_seconds": 0.01})
        replies = [made.ask("update", steps) for _ in range(3)]
        made.close()
        ours, other = (statistics.median(max(rank[at] for rank in reply) for reply in replies) for at in (0, 1))
        rows.append({"parameters": _parameters(each), "ranks": ranks, "seconds": ours, "all_reduce then AdamW": other})
        print(
            f"reduce and update, AdamW, {rows[-1]['parameters'] / 1e6:.1f} M parameters, {ranks} ranks: {ours * 1e3:.2f} ms; "
            f"all_reduce and then AdamW on each rank: {other * 1e3:.2f} ms, {other / ours:.2f}x"
        )
    return rows


def growth(
    sizes: Sequence[int], batch: int, *, ranks: Sequence[int] = GROWTH, min_seconds: float = 0.2
) -> list[dict[str, Any]]:
    """Print, and return, what a step of so many ranks costs, for one global batch."""
    rows: list[dict[str, Any]] = []
    for count in ranks:
        made = our_ranks({"sizes": tuple(sizes), "batch": batch, "ranks": count, "min_seconds": min_seconds})
        measured = [made.measure() for _ in range(3)]
        steps = max(3, math.ceil(min_seconds / measured[0]["seconds"]))
        parts, counts = made.ask("parts", steps), made.ask("counts", 0)
        made.close()
        seconds, cpu = (statistics.median(one[name] for one in measured) for name in ("seconds", "cpu_seconds"))
        mean = {name: statistics.fmean(rank[name] for rank in parts) for name in parts[0]}
        most = {name: max(rank[name] for rank in counts) for name in counts[0]}
        rows.append({"sizes": list(sizes), "ranks": count, "seconds": seconds, "cpu_seconds": cpu, "parts": mean, **most})
        said = ", ".join(f"{name} {mean[name] * 1e6:.0f}" for name in ("data", "compute", "reduction", "update"))
        print(
            f"{'-'.join(map(str, sizes))}, global batch {batch}, {count} ranks: {seconds * 1e6:.0f} us per step, "
            f"{cpu * 1e6:.0f} us of processors (us of a rank: {said}); {most['meetings']} meetings, "
            f"{most['bytes'] / 1e6:.2f} MB of gradients read per rank"
        )
    return rows


def memory(folder: Path | None, sizes: Sequence[int] = MEMORY, *, ranks: int = 2) -> list[dict[str, Any]]:
    """Print, and return, how many bytes all ranks together take for a network, AdamW and steps of one row per rank: ours, and
    those of DDP if the ``folder`` of peers has it."""
    case = {"sizes": tuple(sizes), "batch": ranks, "ranks": ranks, "min_seconds": 0.01}
    contenders: dict[str, Callable[[dict[str, Any]], Processes]] = {"gradring": our_ranks}
    if folder is not None and (folder / "dp_torch.py").exists():
        sys.path.insert(0, str(folder))  # its ranks, which are spawned, get this path too
        peers = importlib.import_module("dp_torch")
        contenders |= {f"torch DDP, {name}": getattr(peers, function) for name, function in _DDP.items()}
    rows: list[dict[str, Any]] = []
    for name, contender in contenders.items():
        made = contender(case)
        used = sum(made.ask("memory", 0))
        made.close()
        each = used / (4 * _parameters(sizes))
        rows.append({"contender": name, "bytes": used, "numbers per parameter": each})
        ratio = f", ours {rows[0]['bytes'] / used:.2f}x of it" if len(rows) > 1 else ""
        print(f"memory of {ranks} ranks, {_parameters(sizes) / 1e6:.1f} M parameters, {name}: {used / 1e6:.0f} MB{ratio}")
    return rows
