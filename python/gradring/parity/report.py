"""The results of a comparison, and the tolerance within which they count as equal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Mismatch", "Report", "Tolerance"]


class Mismatch(AssertionError):
    """Two trainings that should be equal are not; the message has the worst tensors and steps."""


@dataclass(frozen=True)
class Tolerance:
    """How far a tensor may be from the other library's in float64.

    An error is ``max |ours - truth| / max |truth|`` over one tensor after one step, and must be at most ``relative``,
    or ``peer`` times the largest error of the other library, in our precision, on that tensor up to that step:
    rounding differences grow from step to step in every library.
    """

    relative: float
    peer: float = 0.0


DEFAULTS = {"float32": Tolerance(1e-5, peer=4.0), "float64": Tolerance(1e-10)}


@dataclass(frozen=True)
class Record:
    """One tensor after one step: our error, the peer's largest so far, both relative to the tensor's scale."""

    step: int
    kind: str  # "loss", "gradient" or "parameter"
    name: str
    error: float
    peer: float
    scale: float

    def excess(self, tolerance: Tolerance) -> float:
        """The error as a part of what is allowed: above 1 is a mismatch."""
        return self.error / max(tolerance.relative, tolerance.peer * self.peer)


@dataclass
class Report:
    """All records of a comparison; ``check`` judges them, ``print`` shows the worst of each kind."""

    dtype: str
    tolerance: Tolerance
    records: list[Record] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many steps were compared."""
        return len({record.step for record in self.records})

    def worst(self, kind: str | None = None) -> Record:
        """The record nearest to (or farthest beyond) what is allowed; a NaN is worse than any number."""
        chosen = [record for record in self.records if kind in (None, record.kind)]
        return max(chosen, key=lambda record: _order(record.excess(self.tolerance)))

    @property
    def equal(self) -> bool:
        """Whether every record is within the tolerance."""
        return bool(self.records) and all(record.excess(self.tolerance) <= 1 for record in self.records)

    def check(self) -> None:
        """Raise :class:`Mismatch` unless all records are within the tolerance."""
        if not self.equal:
            first = next((r for r in self.records if not r.excess(self.tolerance) <= 1), None)
            at = "nothing was compared" if first is None else f"first: {_line(first, self.tolerance)}"
            raise Mismatch(f"[parity] the trainings differ; {at}\n{self}")

    def __str__(self) -> str:
        if not self.records:
            return "parity: nothing was compared"
        rule = f"at most {self.tolerance.relative:g}"
        if self.tolerance.peer:
            rule += f", or {self.tolerance.peer:g} times the other's own error"
        head = f"parity: {self.dtype}, {self.steps} steps, {len(self.records)} comparisons ({rule})"
        kinds = dict.fromkeys(record.kind for record in self.records)
        return "\n".join([head, *(f"  worst {_line(self.worst(kind), self.tolerance)}" for kind in kinds)])


def _order(excess: float) -> float:
    return float("inf") if math.isnan(excess) else excess


def _line(record: Record, tolerance: Tolerance) -> str:
    outcome = "equal" if record.excess(tolerance) <= 1 else "DIFFERS"
    peer = f", the other's {record.peer:.1e}" if tolerance.peer else ""
    return (
        f"{record.kind:9} {record.name:20} step {record.step:3}: error {record.error:.1e}{peer}, "
        f"scale {record.scale:.1e}  {outcome}"
    )
