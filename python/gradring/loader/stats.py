"""A loader's statistics: how long the consumer and the workers waited for each other, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradring import _core
from gradring.tables import html

if TYPE_CHECKING:
    from gradring.loader.pipeline_maker import Size

__all__ = ["LoaderStats", "stats_from"]


@dataclass(frozen=True)
class LoaderStats:
    """What a loader did so far. Times are in seconds. The consumer waits for batches, and the workers wait for space.

    ``occupancy[i]`` counts the batches at whose delivery ``i`` more were ready. ``hand_off_p50`` and ``hand_off_p99`` are
    the seconds from asking for a batch that was ready to having its arrays. ``bottleneck`` is ``"loader"``,
    ``"consumer"``, ``"balanced"`` or ``"unknown"`` (too little was read), and ``advice`` says why, and what would help.
    ``shares`` are the fractions of the workers' time that the rows of the source and each transform take, measured on every
    64th batch; transforms that run fused have one share. (The first transform of an array in memory reads its rows.)

    >>> import numpy as np, gradring as gr
    >>> with gr.Loader(np.arange(1000), batch_size=10) as loader:
    ...     for x in loader:
    ...         pass
    ...     loader.stats().batches
    100
    """

    batches: int = 0
    rows: int = 0
    bytes: int = 0
    skipped: int = 0
    seconds: float = 0.0
    consumer_wait: float = 0.0
    consumer_work: float = 0.0
    worker_busy: float = 0.0
    worker_wait: float = 0.0
    num_workers: int = 0
    active_workers: int = 0
    workers: str = "threads"
    prefetch: int = 0
    restarted: int = 0
    held: int = 0
    slots: int = 0
    slot_bytes: int = 0
    occupancy: tuple[int, ...] = ()
    hand_off_p50: float = 0.0
    hand_off_p99: float = 0.0
    bottleneck: str = "unknown"
    advice: str = ""
    chosen: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    per_worker: tuple[dict[str, float], ...] = field(default=(), repr=False)

    @property
    def batches_per_second(self) -> float:
        """Batches per second of the time that the consumer waited and worked."""
        return self.batches / self.seconds if self.seconds > 0 else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Bytes per second of the time that the consumer waited and worked."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    def _repr_html_(self) -> str:
        shown = {
            "batches": f"{self.batches}, {self.batches_per_second:.0f} per second",
            "bytes": f"{self.bytes_per_second / 1e6:.0f} MB per second",
            "consumer": f"waited {self.consumer_wait:.3f} s, worked {self.consumer_work:.3f} s",
            "workers": f"busy {self.worker_busy:.3f} s, waited {self.worker_wait:.3f} s",
            "hand-off": f"{self.hand_off_p50 * 1e6:.1f} us (p99 {self.hand_off_p99 * 1e6:.1f} us)",
            "chosen": self.chosen,
            "bottleneck": self.bottleneck,
        }
        return html(("loader", ""), list(shown.items()), caption=self.advice, left=(0, 1))

    def __str__(self) -> str:
        return (
            f"{self.batches} batches, {self.batches_per_second:.0f}/s, {self.bytes_per_second / 1e6:.0f} MB/s; "
            f"consumer waited {self.consumer_wait:.3f} s and worked {self.consumer_work:.3f} s, workers were busy "
            f"{self.worker_busy:.3f} s and waited {self.worker_wait:.3f} s; hand-off {self.hand_off_p50 * 1e6:.1f} us "
            f"(p99 {self.hand_off_p99 * 1e6:.1f} us); {self.chosen}. {self.advice}"
        )


def stats_from(
    native: dict[str, Any], *, workers: str, restarted: int, python: bool, size: Size, parts: list[str]
) -> LoaderStats:
    """Make statistics from the native counters."""
    count = len(native["workers"])
    wait, own = native["consumer_wait_seconds"], native["consumer_own_seconds"]
    busy, idle = native["worker_busy_seconds"], native["worker_wait_seconds"]
    shares = _shares(native, parts)
    bottleneck, advice = _verdict(
        native["batches"],
        wait,
        own,
        busy,
        idle,
        native["active_workers"],
        workers,
        python,
        size.workers,
        size.tune,
        shares,
        _core.usable_cores(),
    )
    return LoaderStats(
        batches=native["batches"],
        rows=native["rows"],
        bytes=native["bytes"],
        skipped=native["skipped"],
        seconds=wait + own,
        consumer_wait=wait,
        consumer_work=own,
        worker_busy=busy,
        worker_wait=idle,
        num_workers=count,
        active_workers=native["active_workers"] if count else 0,
        workers=workers,
        prefetch=native["prefetch"] if count else 0,
        restarted=restarted,
        held=native["held"],
        slots=native["slots"],
        slot_bytes=native["slot_bytes"],
        occupancy=tuple(native["occupancy"]),
        hand_off_p50=native["hand_off_p50_seconds"],
        hand_off_p99=native["hand_off_p99_seconds"],
        bottleneck=bottleneck,
        advice=advice,
        chosen=(
            f"{native['active_workers']} of {count} worker {workers}, prefetch {native['prefetch']}"
            if count
            else "no workers, no prefetch"
        ),
        shares=shares,
        per_worker=tuple(native["workers"]),
    )


def _shares(native: dict[str, Any], parts: list[str]) -> dict[str, float]:
    total, seconds = native["timed_seconds"], native["part_seconds"]
    if total <= 0:
        return {}
    shares = {name: min(spent / total, 1.0) for name, spent in zip(parts, seconds, strict=False)}
    return {"rows of the source": max(1.0 - sum(shares.values()), 0.0), **shares}


def _verdict(
    batches: int,
    wait: float,
    own: float,
    busy: float,
    idle: float,
    active: int,
    workers: str,
    python: bool,
    most: int,
    tuned: bool,
    shares: dict[str, float],
    cores: int,
) -> tuple[str, str]:
    total = wait + own
    if batches < 10 or total <= 0:
        return "unknown", "Too few batches were read to tell."
    starved = wait / total
    load = busy / (busy + idle) if busy + idle > 0 else 0.0
    if active == 0 and most > 0:
        verdict = "loader" if starved >= 0.3 else "balanced" if starved >= 0.05 else "consumer"
        return verdict, (
            f"The consumer's own thread fills its batches, {starved:.0%} of the time: workers were tried, and did not "
            "raise the rate."
        )
    one = "process" if workers == "processes" else "thread"
    largest = max(shares, key=lambda name: shares[name], default="")
    kind = "" if largest == "rows of the source" else "transform "
    slowest = f", {kind}{largest} {shares[largest]:.0%} of that" if shares else ""
    who = (
        f"{active} worker {one if active == 1 else workers} busy {load:.0%}{slowest}"
        if most
        else "it fills them itself"
    )
    if starved < 0.05:
        return "consumer", (
            f"Consumer-bound: it waited {starved:.0%} of the time; {who}. The loader has time to spare."
        )
    if starved < 0.3 and load < 0.9:
        return "balanced", (
            f"Balanced: the consumer waited {starved:.0%} of the time; {who}. A larger prefetch would smooth batches that "
            "take uneven time."
        )
    if most == 0:
        return "loader", (
            f"The consumer fills its batches itself (num_threads=0), {starved:.0%} of the time{slowest}: try num_threads=1."
        )
    if python and workers == "threads":
        way_out = "the source or a transform is Python and needs the interpreter's lock: try workers='processes'"
    elif tuned and active < most:
        way_out = "num_threads='auto' tries another worker from time to time"
    elif active < max(most, cores):
        way_out = f"try num_threads={active + 1}" if workers == "threads" else f"try num_workers={active + 1}"
    else:
        way_out = "all cores are in use: make the source or the transforms cheaper"
    return "loader", f"Loader-bound: the consumer waited {starved:.0%} of the time; {who}; {way_out}."
