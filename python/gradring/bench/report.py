"""Prints races as tables: ours, every peer, the ratio to the best of them, and the rows we lose."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .harness import Contender, Row, format_seconds, geometric_mean
from .machine import describe


def print_machine() -> None:
    """Prints the machine and the versions of the libraries."""
    about = describe()
    versions = about.pop("versions")
    assert isinstance(versions, dict)
    print("  ".join(f"{key}: {value}" for key, value in about.items()))
    print("  ".join(f"{name} {version}" for name, version in versions.items()))


def library(contender: str) -> str:
    """A contender's name without its number of threads."""
    name, _, threads = contender.rpartition(" ")
    return name if name and (threads == "all" or threads.isdecimal()) else contender


def print_rows(rows: Sequence[Row], ours: str, *, peak: float = 0.0, errors: bool = False) -> None:
    """Prints one line per case, with each library at its best number of threads. `peak` (FLOP/s) adds our percent of it,
    and `errors` adds our error and the best peer's."""
    peers = sorted({library(name) for row in rows for name in row.seconds} - {ours})
    width = max([len(row.case.name) for row in rows] + [4])
    columns = [max(len(name), 9) for name in [ours, *peers]]
    head = ["case".ljust(width)] + [name.rjust(n) for name, n in zip([ours, *peers], columns, strict=True)]
    head += ["spread".rjust(7), "ratio".rjust(7)]
    head += (["% peak".rjust(7)] if peak else []) + (["error".rjust(8), "peer's".rjust(8)] if errors else [])
    print(" ".join([*head, "best peer"]))
    for row in rows:
        cells = [row.case.name.ljust(width)]
        for name, column in zip([ours, *peers], columns, strict=True):
            times = [row.median(label) for label in row.seconds if library(label) == name]
            cells.append((format_seconds(min(times)) if times else "-").rjust(column))
        able = ours in row.seconds
        cells.append(f"{100 * row.spread(ours):.0f} %".rjust(7) if able else "-".rjust(7))
        cells.append(f"{row.ratio(ours):.2f}x".rjust(7))
        if peak:
            percent = 100 * row.case.flops / row.median(ours) / peak if able and row.case.flops else math.nan
            cells.append((f"{percent:.0f}" if not math.isnan(percent) else "-").rjust(7))
        if errors:
            shown = [row.errors.get(name or "") for name in (ours, row.best_peer(ours))]
            cells += ["-".rjust(8) if error is None else f"{error:.1e}".rjust(8) for error in shown]
        print(" ".join([*cells, row.best_peer(ours) or "-"]))
        for name, why in row.failures.items():
            print(f"  {name} failed: {why}")
    if trips := [trip for row in rows for trip in row.core_round_trips if trip > 0]:
        print(describe_cores(trips))


def describe_cores(round_trips: Sequence[float]) -> str:
    """Says how far apart the cores were in a race: a virtual machine's cores may move during it."""
    low, high = min(round_trips), max(round_trips)
    return f"round trip of a word between the cores: {format_seconds(low)} to {format_seconds(high)}"


def print_summary(rows: Sequence[Row], ours: str, missing: dict[str, str], contenders: Sequence[Contender]) -> None:
    """Geometric mean, worst row, rows lost, which contenders compute something else, and which are missing."""
    ratios = {row.case.name: row.ratio(ours) for row in rows if not math.isnan(row.ratio(ours))}
    if ratios:
        worst = min(ratios, key=lambda name: ratios[name])
        lost = sum(ratio < 1 for ratio in ratios.values())
        print(
            f"ratio to the best peer: geometric mean {geometric_mean(ratios.values()):.2f}x,"
            f" worst {ratios[worst]:.2f}x ({worst}), {lost} of {len(ratios)} rows lost"
        )
    for name, why in missing.items():
        print(f"not installed: {name} ({why})")
    cases = [row.case.parameters for row in rows]
    differ = {(library(each.name), each.difference(case)) for each in contenders for case in cases}
    for name, what in sorted(differ):
        if what:
            print(f"not the same work: {name} ({what})")
